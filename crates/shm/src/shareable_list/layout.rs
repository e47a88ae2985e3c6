//! Where the items are: the layout of `multiprocessing/shared_memory.py` in CPython.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | N, the number of items |
//! | 8 (N + 1) | where each slot starts in the data, and the last one ends |
//! | K | the data: a slot for each item |
//! | 8 N | the format of each item, as text |
//! | N | how each item is turned into a value |

use multiproc_os::memory::Mapping;

use super::item::Item;
use super::slot::{Format, Slot, WORD};
use crate::error::Kind;

/// Python takes a format of eight letters at most, the last of which is an `s`.
const MOST: usize = 9_999_999;

/// Where the items of one list are, which stays the same.
#[derive(Debug)]
pub(super) struct Layout {
    /// In bytes from the start of the data: multiples of eight, ascending, one more than items.
    offsets: Vec<usize>,
}

impl Layout {
    /// Lays a list out, and gives its bytes.
    pub(super) fn of(items: impl IntoIterator<Item = Item>) -> Result<(Self, Vec<u8>), Kind> {
        let mut offsets = vec![0];
        let (mut data, mut formats, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        for (index, item) in items.into_iter().enumerate() {
            let len = item.bytes().map_or(0, <[u8]>::len);
            let room = WORD * (len / WORD + 1);
            if room > MOST {
                return Err(Kind::ItemTooLong { index, len, room: MOST / WORD * WORD - 1 });
            }
            let (format, value) = Format::of(&item, room);
            data.extend_from_slice(&value);
            formats.extend_from_slice(&format.text());
            codes.push(format.code());
            offsets.push(data.len());
        }
        let layout = Layout { offsets };
        let words = [layout.len()].into_iter().chain(layout.offsets.iter().copied());
        let mut bytes: Vec<u8> = words.flat_map(|word| (word as u64).to_ne_bytes()).collect();
        bytes.extend([data, formats, codes].into_iter().flatten());
        Ok((layout, bytes))
    }

    /// Finds the items of a list that is in memory. Whoever wrote it may have written anything.
    pub(super) fn read(mapping: &Mapping) -> Result<Self, Kind> {
        let foreign = |why| Kind::NoList(why);
        let word = |index: usize| {
            let word = mapping.load(index.checked_mul(WORD)?)?;
            usize::try_from(word).ok()
        };
        let len = word(0).ok_or(foreign("its length is absurd"))?;
        // Before memory is taken for the offsets.
        if len >= mapping.len() / WORD {
            return Err(foreign("it is too short for its length"));
        }
        let offsets: Option<Vec<usize>> = (1..=len + 1).map(word).collect();
        let offsets = offsets.ok_or(foreign("it is too short for its length"))?;
        let ascending = |pair: &[usize]| {
            pair[1].is_multiple_of(WORD) && pair[1].checked_sub(pair[0]) >= Some(WORD)
        };
        if offsets[0] != 0 || !offsets.windows(2).all(ascending) {
            return Err(foreign("its items are not where they can be"));
        }
        let layout = Layout { offsets };
        // One that is being written has a length of zero, and more bytes than that takes.
        match layout.size() {
            Some(size) if size == mapping.len() => Ok(layout),
            _ => Err(foreign("it is not as long as its items")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The room of an item. `None` if there are not so many.
    pub(super) fn slot(&self, index: usize) -> Option<Slot> {
        if index >= self.len() {
            return None;
        }
        let (data, formats) = (self.data(), self.formats()?);
        Some(Slot {
            at: data + self.offsets[index],
            len: self.offsets[index + 1] - self.offsets[index],
            format: formats + WORD * index,
            code: formats + WORD * self.len() + index,
        })
    }

    fn data(&self) -> usize {
        WORD * (self.len() + 2)
    }

    fn formats(&self) -> Option<usize> {
        self.data().checked_add(self.offsets[self.len()])
    }

    fn size(&self) -> Option<usize> {
        self.formats()?.checked_add((WORD + 1) * self.len())
    }
}
