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
use super::whole::Whole;
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
    ready: Header::has_item_or_end,
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

/// Attempts until it gives something: with no lock, or with both. `None` if the deadline passed
/// first.
pub(super) fn wait<T>(
    shared: &Shared,
    place: &Place,
    deadline: Deadline,
    mut attempt: impl FnMut(Option<&mut Whole<'_>>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    match attempt(None)? {
        Some(done) => Ok(Some(done)),
        None => wait_on(shared, place, deadline, attempt),
    }
}

/// The same for a caller that has just tried.
pub(super) fn wait_on<T>(
    shared: &Shared,
    place: &Place,
    deadline: Deadline,
    attempt: impl FnMut(Option<&mut Whole<'_>>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    if deadline.has_passed() {
        return Ok(None);
    }
    let attempt = RefCell::new(attempt);
    (place.patience)(shared).wait(
        || {
            if !(place.ready)(shared.region.header()) {
                return Ok(None);
            }
            Ok(attempt.borrow_mut()(None)?.map(Some))
        },
        || sleep(shared, place, deadline, &mut *attempt.borrow_mut()),
    )
}

fn sleep<T>(
    shared: &Shared,
    place: &Place,
    deadline: Deadline,
    attempt: &mut impl FnMut(Option<&mut Whole<'_>>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let header = shared.region.header();
    let gate = match shared.region.lock_gate(place.gate, deadline) {
        Ok(gate) => gate,
        Err(error) if error.is_timeout() => return attempt(None),
        Err(error) => return Err(Kind::Lock(error).into()),
    };
    loop {
        let mut whole = shared.open()?;
        if let Some(done) = attempt(Some(&mut whole))? {
            drop(whole);
            drop(gate);
            return Ok(Some(done));
        }
        // Under both locks, so that whoever changes what is waited for sees it.
        let event = (place.event)(header).load(SeqCst);
        (place.sleeps)(header).store(1, Relaxed);
        drop(whole);
        if futex::wait((place.event)(header), event, deadline) == Waited::TimedOut {
            return attempt(None);
        }
    }
}
