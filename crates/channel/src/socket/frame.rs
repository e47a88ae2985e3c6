//! CPython's frames: a length and so many bytes.
//!
//! The length is four bytes, a signed number, most significant byte first. Where that is too small, it is -1
//! and eight bytes follow, without a sign.

use crate::error::{Error, Kind};

/// In place of a length: a longer one follows.
const LONG: i32 = -1;

/// The head of a frame with so many bytes.
pub(crate) fn head(len: usize) -> Vec<u8> {
    match i32::try_from(len) {
        Ok(short) => short.to_be_bytes().to_vec(),
        Err(_) => [&LONG.to_be_bytes()[..], &(len as u64).to_be_bytes()].concat(),
    }
}

/// A frame that comes in piece by piece.
///
/// Memory is taken as bytes come, whatever length was announced.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    head: [u8; 12],
    /// How much of the head has come.
    headed: usize,
    body: Vec<u8>,
    /// How many bytes of the body have come.
    come: usize,
}

/// No more is taken at once than this or as much again as has come.
const STEP: usize = 64 << 10;

impl Incoming {
    /// Tells whether nothing of it has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.headed == 0
    }

    /// Where the next bytes are to be put, at least one; `None` if all have come.
    ///
    /// # Errors
    ///
    /// More are announced than `most`, or than there can be.
    pub(crate) fn room(&mut self, most: usize) -> Result<Option<&mut [u8]>, Error> {
        let Some(len) = self.len()? else {
            let wanted = if self.headed < 4 { 4 } else { 12 };
            return Ok(Some(&mut self.head[self.headed..wanted]));
        };
        if len > most {
            return Err(Kind::FrameTooLong { len, most }.into());
        }
        if self.come == len {
            return Ok(None);
        }
        let end = len.min(self.come + self.come.max(STEP));
        if self.body.len() < end {
            let more = end - self.body.len();
            self.body.try_reserve(more).map_err(|_| Kind::NoMemory { len })?;
            self.body.resize(end, 0);
        }
        Ok(Some(&mut self.body[self.come..]))
    }

    /// Notes that so many bytes were put there.
    pub(crate) fn add(&mut self, bytes: usize) {
        if self.is_headed() {
            self.come += bytes;
        } else {
            self.headed += bytes;
        }
    }

    /// The bytes, once all have come.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).body
    }

    fn is_headed(&self) -> bool {
        self.headed == 12 || (self.headed == 4 && self.short() != LONG)
    }

    fn short(&self) -> i32 {
        let [a, b, c, d, ..] = self.head;
        i32::from_be_bytes([a, b, c, d])
    }

    fn len(&self) -> Result<Option<usize>, Error> {
        let corrupt = |text| Err(Kind::Frame(text).into());
        if self.headed >= 4 && self.short() < LONG {
            return corrupt("its length is below zero");
        }
        if !self.is_headed() {
            return Ok(None);
        }
        if self.headed == 4 {
            return Ok(Some(self.short().unsigned_abs() as usize));
        }
        let [_, _, _, _, rest @ ..] = self.head;
        let len = u64::from_be_bytes(rest);
        match usize::try_from(len) {
            Ok(len) if len <= isize::MAX as usize => Ok(Some(len)),
            _ => corrupt("it is longer than memory can be"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes, so many at a time. Gives the frame, and how many bytes were taken.
    fn feed(bytes: &[u8], piece: usize, most: usize) -> Result<Option<(Vec<u8>, usize)>, Error> {
        let (mut incoming, mut at) = (Incoming::default(), 0);
        while let Some(room) = incoming.room(most)? {
            let len = room.len().min(piece).min(bytes.len() - at);
            if len == 0 {
                return Ok(None);
            }
            room[..len].copy_from_slice(&bytes[at..at + len]);
            incoming.add(len);
            at += len;
        }
        Ok(Some((incoming.take(), at)))
    }

    #[test]
    fn frames_come_whole_in_any_pieces() {
        for len in [0, 1, 3, 4, 5, 100, STEP - 1, STEP, STEP + 1, 5 * STEP] {
            let body: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let mut bytes = [head(len), body.clone()].concat();
            bytes.push(9);
            for piece in [1, 3, 4096, usize::MAX] {
                let (frame, taken) = feed(&bytes, piece, usize::MAX).unwrap().unwrap();
                assert_eq!((frame, taken), (body.clone(), 4 + len));
            }
        }
    }

    #[test]
    fn long_heads_are_as_python_writes_them() {
        assert_eq!(head(3), [0, 0, 0, 3]);
        assert_eq!(head(0x7fff_ffff), [0x7f, 0xff, 0xff, 0xff]);
        let long = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0];
        assert_eq!(head(0x8000_0000), long);
        // A short frame may have a long head.
        let bytes = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 7, 8];
        assert_eq!(feed(&bytes, 1, 2).unwrap(), Some((vec![7, 8], 14)));
    }

    #[test]
    fn lengths_that_lie_are_errors_or_take_no_memory() {
        for bytes in [
            &[0xff, 0xff, 0xff, 0xfe][..],
            &[0x80, 0, 0, 0],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 11],
        ] {
            assert!(feed(bytes, 1, 10).is_err(), "{bytes:?}");
        }
        let mut incoming = Incoming::default();
        let bytes = [0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0];
        for part in [&bytes[..4], &bytes[4..]] {
            incoming.room(usize::MAX).unwrap().unwrap().copy_from_slice(part);
            incoming.add(part.len());
        }
        assert_eq!(incoming.room(usize::MAX).unwrap().unwrap().len(), STEP);
        assert_eq!(feed(&[0, 0, 0, 5, 1, 2], 9, 10).unwrap(), None);
    }
}
