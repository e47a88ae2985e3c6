//! What it costs to start a process and to join it.
//!
//! The raw fork is the limit: `fork`, `_exit` and `waitpid` in this very process.
#![allow(missing_docs, unsafe_code)]

use std::process::{Command, Stdio};

use multiproc::{Process, StartMethod};
use multiproc_bench::python;
use multiproc_bench::rounds::{
    Cost, Measure, apart, here, is_test, pin_to, placements, together, units,
};

const AREA: &str = "spawn";
const EXIT: &str = "--exit-at-once";

fn main() {
    multiproc::init();
    procspawn::init();
    if is_test() || std::env::args().nth(1).as_deref() == Some(EXIT) {
        return;
    }
    for (place, cores) in placements() {
        // The fork server stays where it was started.
        apart(|| {
            pin_to(cores);
            started(place, cores);
        });
    }
}

fn started(place: &str, cores: [usize; 2]) {
    let many = units(400);
    let repeat = |times: u64, act: &dyn Fn()| here(times, || (0..times).for_each(|_| act()));
    let ours = |method: StartMethod| {
        let act = || {
            let process = Process::builder().start_method(method).spawn(|x: u64| x + 1, 1);
            assert_eq!(process.unwrap().join().unwrap(), 2);
        };
        repeat(many, &act)
    };
    // In a process of its own: it has threads, and a program that forks may have none.
    let in_another = |units: u64, act: &dyn Fn()| -> Cost {
        let act = || {
            pin_to(cores);
            (0..units).for_each(|_| act());
        };
        together(&[(cores[0], &act)], units)
    };
    let script = python::standard("bench_spawn");
    Measure::of(AREA, "start and join", "process")
        .at(place)
        .headline()
        .limit("fork, exit and wait", || repeat(many, &raw_fork))
        .ours("fork server", || ours(StartMethod::ForkServer))
        .ours("Fork", || ours(StartMethod::Fork))
        .ours("Spawn", || ours(StartMethod::Spawn))
        .limit("Command of this program", || repeat(many / 4, &command))
        .peer("procspawn", || {
            in_another(many / 4, &|| {
                let process = procspawn::spawn(1u64, |x| x + 1);
                assert_eq!(process.join().unwrap(), 2);
            })
        })
        .threads("std thread", || {
            let act = || assert_eq!(std::thread::spawn(|| 1 + 1).join().unwrap(), 2);
            in_another(many * 5, &act)
        })
        .python("Python, fork", script, &["fork"], many / 8)
        .python("Python, fork server", script, &["forkserver"], many / 16)
        .python("Python, spawn", script, &["spawn"], 3)
        .run();
}

fn command() {
    let status = Command::new("/proc/self/exe").arg(EXIT).stdin(Stdio::null()).status();
    assert!(status.unwrap().success());
}

fn raw_fork() {
    #[allow(clippy::disallowed_methods)] // The limit that all else is measured against.
    // SAFETY: the process has one thread, and the copy ends at once.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            pid => assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), 0), pid),
        }
    }
}
