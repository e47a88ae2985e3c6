//! Proves who dies with whom: daemons with their parent, however it ends; nobody with the fork
//! server, which is replaced.

mod common;

use std::io::{PipeReader, PipeWriter, Read, Write, pipe, read_to_string};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use common::{METHODS, children, eventually, hang, kill_server, wait_for_threads, wait_reaped};
use multiproc_os::deadline::Deadline;
use multiproc_os::pidfd::PidFd;
use multiproc_os::poll;
use multiproc_process::{Process, StartMethod};
use multiproc_wire::{Endpoint, Fd, SharedFd, encode};
use serde::{Deserialize, Serialize};

fn main() {
    common::init();
    common::run(&[
        ("daemons_die_with_a_parent_that_is_killed", daemons_die_with_a_killed_parent),
        ("daemons_die_with_a_parent_that_exits", daemons_die_with_an_exiting_parent),
        ("daemons_die_with_a_parent_whose_server_was_killed", daemons_die_without_a_server),
        ("a_child_whose_parent_died_in_the_spawn_does_not_run", parent_died_in_the_spawn),
        ("a_spawn_after_the_server_was_killed_works", spawn_after_the_server_was_killed),
        ("children_outlive_their_server", children_outlive_their_server),
        ("spawning_while_servers_are_killed_works", spawning_while_servers_are_killed),
        ("a_parent_that_adopts_its_children_reaps_them", adopted_children),
        ("a_parent_that_ignores_its_children_hears_of_their_end", ignored_children),
    ]);
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum End {
    Kill,
    Exit,
    KillServerFirst,
}

/// In the middle process: starts two daemons and one that is none, sends their pidfds, and waits
/// to be ended.
fn start_and_hang((home, method, end, gate): (Endpoint, usize, End, Fd<PipeReader>)) -> () {
    let start = |daemon: bool| {
        let builder = Process::builder().daemon(daemon).start_method(METHODS[method]);
        let process = builder.spawn(
            |mut gate: Fd<PipeReader>| gate.read(&mut [0]).unwrap(),
            gate.try_clone().unwrap().into(),
        );
        process.unwrap()
    };
    let all = [start(true), start(true), start(false)];
    let pidfd =
        |process: &Process<usize>| SharedFd::from(process.as_fd().try_clone_to_owned().unwrap());
    if let (End::KillServerFirst, StartMethod::ForkServer) = (end, METHODS[method]) {
        kill_server();
    }
    home.send(&encode(&all.each_ref().map(pidfd)).unwrap(), Deadline::NEVER).unwrap();
    if let End::Exit = end {
        std::process::exit(0);
    }
    hang()
}

fn die_with_a_parent(end: End) {
    for (index, method) in METHODS.into_iter().enumerate() {
        for middle in METHODS {
            let (home, theirs) = Endpoint::pair().unwrap();
            let (gate, mut open) = std::io::pipe().unwrap();
            let argument = (theirs, index, end, gate.into());
            let middle = Process::builder().daemon(true).start_method(middle);
            let middle = middle.spawn(start_and_hang, argument).unwrap();
            let pidfds: Option<[SharedFd; 3]> = home.recv(Deadline::NEVER).unwrap();
            let [first, second, other] = pidfds.unwrap();
            if !matches!(end, End::Exit) {
                middle.kill().unwrap();
            }
            for daemon in [&first, &second] {
                assert_eq!(poll::readable([daemon.as_fd()], Deadline::NEVER).unwrap(), [true]);
            }
            middle.join().unwrap_err();
            let other = PidFd::from(other.as_fd().try_clone_to_owned().unwrap());
            assert!(!other.wait_end(Deadline::now()).unwrap(), "{method:?}: not a daemon");
            open.write_all(&[1]).unwrap();
            assert!(other.wait_end(Deadline::NEVER).unwrap());
        }
    }
}

fn daemons_die_with_a_killed_parent() {
    die_with_a_parent(End::Kill);
}

fn daemons_die_with_an_exiting_parent() {
    die_with_a_parent(End::Exit);
}

fn daemons_die_without_a_server() {
    die_with_a_parent(End::KillServerFirst);
}

/// In the middle process: has its server stop, and waits in a spawn for the child's hello.
fn spawn_from_a_stopped_server((home, writer): (Endpoint, Fd<PipeWriter>)) {
    let parent = |()| std::os::unix::process::parent_id();
    let server = Process::spawn(parent, ()).unwrap().join().unwrap();
    // From now on it has a spare.
    assert_eq!(Process::spawn(parent, ()).unwrap().join().unwrap(), server);
    let pidfd = PidFd::open(server).unwrap();
    pidfd.send_signal(libc::SIGSTOP).unwrap();
    eventually("the stop", || stat(server).contains(") T "));
    home.send(&encode(&SharedFd::from(OwnedFd::from(pidfd))).unwrap(), Deadline::NEVER).unwrap();
    let writes = |mut writer: Fd<PipeWriter>| writer.write_all(b"it ran").unwrap();
    Process::spawn(writes, writer).unwrap();
}

fn stat(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap()
}

/// Tells whether the process waits for descriptors.
fn polls(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
    stat(pid).contains(") S ") && call.starts_with(&format!("{} ", libc::SYS_ppoll))
}

/// An interrupt from a terminal ends the parent, and does nothing to the server and its spare.
fn parent_died_in_the_spawn() {
    let (home, theirs) = Endpoint::pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let builder = Process::builder().daemon(true).start_method(StartMethod::Spawn);
    let builder = builder.ignore_interrupt(false);
    let middle = builder.spawn(spawn_from_a_stopped_server, (theirs, writer.into())).unwrap();
    let server: SharedFd = home.recv(Deadline::NEVER).unwrap().unwrap();
    let server = PidFd::from(server.as_fd().try_clone_to_owned().unwrap());
    eventually("the spawn", || polls(middle.pid()));
    middle.interrupt().unwrap();
    assert_eq!(middle.join().unwrap_err().signal(), Some(libc::SIGINT));
    server.send_signal(libc::SIGCONT).unwrap();
    assert_eq!(read_to_string(reader).unwrap(), "");
}

fn spawn_after_the_server_was_killed() {
    for _ in 0..20 {
        let old = kill_server();
        assert_eq!(Process::spawn(|x: i32| x + 1, 1).unwrap().join().unwrap(), 2);
        wait_reaped(&old);
        assert_eq!(children(std::process::id()).len(), 1, "the new server alone");
    }
}

fn children_outlive_their_server() {
    let (gate, mut open) = std::io::pipe().unwrap();
    let start = |code: i32| {
        let waits = |(mut gate, code): (Fd<PipeReader>, i32)| {
            gate.read_exact(&mut [0]).unwrap();
            match code {
                0 => "a value".to_owned(),
                -1 => panic!("a panic"),
                code => std::process::exit(code),
            }
        };
        Process::builder()
            .daemon(true)
            .spawn(waits, (gate.try_clone().unwrap().into(), code))
            .unwrap()
    };
    let (mut value, panics, exits, killed) = (start(0), start(-1), start(3), start(0));
    kill_server();
    assert!(value.is_alive() && exits.is_alive());
    assert_eq!(value.try_join().unwrap(), None);
    killed.kill().unwrap();
    let pid = killed.pid();
    let error = killed.join().unwrap_err();
    if error.signal().is_none() && stat(pid).contains(") Z ") {
        println!(
            "    skipped: process 1 is no init, and reaps no orphans, so that nobody hears of their end"
        );
        return;
    }
    assert_eq!(error.signal(), Some(9), "as the kernel tells");
    open.write_all(&[1; 3]).unwrap();
    assert_eq!(value.join_timeout(Duration::MAX).unwrap().as_deref(), Some("a value"));
    assert_eq!(panics.join().unwrap_err().panic().unwrap().message(), "a panic");
    assert_eq!(exits.join().unwrap_err().exit_code(), Some(3), "as the kernel tells");
    let status = loop {
        // Its adopter has to reap it first.
        match value.exit_status().unwrap() {
            Some(status) => break status,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(status.code(), Some(0));
    drop(value);
    // The next spawn finds out that the server was killed, and nobody needs it any more.
    Process::spawn(|()| (), ()).unwrap().join().unwrap();
    wait_for_threads();
    assert_eq!(children(std::process::id()).len(), 1, "the new server alone");
}

/// A process that kills this one's servers as they come, until it has killed 50.
fn spawning_while_servers_are_killed() {
    let parent = std::process::id();
    let killer = Process::builder().daemon(true).start_method(StartMethod::Spawn);
    let killer = killer
        .spawn(
            |parent: u32| {
                let own = std::process::id();
                let mut killed = 0;
                while killed < 50 {
                    for (pid, zombie) in children(parent) {
                        if pid != own && !zombie {
                            let Ok(server) = PidFd::open(pid) else { continue };
                            // Its number may be a stranger's by now.
                            if children(parent).iter().any(|(child, _)| *child == pid) {
                                server.send_signal(9).unwrap();
                                killed += 1;
                            }
                        }
                    }
                }
            },
            parent,
        )
        .unwrap();
    let (mut worked, mut failed) = (0, 0);
    while killer.is_alive() {
        match Process::spawn(|x: u64| x + 1, worked) {
            // The child itself is never killed.
            Ok(process) => {
                assert_eq!(process.join().unwrap(), worked + 1);
                worked += 1;
            }
            // Three servers in a row were killed.
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("fork server") || text.contains("closed"), "{text}");
                failed += 1;
            }
        }
    }
    killer.join().unwrap();
    println!("    {worked} spawns worked, {failed} failed");
    assert_eq!(Process::spawn(|x: i32| x + 1, 1).unwrap().join().unwrap(), 2);
}

fn ignored_children() {
    ignore_children(true);
    kill_server();
    for method in METHODS {
        for _ in 0..20 {
            let builder = Process::builder().start_method(method);
            let mut process =
                builder.spawn(|code: i32| -> () { std::process::exit(code) }, 3).unwrap();
            let error = process.join_timeout(Duration::MAX).map(drop).unwrap_err();
            assert_eq!(error.exit_code(), Some(3), "{method:?}: {error}");
            let status = process.exit_status().unwrap().unwrap();
            assert_eq!(status.into_raw(), 3 << 8);
        }
        // What the fork server starts can itself start programs and wait for them.
        if method == StartMethod::ForkServer {
            let ignored = |()| {
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
                u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (libc::SIGCHLD - 1)) != 0
            };
            assert!(!Process::spawn(ignored, ()).unwrap().join().unwrap());
        }
    }
    ignore_children(false);
}

#[allow(unsafe_code)] // A signal's disposition.
fn ignore_children(ignore: bool) {
    let disposition = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: it runs no code of this process.
    unsafe { libc::signal(libc::SIGCHLD, disposition) };
}

/// As in a container whose process 1 this program is.
fn adopted_children() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let (gate, mut open) = std::io::pipe().unwrap();
    let start = |code: i32| {
        let exits = |(mut gate, code): (Fd<PipeReader>, i32)| {
            gate.read_exact(&mut [0]).unwrap();
            std::process::exit(code);
        };
        let builder = Process::builder().daemon(true);
        builder.spawn::<_, ()>(exits, (gate.try_clone().unwrap().into(), code)).unwrap()
    };
    let (known, dropped) = (start(3), start(4));
    kill_server();
    let pidfd = dropped.as_fd().try_clone_to_owned().unwrap();
    drop(dropped);
    open.write_all(&[1; 2]).unwrap();
    assert_eq!(known.join().unwrap_err().exit_code(), Some(3));
    wait_reaped(&pidfd);
    rustix::process::set_child_subreaper(None).unwrap();
}
