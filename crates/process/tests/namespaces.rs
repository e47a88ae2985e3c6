//! Proves that all works in a pid namespace, as a container has: the process group, the session and
//! the peer of a socket may have the number 0 there, since they are outside.

mod common;

use std::io::stdin;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use common::METHODS;
use multiproc_os::{context, peer};
use multiproc_process::Process;

const INSIDE: &str = "TEST_INSIDE";

fn main() {
    let inside = std::env::var_os(INSIDE).is_some();
    common::init();
    if inside {
        return the_first_of_a_namespace();
    }
    common::run(&[("the_first_of_a_pid_namespace_has_children", outside)]);
}

/// A command that runs another in a pid namespace of its own.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
}

fn outside() {
    let can = unshare().arg("true").stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("    skipped: unshare(1) cannot make a pid namespace");
        return;
    }
    let (stream, _other) = UnixStream::pair().unwrap();
    let mut command = unshare();
    command.arg(std::env::current_exe().unwrap()).env(INSIDE, "1").stdin(OwnedFd::from(stream));
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*errors), (Some(0), ""));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all there\n");
}

fn the_first_of_a_namespace() {
    assert_eq!((std::process::id(), context::process_group()), (1, 0));
    let (pid, ..) = peer::credentials(stdin()).unwrap();
    assert_eq!(pid, 0, "whoever made the socket is outside");
    for method in METHODS {
        let builder = Process::builder().start_method(method);
        let group =
            builder.clone().spawn(|()| context::process_group(), ()).unwrap().join().unwrap();
        assert_eq!(group, 0, "{method:?}");
        let below = |()| Process::spawn(|()| 7, ()).unwrap().join().unwrap();
        assert_eq!(builder.spawn(below, ()).unwrap().join().unwrap(), 7, "{method:?}");
    }
    println!("all there");
}
