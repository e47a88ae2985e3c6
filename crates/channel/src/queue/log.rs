//! The records of a queue, behind its lock.

use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{Store, store_and_wake};
use multiproc_sync::region::{Region, RegionGuard};
use multiproc_wire::{Endpoint, Message, SharedFd};

use super::header::Header;
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
pub(super) enum Item {
    Bytes(Vec<u8>),
    WithHandles(Message),
}

/// The log, with the lock held.
pub(super) struct Log<'a> {
    guard: RegionGuard<'a, Header>,
    header: &'a Header,
}

impl<'a> Log<'a> {
    pub(super) fn open(region: &'a Region<Header>) -> Result<Self, Error> {
        let guard = region.lock_anyway().map_err(Kind::Lock)?;
        let mut log = Log { guard, header: region.header() };
        if region.is_poisoned() {
            log.repair()?;
            region.clear_poison();
        }
        if (log.guard.bytes().len() as u64) < log.capacity() || !log.capacity().is_power_of_two() {
            return Err(Kind::Corrupt("its capacity is not that of its memory").into());
        }
        Ok(log)
    }

    /// The holder of the lock died: what it had committed stands, but for what follows from that.
    fn repair(&mut self) -> Result<(), Error> {
        let mut count = 0;
        let (mut position, tail) = (self.head(), self.tail());
        while position < tail {
            let (len, _) = self.record(position);
            position += size(len.into());
            count += 1;
        }
        if position != tail {
            return Err(Kind::Corrupt("its records do not end where they should").into());
        }
        self.header.count.store(count, Relaxed);
        // Whoever sleeps looks again; it may not have been woken.
        wake(&self.header.items);
        wake(&self.header.room);
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.header.is_closed()
    }

    /// Puts an item in that has no handles. `None` if there is no room.
    pub(super) fn put(&mut self, item: &[u8]) -> Result<Option<()>, Error> {
        if self.is_closed() {
            return Err(Kind::QueueClosed.into());
        }
        if self.header.is_full() {
            return Ok(None);
        }
        self.append(PLAIN, item)?;
        Ok(Some(()))
    }

    /// Puts an item in that starts with its number, filled in here. `None` if there is no room, here or
    /// in the socket.
    pub(super) fn put_with_handles(
        &mut self,
        sender: &Endpoint<SharedFd>,
        receiver: &Endpoint<SharedFd>,
        item: &mut Message,
    ) -> Result<Option<()>, Error> {
        if self.is_closed() {
            return Err(Kind::QueueClosed.into());
        }
        if self.header.is_full() {
            return Ok(None);
        }
        // A number is used up even if its packet is never marked.
        let number = self.header.last_number.fetch_add(1, Relaxed) + 1;
        compiler_fence(SeqCst);
        item.bytes_mut()[..8].copy_from_slice(&number.to_le_bytes());
        if !sender.send(item, Deadline::now())? {
            if !self.has_marker() {
                // All that fills the socket was left by producers that were killed.
                while receiver.recv_with(Deadline::now(), |_| ())?.is_some() {}
            }
            return Ok(None);
        }
        self.append(MARKER, &number.to_le_bytes())?;
        Ok(Some(()))
    }

    /// Takes the first item. `None` if there is none.
    pub(super) fn get(&mut self, receiver: &Endpoint<SharedFd>) -> Result<Option<Item>, Error> {
        while self.head() != self.tail() {
            let (len, kind) = self.record(self.head());
            let mut bytes = vec![0; len as usize];
            self.read(self.head() + RECORD, &mut bytes);
            self.take_first(len.into());
            match (kind, bytes.first_chunk()) {
                (PLAIN, _) => return Ok(Some(Item::Bytes(bytes))),
                (MARKER, Some(number)) => {
                    if let Some(item) = receive(receiver, u64::from_le_bytes(*number))? {
                        return Ok(Some(Item::WithHandles(item)));
                    }
                    // A consumer that was killed had taken it.
                }
                _ => return Err(Kind::Corrupt("a record is of no known kind").into()),
            }
        }
        if self.is_closed() {
            return Err(Kind::QueueClosed.into());
        }
        Ok(None)
    }

    pub(super) fn close(&self) {
        // Woken first, they wait for the lock; killed in between, they find the queue open.
        wake(&self.header.items);
        wake(&self.header.room);
        self.header.closed.store(1, Release);
    }

    fn append(&mut self, kind: u32, item: &[u8]) -> Result<(), Error> {
        let Ok(len) = u32::try_from(item.len()) else {
            return Err(Kind::TooLong { len: item.len() }.into());
        };
        let tail = self.tail();
        let end = tail + size(len.into());
        while end - self.head() > self.capacity() {
            self.double()?;
        }
        self.write(tail, &len.to_le_bytes());
        self.write(tail + 4, &kind.to_le_bytes());
        self.write(tail + RECORD, item);
        wake_sleeper(&self.header.consumer_sleeps, &self.header.items);
        compiler_fence(SeqCst);
        self.header.tail.store(end, Release);
        self.header.count.fetch_add(1, Relaxed);
        Ok(())
    }

    fn take_first(&mut self, len: u64) {
        wake_sleeper(&self.header.producer_sleeps, &self.header.room);
        compiler_fence(SeqCst);
        self.header.head.store(self.head() + size(len), Release);
        self.header.count.fetch_sub(1, Relaxed);
        if self.head() == self.tail() && self.capacity() > KEPT {
            self.shrink();
        }
    }

    /// Gives memory back. Where there is no record, any capacity is right.
    fn shrink(&mut self) {
        self.header.capacity.store(SMALLEST as u64, Relaxed);
        let all = SMALLEST..self.guard.bytes().len();
        // What could not be given back is used again.
        let _kept = self.guard.discard(all);
    }

    /// Doubles the capacity. A byte at `position` then lies where it lay, or one old capacity further.
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
        compiler_fence(SeqCst);
        self.header.capacity.store(old * 2, Release);
        Ok(())
    }

    fn has_marker(&self) -> bool {
        let mut position = self.head();
        while position < self.tail() {
            let (len, kind) = self.record(position);
            if kind == MARKER {
                return true;
            }
            position += size(len.into());
        }
        false
    }

    fn record(&self, position: u64) -> (u32, u32) {
        let mut words = [[0; 4]; 2];
        self.read(position, words.as_flattened_mut());
        (u32::from_le_bytes(words[0]), u32::from_le_bytes(words[1]))
    }

    fn read(&self, position: u64, into: &mut [u8]) {
        let ring = &self.guard.bytes()[..self.capacity() as usize];
        let start = (position % self.capacity()) as usize;
        let first = into.len().min(ring.len() - start);
        let (before, after) = into.split_at_mut(first);
        before.copy_from_slice(&ring[start..start + first]);
        let rest = after.len().min(ring.len());
        after[..rest].copy_from_slice(&ring[..rest]);
    }

    fn write(&mut self, position: u64, from: &[u8]) {
        let capacity = self.capacity();
        let ring = &mut self.guard.bytes_mut()[..capacity as usize];
        let start = (position % capacity) as usize;
        let first = from.len().min(ring.len() - start);
        let (before, after) = from.split_at(first);
        ring[start..start + first].copy_from_slice(before);
        ring[..after.len()].copy_from_slice(after);
    }

    fn head(&self) -> u64 {
        self.header.head.load(Relaxed)
    }

    fn tail(&self) -> u64 {
        self.header.tail.load(Relaxed)
    }

    fn capacity(&self) -> u64 {
        self.header.capacity.load(Relaxed)
    }
}

/// How much of the log an item takes.
fn size(len: u64) -> u64 {
    RECORD + len.next_multiple_of(ALIGN)
}

/// Receives the item with this number. `None` if it is gone.
fn receive(receiver: &Endpoint<SharedFd>, number: u64) -> Result<Option<Message>, Error> {
    loop {
        let received = receiver.recv_with(Deadline::now(), |mut reader| {
            let found: [u8; 8] = reader.read()?;
            Ok::<_, multiproc_wire::Error>((u64::from_le_bytes(found), reader.into_message()?))
        })?;
        match received.transpose()? {
            None => return Ok(None),
            Some((found, item)) if found == number => return Ok(Some(item)),
            // One without a marker.
            Some((found, _)) if found < number => {}
            Some(_) => return Err(Kind::Corrupt("items with handles are out of order").into()),
        }
    }
}

fn wake_sleeper(sleeps: &AtomicU32, event: &AtomicU32) {
    if sleeps.load(Relaxed) != 0 {
        // In this order: killed in between, the next one wakes once more for nothing.
        wake(event);
        compiler_fence(SeqCst);
        sleeps.store(0, Relaxed);
    }
}

/// Changes the event and wakes who sleeps on it, which is one at most: the holder of the gate.
fn wake(event: &AtomicU32) {
    if store_and_wake(event, Store::Add(1), 1).is_err() {
        // A kernel without the combined call; killed in between, the sleeper is woken by the next.
        event.fetch_add(1, SeqCst);
        multiproc_os::futex::wake(event, 1);
    }
}
