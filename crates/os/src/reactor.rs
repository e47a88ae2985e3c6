//! Waiting for many descriptors at once.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::poll::timespec;

/// A set of descriptors, each with a token of the caller's, that is waited on as one.
pub struct Reactor {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Reactor {
    /// Makes an empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Reactor { epoll, events: Vec::with_capacity(64) })
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

    /// Waits until a descriptor can be read or is at its end, and gives the tokens of those.
    ///
    /// None means that the deadline passed.
    pub fn wait(&mut self, deadline: Deadline) -> io::Result<impl Iterator<Item = u64> + '_> {
        self.events.clear();
        loop {
            let timeout = deadline.remaining().map(timespec);
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.events.iter().map(|event| event.data.u64()))
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("epoll", &self.epoll).finish_non_exhaustive()
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
