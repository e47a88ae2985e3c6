//! Waiting until descriptors are ready.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::deadline::Deadline;

/// Waits until at least one of the descriptors can be read (or is at its end), or until the deadline.
///
/// Returns whether each is ready; all `false` means that the deadline passed.
pub fn readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    deadline: Deadline,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    poll(&mut polled, deadline)?;
    Ok(polled.map(|fd| !fd.revents().is_empty()))
}

/// The same for any number of descriptors. Without any it waits until the deadline.
pub fn any_readable(fds: &[BorrowedFd<'_>], deadline: Deadline) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    poll(&mut polled, deadline)?;
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Waits until the descriptor can be written (or its other end is closed), or until the deadline.
///
/// Returns `false` if the deadline passed.
pub fn writable(fd: impl AsFd, deadline: Deadline) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
    poll(&mut polled, deadline)?;
    Ok(!polled[0].revents().is_empty())
}

/// Waits until the descriptor is hung up, or until the deadline. For a pidfd it means that the process was
/// reaped (Linux 6.9 and later), for a socket that the other end is closed.
///
/// Returns `false` if the deadline passed.
pub fn hung_up(fd: impl AsFd, deadline: Deadline) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::empty())];
    poll(&mut polled, deadline)?;
    Ok(!polled[0].revents().is_empty())
}

/// Makes a signal: a descriptor that is readable from when it is raised until it is cleared, by whatever
/// process. None of the calls waits.
///
/// # Errors
///
/// The process or the system has no descriptor left.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsFd;
/// use multiproc_os::{deadline::Deadline, poll};
///
/// let signal = poll::signal()?;
/// assert_eq!(poll::readable([signal.as_fd()], Deadline::now())?, [false]);
/// poll::raise(&signal);
/// assert_eq!(poll::readable([signal.as_fd()], Deadline::NEVER)?, [true]);
/// poll::clear(&signal);
/// assert_eq!(poll::readable([signal.as_fd()], Deadline::now())?, [false]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn signal() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Makes a [`signal`] readable.
pub fn raise(signal: impl AsFd) {
    // The counter is full only if it is readable already.
    let _full = rustix::io::write(signal, &1u64.to_ne_bytes());
}

/// Makes a [`signal`] not readable.
pub fn clear(signal: impl AsFd) {
    let _empty = rustix::io::read(signal, &mut [0; 8]);
}

fn poll(fds: &mut [PollFd<'_>], deadline: Deadline) -> io::Result<()> {
    loop {
        // A signal costs the time that had passed: what remains is asked for anew.
        let timeout = deadline.remaining().map(timespec);
        match rustix::event::poll(fds, timeout.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The longest that the kernel takes, some 292 billion years, stands for anything longer.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
