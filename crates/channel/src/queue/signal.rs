//! What makes a queue pollable: descriptors that are kept in step only where somebody polls.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};

use multiproc_os::poll;
use multiproc_wire::SharedFd;
use serde::{Deserialize, Serialize};

use crate::error::Error;
#[cfg(feature = "tokio")]
use crate::error::Kind;

/// The signals of a queue.
#[derive(Serialize, Deserialize)]
pub(super) struct Signals {
    pub(super) items: Signal,
    /// Of a queue with a bound: nobody waits for the room of another.
    pub(super) room: Option<Signal>,
    /// Of a joinable queue.
    pub(super) done: Option<Signal>,
}

/// Readable, or to be made readable by the next change: see the crate's README.
#[derive(Serialize, Deserialize)]
pub(super) struct Signal(SharedFd);

impl Signals {
    pub(super) fn new(bounded: bool, joinable: bool) -> Result<Self, Error> {
        let only_if = |is| if is { Signal::new().map(Some) } else { Ok(None) };
        Ok(Signals { items: Signal::new()?, room: only_if(bounded)?, done: only_if(joinable)? })
    }

    /// Of a joinable queue.
    #[cfg(feature = "tokio")]
    pub(super) fn done(&self) -> Result<BorrowedFd<'_>, Error> {
        let done = self.done.as_ref().ok_or(Kind::Corrupt("it has no signal for what is done"))?;
        Ok(done.as_fd())
    }
}

impl Signal {
    fn new() -> Result<Self, Error> {
        Ok(Signal(SharedFd::from(poll::signal()?)))
    }

    /// Makes it readable if somebody may poll it, before a change is committed. With the queue's lock.
    #[inline]
    pub(super) fn announce(&self, polled: &AtomicU32) {
        if polled.load(Relaxed) != 0 {
            self.raise(polled);
        }
    }

    #[cold]
    fn raise(&self, polled: &AtomicU32) {
        // In this order: killed in between, the next one raises it again.
        poll::raise(&self.0);
        compiler_fence(SeqCst);
        polled.store(0, Relaxed);
    }

    /// Has the next change make it readable. With the queue's lock, and while there is nothing that it
    /// could tell of.
    pub(super) fn arm(&self, polled: &AtomicU32) {
        // In this order: killed in between, it is readable, and the next poller comes here again.
        polled.store(1, Relaxed);
        compiler_fence(SeqCst);
        poll::clear(&self.0);
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
