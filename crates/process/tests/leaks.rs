//! Proves that nothing is left of processes whose handles were joined or dropped: no zombie, no
//! child but the fork server, no descriptor, no thread.

mod common;

use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};

use common::{METHODS, children, wait_for_threads, wait_reaped};
use multiproc_process::{Process, StartMethod};
use multiproc_wire::Fd;

fn main() {
    common::init();
    common::run(&[
        ("nothing_is_left_of_two_hundred", nothing_is_left_of_two_hundred),
        ("nothing_is_left_of_those_dropped_while_they_run", nothing_is_left_of_running_ones),
        ("a_child_has_the_same_descriptors_whatever_its_siblings", same_descriptors),
    ]);
}

/// The fork server's number.
fn server() -> u32 {
    let method = StartMethod::ForkServer;
    let parent = |()| std::os::unix::process::parent_id();
    Process::builder().start_method(method).spawn(parent, ()).unwrap().join().unwrap()
}

/// How many descriptors the server has when it has nothing to do. It lets go of a child just after it
/// has told of its end, and then has one child, the spare.
fn idle(server: u32) -> usize {
    const CALLS: [libc::c_long; 2] = [libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
    let sleeps = || {
        let spare = matches!(children(server)[..], [(_, false)]);
        // A process in the midst of reaping another counts as sleeping, but not as being in this call.
        let call = std::fs::read_to_string(format!("/proc/{server}/syscall")).unwrap();
        spare && CALLS.iter().any(|number| call.starts_with(&format!("{number} ")))
    };
    common::eventually("an idle server", sleeps);
    common::count_open(server)
}

/// Runs a test, and checks that this process and its server have then what they had before.
fn leaves_nothing(test: impl FnOnce()) {
    // The server forks a child ahead once it was asked more than once.
    let (own, _, server) = (std::process::id(), server(), server());
    let before = common::open_files(own);
    let before_of_server = idle(server);
    test();
    wait_for_threads();
    assert_eq!(common::open_files(own), before);
    assert_eq!(children(own), [(server, false)]);
    assert_eq!(idle(server), before_of_server);
}

fn nothing_is_left_of_two_hundred() {
    for method in METHODS {
        leaves_nothing(|| {
            let mut running = Vec::new();
            let mut detached: Vec<OwnedFd> = Vec::new();
            for number in 0..200 {
                // A thread reaps those that were dropped while they ran; `Fork` waits it out.
                if method == StartMethod::Fork {
                    wait_for_threads();
                }
                let builder = Process::builder().start_method(method);
                let process = builder.spawn(|number: u32| number * 2, number).unwrap();
                if number % 2 == 0 {
                    running.push((number, process));
                } else {
                    detached.push(process.as_fd().try_clone_to_owned().unwrap());
                }
            }
            for (number, process) in running {
                assert_eq!(process.join().unwrap(), number * 2);
            }
            detached.iter().for_each(wait_reaped);
        });
    }
}

fn nothing_is_left_of_running_ones() {
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        leaves_nothing(|| {
            let (gate, open) = std::io::pipe().unwrap();
            let waits = |mut gate: Fd<PipeReader>| gate.read_to_end(&mut Vec::new()).unwrap();
            let start = || {
                let builder = Process::builder().start_method(method);
                let process = builder.spawn(waits, gate.try_clone().unwrap().into()).unwrap();
                process.as_fd().try_clone_to_owned().unwrap()
            };
            let detached: Vec<OwnedFd> = (0..20).map(|_| start()).collect();
            drop(open);
            detached.iter().for_each(wait_reaped);
        });
    }
}

fn same_descriptors() {
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let count = |()| common::open_files(std::process::id());
        let builder = Process::builder().start_method(method);
        let alone = builder.spawn(count, ()).unwrap().join().unwrap();
        let (gate, open) = std::io::pipe().unwrap();
        let waits = |mut gate: Fd<PipeReader>| gate.read_to_end(&mut Vec::new()).unwrap();
        let mut siblings = Vec::new();
        for _ in 0..10 {
            let builder = Process::builder().start_method(method).daemon(true);
            siblings.push(builder.spawn(waits, gate.try_clone().unwrap().into()).unwrap());
        }
        let builder = Process::builder().start_method(method);
        let among = builder.spawn(count, ()).unwrap().join().unwrap();
        assert_eq!(alone.len(), among.len(), "{alone:#?} alone, {among:#?} among siblings");
        // An executed child inherits what its parent was given without the flag for close on exec.
        if method == StartMethod::ForkServer {
            assert_eq!(alone.len(), 4, "three streams and the line: {alone:#?}");
        }
        drop(open);
        for sibling in siblings {
            sibling.join().unwrap();
        }
    }
}
