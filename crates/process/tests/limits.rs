//! Proves that a process or a fork server without a descriptor left gives a clear error, leaks
//! nothing, and recovers; and so does one without memory; and that a user's limit on processes is told.

mod common;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::{METHODS, children, count_open, hang, wait_for_threads};
use multiproc_process::{Error, Process, StartMethod};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PART: &str = "TEST_PART";

fn main() {
    common::init();
    if std::env::var_os(PART).is_some() {
        return reach_the_limit_of_processes();
    }
    common::run(&[
        ("no_descriptor_is_left_in_the_parent", no_descriptor_in_the_parent),
        ("no_descriptor_is_left_in_the_server", no_descriptor_in_the_server),
        ("no_process_is_left", no_process_is_left),
        ("no_memory_is_left", no_memory_is_left),
    ]);
}

fn set_files(soft: u64) {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), ..before }).unwrap();
}

/// Opens files until only `left` more can be opened.
fn leave(left: usize) -> Vec<File> {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.truncate(files.len() - left);
    files
}

fn no_descriptor_in_the_parent() {
    let before = getrlimit(Resource::Nofile);
    for method in METHODS {
        // A large argument needs one more, for its memory.
        for len in [1, 100_000] {
            Process::builder().start_method(method).spawn(|()| (), ()).unwrap().join().unwrap();
            wait_for_threads();
            let open = count_open(std::process::id());
            let running = children(std::process::id());
            set_files(64);
            let (mut failed, mut worked) = (0, 0);
            for left in 0..24 {
                let files = leave(left);
                let builder = Process::builder().name("tester").daemon(true).start_method(method);
                let result = builder.spawn(|text: String| text.len(), "x".repeat(len));
                drop(files);
                match result {
                    Ok(process) => {
                        // The child has the limit, and all files in a copy.
                        match process.join() {
                            Ok(found) => assert_eq!(found, len),
                            Err(error) => {
                                assert!(error.to_string().contains("(os error 24)"), "{error}")
                            }
                        }
                        worked += 1;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(text.starts_with("cannot start process tester: "), "{text}");
                        assert!(text.contains("Too many open files"), "{left} {method:?}: {text}");
                        failed += 1;
                    }
                }
            }
            assert!(failed > 1 && worked > 1, "{method:?}: {failed} failed, {worked} worked");
            setrlimit(Resource::Nofile, before).unwrap();
            common::eventually("the end of all children", || {
                children(std::process::id()).len() <= running.len().max(1)
            });
            wait_for_threads();
            assert!(
                count_open(std::process::id()) <= open + 2,
                "{:#?}",
                common::open_files(std::process::id())
            );
            Process::builder().start_method(method).spawn(|()| (), ()).unwrap().join().unwrap();
        }
    }
}

fn no_descriptor_in_the_server() {
    let before = getrlimit(Resource::Nofile);
    drop(common::kill_server());
    // The server has the limit, this process has it no longer.
    set_files(40);
    Process::spawn(|()| (), ()).unwrap().join().unwrap();
    setrlimit(Resource::Nofile, before).unwrap();
    let mut hanging = Vec::new();
    let error = loop {
        assert!(hanging.len() < 100, "the limit does not bite");
        match Process::builder().name("tester").daemon(true).spawn(|()| -> () { hang() }, ()) {
            Ok(process) => hanging.push(process),
            Err(error) => break error.to_string(),
        }
    };
    assert!(hanging.len() > 10, "{error}");
    assert!(
        error.contains("Too many open files") || error.contains("no descriptor left"),
        "{error}"
    );
    for process in hanging {
        process.kill().unwrap();
        assert_eq!(process.join().unwrap_err().signal(), Some(9));
    }
    assert_eq!(Process::spawn(|x: i32| x + 1, 1).unwrap().join().unwrap(), 2);
    drop(common::kill_server());
}

fn no_process_is_left() {
    if !rustix::process::geteuid().is_root() {
        println!("    skipped: only root can become the user nobody");
        return;
    }
    let mut command = Command::new("/proc/self/exe");
    let output = command.env(PART, "1").current_dir("/").uid(65534).gid(65534).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// As the user nobody, whom limits concern.
fn reach_the_limit_of_processes() {
    common::watchdog();
    // The server comes first.
    for method in METHODS {
        Process::builder().start_method(method).spawn(|()| (), ()).unwrap().join().unwrap();
    }
    let before = getrlimit(Resource::Nproc);
    setrlimit(Resource::Nproc, Rlimit { current: Some(1), ..before }).unwrap();
    for method in [StartMethod::Fork, StartMethod::Spawn] {
        let builder = Process::builder().start_method(method);
        let error = builder.spawn(|()| (), ()).unwrap_err().to_string();
        assert!(error.contains("Resource temporarily unavailable"), "{error}");
    }
    setrlimit(Resource::Nproc, before).unwrap();
    for method in METHODS {
        Process::builder().start_method(method).spawn(|()| (), ()).unwrap().join().unwrap();
    }
}

/// A program's image alone takes more.
const LITTLE: u64 = 1 << 20;

fn no_memory_is_left() {
    // In a process of its own, since it cannot have more memory than it has.
    for index in 0..METHODS.len() {
        let builder = Process::builder().daemon(true).start_method(StartMethod::Spawn);
        builder.spawn(starve, index).unwrap().join().unwrap();
    }
}

fn starve(index: usize) {
    let start = |fits: bool| {
        let builder = Process::builder().name("tester").daemon(true).start_method(METHODS[index]);
        builder.spawn(|fits: bool| fits || Vec::<u8>::new().try_reserve(1 << 24).is_err(), fits)
    };
    // The server, too, if there is one, was started before.
    assert!(start(true).unwrap().join().unwrap());
    let (open, running) = (count_open(std::process::id()), children(std::process::id()));
    let before = getrlimit(Resource::As);
    let starved = |test: &dyn Fn()| {
        setrlimit(Resource::As, Rlimit { current: Some(LITTLE), ..before }).unwrap();
        test();
        setrlimit(Resource::As, before).unwrap();
    };
    let no_start = |error: Error| {
        let text = error.to_string();
        assert!(text.contains("said hello") || text.contains("Cannot allocate memory"), "{text}");
    };
    starved(&|| {
        for _ in 0..20 {
            let result = start(false).and_then(Process::join);
            match METHODS[index] {
                StartMethod::Spawn => no_start(result.unwrap_err()),
                // Copies of what there is need no more, and learn when they ask for it.
                _ => assert!(result.unwrap()),
            }
        }
    });
    if METHODS[index] == StartMethod::ForkServer {
        drop(common::kill_server());
        starved(&|| no_start(start(true).unwrap_err()));
    }
    assert!(start(true).unwrap().join().unwrap());
    assert_eq!(count_open(std::process::id()), open);
    assert_eq!(children(std::process::id()).len(), running.len());
}
