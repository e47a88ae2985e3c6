//! A connection whose other end is yet to prove its key.

use std::os::fd::{AsFd, BorrowedFd};

use multiproc_os::deadline::Deadline;

use super::connection::{closed_or, receive};
use super::frame::{self, Incoming};
use super::handshake::{Handshake, LONGEST, Outcome};
use super::stream::Stream;
use crate::error::{Error, Kind};

pub(super) struct Proof {
    stream: Stream,
    incoming: Incoming,
    handshake: Handshake,
    deadline: Deadline,
}

impl Proof {
    pub(super) fn new(stream: Stream, handshake: Handshake, deadline: Deadline) -> Self {
        Proof { stream, incoming: Incoming::default(), handshake, deadline }
    }

    /// When it must be done.
    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Takes what has come, without waiting for more. Tells whether the other end has proved its key.
    pub(super) fn look(&mut self) -> Result<bool, Error> {
        let now = Deadline::now();
        while let Some(frame) = receive(&self.stream, &mut self.incoming, LONGEST, now)? {
            let step = self.handshake.step(&frame);
            self.send(&step.send)?;
            match step.outcome {
                Outcome::More => {}
                Outcome::Done => return Ok(true),
                Outcome::Refused(error) => return Err(error),
            }
        }
        if self.deadline.has_passed() {
            return Err(Kind::HandshakeTimedOut.into());
        }
        Ok(false)
    }

    /// All frames of a handshake together are shorter than what any socket takes unread.
    pub(super) fn send(&self, frames: &[Vec<u8>]) -> Result<(), Error> {
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|frame| [&frame::head(frame.len()), &frame[..]].concat())
            .collect();
        self.stream.write_all(&bytes).map_err(closed_or)
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsFd for Proof {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
