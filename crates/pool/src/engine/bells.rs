//! Who is to be woken once the state is not locked any more.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use multiproc_os::reactor;

/// The dispatcher's bell, and those of who polls for results: their wakers are code of the user, which may
/// do anything, as to use this pool.
pub(crate) struct Bells {
    dispatcher: reactor::Waker,
    polls: Mutex<Vec<Waker>>,
    /// The dispatcher is to be called.
    called: AtomicBool,
    /// There are some in `polls`.
    rung: AtomicBool,
}

impl Bells {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Bells {
            dispatcher: reactor::Waker::new()?,
            polls: Mutex::default(),
            called: AtomicBool::new(false),
            rung: AtomicBool::new(false),
        })
    }

    /// Has the dispatcher look at the state, at once.
    pub(crate) fn call(&self) {
        self.dispatcher.wake();
    }

    /// Has it called when the state is unlocked.
    pub(crate) fn call_later(&self) {
        self.called.store(true, Relaxed);
    }

    /// Has who polls woken when the state is unlocked.
    pub(crate) fn ring_later(&self, waker: Waker) {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
        self.rung.store(true, Relaxed);
    }

    /// The dispatcher has heard it.
    pub(crate) fn clear(&self) {
        self.dispatcher.clear();
    }

    /// Wakes all who are to be woken.
    #[cold]
    fn ring(&self) {
        if self.called.swap(false, Relaxed) {
            self.call();
        }
        if self.rung.swap(false, Relaxed) {
            let mut polls = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
            let wakers = std::mem::take(&mut *polls);
            drop(polls);
            for waker in wakers {
                // It must not end the dispatcher, nor keep others asleep.
                let _panicked = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
        }
    }
}

impl AsFd for Bells {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dispatcher.as_fd()
    }
}

impl fmt::Debug for Bells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bells").finish_non_exhaustive()
    }
}

/// Wakes all who are to be woken when it is dropped.
pub(crate) struct Ringing<'a>(pub(crate) &'a Bells);

impl Drop for Ringing<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.called.load(Relaxed) || self.0.rung.load(Relaxed) {
            self.0.ring();
        }
    }
}
