//! What is on its way out of a connection: messages one after the other, each whole.

use std::io;

use super::connection::closed_or;
use super::frame;
use super::stream::Stream;
use crate::error::{Error, Kind};

/// Of a message that a task has begun, what there was no room for yet. It goes in front of all others,
/// whoever sends them.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    rest: Vec<u8>,
    /// How many bytes of the rest were written.
    written: usize,
    /// How many bytes all messages have that were begun.
    end: u64,
    /// A part of a message is lost, and with it where the next one would begin.
    broken: bool,
}

/// Up to here, to copy costs less than a second call.
const SMALL: usize = 16 << 10;

impl Outgoing {
    /// Writes a message, however long it takes.
    pub(super) fn write_all(&mut self, stream: &Stream, bytes: &[u8]) -> Result<(), Error> {
        self.unless_broken(|outgoing| {
            stream.write_all(outgoing.rest())?;
            outgoing.clear();
            let (start, more) = parts(bytes);
            stream.write_all(&start)?;
            stream.write_all(more)?;
            outgoing.end += (start.len() + more.len()) as u64;
            Ok(())
        })
    }

    /// Begins a message if there is room for a part of it. Gives the position at which it ends.
    #[cfg(feature = "tokio")]
    pub(super) fn begin(&mut self, stream: &Stream, bytes: &[u8]) -> Result<Option<u64>, Error> {
        self.unless_broken(|outgoing| {
            if !outgoing.write_rest(stream)? {
                return Ok(None);
            }
            let (start, more) = parts(bytes);
            let Some(written) = stream.try_write(&start)? else { return Ok(None) };
            outgoing.end += (start.len() + more.len()) as u64;
            outgoing.rest.extend_from_slice(&start[written..]);
            outgoing.rest.extend_from_slice(more);
            outgoing.write_rest(stream)?;
            Ok(Some(outgoing.end))
        })
    }

    /// Writes what there is room for. Tells whether all up to this position is written.
    #[cfg(feature = "tokio")]
    pub(super) fn write_to(&mut self, stream: &Stream, end: u64) -> Result<Option<()>, Error> {
        self.unless_broken(|outgoing| {
            let all = outgoing.write_rest(stream)?;
            let left = outgoing.rest().len() as u64;
            Ok((all || outgoing.end - left >= end).then_some(()))
        })
    }

    /// Tells whether nothing is left.
    #[cfg(feature = "tokio")]
    fn write_rest(&mut self, stream: &Stream) -> io::Result<bool> {
        while !self.rest().is_empty() {
            match stream.try_write(self.rest())? {
                Some(written) => self.written += written,
                None => return Ok(false),
            }
        }
        self.clear();
        Ok(true)
    }

    fn rest(&self) -> &[u8] {
        &self.rest[self.written..]
    }

    fn clear(&mut self) {
        self.rest = Vec::new();
        self.written = 0;
    }

    fn unless_broken<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, Error> {
        if self.broken {
            return Err(Kind::Broken.into());
        }
        write(self).map_err(|error| {
            self.broken = true;
            closed_or(error)
        })
    }
}

/// The message's head with what follows if that is short, and what follows else.
fn parts(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut start = frame::head(bytes.len());
    if bytes.len() <= SMALL {
        start.extend_from_slice(bytes);
        return (start, &[]);
    }
    (start, bytes)
}
