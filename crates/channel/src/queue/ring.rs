//! The memory of a queue's records.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use multiproc_os::memory::{Mapping, Memory};
use multiproc_sync::region::Region;

use super::header::Header;
use crate::error::{Error, Kind};

/// The capacity that a ring starts with, and returns to.
pub(super) const SMALLEST: u64 = 1 << SHIFT;
const SHIFT: u32 = 16;
/// As many capacities as an address space could hold.
const SIZES: usize = 32;

/// Where the ring starts: behind the header of the region, in whose memory it is.
const START: u64 = 64 << 10;
const _: () = assert!(size_of::<Header>() + 1024 <= START as usize);

/// What is in front of each item: its length and its kind.
pub(super) const RECORD: u64 = 8;
const WORD: usize = 8;

/// A queue's ring, as this process has mapped it: once for each capacity that it has seen. A
/// mapping is kept as long as the queue, since another thread may be at work there with the other
/// of the locks.
pub(super) struct Rings {
    maps: [OnceLock<Mapping>; SIZES],
}

/// The ring with one capacity, for whoever holds a lock of the queue. Positions count from the
/// queue's beginning.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    mapping: &'a Mapping,
}

impl Rings {
    pub(super) fn new() -> Self {
        Rings { maps: [const { OnceLock::new() }; SIZES] }
    }

    #[inline]
    pub(super) fn of(&self, region: &Region<Header>, capacity: u64) -> Result<Ring<'_>, Error> {
        let index = (capacity.trailing_zeros().wrapping_sub(SHIFT)) as usize;
        let mapping = match self.maps.get(index).and_then(OnceLock::get) {
            Some(mapping) if mapping.len() as u64 == capacity => mapping,
            _ => self.map(region, index, capacity)?,
        };
        Ok(Ring { mapping })
    }

    #[cold]
    fn map(&self, region: &Region<Header>, index: usize, capacity: u64) -> Result<&Mapping, Error> {
        let (Some(map), true, Ok(len)) =
            (self.maps.get(index), capacity.is_power_of_two(), usize::try_from(capacity))
        else {
            return Err(Kind::Corrupt("its capacity is none that it could have").into());
        };
        let mapping = memory(region).and_then(|memory| memory.map(START, len))?;
        Ok(map.get_or_init(|| mapping))
    }
}

/// Makes the memory long enough for a ring of this capacity.
pub(super) fn grow(region: &Region<Header>, capacity: u64) -> Result<(), Error> {
    let end = START.checked_add(capacity).ok_or(Kind::Corrupt("its capacity overflows"))?;
    Ok(memory(region)?.grow(end)?)
}

/// Gives the memory back that a ring of the smallest capacity does not need.
pub(super) fn shrink(region: &Region<Header>) -> Result<(), Error> {
    let memory = memory(region)?;
    let start = START + SMALLEST;
    Ok(memory.discard(start, memory.len()?.saturating_sub(start))?)
}

fn memory(region: &Region<Header>) -> io::Result<Memory<BorrowedFd<'_>>> {
    Memory::from_fd(region.as_fd())
}

impl Ring<'_> {
    #[inline]
    pub(super) fn capacity(self) -> u64 {
        self.mapping.len() as u64
    }

    /// The length and the kind of the record there.
    #[inline]
    pub(super) fn record(self, position: u64) -> Result<(u32, u32), Error> {
        let record = self.mapping.load(self.at(position)).ok_or_else(corrupt)?;
        Ok((record as u32, (record >> 32) as u32))
    }

    /// Writes a record, for which there is room.
    #[inline]
    pub(super) fn write(
        self,
        position: u64,
        kind: u32,
        len: u32,
        item: &[u8],
    ) -> Result<(), Error> {
        let record = u64::from(kind) << 32 | u64::from(len);
        self.mapping.store(self.at(position), record).ok_or_else(corrupt)?;
        // The rest of its last word is padding, and need not be kept.
        let (words, rest) = item.split_at(item.len() / WORD * WORD);
        self.write_words(position + RECORD, words)?;
        if !rest.is_empty() {
            let mut word = [0; WORD];
            word[..rest.len()].copy_from_slice(rest);
            let at = self.at(position + RECORD + words.len() as u64);
            self.mapping.store(at, u64::from_ne_bytes(word)).ok_or_else(corrupt)?;
        }
        Ok(())
    }

    #[inline]
    fn write_words(self, position: u64, words: &[u8]) -> Result<(), Error> {
        let start = self.at(position);
        if self.mapping.write(start, words).is_some() {
            return Ok(());
        }
        let (before, after) =
            words.split_at_checked(self.mapping.len() - start).ok_or_else(corrupt)?;
        self.mapping.write(start, before).ok_or_else(corrupt)?;
        self.mapping.write(0, after).ok_or_else(corrupt)
    }

    #[inline]
    pub(super) fn read(self, position: u64, into: &mut [u8]) -> Result<(), Error> {
        let start = self.at(position);
        if self.mapping.read(start, into).is_some() {
            return Ok(());
        }
        let (before, after) =
            into.split_at_mut_checked(self.mapping.len() - start).ok_or_else(corrupt)?;
        self.mapping.read(start, before).ok_or_else(corrupt)?;
        self.mapping.read(0, after).ok_or_else(corrupt)
    }

    /// Copies what lies between two positions from where it lies in a ring of half the capacity, of
    /// which it takes no more than there is, to where it lies in this one.
    pub(super) fn spread(self, mut position: u64, end: u64) -> Result<(), Error> {
        const MOST: u64 = 64 << 10;
        let old = self.capacity() / 2;
        let mut buffer = Vec::new();
        while position < end {
            let from = position % old;
            let len = (end - position).min(old - from).min(MOST);
            if from as usize != self.at(position) {
                buffer.resize(len as usize, 0);
                self.mapping.read(from as usize, &mut buffer).ok_or_else(corrupt)?;
                self.write_words(position, &buffer)?;
            }
            position += len;
        }
        Ok(())
    }

    #[inline]
    fn at(self, position: u64) -> usize {
        position as usize & (self.mapping.len() - 1)
    }
}

#[cold]
fn corrupt() -> Error {
    Kind::Corrupt("a record is not within its memory").into()
}
