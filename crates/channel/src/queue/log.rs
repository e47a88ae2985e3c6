//! The records of a queue, behind its lock.
//!
//! A killed process has run its instructions in order up to one of them, so that the order of stores
//! here, and fences for the compiler to keep it, is all that a survivor needs.

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};

use multiproc_os::futex::{Store, store_and_wake};
use multiproc_sync::region::{Region, RegionGuard};
use multiproc_wire::Message;

use super::header::Header;
use super::side::Side;
use super::signal::Signals;
use crate::error::{Error, Kind};

/// The capacity that a queue starts with, and returns to.
pub(super) const SMALLEST: usize = 64 << 10;

/// A queue that runs empty keeps up to this much memory.
const KEPT: u64 = 1 << 20;

/// Length and kind.
const RECORD: u64 = 8;
const ALIGN: u64 = 8;

const PLAIN: u32 = 1;
const MARKER: u32 = 2;

/// What was taken out.
pub(super) enum Taken {
    /// An item without handles, which was copied out.
    Bytes,
    WithHandles(Message),
}

/// The log, with the lock held.
pub(super) struct Log<'a> {
    guard: RegionGuard<'a, Header>,
    header: &'a Header,
    side: &'a Side,
    signals: &'a Signals,
}

impl<'a> Log<'a> {
    #[inline]
    pub(super) fn open(
        region: &'a Region<Header>,
        side: &'a Side,
        signals: &'a Signals,
    ) -> Result<Self, Error> {
        let guard = region.lock_anyway().map_err(Kind::Lock)?;
        let mut log = Log { guard, header: region.header(), side, signals };
        if (log.guard.bytes().len() as u64) < log.capacity() || !log.capacity().is_power_of_two() {
            return Err(Kind::Corrupt("its capacity is not that of its memory").into());
        }
        if region.is_poisoned() {
            log.repair()?;
            region.clear_poison();
        }
        Ok(log)
    }

    /// The holder of the lock died: what it had committed stands, but for what follows from that.
    #[cold]
    fn repair(&mut self) -> Result<(), Error> {
        let (mut count, mut markers) = (0, 0);
        let (mut position, tail) = (self.head(), self.tail());
        while position < tail {
            let (len, kind) = self.record(position);
            position += size(len);
            count += 1;
            markers += u64::from(kind == MARKER);
        }
        if position != tail {
            return Err(Kind::Corrupt("its records do not end where they should").into());
        }
        self.header.count.store(count, Relaxed);
        self.header.markers.store(markers, Relaxed);
        self.header.strays.store(1, Relaxed);
        self.clear_strays();
        self.repair_unfinished();
        if count == 0 {
            self.shrink();
        }
        // Whoever sleeps looks again; it may not have been woken.
        wake(&self.header.items);
        wake(&self.header.room);
        wake(&self.header.done);
        Ok(())
    }

    fn repair_unfinished(&self) {
        let Header { unfinished, next_unfinished, next_tail, rounds, .. } = self.header;
        if next_tail.load(Relaxed) == self.tail() {
            unfinished.store(next_unfinished.load(Relaxed), Relaxed);
        }
        compiler_fence(SeqCst);
        next_tail.store(0, Relaxed);
        if unfinished.load(Relaxed) == 0 {
            // It may be that nobody has counted that. One too many lets go whoever may go anyway.
            rounds.fetch_add(1, Relaxed);
        }
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.header.is_closed()
    }

    /// Puts an item in that has no handles. `None` if the queue is full.
    #[inline]
    pub(super) fn put(&mut self, item: &[u8]) -> Result<Option<()>, Error> {
        if !self.is_open_and_has_room()? {
            return Ok(None);
        }
        let len = self.reserve(item.len())?;
        self.append(PLAIN, len, item);
        Ok(Some(()))
    }

    /// Puts an item in that has handles. `None` if the queue is full, `Some(false)` if only the socket
    /// is.
    pub(super) fn put_with_handles(&mut self, item: &Message) -> Result<Option<bool>, Error> {
        if !self.is_open_and_has_room()? {
            return Ok(None);
        }
        self.clear_strays();
        // A number is used up even if its packet is never marked.
        let number = self.header.last_number.fetch_add(1, Relaxed) + 1;
        compiler_fence(SeqCst);
        let marker = number.to_le_bytes();
        // First: nothing but death comes between the packet and its marker.
        let len = self.reserve(marker.len())?;
        if !self.side.send(number, item)? {
            return Ok(Some(false));
        }
        self.append(MARKER, len, &marker);
        self.header.markers.fetch_add(1, Relaxed);
        Ok(Some(true))
    }

    /// Takes the first item; one without handles is put at the end of `bytes`. `None` if there is none.
    #[inline]
    pub(super) fn get(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Taken>, Error> {
        let head = self.head();
        if head == self.tail() {
            return if self.is_closed() { Err(Kind::QueueClosed.into()) } else { Ok(None) };
        }
        let (len, kind) = self.record(head);
        let mut number = [0; 8];
        match kind {
            PLAIN => {
                let [first, second] = self.pieces(head + RECORD, len as usize);
                bytes.extend_from_slice(first);
                if !second.is_empty() {
                    bytes.extend_from_slice(second);
                }
                self.take_first(len);
                return Ok(Some(Taken::Bytes));
            }
            MARKER if len as usize == number.len() => self.read(head + RECORD, &mut number),
            _ => return Err(Kind::Corrupt("a record is of no known kind").into()),
        }
        self.take_first(len);
        self.header.markers.fetch_sub(1, Relaxed);
        let item = self.side.receive(u64::from_le_bytes(number))?;
        self.clear_strays();
        match item {
            Some(item) => Ok(Some(Taken::WithHandles(item))),
            None => Err(Kind::Corrupt("an item with handles is gone").into()),
        }
    }

    pub(super) fn close(&self) {
        // Woken first, they wait for the lock; killed in between, they find the queue open.
        wake(&self.header.items);
        wake(&self.header.room);
        self.announce_items();
        self.announce_room();
        compiler_fence(SeqCst);
        self.header.closed.store(1, Release);
    }

    pub(super) fn has_item_or_end(&self) -> bool {
        self.head() != self.tail() || self.is_closed()
    }

    /// Tells whether there is an item or the end. If not, the signal is readable when there is.
    pub(super) fn arm_items(&self) -> bool {
        let there = self.has_item_or_end();
        if !there {
            self.signals.items.arm(&self.header.items_polled);
        }
        there
    }

    /// The same for room, or the end, of a queue with a bound.
    #[cfg(feature = "tokio")]
    pub(super) fn arm_room(&self) -> bool {
        let there = !self.header.is_full() || self.is_closed();
        if let (false, Some(room)) = (there, &self.signals.room) {
            room.arm(&self.header.room_polled);
        }
        there
    }

    #[inline]
    fn announce_items(&self) {
        self.signals.items.announce(&self.header.items_polled);
    }

    #[inline]
    fn announce_room(&self) {
        if let Some(room) = &self.signals.room {
            room.announce(&self.header.room_polled);
        }
    }

    /// Tells whether an item can be put in.
    #[inline]
    fn is_open_and_has_room(&self) -> Result<bool, Error> {
        if self.is_closed() {
            return Err(Kind::QueueClosed.into());
        }
        Ok(!self.header.is_full())
    }

    /// Makes the ring large enough for one more record.
    #[inline]
    fn reserve(&mut self, len: usize) -> Result<u32, Error> {
        let Ok(short) = u32::try_from(len) else { return Err(Kind::TooLong { len }.into()) };
        while self.tail() + size(short) - self.head() > self.capacity() {
            self.double()?;
        }
        Ok(short)
    }

    /// Adds a record for which there is room.
    #[inline]
    fn append(&mut self, kind: u32, len: u32, item: &[u8]) {
        let tail = self.tail();
        let record = u64::from(kind) << 32 | u64::from(len);
        self.write(tail, &record.to_le_bytes());
        self.write(tail + RECORD, item);
        wake_sleeper(&self.header.consumer_sleeps, &self.header.items);
        self.announce_items();
        compiler_fence(SeqCst);
        let tail = tail + size(len);
        if self.header.is_joinable() {
            self.commit_unfinished(tail);
        } else {
            self.commit(tail);
        }
    }

    #[inline]
    fn commit(&self, tail: u64) {
        self.header.tail.store(tail, Release);
        self.count_to(self.header.count.load(Relaxed).wrapping_add(1));
    }

    /// With the lock, nobody else changes the count in between, which needs no locked instruction.
    #[inline]
    fn count_to(&self, count: u64) {
        self.header.count.store(count, Relaxed);
    }

    /// Notes what the number of unfinished items will be once the tail is there, so that one store
    /// commits both.
    fn commit_unfinished(&self, tail: u64) {
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

    /// Marks an item as done.
    pub(super) fn task_done(&mut self) -> Result<(), Error> {
        let Header { unfinished, rounds, joiner_sleeps, done, done_polled, .. } = self.header;
        match unfinished.load(Relaxed) {
            0 => return Err(Kind::NothingUnfinished.into()),
            1 => {
                wake_sleeper(joiner_sleeps, done);
                if let Some(signal) = &self.signals.done {
                    signal.announce(done_polled);
                }
                compiler_fence(SeqCst);
                unfinished.store(0, Relaxed);
                compiler_fence(SeqCst);
                rounds.fetch_add(1, Relaxed);
            }
            many => unfinished.store(many - 1, Relaxed),
        }
        Ok(())
    }

    pub(super) fn unfinished(&self) -> u64 {
        self.header.unfinished.load(Relaxed)
    }

    /// Tells whether all items were done at a moment since the first call, though there may be new ones.
    pub(super) fn were_done_since(&self, at_first: &mut Option<u64>) -> bool {
        let rounds = self.header.rounds.load(Relaxed);
        *at_first.get_or_insert(rounds) != rounds || self.unfinished() == 0
    }

    /// The same. If not, the signal tells when they are.
    #[cfg(feature = "tokio")]
    pub(super) fn arm_done(&self, at_first: &mut Option<u64>) -> bool {
        let were = self.were_done_since(at_first);
        if !were {
            // It stays readable for those that have not looked yet. It is waited for by its edges.
            self.header.done_polled.store(1, Relaxed);
        }
        were
    }

    #[inline]
    fn take_first(&mut self, len: u32) {
        wake_sleeper(&self.header.producer_sleeps, &self.header.room);
        self.announce_room();
        compiler_fence(SeqCst);
        self.header.head.store(self.head() + size(len), Release);
        self.count_to(self.header.count.load(Relaxed).wrapping_sub(1));
        if self.head() == self.tail() && self.capacity() > KEPT {
            self.shrink();
        }
    }

    /// Gives memory back. Where there is no record, any capacity is right.
    #[cold]
    fn shrink(&mut self) {
        compiler_fence(SeqCst);
        self.set_capacity(SMALLEST as u64);
        let all = SMALLEST..self.guard.bytes().len();
        // What could not be given back is used again.
        let _kept = self.guard.discard(all);
    }

    /// Doubles the capacity. A byte at `position` then lies where it lay, or one old capacity further.
    #[cold]
    fn double(&mut self) -> Result<(), Error> {
        let old = self.capacity();
        let Ok(old_len) = usize::try_from(old) else {
            return Err(Kind::Corrupt("its capacity overflows").into());
        };
        self.guard.grow(old_len * 2)?;
        let (head, tail) = (self.head(), self.tail());
        let bytes = self.guard.bytes_mut();
        // What is in use is at most one old capacity long, in up to two pieces.
        let mut position = head;
        while position < tail {
            let end = tail.min((position / old + 1) * old);
            let (from, to) = ((position % old) as usize, (position % (old * 2)) as usize);
            if from != to {
                bytes.copy_within(from..from + (end - position) as usize, to);
            }
            position = end;
        }
        self.set_capacity(old * 2);
        Ok(())
    }

    /// What is written after it may lie where something else lay before it.
    fn set_capacity(&self, capacity: u64) {
        compiler_fence(SeqCst);
        self.header.capacity.store(capacity, Release);
        compiler_fence(SeqCst);
    }

    /// Empties the socket if the dead may have left packets in it and nothing else is there.
    fn clear_strays(&self) {
        let Header { strays, markers, .. } = self.header;
        if strays.load(Relaxed) != 0 && markers.load(Relaxed) == 0 && self.side.clear().is_ok() {
            strays.store(0, Relaxed);
        }
    }

    #[inline]
    fn record(&self, position: u64) -> (u32, u32) {
        let mut record = [0; RECORD as usize];
        // As every record begins at a multiple of its length, it lies in one piece.
        match *self.pieces(position, record.len())[0] {
            [a, b, c, d, e, f, g, h] => record = [a, b, c, d, e, f, g, h],
            _ => self.read(position, &mut record),
        }
        let record = u64::from_le_bytes(record);
        (record as u32, (record >> 32) as u32)
    }

    #[inline]
    fn read(&self, position: u64, into: &mut [u8]) {
        let [first, second] = self.pieces(position, into.len());
        let (before, after) = into.split_at_mut(first.len());
        before.copy_from_slice(first);
        after.copy_from_slice(second);
    }

    /// Where in the ring so many bytes lie, of which none are more than it has.
    #[inline]
    fn pieces(&self, position: u64, len: usize) -> [&[u8]; 2] {
        let ring = &self.guard.bytes()[..self.capacity() as usize];
        let start = position as usize & (ring.len() - 1);
        let first = len.min(ring.len() - start);
        [&ring[start..start + first], &ring[..len - first]]
    }

    #[inline]
    fn write(&mut self, position: u64, from: &[u8]) {
        let capacity = self.capacity() as usize;
        let ring = &mut self.guard.bytes_mut()[..capacity];
        let start = position as usize & (capacity - 1);
        if let Some(room) = ring.get_mut(start..start + from.len()) {
            room.copy_from_slice(from);
            return;
        }
        let (before, after) = from.split_at(from.len().min(capacity - start));
        ring[start..].copy_from_slice(before);
        ring[..after.len()].copy_from_slice(after);
    }

    #[inline]
    fn head(&self) -> u64 {
        self.header.head.load(Relaxed)
    }

    #[inline]
    fn tail(&self) -> u64 {
        self.header.tail.load(Relaxed)
    }

    #[inline]
    fn capacity(&self) -> u64 {
        self.header.capacity.load(Relaxed)
    }
}

/// How much of the log an item takes.
#[inline]
fn size(len: u32) -> u64 {
    RECORD + u64::from(len).next_multiple_of(ALIGN)
}

#[inline]
fn wake_sleeper(sleeps: &AtomicU32, event: &AtomicU32) {
    if sleeps.load(Relaxed) != 0 {
        // In this order: killed in between, the next one wakes once more for nothing.
        wake(event);
        compiler_fence(SeqCst);
        sleeps.store(0, Relaxed);
    }
}

/// Changes the event and wakes who sleeps on it, which is one at most: the holder of the gate.
#[cold]
fn wake(event: &AtomicU32) {
    if store_and_wake(event, Store::Add(1), 1).is_err() {
        // A kernel without the combined call; killed in between, the sleeper is woken by the next.
        event.fetch_add(1, SeqCst);
        multiproc_os::futex::wake(event, 1);
    }
}
