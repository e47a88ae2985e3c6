//! The records of a queue: what each side does with its own lock alone.
//!
//! A killed process has run its instructions in order up to one of them, so that the order of
//! stores here, and fences for the compiler to keep it, is all that a survivor needs.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, compiler_fence};

use multiproc_os::futex::{Store, store_and_wake};

use super::Shared;
use super::header::Header;
use super::ring::{RECORD, Ring};
use super::signal::Signals;
use crate::error::{Error, Kind};

const ALIGN: u64 = 8;

pub(super) const PLAIN: u32 = 1;
pub(super) const MARKER: u32 = 2;

/// What one lock was enough for.
pub(super) enum Alone<T> {
    Done(T),
    /// There is no item, or no room.
    Nothing,
    /// It takes both locks.
    NeedsBoth,
}

/// The log, for whoever holds one of its locks, or both.
#[derive(Clone, Copy)]
pub(super) struct Log<'a> {
    pub(super) header: &'a Header,
    pub(super) ring: Ring<'a>,
    signals: &'a Signals,
}

impl<'a> Log<'a> {
    #[inline]
    pub(super) fn of(shared: &'a Shared) -> Result<Self, Error> {
        let header = shared.region.header();
        let ring = shared.rings.of(&shared.region, header.capacity.load(Relaxed))?;
        Ok(Log { header, ring, signals: &shared.signals })
    }

    /// Puts an item in that has no handles. For whoever has the lock of those who put.
    #[inline]
    pub(super) fn put(self, item: &[u8]) -> Result<Alone<()>, Error> {
        if !self.is_open_and_has_room()? {
            return Ok(Alone::Nothing);
        }
        let Some(len) = self.room_for(item.len())? else { return Ok(Alone::NeedsBoth) };
        self.append(PLAIN, len, item)?;
        Ok(Alone::Done(()))
    }

    /// Takes the first item, one without handles, copies it to `buffer`, and tells its length. For
    /// whoever has the lock of those who take.
    #[inline]
    pub(super) fn get(self, buffer: &mut Vec<u8>) -> Result<Alone<usize>, Error> {
        let Header { head, tail_seen, .. } = self.header;
        let head = head.load(Relaxed);
        if head == tail_seen.load(Relaxed) {
            // In this order: what is closed gets no more items.
            let closed = self.header.is_closed();
            let tail = self.header.tail.load(Acquire);
            if head == tail {
                return if closed { Err(Kind::QueueClosed.into()) } else { Ok(Alone::Nothing) };
            }
            tail_seen.store(tail, Relaxed);
        }
        let (len, kind) = self.ring.record(head)?;
        match kind {
            PLAIN if u64::from(len) < self.ring.capacity() => {}
            MARKER => return Ok(Alone::NeedsBoth),
            _ => return Err(Kind::Corrupt("a record is of no known kind").into()),
        }
        let len = len as usize;
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        self.ring.read(head + RECORD, &mut buffer[..len])?;
        self.take_first(head, len as u32);
        Ok(Alone::Done(len))
    }

    /// Tells whether an item can be put in. For whoever has the lock of those who put.
    #[inline]
    pub(super) fn is_open_and_has_room(self) -> Result<bool, Error> {
        let Header { put, got, got_seen, bound, .. } = self.header;
        if self.header.is_closed() {
            return Err(Kind::QueueClosed.into());
        }
        let (put, bound) = (put.load(Relaxed), bound.load(Relaxed));
        if put.wrapping_sub(got_seen.load(Relaxed)) < bound {
            return Ok(true);
        }
        let got = got.load(Acquire);
        got_seen.store(got, Relaxed);
        Ok(put.wrapping_sub(got) < bound)
    }

    /// The length as a record has it, if the ring has room for one more of this length. For whoever
    /// has the lock of those who put.
    #[inline]
    pub(super) fn room_for(self, len: usize) -> Result<Option<u32>, Error> {
        let Header { head, head_seen, tail, .. } = self.header;
        let Ok(short) = u32::try_from(len) else { return Err(Kind::TooLong { len }.into()) };
        let end = tail.load(Relaxed).wrapping_add(size(short));
        if end.wrapping_sub(head_seen.load(Relaxed)) <= self.ring.capacity() {
            return Ok(Some(short));
        }
        let head = head.load(Acquire);
        head_seen.store(head, Relaxed);
        Ok((end.wrapping_sub(head) <= self.ring.capacity()).then_some(short))
    }

    /// Adds a record for which there is room. For whoever has the lock of those who put.
    #[inline]
    pub(super) fn append(self, kind: u32, len: u32, item: &[u8]) -> Result<(), Error> {
        let tail = self.header.tail.load(Relaxed);
        self.ring.write(tail, kind, len, item)?;
        wake_sleeper(&self.header.consumer_sleeps, &self.header.items);
        self.announce_items();
        compiler_fence(SeqCst);
        let tail = tail + size(len);
        if self.header.is_joinable() {
            self.commit_unfinished(tail);
        } else {
            self.commit(tail);
        }
        Ok(())
    }

    #[inline]
    fn commit(self, tail: u64) {
        self.header.tail.store(tail, Release);
        compiler_fence(SeqCst);
        step(&self.header.put);
    }

    /// Notes what the number of unfinished items will be once the tail is there, so that one store
    /// commits both.
    fn commit_unfinished(self, tail: u64) {
        let Header { unfinished, next_unfinished, next_tail, .. } = self.header;
        let next = unfinished.load(Relaxed).saturating_add(1);
        next_unfinished.store(next, Relaxed);
        compiler_fence(SeqCst);
        next_tail.store(tail, Relaxed);
        compiler_fence(SeqCst);
        self.commit(tail);
        unfinished.store(next, Relaxed);
        compiler_fence(SeqCst);
        next_tail.store(0, Relaxed);
    }

    /// Takes the record there out. For whoever has the lock of those who take.
    #[inline]
    pub(super) fn take_first(self, head: u64, len: u32) {
        wake_sleeper(&self.header.producer_sleeps, &self.header.room);
        self.announce_room();
        compiler_fence(SeqCst);
        self.header.head.store(head + size(len), Release);
        compiler_fence(SeqCst);
        step(&self.header.got);
    }

    #[inline]
    pub(super) fn announce_items(self) {
        self.signals.items.announce(&self.header.items_polled);
    }

    #[inline]
    pub(super) fn announce_room(self) {
        if let Some(room) = &self.signals.room {
            room.announce(&self.header.room_polled);
        }
    }
}

/// How much of the log an item takes.
#[inline]
pub(super) fn size(len: u32) -> u64 {
    RECORD + u64::from(len).next_multiple_of(ALIGN)
}

/// With the lock, nobody else changes the count in between, which needs no locked instruction.
#[inline]
fn step(count: &AtomicU64) {
    count.store(count.load(Relaxed).wrapping_add(1), Release);
}

#[inline]
pub(super) fn wake_sleeper(sleeps: &AtomicU32, event: &AtomicU32) {
    if sleeps.load(Relaxed) != 0 {
        // In this order: killed in between, the next one wakes once more for nothing.
        wake(event);
        compiler_fence(SeqCst);
        sleeps.store(0, Relaxed);
    }
}

/// Changes the event and wakes who sleeps on it, which is one at most: the holder of the gate.
#[cold]
pub(super) fn wake(event: &AtomicU32) {
    if store_and_wake(event, Store::Add(1), 1).is_err() {
        // A kernel without the combined call; killed in between, the sleeper is woken by the next.
        event.fetch_add(1, SeqCst);
        multiproc_os::futex::wake(event, 1);
    }
}
