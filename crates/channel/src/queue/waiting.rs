//! Waiting for items, and for room: the gates and events of the crate's README.

use std::cell::RefCell;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{self, Waited};
use multiproc_os::patience::Patience;
use multiproc_sync::RawLock;

use super::Shared;
use super::header::Header;
use super::log::Log;
use crate::error::{Error, Kind};

/// Where one side of the queue waits.
pub(super) struct Place {
    gate: fn(&Header) -> &RawLock,
    event: fn(&Header) -> &AtomicU32,
    sleeps: fn(&Header) -> &AtomicU32,
    /// Whether it is worth an attempt, seen without the lock.
    ready: fn(&Header) -> bool,
    patience: fn(&Shared) -> &Patience,
}

pub(super) const CONSUMER: Place = Place {
    gate: |header| &header.consumers,
    event: |header| &header.items,
    sleeps: |header| &header.consumer_sleeps,
    ready: |header| !header.is_empty() || header.is_closed(),
    patience: |shared| &shared.get_patience,
};

pub(super) const PRODUCER: Place = Place {
    gate: |header| &header.producers,
    event: |header| &header.room,
    sleeps: |header| &header.producer_sleeps,
    ready: |header| !header.is_full() || header.is_closed(),
    patience: |shared| &shared.put_patience,
};

pub(super) const JOINER: Place = Place {
    gate: |header| &header.joiners,
    event: |header| &header.done,
    sleeps: |header| &header.joiner_sleeps,
    ready: |header| header.unfinished.load(Relaxed) == 0,
    patience: |shared| &shared.join_patience,
};

/// Attempts until it gives something. `None` if the deadline passed first.
pub(super) fn wait<T>(
    shared: &Shared,
    place: &Place,
    deadline: Deadline,
    mut attempt: impl FnMut(&mut Log<'_>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    if let Some(done) = attempt(&mut shared.open()?)? {
        return Ok(Some(done));
    }
    if deadline.has_passed() {
        return Ok(None);
    }
    let attempt = RefCell::new(attempt);
    (place.patience)(shared).wait(
        || {
            if !(place.ready)(shared.region.header()) {
                return Ok(None);
            }
            Ok(attempt.borrow_mut()(&mut shared.open()?)?.map(Some))
        },
        || sleep(shared, place, deadline, &mut *attempt.borrow_mut()),
    )
}

fn sleep<T>(
    shared: &Shared,
    place: &Place,
    deadline: Deadline,
    attempt: &mut impl FnMut(&mut Log<'_>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let header = shared.region.header();
    let gate = match shared.region.lock_gate(place.gate, deadline) {
        Ok(gate) => gate,
        Err(error) if error.is_timeout() => return attempt(&mut shared.open()?),
        Err(error) => return Err(Kind::Lock(error).into()),
    };
    loop {
        let mut log = shared.open()?;
        if let Some(done) = attempt(&mut log)? {
            drop(log);
            drop(gate);
            return Ok(Some(done));
        }
        // Under the lock, so that whoever changes what is waited for sees it.
        let event = (place.event)(header).load(SeqCst);
        (place.sleeps)(header).store(1, Relaxed);
        drop(log);
        if futex::wait((place.event)(header), event, deadline) == Waited::TimedOut {
            return attempt(&mut shared.open()?);
        }
    }
}
