//! Proves that a child which never takes over is an error at once and starts nothing itself, and
//! that processes which start each other without end are stopped.
//!
//! The program plays several parts: which one, an environment variable says.

mod common;

use std::process::{Command, Output};

use common::{children, count_open, set_variable, wait_for_threads};
use multiproc_process::{Error, Process, StartMethod};

const PART: &str = "TEST_PART";

fn main() {
    match std::env::var(PART).as_deref() {
        Ok("never initialises") => return never_initialises(),
        Ok("exits first") => std::process::exit(7),
        Ok("dies first") => std::process::abort(),
        Ok("spawns first") => return spawns_first(),
        _ => {}
    }
    common::init();
    match std::env::var(PART).as_deref() {
        Ok("initialises late") => return,
        Ok("recurses") => {
            println!("{}", descend(1).unwrap_err());
            return;
        }
        _ => {}
    }
    common::run(&[
        ("spawning_without_init_names_the_line_to_add", without_init),
        ("a_child_that_ends_before_hello_is_told_at_once", ends_before_hello),
        ("a_child_that_has_not_taken_over_starts_nothing", starts_nothing_before_hello),
        ("recursion_without_end_is_stopped", recursion_is_stopped),
    ]);
}

fn play(part: &str) -> Output {
    Command::new("/proc/self/exe").env(PART, part).output().unwrap()
}

fn never_initialises() {
    for method in common::METHODS {
        let error = Process::builder().start_method(method).spawn(|()| (), ()).unwrap_err();
        assert!(error.is_not_initialised());
        println!("{error}");
    }
    println!("{}", Process::fork(|| ()).unwrap_err());
    assert_eq!(children(std::process::id()), []);
}

fn without_init() {
    let output = play("never initialises");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 4);
    for line in text.lines() {
        assert!(line.contains("make `multiproc::init();` the first line of main"), "{line}");
        assert!(line.contains("`multiproc::init_before_main!();`"), "{line}");
    }
}

/// Starts a child while this program is made to play the part in it.
fn spawn_into(method: StartMethod, part: &str) -> Result<(), Error> {
    set_variable(PART, Some(part));
    let result = Process::builder().name("tester").start_method(method).spawn(|()| (), ());
    set_variable(PART, None);
    result.and_then(Process::join)
}

fn ends_before_hello() {
    let open = count_open(std::process::id());
    for (part, how) in [("exits first", "exited with code 7"), ("dies first", "killed by SIGABRT")]
    {
        let error = spawn_into(StartMethod::Spawn, part).unwrap_err();
        assert!(error.is_no_hello(), "{error}");
        let text = error.to_string();
        assert!(text.contains(how) && text.contains("the first line of main"), "{text}");

        let error = spawn_into(StartMethod::ForkServer, part).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot start process tester: its fork server"), "{text}");
        assert!(text.contains("the first line of main"), "{text}");
    }
    wait_for_threads();
    assert_eq!(children(std::process::id()), []);
    assert_eq!(count_open(std::process::id()), open);
    // The next one works.
    for method in common::METHODS {
        Process::builder().start_method(method).spawn(|()| (), ()).unwrap().join().unwrap();
    }
}

/// A program whose `main` spawns before `init()`, in its child.
fn spawns_first() {
    let error = Process::spawn(|()| (), ()).unwrap_err();
    assert!(error.is_not_initialised());
    assert_eq!(children(std::process::id()), []);
    // Its starter finds out that this process got here by its code.
    std::process::exit(if error.to_string().contains("was itself started as a child") {
        42
    } else {
        1
    })
}

fn starts_nothing_before_hello() {
    let error = spawn_into(StartMethod::Spawn, "spawns first").unwrap_err();
    assert_eq!(error.exit_code(), Some(42), "{error}");
    assert!(error.is_no_hello());
}

/// Starts a process that starts a process, and so on; gives the error of the innermost.
fn descend(depth: u32) -> Result<u32, String> {
    assert!(depth < 200, "nothing stops it");
    let below = Process::builder().daemon(true).spawn(descend, depth + 1);
    below.map_err(|error| error.to_string())?.join().unwrap_or_else(|error| Err(error.to_string()))
}

fn recursion_is_stopped() {
    let output = play("recurses");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("processes started each other one inside the other"), "{text}");
}
