//! Dying with the parent: a pipe whose closing the kernel answers with `SIGKILL`.
//!
//! The parent alone holds the write end. A child opens the read end anew (the owner of a signal
//! belongs to the open file, which a duplicate would share) and asks for `SIGKILL` when it changes.
//! No thread, no polling, and not `PR_SET_PDEATHSIG`, which fires when the *thread* ends that
//! spawned.
#![allow(unsafe_code)] // Three fcntl requests that rustix does not have.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

use rustix::pipe::PipeFlags;

use crate::deadline::Deadline;
use crate::fork::exit_now;
use crate::poll;

/// The pipe of this process, made when it is first needed.
static LINE: Mutex<Option<Line>> = Mutex::new(None);

struct Line {
    /// Whose it is: a forked copy must not keep its parent's line open.
    pid: u32,
    read: OwnedFd,
    _write: OwnedFd,
}

/// The end that a child holds on to: see [`hold`].
pub fn end() -> io::Result<OwnedFd> {
    let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    if line.as_ref().is_none_or(|line| line.pid != pid) {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        *line = Some(Line { pid, read, _write: write });
    }
    match &*line {
        Some(line) => line.read.try_clone(),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// In a forked copy: lets go of the parent's line, so that its closing is noticed.
pub fn let_go() {
    *LINE.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Ties the life of this process to the process that `end` is from.
///
/// Does not return if that one is gone already.
pub fn hold(end: &OwnedFd) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", end.as_raw_fd()))?;
    let pid = std::process::id() as libc::c_int;
    set(&file, libc::F_SETOWN, pid)?;
    set(&file, F_SETSIG, libc::SIGKILL)?;
    set(&file, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK)?;
    // The parent may have gone before the kernel was asked to watch.
    let [gone] = poll::readable([file.as_fd()], Deadline::now())?;
    if gone {
        exit_now(128 + libc::SIGKILL);
    }
    // It is held as long as the process lives.
    std::mem::forget(file);
    Ok(())
}

const F_SETSIG: libc::c_int = 10;

fn set(file: &File, request: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests take a number.
    match unsafe { libc::fcntl(file.as_raw_fd(), request, value) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
