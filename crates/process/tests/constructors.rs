//! Proves that static constructors which come later have run before a child takes over, and that
//! threads which constructors have started are an error that says so, not a broken child.
#![allow(unsafe_code)] // Constructors.

mod common;

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use multiproc_os::constructors::Constructor;
use multiproc_process::{Process, StartMethod};

multiproc_process::init_before_main!();
// A library that is linked in may have one, too.
multiproc_process::init_before_main!();

static RAN: AtomicU32 = AtomicU32::new(0);

extern "C" fn run(_: c_int, _: *const *const c_char, _: *const *const c_char) {
    RAN.fetch_add(1, Relaxed);
    if std::env::var_os("TEST_THREAD").is_some() {
        std::thread::spawn(|| common::hang());
    }
}

// The linker puts those with a number first, by number.
#[used]
#[unsafe(link_section = ".init_array.00200")]
static EARLY: Constructor = run;

#[used]
#[unsafe(link_section = ".init_array")]
static LATE: Constructor = run;

fn main() {
    common::init();
    common::run(&[
        ("all_constructors_run_once_before_a_child_takes_over", all_run_once),
        ("threads_of_constructors_are_told", threads_of_constructors_are_told),
    ]);
}

fn all_run_once() {
    assert_eq!(RAN.load(Relaxed), 2);
    for method in common::METHODS {
        let builder = Process::builder().start_method(method);
        let ran = builder.spawn(|()| RAN.load(Relaxed), ()).unwrap().join().unwrap();
        assert_eq!(ran, 2, "{method:?}");
    }
}

fn threads_of_constructors_are_told() {
    drop(common::kill_server());
    common::set_variable("TEST_THREAD", Some("1"));
    let error = Process::spawn(|()| (), ()).unwrap_err().to_string();
    assert!(error.contains("fork server: the process has 3 threads"), "{error}");
    assert!(error.contains("Spawn"), "{error}");
    // What the error recommends works.
    let builder = Process::builder().start_method(StartMethod::Spawn);
    assert_eq!(builder.spawn(|x: u32| x + 1, 1).unwrap().join().unwrap(), 2);
    common::set_variable("TEST_THREAD", None);
}
