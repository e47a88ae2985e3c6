//! Proves that a thousand children live at once, that thousands in a row leave nothing, and that a
//! user's usual limits give clear errors.

mod common;

use std::io::{PipeReader, Read, Write, pipe};
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::{METHODS, children, count_open, wait_for_threads};
use multiproc_process::{Builder, Process, StartMethod, active_children};
use multiproc_wire::Fd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PART: &str = "TEST_PART";

fn main() {
    common::init();
    if std::env::var_os(PART).is_some() {
        common::watchdog();
        few_descriptors();
        return few_processes();
    }
    common::run(&[
        ("a_thousand_live_at_once", a_thousand_live_at_once),
        ("thousands_in_a_row_leave_nothing", thousands_in_a_row),
        ("the_limits_of_a_user_are_told", limits_of_a_user),
    ]);
}

fn builder(method: StartMethod) -> Builder {
    Process::builder().name("tester").daemon(true).start_method(method)
}

fn wait_for_gate(mut gate: Fd<PipeReader>) -> u32 {
    gate.read_exact(&mut [0]).unwrap();
    std::process::id()
}

/// Each has two descriptors here, and the server has two for each.
fn a_thousand_live_at_once() {
    const CHILDREN: usize = 1000;
    const NEEDED: u64 = 2 * CHILDREN as u64 + 100;
    let before = getrlimit(Resource::Nofile);
    if before.maximum.is_some_and(|most| most < NEEDED) {
        println!("    skipped: no more than {:?} files may be open", before.maximum);
        return;
    }
    let raised = before.current.is_some_and(|soft| soft < NEEDED);
    if raised {
        println!("    raises the soft limit of open files from {:?} to {NEEDED}", before.current);
        setrlimit(Resource::Nofile, Rlimit { current: Some(NEEDED), ..before }).unwrap();
        // The one that runs may have the old limit.
        drop(common::kill_server());
    }
    let (gate, mut open) = pipe().unwrap();
    let start = || builder(StartMethod::ForkServer);
    let all: Vec<Process<u32>> = (0..CHILDREN)
        .map(|_| start().spawn(wait_for_gate, gate.try_clone().unwrap().into()).unwrap())
        .collect();
    assert_eq!(active_children().unwrap().len(), CHILDREN);
    open.write_all(&[1; CHILDREN]).unwrap();
    for process in all {
        let pid = process.pid();
        assert_eq!(process.join().unwrap(), pid);
    }
    assert!(active_children().unwrap().is_empty());
    setrlimit(Resource::Nofile, before).unwrap();
    drop(common::kill_server());
}

/// Pages that the process has in memory.
fn resident(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 2,000, or as many as `TEST_SPAWNS` says.
fn thousands_in_a_row() {
    let count = std::env::var("TEST_SPAWNS").ok().and_then(|count| count.parse().ok());
    let count: u32 = count.unwrap_or(2000);
    let spawn = |number: u32| {
        let process = builder(StartMethod::ForkServer).spawn(|number: u32| number, number).unwrap();
        assert_eq!(process.join().unwrap(), number);
    };
    let parent = |()| std::os::unix::process::parent_id();
    (0..200).for_each(spawn);
    let server = Process::spawn(parent, ()).unwrap().join().unwrap();
    let look = || {
        wait_for_threads();
        (count_open(std::process::id()), resident(std::process::id()), resident(server))
    };
    let before = look();
    for chunk in 0..count / 100 {
        common::watchdog();
        (0..100).for_each(|number| spawn(chunk * 100 + number));
    }
    let after = look();
    println!("    {count} spawns: {before:?} before, {after:?} after (files, pages, the server's)");
    assert_eq!(after.0, before.0);
    // The pages of a few kilobytes per spawn would be many.
    assert!(after.1 <= before.1 + 100 && after.2 <= before.2 + 100);
}

fn limits_of_a_user() {
    if !rustix::process::geteuid().is_root() {
        println!("    skipped: only root can become the user nobody");
        return;
    }
    let mut command = Command::new("/proc/self/exe");
    let output = command.env(PART, "1").current_dir("/").uid(65534).gid(65534).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Starts children until there is an error, and checks that all is as before once they have ended.
fn start_until_refused(method: StartMethod, most: usize) -> String {
    // A first daemon has the pipe made that ties it to this process.
    builder(method).spawn(|()| (), ()).unwrap().join().unwrap();
    wait_for_threads();
    let open = count_open(std::process::id());
    let (gate, mut release) = pipe().unwrap();
    let mut running = Vec::new();
    let error = loop {
        assert!(running.len() < most, "{method:?}: the limit does not bite");
        match builder(method).spawn(
            wait_for_gate,
            match gate.try_clone() {
                Ok(gate) => gate.into(),
                Err(error) => break error.to_string(),
            },
        ) {
            Ok(process) => running.push(process),
            Err(error) => break error.to_string(),
        }
    };
    // Forked copies have the other end as well, so that it cannot be closed.
    release.write_all(&vec![1; running.len()]).unwrap();
    drop((gate, release));
    for process in running {
        // A copy of this process has as few descriptors left.
        if let Err(error) = process.join() {
            let text = error.to_string();
            assert!(text.contains("(os error 24)"), "{method:?}: {text}");
        }
    }
    wait_for_threads();
    assert!(count_open(std::process::id()) <= open, "{method:?}: {error}");
    common::eventually("the end of all", || children(std::process::id()).len() <= 1);
    Process::builder().start_method(method).spawn(|()| (), ()).unwrap().join().unwrap();
    error
}

/// `ulimit -n 256`.
fn few_descriptors() {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..before }).unwrap();
    for method in METHODS {
        let error = start_until_refused(method, 256);
        assert!(
            error.contains("Too many open files") || error.contains("no descriptor left"),
            "{method:?}: {error}"
        );
    }
    setrlimit(Resource::Nofile, before).unwrap();
}

/// `ulimit -u`, not far above what the user has.
fn few_processes() {
    let before = getrlimit(Resource::Nproc);
    setrlimit(Resource::Nproc, Rlimit { current: Some(40), ..before }).unwrap();
    // The server forks under the limit that it was started with.
    drop(common::kill_server());
    for method in METHODS {
        let error = start_until_refused(method, 60);
        assert!(error.contains("Resource temporarily unavailable"), "{method:?}: {error}");
    }
    setrlimit(Resource::Nproc, before).unwrap();
}
