//! What takes both locks: to grow and to shrink, items with handles, the end, to go to sleep, and
//! to repair what the dead have left.

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::compiler_fence;

use multiproc_sync::LockGuard;
use multiproc_wire::Message;

use super::header::Header;
use super::log::{Alone, Log, MARKER, size, wake, wake_sleeper};
use super::ring::{self, RECORD, SMALLEST};
use super::{Shared, Taken};
use crate::error::{Error, Kind};

/// A queue that runs empty keeps up to this much memory.
const KEPT: u64 = 4 << 20;

/// The log, with both locks held.
pub(super) struct Whole<'a> {
    shared: &'a Shared,
    log: Log<'a>,
    _putters: LockGuard<'a>,
    _getters: LockGuard<'a>,
}

impl<'a> Whole<'a> {
    /// In this order, whoever takes both.
    pub(super) fn open(shared: &'a Shared) -> Result<Self, Error> {
        let Shared { putters, getters, .. } = shared;
        let _putters = putters.lock_anyway().map_err(Kind::Lock)?;
        let _getters = getters.lock_anyway().map_err(Kind::Lock)?;
        let mut whole = Whole { shared, log: Log::of(shared)?, _putters, _getters };
        if putters.is_poisoned() || getters.is_poisoned() {
            whole.repair()?;
            putters.clear_poison();
            getters.clear_poison();
        }
        Ok(whole)
    }

    /// A holder of a lock died: what it had committed stands, but for what follows from that.
    #[cold]
    fn repair(&mut self) -> Result<(), Error> {
        let Header { head, tail, put, got, markers, strays, items, room, done, .. } = self.header();
        let (mut count, mut marked) = (0, 0);
        let (mut position, tail) = (head.load(Relaxed), tail.load(Relaxed));
        while position < tail {
            let (len, kind) = self.log.ring.record(position)?;
            position += size(len);
            count += 1;
            marked += u64::from(kind == MARKER);
        }
        if position != tail {
            return Err(Kind::Corrupt("its records do not end where they should").into());
        }
        put.store(got.load(Relaxed).wrapping_add(count), Relaxed);
        markers.store(marked, Relaxed);
        strays.store(1, Relaxed);
        self.clear_strays();
        self.repair_unfinished();
        self.give_memory_back()?;
        // Whoever sleeps looks again; it may not have been woken.
        wake(items);
        wake(room);
        wake(done);
        Ok(())
    }

    fn repair_unfinished(&self) {
        let Header { tail, unfinished, next_unfinished, next_tail, rounds, .. } = self.header();
        if next_tail.load(Relaxed) == tail.load(Relaxed) {
            unfinished.store(next_unfinished.load(Relaxed), Relaxed);
        }
        compiler_fence(SeqCst);
        next_tail.store(0, Relaxed);
        if unfinished.load(Relaxed) == 0 {
            // It may be that nobody has counted that. One too many lets go whoever may go anyway.
            rounds.fetch_add(1, Relaxed);
        }
    }

    /// Puts an item in that has no handles. `None` if the queue is full.
    pub(super) fn put(&mut self, item: &[u8]) -> Result<Option<()>, Error> {
        loop {
            match self.log.put(item)? {
                Alone::Done(()) => return Ok(Some(())),
                Alone::Nothing => return Ok(None),
                Alone::NeedsBoth => self.double()?,
            }
        }
    }

    /// Puts an item in that has handles. `None` if the queue is full, `Some(false)` if only the
    /// socket is.
    pub(super) fn put_with_handles(&mut self, item: &Message) -> Result<Option<bool>, Error> {
        if !self.log.is_open_and_has_room()? {
            return Ok(None);
        }
        self.clear_strays();
        // A number is used up even if its packet is never marked.
        let number = self.header().last_number.fetch_add(1, Relaxed) + 1;
        compiler_fence(SeqCst);
        let marker = number.to_le_bytes();
        // First: nothing but death comes between the packet and its marker.
        let len = loop {
            match self.log.room_for(marker.len())? {
                Some(len) => break len,
                None => self.double()?,
            }
        };
        if !self.shared.side.send(number, item)? {
            return Ok(Some(false));
        }
        self.log.append(MARKER, len, &marker)?;
        self.header().markers.fetch_add(1, Relaxed);
        Ok(Some(true))
    }

    /// Takes the first item; one without handles is copied to `buffer`. `None` if there is none.
    pub(super) fn get(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Taken>, Error> {
        match self.log.get(buffer)? {
            Alone::Done(len) => {
                self.give_memory_back()?;
                return Ok(Some(Taken::Bytes(len)));
            }
            Alone::Nothing => return Ok(None),
            Alone::NeedsBoth => {}
        }
        let head = self.header().head.load(Relaxed);
        let (len, _) = self.log.ring.record(head)?;
        let mut number = [0; 8];
        if len as usize != number.len() {
            return Err(Kind::Corrupt("a record is of no known kind").into());
        }
        self.log.ring.read(head + RECORD, &mut number)?;
        self.log.take_first(head, len);
        self.header().markers.fetch_sub(1, Relaxed);
        let item = self.shared.side.receive(u64::from_le_bytes(number))?;
        self.clear_strays();
        self.give_memory_back()?;
        match item {
            Some(item) => Ok(Some(Taken::WithHandles(item))),
            None => Err(Kind::Corrupt("an item with handles is gone").into()),
        }
    }

    pub(super) fn close(&self) {
        // Woken first, they wait for the locks; killed in between, they find the queue open.
        wake(&self.header().items);
        wake(&self.header().room);
        self.log.announce_items();
        self.log.announce_room();
        compiler_fence(SeqCst);
        self.header().closed.store(1, Release);
    }

    /// Tells whether there is an item or the end. If not, the signal is readable when there is.
    pub(super) fn arm_items(&self) -> bool {
        let there = self.header().has_item_or_end();
        if !there {
            self.shared.signals.items.arm(&self.header().items_polled);
        }
        there
    }

    /// The same for room, or the end, of a queue with a bound.
    #[cfg(feature = "tokio")]
    pub(super) fn arm_room(&self) -> bool {
        let there = !self.header().is_full() || self.header().is_closed();
        if let (false, Some(room)) = (there, &self.shared.signals.room) {
            room.arm(&self.header().room_polled);
        }
        there
    }

    /// Marks an item as done.
    pub(super) fn task_done(&mut self) -> Result<(), Error> {
        let Header { unfinished, rounds, joiner_sleeps, done, done_polled, .. } = self.header();
        match unfinished.load(Relaxed) {
            0 => return Err(Kind::NothingUnfinished.into()),
            1 => {
                wake_sleeper(joiner_sleeps, done);
                if let Some(signal) = &self.shared.signals.done {
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
        self.header().unfinished.load(Relaxed)
    }

    /// Tells whether all items were done at a moment since the first call, though there may be new
    /// ones.
    pub(super) fn were_done_since(&self, at_first: &mut Option<u64>) -> bool {
        let rounds = self.header().rounds.load(Relaxed);
        *at_first.get_or_insert(rounds) != rounds || self.unfinished() == 0
    }

    /// The same. If not, the signal tells when they are.
    #[cfg(feature = "tokio")]
    pub(super) fn arm_done(&self, at_first: &mut Option<u64>) -> bool {
        let were = self.were_done_since(at_first);
        if !were {
            // It stays readable for those that have not looked yet. It is waited for by its edges.
            self.header().done_polled.store(1, Relaxed);
        }
        were
    }

    /// Tells whether a ring of this capacity, which has run empty, is worth giving memory back.
    #[inline]
    pub(super) fn is_large(capacity: u64) -> bool {
        capacity > KEPT
    }

    /// Gives memory back if there is no item. Where there is no record, any capacity is right.
    pub(super) fn give_memory_back(&mut self) -> Result<(), Error> {
        let Header { head, tail, .. } = self.header();
        if head.load(Relaxed) != tail.load(Relaxed) || !Self::is_large(self.log.ring.capacity()) {
            return Ok(());
        }
        self.set_capacity(SMALLEST)?;
        // What could not be given back is used again.
        let _kept = ring::shrink(&self.shared.region);
        Ok(())
    }

    /// Doubles the capacity. A byte at `position` then lies where it lay, or one old capacity
    /// further.
    #[cold]
    fn double(&mut self) -> Result<(), Error> {
        let Shared { region, rings, .. } = self.shared;
        let Header { head, tail, .. } = self.header();
        let capacity = self.log.ring.capacity() * 2;
        ring::grow(region, capacity)?;
        rings.of(region, capacity)?.spread(head.load(Relaxed), tail.load(Relaxed))?;
        self.set_capacity(capacity)
    }

    /// What is written after it may lie where something else lay before it.
    fn set_capacity(&mut self, capacity: u64) -> Result<(), Error> {
        compiler_fence(SeqCst);
        self.header().capacity.store(capacity, Release);
        compiler_fence(SeqCst);
        self.log = Log::of(self.shared)?;
        Ok(())
    }

    /// Empties the socket if the dead may have left packets in it and nothing else is there.
    fn clear_strays(&self) {
        let Header { strays, markers, .. } = self.header();
        if strays.load(Relaxed) != 0
            && markers.load(Relaxed) == 0
            && self.shared.side.clear().is_ok()
        {
            strays.store(0, Relaxed);
        }
    }

    #[inline]
    fn header(&self) -> &'a Header {
        self.log.header
    }
}
