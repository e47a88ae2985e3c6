//! Proves that a process finds its living children and its parent, under each start method.

mod common;

use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::AsFd;
use std::time::Duration;

use common::{METHODS, hang, wait_for_threads};
use multiproc_os::deadline::Deadline;
use multiproc_os::poll;
use multiproc_process::{Process, StartMethod, active_children, parent_process};
use multiproc_wire::Fd;

fn main() {
    common::init();
    common::run(&[
        ("living_children_are_found", living_children_are_found),
        ("finished_children_are_reaped_and_can_be_joined", finished_children_are_reaped),
        ("detached_children_are_found", detached_children_are_found),
        ("many_detached_children_are_forgotten", many_detached_children),
        ("a_child_finds_its_parent_and_not_its_siblings", a_child_finds_its_parent),
        ("a_child_sees_its_parent_end", a_child_sees_its_parent_end),
    ]);
}

fn pids() -> Vec<u32> {
    active_children().unwrap().iter().map(|child| child.pid()).collect()
}

fn sleeper(method: StartMethod) -> Process<()> {
    let builder = Process::builder().name("sleeper").daemon(true).start_method(method);
    builder.spawn(|()| -> () { hang() }, ()).unwrap()
}

fn living_children_are_found() {
    for method in METHODS {
        assert_eq!(pids(), [] as [u32; 0]);
        let (first, second) = (sleeper(method), sleeper(method));
        let mut expected = [first.pid(), second.pid()];
        expected.sort();
        assert_eq!(pids(), expected);
        let active = active_children().unwrap();
        assert!(active.iter().all(|child| child.name() == "sleeper" && child.is_alive()));
        first.kill().unwrap();
        assert_eq!(first.join().unwrap_err().signal(), Some(9));
        assert_eq!(pids(), [second.pid()]);
        active_children().unwrap()[0].terminate().unwrap();
        assert_eq!(second.join().unwrap_err().signal(), Some(15));
        assert!(active.iter().all(|child| !child.is_alive()));
    }
}

fn finished_children_are_reaped() {
    for method in METHODS {
        let builder = Process::builder().start_method(method);
        let exits = |code: i32| -> () { std::process::exit(code) };
        let process = builder.spawn(exits, 3).unwrap();
        let pid = process.pid();
        assert_eq!(poll::readable([process.as_fd()], Deadline::NEVER).unwrap(), [true]);
        assert_eq!(pids(), [] as [u32; 0]);
        if method != StartMethod::ForkServer {
            let children = common::children(std::process::id());
            assert!(children.iter().all(|(child, _)| *child != pid), "{method:?}: reaped");
        }
        assert_eq!(process.join().unwrap_err().exit_code(), Some(3), "{method:?}");
    }
}

fn detached_children_are_found() {
    for method in METHODS {
        wait_for_threads();
        let open = common::count_open(std::process::id());
        let process = sleeper(method);
        let pid = process.pid();
        drop(process);
        assert_eq!(pids(), [pid], "{method:?}");
        let active = active_children().unwrap();
        assert_eq!(active[0].name(), "sleeper");
        active[0].kill().unwrap();
        assert_eq!(poll::readable([active[0].as_fd()], Deadline::NEVER).unwrap(), [true]);
        assert_eq!(pids(), [] as [u32; 0]);
        drop(active);
        wait_for_threads();
        // The fork server, if this was the first to need it, has two descriptors and stays.
        assert!(common::count_open(std::process::id()) <= open + 3);
    }
}

fn many_detached_children() {
    let (gate, mut open) = pipe().unwrap();
    let waits = |mut gate: Fd<PipeReader>| gate.read_exact(&mut [0]).unwrap();
    for _ in 0..100 {
        Process::builder().daemon(true).spawn(waits, gate.try_clone().unwrap().into()).unwrap();
    }
    assert_eq!(pids().len(), 100);
    open.write_all(&[1; 100]).unwrap();
    common::eventually("the end of all", || pids().is_empty());
}

fn a_child_finds_its_parent() {
    assert!(parent_process().unwrap().is_none(), "it was started by a user");
    for method in METHODS {
        let sibling = sleeper(StartMethod::ForkServer);
        let look = |()| {
            let parent = parent_process().unwrap().unwrap();
            assert!(!parent.wait_timeout(Duration::from_millis(1)));
            let below = || parent_process().unwrap().unwrap().pid();
            let nested = Process::builder().start_method(StartMethod::Fork);
            let nested = nested.spawn(|()| parent_process().unwrap().unwrap().pid(), ()).unwrap();
            (parent.pid(), parent.is_alive(), below(), nested.join().unwrap(), pids())
        };
        let builder = Process::builder().start_method(method);
        let process = builder.spawn(look, ()).unwrap();
        let (own, pid) = (std::process::id(), process.pid());
        assert_eq!(process.join().unwrap(), (own, true, own, pid, vec![]), "{method:?}");
        sibling.kill().unwrap();
        sibling.join().unwrap_err();
    }
}

/// The one in the middle ends; its child, which is no daemon, sees it.
fn a_child_sees_its_parent_end() {
    for method in METHODS {
        let (mut reader, writer) = pipe().unwrap();
        let middle = |(method, home): (usize, Fd<std::io::PipeWriter>)| {
            let (told, mut ready) = pipe().unwrap();
            let below = |(mut home, mut told): (Fd<std::io::PipeWriter>, Fd<PipeReader>)| {
                common::watchdog();
                let early = parent_process().unwrap().unwrap();
                told.read_exact(&mut [0]).unwrap();
                early.wait();
                common::eventually("the parent's end", || {
                    !parent_process().unwrap().unwrap().is_alive()
                });
                home.write_all(&[1, u8::from(early.is_alive())]).unwrap();
            };
            let builder = Process::builder().start_method(METHODS[method]);
            let process = builder.spawn(below, (home, told.into())).unwrap();
            ready.write_all(&[1]).unwrap();
            drop(process);
        };
        let index = METHODS.iter().position(|other| *other == method).unwrap();
        let builder = Process::builder().start_method(method);
        builder.spawn(middle, (index, writer.into())).unwrap().join().unwrap();
        let mut found = [9; 2];
        reader.read_exact(&mut found).unwrap();
        assert_eq!(found, [1, 0], "{method:?}");
    }
}
