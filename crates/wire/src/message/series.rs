//! Many values in one message.

use multiproc_os::octets;
use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::{Bytes, Message, framed};
use crate::error::Error;
use crate::explain;
use crate::table::Building;

/// Values that are encoded one after the other, each behind its length, so that one that cannot be read
/// hides none that follow: what [`Message::push_framed`] does, at a fraction of the cost for many small
/// ones.
///
/// # Examples
///
/// ```
/// use multiproc_wire::Series;
///
/// let mut series = Series::new();
/// for value in 0..1000u64 {
///     series.push(value)?;
/// }
/// let message = series.into_message();
/// let mut reader = message.reader();
/// for value in 0..1000u64 {
///     assert_eq!(reader.read_framed::<u64>()?, value);
/// }
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Series {
    /// It reaches beyond what was encoded: room, and what a value has left that failed.
    message: Message,
    /// How many bytes count.
    len: usize,
    /// How many descriptors do.
    fds: usize,
    /// The last value was long, so that the next has room for a wide frame from the start.
    long: bool,
}

impl Series {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value and drops it. If it fails, or panics, the series is as it was before; the handles of
    /// other values are lost by a panic.
    ///
    /// # Errors
    ///
    /// The value's `Serialize` failed, or a handle with a single owner in it is still referenced from
    /// elsewhere.
    #[inline(always)] // Called for each of many, it would keep nothing in registers.
    pub fn push<T: Serialize>(&mut self, value: T) -> Result<(), Error> {
        let start = self.len;
        let frame = if self.long { framed::WIDE } else { framed::SHORT };
        let Message { bytes, fds } = &mut self.message;
        if fds.len() > self.fds {
            fds.truncate(self.fds);
        }
        if bytes.len() - start < frame {
            widen(bytes, frame);
        }
        let building = Building::begin(fds);
        let mut serializer = postcard::Serializer { output: Room { bytes, at: start + frame } };
        let result = match octets::of(&value) {
            Some(bytes) => Bytes(bytes).serialize(&mut serializer),
            None => value.serialize(&mut serializer),
        };
        let end = serializer.output.at;
        building.end();
        if let Err(error) = result {
            return Err(explain::encode_error(&value, &error));
        }
        drop(value);
        if !self.message.fds.is_empty() {
            self.message.check_released_from::<T>(self.fds)?;
        }
        self.len = framed::write(&mut self.message.bytes, start, frame, end)?;
        self.fds = self.message.fds.len();
        self.long = end - start - frame > framed::LONGEST_SHORT;
        Ok(())
    }

    /// The encoded values.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.message.bytes[..self.len]
    }

    /// Tells whether there are descriptors among the values.
    #[inline]
    pub fn has_fds(&self) -> bool {
        self.fds > 0
    }

    /// Takes everything out and keeps the room.
    pub fn clear(&mut self) {
        self.message.fds.clear();
        (self.len, self.fds) = (0, 0);
    }

    /// The values as a message, for as long as none is added.
    pub fn as_message(&mut self) -> &mut Message {
        self.message.bytes.truncate(self.len);
        self.message.fds.truncate(self.fds);
        &mut self.message
    }

    /// Makes a message of the values.
    pub fn into_message(mut self) -> Message {
        self.as_message();
        self.message
    }

    /// Takes off the values from byte `at` on, and all handles: those before it must have none.
    pub fn split_off(&mut self, at: usize) -> Message {
        let rest = self.as_message().split_off(at);
        (self.len, self.fds) = (at, 0);
        rest
    }
}

/// postcard's output, into bytes that are there already: so none is counted anew for each byte.
struct Room<'a> {
    bytes: &'a mut Vec<u8>,
    at: usize,
}

impl Flavor for Room<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.bytes.get_mut(self.at) {
            Some(place) => *place = byte,
            None => append(self.bytes, &[byte]),
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        /// An integer is written byte by byte right before it comes here: the processor has to wait
        /// where it is read by the word.
        const INTEGER: usize = 10;

        if bytes.len() <= INTEGER {
            return bytes.iter().try_for_each(|byte| self.try_push(*byte));
        }
        let end = self.at + bytes.len();
        match self.bytes.get_mut(self.at..end) {
            Some(place) => place.copy_from_slice(bytes),
            None => {
                self.bytes.truncate(self.at);
                append(self.bytes, bytes);
            }
        }
        self.at = end;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Puts bytes behind those that are there, and room behind them.
#[cold]
#[inline(never)]
fn append(bytes: &mut Vec<u8>, more: &[u8]) {
    bytes.extend_from_slice(more);
    widen(bytes, 0);
}

/// Makes room for so many bytes, at least, behind those that are there.
#[cold]
#[inline(never)]
fn widen(bytes: &mut Vec<u8>, least: usize) {
    /// The room is made ever wider, up to what stays in the processor's cache until it is written.
    const MOST: usize = 16 << 10;
    const LEAST: usize = 64;

    let room = bytes.len().clamp(LEAST, MOST).max(least);
    bytes.resize(bytes.len() + room, 0);
}
