//! The only `fork`.
//!
//! The child's pidfd is opened by its number after the fork, and not by `clone3` with `CLONE_PIDFD`:
//! only libc's own fork runs its handlers, resets the locks of its allocator and its streams, and
//! registers the copy's thread with it, so that a child of a bare `clone3` could not use libc safely.
//! The number is the child's until it is reaped. Only a program that ignores `SIGCHLD`, or reaps all
//! children in a handler, can lose a child that ends before its pidfd is open: that is an error of
//! the spawn then, or, if the number was given out anew at once, another process is taken for the
//! child.
#![allow(unsafe_code, clippy::disallowed_methods)] // fork(2) and _exit(2) stand here alone.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use crate::pidfd::PidFd;

/// A process that was forked off and is a child of the caller.
#[derive(Debug)]
pub struct Forked {
    /// Its number.
    pub pid: u32,
    /// Its descriptor.
    pub pidfd: PidFd,
}

/// Copies the process. The copy runs `child` and ends with the code that it gives.
///
/// The copy ends by `_exit`: no exit handlers, no destructors of the caller's frames. A panic in
/// `child` ends it with `SIGABRT`.
///
/// # Errors
///
/// The process has more than one thread: the copy would have one only, with every lock that another
/// thread held locked for ever. Or the system has no process, memory or descriptor left.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<Forked> {
    let threads = threads()?;
    if threads != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the process has {threads} threads, and a forked copy would have one, with the locks \
                 of the others locked for ever: use the start method ForkServer or Spawn"
            ),
        ));
    }
    // SAFETY: there is no other thread, so that the copy finds every lock and the heap in a state
    // that this very code left them in.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code =
                catch_unwind(AssertUnwindSafe(child)).unwrap_or_else(|_| std::process::abort());
            exit_now(code)
        }
        pid => {
            let pid = pid.unsigned_abs();
            match PidFd::open(pid) {
                Ok(pidfd) => Ok(Forked { pid, pidfd }),
                Err(error) => {
                    kill_and_reap(pid);
                    Err(error)
                }
            }
        }
    }
}

/// Copies the process as [`fork`] does. The copy has no descriptor but the standard streams and
/// `fd`, which it hands to `child`.
///
/// `child` captures nothing, so that nothing is left that would use or close what the copy has not.
pub fn fork_with(fd: BorrowedFd<'_>, child: fn(OwnedFd) -> i32) -> io::Result<Forked> {
    fork(|| match keep_only(fd) {
        Ok(fd) => child(fd),
        Err(_) => 1,
    })
}

/// Moves the descriptor to the first place after the standard streams and closes all others there.
fn keep_only(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PLACE: RawFd = 3;
    let old = fd.as_raw_fd();
    // SAFETY: `fork_with` says why nothing uses what is closed or replaced here, the owner of `fd`
    // among it, so that `PLACE` belongs to nobody else.
    unsafe {
        if old != PLACE && libc::dup3(old, PLACE, libc::O_CLOEXEC) == -1 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(libc::SYS_close_range, PLACE + 1, libc::c_uint::MAX, 0);
        Ok(OwnedFd::from_raw_fd(PLACE))
    }
}

/// Sets whether `SIGINT` is held back from this thread until it is let through again.
///
/// One that comes meanwhile is kept, also if the process ignores it now, but no longer then.
pub fn hold_interrupt(hold: bool) {
    let how = if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: the set is one of this frame, and is initialised by the first call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// Returns when an interrupt of the process group that has reached this process has reached the others.
///
/// The kernel sends it to one after the other, the newest first, under a lock that `setpgid` takes
/// as well.
pub fn await_interrupts_under_way() {
    // A number that no process has: the lock is taken, and nothing moves.
    let _no_such_process = rustix::process::setpgid(Pid::from_raw(i32::MAX), None);
}

/// Ends the process at once: no exit handlers, no buffers written.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process and touches nothing.
    unsafe { libc::_exit(code) }
}

/// Writes what Rust and C code has buffered for standard output and other streams.
///
/// Another thread may hold a stream's lock, and hold it for ever: then this gives up after a while.
pub fn flush_streams() {
    const PATIENCE: Duration = Duration::from_secs(5);
    if matches!(threads(), Ok(1)) {
        return flush();
    }
    let (done, wait) = mpsc::channel();
    let flush = move || {
        flush();
        let _gave_up = done.send(());
    };
    if thread::Builder::new().spawn(flush).is_ok() {
        let _end = wait.recv_timeout(PATIENCE);
    }
}

fn flush() {
    // Nobody reads a stream that is closed.
    let _closed = std::io::stdout().flush();
    // SAFETY: a null pointer stands for all streams.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// How many threads the process has, without those that have run their last instruction: the kernel
/// may have them for a moment still when `join` returns.
pub fn threads() -> io::Result<u64> {
    // A directory in proc has as many links as directories in it, and its own two.
    let tasks = std::fs::metadata("/proc/self/task")?;
    match tasks.nlink().saturating_sub(2) {
        1 => Ok(1),
        _ => count_threads(),
    }
}

#[cold]
fn count_threads() -> io::Result<u64> {
    let mut count = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        // One that is gone by now has no file any more.
        let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        count += u64::from(!stat.is_empty() && !is_exiting(&stat));
    }
    Ok(count)
}

/// Reads the thread's flags in a `/proc/self/task/*/stat`: see proc_pid_stat(5).
fn is_exiting(stat: &str) -> bool {
    const PF_EXITING: u64 = 4;
    // The name in parentheses may hold anything; state, four numbers and the terminal follow it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let flags = fields.split_ascii_whitespace().nth(6).and_then(|flags| flags.parse().ok());
    flags.is_some_and(|flags: u64| flags & PF_EXITING != 0)
}

/// Undoes a fork whose result cannot be used. The number is still the child's: nobody reaped it.
pub(crate) fn kill_and_reap(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        let wait = || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        let _reaped = rustix::io::retry_on_intr(wait);
    }
}
