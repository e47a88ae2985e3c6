//! Waiting for many descriptors at once.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::poll::timespec;

/// A set of descriptors, each with a token of the caller's, that is waited on as one.
#[derive(Debug)]
pub struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    /// Makes an empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Reactor { epoll })
    }

    /// Adds a descriptor, which must be [removed](Reactor::remove) before it is closed: the kernel
    /// watches the open file, which other processes may hold open.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)?)
    }

    /// Removes a descriptor.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until a descriptor can be read or is at its end, and gives the tokens of some of those.
    ///
    /// None means that the deadline passed.
    pub fn wait(&self, deadline: Deadline) -> io::Result<Vec<u64>> {
        const AT_ONCE: usize = 64;
        let mut events = [const { MaybeUninit::uninit() }; AT_ONCE];
        loop {
            let timeout = deadline.remaining().map(timespec);
            match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
                Ok((ready, _)) => return Ok(ready.iter().map(|event| event.data.u64()).collect()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A descriptor that one thread makes readable to wake another from [`Reactor::wait`].
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// Makes one that is not readable.
    pub fn new() -> io::Result<Self> {
        Ok(Waker(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it readable.
    pub fn wake(&self) {
        // The counter is full only if it is readable already.
        let _full = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it not readable.
    pub fn clear(&self) {
        let _empty = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
