#![allow(unsafe_code)] // Copies from and to memory that others change meanwhile.

use std::slice;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Mapping;

const WORD: usize = size_of::<u64>();

/// Whatever is read and written here is whole aligned words, by atomic operations of one size: others
/// may do the same at the same time, in this process too. A part of a word is changed by comparing
/// and swapping, which leaves alone what others write beside it.
impl Mapping {
    /// Copies bytes out of it. `None` if they are not all within it.
    ///
    /// Each aligned word of eight bytes is of one moment, but not each of the same.
    #[must_use = "nothing was read if it is `None`"]
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Option<()> {
        let (words, skew) = self.words(offset, into.len())?;
        let (head, rest) = into.split_at_mut(Self::head(skew, into.len()));
        let (chunks, tail) = rest.as_chunks_mut::<WORD>();
        let (first, words) = words.split_at(usize::from(!head.is_empty()));
        let (whole, last) = words.split_at(chunks.len());
        if let [word] = first {
            let word = word.load(Relaxed).to_ne_bytes();
            head.copy_from_slice(&word[skew..skew + head.len()]);
        }
        for (chunk, word) in chunks.iter_mut().zip(whole) {
            *chunk = word.load(Relaxed).to_ne_bytes();
        }
        if let [word] = last {
            let word = word.load(Relaxed).to_ne_bytes();
            tail.copy_from_slice(&word[..tail.len()]);
        }
        Some(())
    }

    /// Copies bytes into it. `None`, and nothing is written, if they are not all within it.
    ///
    /// Others may see some of them before others, but no part of an aligned word of eight bytes.
    #[must_use = "nothing was written if it is `None`"]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        let (words, skew) = self.words(offset, bytes.len())?;
        let (head, rest) = bytes.split_at(Self::head(skew, bytes.len()));
        let (chunks, tail) = rest.as_chunks::<WORD>();
        let (first, words) = words.split_at(usize::from(!head.is_empty()));
        let (whole, last) = words.split_at(chunks.len());
        if let [word] = first {
            change(word, skew, head);
        }
        for (chunk, word) in chunks.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*chunk), Relaxed);
        }
        if let [word] = last {
            change(word, 0, tail);
        }
        Some(())
    }

    /// Reads an aligned word; whoever wrote it has also written what it wrote before. `None` if it is
    /// not aligned, or not within.
    pub fn load(&self, offset: usize) -> Option<u64> {
        Some(self.word(offset)?.load(Acquire))
    }

    /// Writes an aligned word; whoever reads it also sees what was written before. `None` if it is not
    /// aligned, or not within.
    #[must_use = "nothing was written if it is `None`"]
    pub fn store(&self, offset: usize, word: u64) -> Option<()> {
        self.word(offset)?.store(word, Release);
        Some(())
    }

    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let (words, skew) = self.words(offset, WORD)?;
        words.first().filter(|_| skew == 0)
    }

    /// How many of the bytes are in a word that starts before them.
    fn head(skew: usize, len: usize) -> usize {
        if skew == 0 { 0 } else { len.min(WORD - skew) }
    }

    /// The words that cover the bytes, and how far the first byte is into the first word.
    fn words(&self, offset: usize, len: usize) -> Option<(&[AtomicU64], usize)> {
        if offset.checked_add(len)? > self.len() {
            return None;
        }
        let first = self.as_ptr().wrapping_add(offset);
        let skew = first.addr() % WORD;
        let count = if len == 0 { 0 } else { (skew + len).div_ceil(WORD) };
        // SAFETY:
        // 1. Each word covers a byte of the mapping, and is aligned, so that all of it is in a mapped
        //    page; they stay mapped while the mapping is borrowed. If there are none, the pointer is
        //    aligned and not zero.
        // 2. Whoever uses the memory through a pointer has promised to use such words too.
        let words = unsafe { slice::from_raw_parts(first.wrapping_sub(skew).cast(), count) };
        Some((words, skew))
    }
}

/// Changes some bytes of a word.
fn change(word: &AtomicU64, at: usize, bytes: &[u8]) {
    let changed = |old: u64| {
        let mut new = old.to_ne_bytes();
        new[at..at + bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(new)
    };
    let mut old = word.load(Relaxed);
    while let Err(other) = word.compare_exchange_weak(old, changed(old), Relaxed, Relaxed) {
        old = other;
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::Memory;

    #[test]
    fn any_range_is_copied_and_its_neighbours_stay() {
        const LEN: usize = 27;
        let mapping = Memory::create("test", LEN as u64).unwrap().map(0, LEN).unwrap();
        for offset in 0..=LEN {
            for len in 0..=LEN - offset {
                mapping.write(0, &[1; LEN]).unwrap();
                let new: Vec<u8> = (100..).take(len).collect();
                mapping.write(offset, &new).unwrap();
                let mut whole = [0; LEN];
                mapping.read(0, &mut whole).unwrap();
                let mut expected = [1; LEN];
                expected[offset..offset + len].copy_from_slice(&new);
                assert_eq!(whole, expected, "{len} at {offset}");
                let mut part = vec![0; len];
                mapping.read(offset, &mut part).unwrap();
                assert_eq!(part, new, "{len} at {offset}");
            }
        }
    }

    #[test]
    fn nothing_is_copied_that_is_not_within() {
        let mapping = Memory::create("test", 10).unwrap().map(0, 10).unwrap();
        for (offset, len) in [(0, 11), (10, 1), (11, 0), (usize::MAX, 1), (usize::MAX, 0)] {
            assert_eq!(mapping.write(offset, &vec![1; len]), None);
            assert_eq!(mapping.read(offset, &mut vec![1; len]), None);
        }
        for offset in [1, 4, 8, 10, usize::MAX, usize::MAX - 7] {
            assert_eq!(mapping.load(offset), None);
            assert_eq!(mapping.store(offset, 1), None);
        }
        let mut all = [1; 10];
        mapping.read(0, &mut all).unwrap();
        assert_eq!(all, [0; 10]);
    }

    #[test]
    fn a_mapping_from_amid_a_page_is_copied_too() {
        let memory = Memory::create("test", 5000).unwrap();
        let (whole, part) = (memory.map(0, 5000).unwrap(), memory.map(13, 20).unwrap());
        part.write(3, b"0123456789").unwrap();
        let mut read = [0; 10];
        whole.read(16, &mut read).unwrap();
        assert_eq!(&read, b"0123456789");
        part.store(3, 7).unwrap();
        assert_eq!(whole.load(16), Some(7));
    }

    #[test]
    fn threads_that_write_beside_each_other_lose_nothing() {
        const EACH: usize = 5;
        let mapping = Memory::create("test", 20).unwrap().map(0, 20).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let mapping = &mapping;
                scope.spawn(move || {
                    for round in 0..=200 {
                        mapping.write(writer * EACH, &[round; EACH]).unwrap();
                    }
                });
            }
        });
        let mut all = [0; 20];
        mapping.read(0, &mut all).unwrap();
        assert_eq!(all, [200; 20]);
    }
}
