//! What packets cross: a socket, and memory beside it for the short ones.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use multiproc_os::deadline::Deadline;
use multiproc_os::handoff::{self, Handoff, Side, Taken};
use multiproc_os::memory::{Mapping, Memory};
use multiproc_os::patience::Turn;
use multiproc_os::poll;
use multiproc_os::socket::{self, Packet, Wait};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fd::SharedFd;
use crate::table;

/// One end's part of the memory. Whoever has it counts there what goes through the socket, so that
/// there is no end without.
#[derive(Debug)]
pub(crate) struct Page {
    memory: SharedFd,
    side: Side,
    pub(crate) handoff: Handoff,
}

impl Page {
    /// Makes memory for two ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let memory = Memory::create("multiproc-pipe", handoff::LEN as u64)?;
        let mapping = Arc::new(memory.map(0, handoff::LEN)?);
        let memory = SharedFd::from(memory.into_fd());
        let here = Self::new(memory.clone(), mapping.clone(), Side::Here)?;
        Ok((here, Self::new(memory, mapping, Side::There)?))
    }

    fn new(memory: SharedFd, mapping: Arc<Mapping>, side: Side) -> io::Result<Self> {
        let handoff = Handoff::new(mapping, side).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Page { memory, side, handoff })
    }

    fn open(memory: SharedFd, side: Side) -> io::Result<Self> {
        let mapping = Memory::from_fd(memory.as_fd())?.map(0, handoff::LEN)?;
        Self::new(memory, Arc::new(mapping), side)
    }
}

impl Serialize for Page {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.memory, self.side == Side::There).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (memory, is_there) = Deserialize::deserialize(deserializer)?;
        let side = if is_there { Side::There } else { Side::Here };
        Page::open(memory, side).map_err(table::fail)
    }
}

/// What packets are sent and received through.
#[derive(Clone, Copy)]
pub(crate) struct Link<'a> {
    pub(crate) socket: BorrowedFd<'a>,
    pub(crate) handoff: Option<&'a Handoff>,
}

impl Link<'_> {
    /// Sends a packet without descriptors.
    #[inline]
    pub(crate) fn send_bytes(self, packet: &[u8], wait: Wait) -> io::Result<()> {
        match self.handoff {
            Some(handoff) if handoff.give(packet) => Ok(()),
            _ => self.count(|| socket::send_bytes(self.socket, packet, wait)),
        }
    }

    /// Tells whether somebody waits to be handed a packet.
    #[inline]
    pub(crate) fn is_awaited(self) -> bool {
        self.handoff.is_some_and(Handoff::is_awaited)
    }

    /// Sends a packet of several parts, with descriptors.
    pub(crate) fn send(
        self,
        parts: &[IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> io::Result<()> {
        if !fds.is_empty() {
            self.announce_fds(wait)?;
        }
        self.count(|| socket::send(self.socket, parts, fds, wait))
    }

    /// To be called before what costs more: fails if the receiver is busy with an attempt in which it would
    /// lose descriptors.
    pub(crate) fn announce_fds(self, wait: Wait) -> io::Result<()> {
        /// One that is not stopped is ready much sooner.
        const YIELDS: usize = 100;
        let Some(handoff) = self.handoff else { return Ok(()) };
        let yields = if wait == Wait::Block { YIELDS } else { 1 };
        for _ in 0..yields {
            if handoff.may_attach() {
                return Ok(());
            }
            thread::yield_now();
        }
        // One that has died in the attempt is told of by the socket, to who sends.
        if handoff.may_attach() || poll::hung_up(self.socket, Deadline::now())? {
            return Ok(());
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    #[inline]
    fn count(self, send: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Some(handoff) = self.handoff else { return send() };
        handoff.count_sent();
        send().inspect_err(|_| handoff.count_unsent())
    }

    /// Receives a packet from the socket.
    #[inline]
    pub(crate) fn recv(self, buffer: &mut [u8], wait: Wait) -> io::Result<Option<Packet>> {
        let Some(handoff) = self.handoff else { return socket::recv(self.socket, buffer, wait) };
        if wait == Wait::Try
            && let Some(len) = handoff.plainly(|| socket::recv_bytes(self.socket, buffer))
        {
            return Ok(len?.map(|len| Packet { len, fds: Vec::new() }));
        }
        let received = socket::recv(self.socket, buffer, wait);
        match &received {
            Ok(Some(_)) => handoff.count_received(),
            Err(error) if socket::is_lost(error) => handoff.count_received(),
            Ok(None) | Err(_) => {}
        }
        received
    }

    /// Tells whether a packet is known to be in the socket, or about to be.
    #[inline]
    pub(crate) fn is_expecting(self) -> bool {
        self.handoff.is_some_and(Handoff::is_expecting)
    }

    /// Yields, and takes what is handed over meanwhile.
    #[inline]
    pub(crate) fn take(self, buffer: &mut [u8], turn: &mut Turn<'_>) -> Taken {
        let handoff = self.handoff.filter(|_| turn.will_yield());
        match handoff.and_then(|handoff| handoff.take(buffer, || turn.try_yield())) {
            Some(taken) => taken,
            None if turn.try_yield() => Taken::Nothing,
            None => Taken::Enough,
        }
    }
}
