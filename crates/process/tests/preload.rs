//! Proves that the fork server's preload runs once for all its children, and that one that fails is
//! an error of each spawn, which neither hangs nor leaves anything.

mod common;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::{METHODS, children, wait_for_threads};
use multiproc_process::{Process, StartMethod, set_forkserver_preload};

fn main() {
    common::init();
    common::run(&[
        ("a_preload_runs_once_for_all_children", runs_once),
        ("a_server_that_runs_is_replaced", a_server_that_runs_is_replaced),
        ("a_server_that_was_killed_preloads_again", a_killed_server_preloads_again),
        ("a_preload_that_fails_is_an_error_of_each_spawn", one_that_fails),
        ("the_other_start_methods_have_no_preload", other_methods_have_none),
    ]);
}

static LOADED_BY: AtomicU32 = AtomicU32::new(0);
static MODEL: OnceLock<Vec<u64>> = OnceLock::new();

fn load() {
    LOADED_BY.store(std::process::id(), Relaxed);
    MODEL.get_or_init(|| (0..1_000_000).collect());
}

/// Who has loaded, who is the parent to the kernel, what the model says.
fn look(index: usize) -> (u32, u32, Option<u64>) {
    let parent = std::os::unix::process::parent_id();
    (LOADED_BY.load(Relaxed), parent, MODEL.get().map(|model| model[index]))
}

fn spawn_and_look(method: StartMethod) -> (u32, u32, Option<u64>) {
    Process::builder().start_method(method).spawn(look, 7).unwrap().join().unwrap()
}

fn runs_once() {
    set_forkserver_preload(load).unwrap();
    let first = spawn_and_look(StartMethod::ForkServer);
    assert_eq!((first.0, first.2), (first.1, Some(7)));
    for _ in 0..10 {
        assert_eq!(spawn_and_look(StartMethod::ForkServer), first);
    }
    assert_eq!(MODEL.get(), None, "not here");
}

fn a_server_that_runs_is_replaced() {
    let (_, old, _) = spawn_and_look(StartMethod::ForkServer);
    set_forkserver_preload(|| LOADED_BY.store(1, Relaxed)).unwrap();
    let (by, new, model) = spawn_and_look(StartMethod::ForkServer);
    assert_eq!((by, model), (1, None));
    assert_ne!(old, new);
    wait_for_threads();
    common::eventually("the old server's end", || children(std::process::id()) == [(new, false)]);
}

fn a_killed_server_preloads_again() {
    set_forkserver_preload(load).unwrap();
    common::kill_server();
    let (by, server, model) = spawn_and_look(StartMethod::ForkServer);
    assert_eq!((by, model), (server, Some(7)));
}

fn one_that_fails() {
    // An end by panic, by exit, by a signal, and a thread that is left.
    let cases: [(fn(), &str); 4] = [
        (|| panic!("on purpose"), "it panicked: on purpose, at "),
        (|| std::process::exit(3), "the server exited with code 3 in it"),
        (|| std::process::abort(), "the server was killed by SIGABRT"),
        (|| drop(std::thread::spawn(|| -> () { common::hang() })), "has left a thread running"),
    ];
    for (preload, expected) in cases {
        set_forkserver_preload(preload).unwrap();
        wait_for_threads();
        let open = common::count_open(std::process::id());
        for _ in 0..3 {
            let error = Process::builder().name("tester").spawn(look, 0).unwrap_err().to_string();
            assert!(
                error.starts_with("cannot start process tester: the preload of its"),
                "{error}"
            );
            assert!(error.contains(expected), "{error}");
            wait_for_threads();
            assert_eq!(children(std::process::id()), []);
            assert_eq!(common::count_open(std::process::id()), open);
        }
    }
    set_forkserver_preload(load).unwrap();
    assert_eq!(spawn_and_look(StartMethod::ForkServer).2, Some(7), "works again");
}

fn other_methods_have_none() {
    set_forkserver_preload(load).unwrap();
    // A thread reaps the server that is replaced, and `Fork` refuses threads.
    wait_for_threads();
    for method in METHODS.into_iter().filter(|method| *method != StartMethod::ForkServer) {
        assert_eq!(spawn_and_look(method), (0, std::process::id(), None));
    }
}
