//! Starting the program's own file anew, with a socket to its starter.
#![allow(unsafe_code)] // `pre_exec`, and the environment of a process that has one thread.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::net::sockopt::socket_type;

use crate::context::occupy_standard_streams;
use crate::fork::{Forked, kill_and_reap, threads};
use crate::pidfd::PidFd;

/// Tells a fresh process that it is one of ours: `ROLE:INODE`, the inode being that of the socket
/// which is its standard input. Everything else in the environment is the starter's own, since test
/// harnesses find themselves by it.
const MARKER: &str = "MULTIPROC_CHILD";

/// What the new process keeps of its starter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What a child of `std::process::Command` keeps: output, and descriptors not closed on exec.
    Usual,
    /// Nothing open at all: output goes to `/dev/null`.
    Nothing,
}

/// Starts the program's own file. `socket` becomes the new process's standard input, from which
/// [`take_over`] takes it.
///
/// # Errors
///
/// The process is a setuid program, or the system has no process, memory or descriptor left.
pub fn exec_self(role: &str, socket: OwnedFd, keep: Keep) -> io::Result<Forked> {
    refuse_setuid()?;
    let inode = inode(&socket)?;
    let mut arguments = arguments()?.into_iter();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(MARKER, format!("{role}:{inode}")).stdin(Stdio::from(socket));
    if keep == Keep::Nothing {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the closure runs between fork and exec, makes one system call and allocates nothing.
        unsafe { command.pre_exec(close_all_on_exec) };
    }
    // Dropping the handle neither kills nor waits.
    let pid = command.spawn()?.id();
    match PidFd::open(pid) {
        Ok(pidfd) => Ok(Forked { pid, pidfd }),
        Err(error) => {
            kill_and_reap(pid);
            Err(error)
        }
    }
}

/// In a process that [`exec_self`] has started: its role, and the socket to its starter. `None` in
/// any other process, and in a setuid program, whose caller must not choose what it runs.
///
/// The marker is gone afterwards, unless a constructor has started threads, which may read the
/// environment; it is harmless then, since it no longer names what standard input is. That is left
/// open on `/dev/null`, and so are the other standard streams if they were closed.
pub fn take_over() -> io::Result<Option<(String, OwnedFd)>> {
    let Some(marker) = marker() else { return Ok(None) };
    if threads()? == 1 {
        // SAFETY: there is no other thread.
        unsafe { std::env::remove_var(MARKER) };
    }
    let Some((role, inode_of_socket)) = marker.to_str().and_then(|text| text.split_once(':'))
    else {
        return Ok(None);
    };
    let stdin = rustix::stdio::stdin();
    // A marker that was inherited past the process it was meant for does not name its stdin.
    if socket_type(stdin).is_err() || inode(stdin)?.to_string() != inode_of_socket {
        return Ok(None);
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // What is opened from here on must not become a standard stream by accident. std sees to it
    // before `main`, and not earlier.
    std::mem::forget(occupy_standard_streams()?);
    Ok(Some((role.to_string(), socket)))
}

/// Tells whether this process was started by [`exec_self`] and has not taken over yet.
pub fn is_marked() -> bool {
    let Some(marker) = marker() else { return false };
    let marked = marker.to_str().and_then(|text| text.split_once(':'));
    let stdin = inode(rustix::stdio::stdin());
    marked.is_some_and(|(_, socket)| stdin.is_ok_and(|inode| inode.to_string() == socket))
}

fn marker() -> Option<OsString> {
    if is_setuid() { None } else { std::env::var_os(MARKER) }
}

fn inode(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_ino)
}

/// The command line, from the kernel: before `main`, std does not have it everywhere.
fn arguments() -> io::Result<Vec<OsString>> {
    let mut bytes = std::fs::read("/proc/self/cmdline")?;
    bytes.pop();
    Ok(bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
}

fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: marks descriptors; nothing is closed in this process that anything still uses.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The environment and the standard input of a setuid program are its caller's, who must not be able
/// to have it run functions.
fn is_setuid() -> bool {
    // SAFETY: reads a number that the kernel gave to the process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

fn refuse_setuid() -> io::Result<()> {
    if !is_setuid() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "a setuid or setgid program cannot start copies of itself: start the child with \
         std::process::Command and a clean environment",
    ))
}
