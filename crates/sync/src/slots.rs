//! A row of locks of which one is as good as another: each is a place for one thread to be in.
//!
//! A place that its thread leaves by dying is free again. Whoever finds all places taken stands in
//! line at a gate, a lock as well; only the first in line sleeps on the places, all at once.

use std::sync::atomic::AtomicU32;

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{MOST_AWAITED, wait_any};
use multiproc_os::patience::Patience;

use crate::error::LockError;
use crate::raw_lock::{NotTaken, RawLock, Wait};
use crate::region::{Hold, Place, Words};

/// The places of some primitive.
pub(crate) struct Slots<'a, X> {
    pub(crate) place: &'a Place<X>,
    pub(crate) gate: fn(&X) -> &RawLock,
    pub(crate) slots: fn(&X) -> &[RawLock],
    /// How many of them are used.
    pub(crate) count: usize,
    pub(crate) patience: &'static Patience,
}

/// Words to sleep on, with their values.
pub(crate) type Watched<'a> = Vec<(&'a AtomicU32, u32)>;

impl<'a, X: Words> Slots<'a, X> {
    /// Takes a place.
    ///
    /// # Errors
    ///
    /// All are taken, and the wait was over; or those that are free cannot be had.
    pub(crate) fn take(&self, wait: Wait) -> Result<(usize, Hold<'a>), LockError> {
        if let Some(taken) = self.attempt()? {
            return Ok(taken);
        }
        match wait {
            Wait::Until(deadline) if !deadline.has_passed() => {
                self.patience.wait_on(|| self.attempt(), || self.stand_in_line(deadline))
            }
            _ => Err(NotTaken::Held.into()),
        }
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.all().iter().filter(|slot| !slot.is_held()).count()
    }

    fn all(&self) -> &'a [RawLock] {
        &(self.slots)(self.place)[..self.count]
    }

    fn attempt(&self) -> Result<Option<(usize, Hold<'a>)>, LockError> {
        let mut refused = None;
        for (index, slot) in self.all().iter().enumerate() {
            if slot.is_held() {
                continue;
            }
            match self.place.hold(|words| &(self.slots)(words)[index], Wait::Try) {
                Ok(hold) => return Ok(Some((index, hold))),
                Err(NotTaken::Held | NotTaken::HeldByCaller) => {}
                Err(reason) => refused = Some(reason),
            }
        }
        refused.map_or(Ok(None), |reason| Err(reason.into()))
    }

    fn stand_in_line(&self, deadline: Deadline) -> Result<(usize, Hold<'a>), LockError> {
        let _first = match self.place.hold(self.gate, Wait::Until(deadline)) {
            Err(NotTaken::Held) => {
                return self.attempt()?.ok_or_else(|| NotTaken::Held.into());
            }
            first => first?,
        };
        loop {
            if let Some(taken) = self.attempt()? {
                return Ok(taken);
            }
            if deadline.has_passed() {
                return Err(NotTaken::Held.into());
            }
            // One that is free by now is found by the next attempt.
            let watched: Option<Watched<'_>> = self.all().iter().map(RawLock::watch).collect();
            if let Some(watched) = watched {
                sleep(&watched, deadline)?;
            }
        }
    }
}

/// Sleeps until one of the words is woken or has another value, or until the deadline.
pub(crate) fn sleep(words: &Watched<'_>, deadline: Deadline) -> Result<(), LockError> {
    debug_assert!(words.len() <= MOST_AWAITED);
    wait_any(words, deadline).map(drop).map_err(LockError::waiting)
}
