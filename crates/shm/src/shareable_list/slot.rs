//! One item in memory, while others change it.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::fence;
use std::thread;

use multiproc_os::memory::Mapping;

use super::item::Item;

pub(super) const WORD: usize = size_of::<u64>();

/// Where an item, its format and its code are, in bytes from the start of the memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) at: usize,
    pub(super) len: usize,
    pub(super) format: usize,
    pub(super) code: usize,
}

/// How an item is written: in Python's words, its format and its back transform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    Int,
    Float,
    Bool,
    None,
    /// So many bytes, of which the zeros at the end do not count.
    Str(usize),
    Bytes(usize),
}

/// The format of an item that is being changed. Its reader waits; one of Python gets an error.
const CHANGING: u64 = 0;

impl Format {
    /// How the item is written in a slot that is long enough, and what.
    pub(super) fn of(item: &Item, room: usize) -> (Self, Vec<u8>) {
        let padded = |bytes: &[u8]| {
            let mut value = vec![0; room];
            value[..bytes.len()].copy_from_slice(bytes);
            value
        };
        match item {
            Item::Int(number) => (Format::Int, number.to_ne_bytes().to_vec()),
            Item::Float(number) => (Format::Float, number.to_ne_bytes().to_vec()),
            Item::Bool(truth) => (Format::Bool, vec![0, 0, 0, 0, 0, 0, 0, u8::from(*truth)]),
            Item::None => (Format::None, vec![0; WORD]),
            Item::Str(text) => (Format::Str(room), padded(text.as_bytes())),
            Item::Bytes(bytes) => (Format::Bytes(room), padded(bytes)),
        }
    }

    fn parse(text: u64, code: u8) -> Option<Self> {
        let text = text.to_ne_bytes();
        let end = text.iter().rposition(|letter| *letter != 0)? + 1;
        let format = match (&text[..end], code) {
            (b"q", 0) => Format::Int,
            (b"d", 0) => Format::Float,
            (b"xxxxxxx?", 0) => Format::Bool,
            (b"xxxxxx?x", 3) => Format::None,
            ([digits @ .., b's'], 1 | 2) if digits.iter().all(u8::is_ascii_digit) => {
                let len = std::str::from_utf8(digits).ok()?.parse().ok()?;
                if code == 1 { Format::Str(len) } else { Format::Bytes(len) }
            }
            _ => return None,
        };
        Some(format)
    }

    /// As it stands in memory.
    pub(super) fn text(self) -> [u8; WORD] {
        let mut text = [0; WORD];
        let letters = match self {
            Format::Int => "q".to_owned(),
            Format::Float => "d".to_owned(),
            Format::Bool => "xxxxxxx?".to_owned(),
            Format::None => "xxxxxx?x".to_owned(),
            Format::Str(len) | Format::Bytes(len) => format!("{len}s"),
        };
        // A slot that is too long for that has been refused.
        for (to, letter) in text.iter_mut().zip(letters.bytes()) {
            *to = letter;
        }
        text
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Format::Int | Format::Float | Format::Bool => 0,
            Format::Str(_) => 1,
            Format::Bytes(_) => 2,
            Format::None => 3,
        }
    }
}

impl Slot {
    pub(super) fn read(&self, mapping: &Mapping) -> Result<Item, &'static str> {
        /// A writer needs a moment. If it was killed, none helps.
        const ATTEMPTS: u32 = 100;
        for _ in 0..ATTEMPTS {
            let format = self.format_word(mapping)?;
            if format != CHANGING {
                let item = self.read_as(mapping, format);
                fence(Acquire);
                if self.format_word(mapping)? == format {
                    return item;
                }
            }
            thread::yield_now();
        }
        Err("it was not written to its end, or is changed all the time")
    }

    fn read_as(&self, mapping: &Mapping, format: u64) -> Result<Item, &'static str> {
        const OUTSIDE: &str = "it is not within the memory";
        let mut code = [0];
        mapping.read(self.code, &mut code).ok_or(OUTSIDE)?;
        let format = Format::parse(format, code[0]).ok_or("its format is not one of Python's")?;
        let word = || mapping.load(self.at).map(u64::to_ne_bytes).ok_or(OUTSIDE);
        let text = |len: usize| {
            if len > self.len {
                return Err("it is longer than its room");
            }
            let mut text = vec![0; len];
            mapping.read(self.at, &mut text).ok_or(OUTSIDE)?;
            text.truncate(text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            Ok(text)
        };
        Ok(match format {
            Format::Int => Item::Int(i64::from_ne_bytes(word()?)),
            Format::Float => Item::Float(f64::from_ne_bytes(word()?)),
            Format::Bool => Item::Bool(word()?[WORD - 1] != 0),
            Format::None => Item::None,
            Format::Bytes(len) => Item::Bytes(text(len)?),
            Format::Str(len) => {
                Item::Str(String::from_utf8(text(len)?).map_err(|_| "its text is not UTF-8")?)
            }
        })
    }

    /// Writes an item that is not longer than the slot. `None` if it is not within the memory.
    pub(super) fn write(&self, mapping: &Mapping, item: &Item) -> Option<()> {
        let (format, value) = Format::of(item, self.len);
        let text = u64::from_ne_bytes(format.text());
        let mut code = [0];
        mapping.read(self.code, &mut code)?;
        let same = mapping.load(self.format)? == text && code[0] == format.code();
        if let (true, Ok(word)) = (same, <[u8; WORD]>::try_from(&*value)) {
            // It changes at once, whoever is killed.
            return mapping.store(self.at, u64::from_ne_bytes(word));
        }
        mapping.store(self.format, CHANGING)?;
        // Whoever sees what is written from here on also sees that.
        fence(Release);
        mapping.write(self.code, &[format.code()])?;
        mapping.write(self.at, &value)?;
        mapping.store(self.format, text)
    }

    fn format_word(&self, mapping: &Mapping) -> Result<u64, &'static str> {
        mapping.load(self.format).ok_or("its format is not within the memory")
    }
}
