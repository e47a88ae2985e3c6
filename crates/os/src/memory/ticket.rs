//! What is given up by one process and taken by one other, once.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr, write};

/// Makes a ticket that nobody can take yet. It may travel meanwhile.
///
/// # Examples
///
/// ```
/// use multiproc_os::memory::ticket;
///
/// let ticket = ticket::create()?;
/// assert!(!ticket::take(&ticket)?);
/// ticket::offer(&ticket)?;
/// assert!(ticket::take(&ticket)?);
/// assert!(!ticket::take(&ticket)?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn create() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// Lets whoever comes first take it.
pub fn offer(ticket: impl AsFd) -> io::Result<()> {
    let one = 1u64.to_ne_bytes();
    // The counter is zero, so that this does not wait.
    retry_on_intr(|| write(&ticket, &one))?;
    Ok(())
}

/// Takes it. `false` if it is not offered, or was taken already. Never waits.
///
/// # Errors
///
/// The descriptor is not of a ticket.
pub fn take(ticket: impl AsFd) -> io::Result<bool> {
    const NO_POSITION: u64 = u64::MAX;
    let mut count = [0; 8];
    let mut buffer = [IoSliceMut::new(&mut count)];
    // The flag of this one call, since the descriptor's flags are shared with whoever sent it.
    let read = retry_on_intr(|| preadv2(&ticket, &mut buffer, NO_POSITION, ReadWriteFlags::NOWAIT));
    match read {
        Ok(8) => Ok(true),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the descriptor is not a ticket")),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
