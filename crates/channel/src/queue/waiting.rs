//! Waiting for items, and for room: the gates and events of the crate's README.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{self, Waited};
use multiproc_os::patience::Patience;
use multiproc_sync::RawLock;
use multiproc_sync::region::Region;

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
    longest_sleep: Option<Duration>,
}

impl Place {
    pub(super) fn consumer() -> Self {
        Place {
            gate: |header| &header.consumers,
            event: |header| &header.items,
            sleeps: |header| &header.consumer_sleeps,
            ready: |header| !header.is_empty() || header.is_closed(),
            longest_sleep: None,
        }
    }

    pub(super) fn producer() -> Self {
        Place {
            gate: |header| &header.producers,
            event: |header| &header.room,
            sleeps: |header| &header.producer_sleeps,
            ready: |header| !header.is_full() || header.is_closed(),
            longest_sleep: None,
        }
    }

    /// For a producer of items with handles: descriptors under way are counted over all sockets of a
    /// user, so that room for them comes without an event.
    pub(super) fn with_handles(self) -> Self {
        Place { longest_sleep: Some(Duration::from_millis(2)), ..self }
    }
}

/// Attempts until it gives something. `None` if the deadline passed first.
pub(super) fn wait<T>(
    region: &Region<Header>,
    patience: &Patience,
    deadline: Deadline,
    place: Place,
    mut attempt: impl FnMut(&mut Log<'_>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    if let Some(done) = attempt(&mut Log::open(region)?)? {
        return Ok(Some(done));
    }
    if deadline.has_passed() {
        return Ok(None);
    }
    let attempt = std::cell::RefCell::new(&mut attempt);
    patience.wait(
        || {
            if !(place.ready)(region.header()) {
                return Ok(None);
            }
            Ok(attempt.borrow_mut()(&mut Log::open(region)?)?.map(Some))
        },
        || sleep(region, deadline, &place, &mut **attempt.borrow_mut()),
    )
}

fn sleep<T>(
    region: &Region<Header>,
    deadline: Deadline,
    place: &Place,
    attempt: &mut impl FnMut(&mut Log<'_>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let header = region.header();
    let gate = match region.lock_gate(place.gate, deadline) {
        Ok(gate) => gate,
        Err(error) if error.is_timeout() => return attempt(&mut Log::open(region)?),
        Err(error) => return Err(Kind::Lock(error).into()),
    };
    loop {
        let mut log = Log::open(region)?;
        if let Some(done) = attempt(&mut log)? {
            drop(log);
            drop(gate);
            return Ok(Some(done));
        }
        // Under the lock, so that whoever changes what is waited for sees it.
        let event = (place.event)(header).load(SeqCst);
        (place.sleeps)(header).store(1, Relaxed);
        drop(log);
        let until = match place.longest_sleep {
            Some(longest) if deadline.remaining().is_none_or(|left| left > longest) => {
                Deadline::after(longest)
            }
            _ => deadline,
        };
        if futex::wait((place.event)(header), event, until) == Waited::TimedOut
            && deadline.has_passed()
        {
            return attempt(&mut Log::open(region)?);
        }
    }
}
