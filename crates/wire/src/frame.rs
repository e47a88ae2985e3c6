//! Messages as packets: the format of the crate's README.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use multiproc_os::context;
use multiproc_os::deadline::Deadline;
use multiproc_os::handoff::{self, Taken};
use multiproc_os::memory::{SealedBytes, SealedFile};
use multiproc_os::octets;
use multiproc_os::patience::Patience;
use multiproc_os::poll;
use multiproc_os::socket::{self, MAX_FDS, Packet, Wait};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::link::Link;
use crate::message::Reader;
use crate::stream::{self, Inlet, Outlet};

/// The longest body that travels inside its packet, however it is sent. A longer one goes through memory, unless it is
/// [streamed](crate::Endpoint::stream).
///
/// # Examples
///
/// ```
/// assert_eq!(multiproc_wire::INLINE_MAX, 65_536);
/// ```
pub const INLINE_MAX: usize = 64 << 10;

/// The longest body that a call sends so which streams and waits, if little is in the socket's buffer: a quarter of 208
/// KiB usually. Together they are so much that some thirty messages which go through memory still fit.
const INLINE_MOST: usize = 128 << 10;

const HEADER: usize = 16;
/// The longest packet that is copied together, unless it is to be handed over.
const SHORT: usize = 512;
/// Most of those are no longer, and have less room to be cleared.
const SHORTER: usize = 128;
const MARK: u8 = 0x6d;
const IN_MEMORY: u8 = 1;
const BY_COURIER: u8 = 2;
const IN_STREAM: u8 = 4;

struct Header {
    flags: u8,
    fds: u32,
    len: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = MARK;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.fds.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    fn decode(packet: &[u8]) -> Option<(Header, &[u8])> {
        let (header, body) = packet.split_first_chunk::<HEADER>()?;
        let [MARK, flags, 0, 0, f0, f1, f2, f3, len @ ..] = *header else { return None };
        if flags & !(IN_MEMORY | BY_COURIER | IN_STREAM) != 0 {
            return None;
        }
        let fds = u32::from_le_bytes([f0, f1, f2, f3]);
        Some((Header { flags, fds, len: u64::from_le_bytes(len) }, body))
    }
}

/// Sends a message, whose body is these two parts one after the other, as one packet; or if it streams,
/// and waits, a long body behind that.
pub(crate) fn send(
    link: Link<'_>,
    body: [&[u8]; 2],
    fds: &[BorrowedFd<'_>],
    wait: Wait,
    streams: bool,
) -> io::Result<()> {
    let len = body[0].len() + body[1].len();
    let streams = streams && wait == Wait::Block;
    let inline = if len <= INLINE_MAX {
        Some(wait)
    } else if streams && len <= INLINE_MOST && stream::await_room(link.socket) {
        // Others send over the same socket.
        Some(Wait::Try)
    } else {
        None
    };
    if let Some(wait) = inline {
        if !fds.is_empty() {
            link.announce_fds(wait)?;
        }
        let is_refused = |error: &io::Error| {
            let no_room = len > INLINE_MAX && error.kind() == io::ErrorKind::WouldBlock;
            no_room || socket::is_too_large(error)
        };
        match send_packet(link, 0, len, body, &[], fds, wait) {
            Err(error) if is_refused(&error) => {}
            result => return result,
        }
    }
    link.announce_fds(wait)?;
    if streams
        && len > INLINE_MOST
        && let Some(outlet) = Outlet::new()
    {
        send_packet(link, IN_STREAM, len, [&[], &[]], &outlet.fds(), fds, wait)?;
        return outlet.send(body);
    }
    let memory = SealedBytes::write(&body)?;
    send_packet(link, IN_MEMORY, len, [&[], &[]], &[memory.as_fd()], fds, wait)
}

/// Sends a short message without descriptors, and tells whether it went.
#[inline]
pub(crate) fn send_short(link: Link<'_>, body: &[u8], wait: Wait) -> bool {
    let header = Header { flags: 0, fds: 0, len: body.len() as u64 };
    HEADER + body.len() <= SHORTER
        && send_joined::<SHORTER>(link, &header, [body, &[]], wait).is_ok()
}

fn send_packet(
    link: Link<'_>,
    flags: u8,
    len: usize,
    inline: [&[u8]; 2],
    own: &[BorrowedFd<'_>],
    fds: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    let too_many = |_| io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors");
    let count = u32::try_from(fds.len()).map_err(too_many)?;
    let mut header = Header { flags, fds: count, len: len as u64 };
    let send = |header: &Header, attached: &[BorrowedFd<'_>]| {
        let header = header.encode();
        let parts = [&header, inline[0], inline[1]].map(IoSlice::new);
        link.send(&parts, attached, wait)
    };
    if fds.is_empty() && own.is_empty() {
        // Copying a short packet together costs less than having the kernel gather it.
        return if HEADER + len <= SHORTER {
            send_joined::<SHORTER>(link, &header, inline, wait)
        } else if HEADER + len <= SHORT {
            send_joined::<SHORT>(link, &header, inline, wait)
        } else if HEADER + len <= handoff::ROOM && link.is_awaited() {
            send_awaited(link, &header, inline, wait)
        } else {
            send(&header, &[])
        };
    }
    let courier;
    let mut attached: Vec<BorrowedFd<'_>> = own.to_vec();
    if attached.len() + fds.len() <= MAX_FDS {
        attached.extend_from_slice(fds);
    } else {
        header.flags |= BY_COURIER;
        courier = load_courier(fds)?;
        attached.push(courier.as_fd());
    }
    send(&header, &attached)
}

/// Sends the header and the parts, which are no longer than the room together, as one packet.
fn send_joined<const ROOM: usize>(
    link: Link<'_>,
    header: &Header,
    inline: [&[u8]; 2],
    wait: Wait,
) -> io::Result<()> {
    let mut packet = [0; ROOM];
    link.send_bytes(join(&mut packet, header, inline), wait)
}

/// Sends them to somebody who waits.
fn send_awaited(link: Link<'_>, header: &Header, inline: [&[u8]; 2], wait: Wait) -> io::Result<()> {
    let mut buffer = Buffer::take();
    link.send_bytes(join(&mut buffer.0, header, inline), wait)
}

/// Copies the header and the parts together, for which there is room.
#[inline]
fn join<'a>(packet: &'a mut [u8], header: &Header, inline: [&[u8]; 2]) -> &'a [u8] {
    let mut len = 0;
    for part in [&header.encode(), inline[0], inline[1]] {
        packet[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    &packet[..len]
}

/// Puts the descriptors into a private socket and gives the end from which they are taken.
fn load_courier(fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let (load, unload) = socket::pair()?;
    for batch in fds.chunks(MAX_FDS) {
        socket::send(&load, &[IoSlice::new(&[MARK])], batch, Wait::Try).map_err(|error| {
            // Those of other messages are taken out some time, but here nobody is at the other end.
            let alone = error.kind() == io::ErrorKind::WouldBlock
                || fds.len() as u64 > context::open_files().unwrap_or(u64::MAX);
            if socket::is_full(&error) && alone {
                let text = format!("{} descriptors are too many for one message", fds.len());
                io::Error::new(io::ErrorKind::InvalidInput, text)
            } else {
                error
            }
        })?;
    }
    Ok(unload)
}

/// The bytes of a message that was received, wherever they are.
///
/// # Examples
///
/// ```
/// use multiproc_os::deadline::Deadline;
/// use multiproc_wire::{Body, Endpoint};
///
/// let (here, there) = Endpoint::pair()?;
/// here.send_bytes(b"hello", Deadline::NEVER)?;
/// let read = |body: Body<'_>, _| body.to_vec();
/// let bytes = there.recv_bytes_with(Deadline::NEVER, read)?.transpose()?;
/// assert_eq!(bytes.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Debug)]
pub struct Body<'a>(Place<'a>);

#[derive(Debug)]
enum Place<'a> {
    Inline(&'a [u8]),
    Memory(SealedFile),
    Stream(Inlet),
}

impl Body<'_> {
    /// How many there are.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc_os::deadline::Deadline;
    /// # use multiproc_wire::Endpoint;
    /// # let (here, there) = Endpoint::pair()?;
    /// # here.send_bytes(b"hello", Deadline::NEVER)?;
    /// let len = there.recv_bytes_with(Deadline::NEVER, |body, _| body.len())?;
    /// assert_eq!(len, Some(5));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[allow(clippy::len_without_is_empty)] // One that is empty is like any other.
    pub fn len(&self) -> usize {
        match &self.0 {
            Place::Inline(bytes) => bytes.len(),
            Place::Memory(file) => file.len(),
            Place::Stream(inlet) => inlet.len(),
        }
    }

    /// Copies them.
    ///
    /// # Errors
    ///
    /// There is no memory for them.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc_os::deadline::Deadline;
    /// # use multiproc_wire::Endpoint;
    /// # let (here, there) = Endpoint::pair()?;
    /// # here.send_bytes(b"hello", Deadline::NEVER)?;
    /// let bytes = there.recv_bytes_with(Deadline::NEVER, |body, _| body.to_vec())?;
    /// assert_eq!(bytes.transpose()?.as_deref(), Some(&b"hello"[..]));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn to_vec(&self) -> Result<Vec<u8>, Error> {
        match &self.0 {
            Place::Inline(bytes) => Ok(bytes.to_vec()),
            Place::Memory(file) => file.to_vec().map_err(|error| Error::io("read", error)),
            Place::Stream(inlet) => inlet.to_vec(),
        }
    }

    /// Copies them to the beginning of the room and tells how many they are. `None` if they do not
    /// fit.
    ///
    /// # Errors
    ///
    /// The system refused to read them.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc_os::deadline::Deadline;
    /// # use multiproc_wire::Endpoint;
    /// # let (here, there) = Endpoint::pair()?;
    /// # here.send_bytes(b"hello", Deadline::NEVER)?;
    /// let mut room = [0; 8];
    /// let len = there.recv_bytes_with(Deadline::NEVER, |body, _| body.read_into(&mut room))?;
    /// assert_eq!(len.transpose()?, Some(Some(5)));
    /// assert_eq!(&room[..5], b"hello");
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn read_into(&self, room: &mut [u8]) -> Result<Option<usize>, Error> {
        let Some(room) = room.get_mut(..self.len()) else { return Ok(None) };
        match &self.0 {
            Place::Inline(bytes) => room.copy_from_slice(bytes),
            Place::Memory(file) => file.read(room).map_err(|error| Error::io("read", error))?,
            Place::Stream(inlet) => inlet.read(room)?,
        }
        Ok(Some(room.len()))
    }
}

impl Body<'_> {
    /// Reads the one value that it is, a vector of bytes, without having them twice.
    pub(crate) fn into_vector<T: DeserializeOwned>(self, fds: Vec<OwnedFd>) -> Result<T, Error> {
        if let Place::Inline(bytes) = self.0 {
            return Reader::new(bytes, fds).read_only();
        }
        let mut bytes = self.to_vec()?;
        let reader = Reader::new(&bytes, fds);
        let prefix = reader.finish_vector::<T>()?;
        bytes.drain(..prefix);
        octets::into(bytes).map_err(|_| Error::corrupt("it is no vector of bytes"))
    }
}

/// Receives a message and has it read. `Ok(None)`: the deadline passed before one came.
pub(crate) fn receive<R>(
    link: Link<'_>,
    patience: &Patience,
    deadline: Deadline,
    read: impl FnOnce(Reader<'_>) -> R,
) -> Result<Option<R>, Error> {
    let read = |body: Body<'_>, fds| match body.0 {
        Place::Inline(bytes) => Ok(read(Reader::new(bytes, fds))),
        Place::Memory(file) => {
            let bytes = file.map().map_err(|error| Error::io("map", error))?;
            Ok(read(Reader::new(&bytes, fds)))
        }
        Place::Stream(inlet) => Ok(read(Reader::new(&inlet.to_vec()?, fds))),
    };
    receive_body(link, patience, deadline, read)?.transpose()
}

/// Receives a message and gives its bytes and descriptors, as [`receive`] does.
pub(crate) fn receive_body<R>(
    link: Link<'_>,
    patience: &Patience,
    deadline: Deadline,
    read: impl FnOnce(Body<'_>, Vec<OwnedFd>) -> R,
) -> Result<Option<R>, Error> {
    let mut buffer = Buffer::take();
    let Some(packet) = wait_for_packet(link, &mut buffer.0, patience, deadline)? else {
        return Ok(None);
    };
    let Some(bytes) = buffer.0.get(..packet.len) else {
        return Err(Error::corrupt("it is longer than any packet of this format"));
    };
    unpack(bytes, packet.fds, deadline, read).map(Some)
}

/// Attempts, yields and sleeps at one place each: see [`Patience::turn`].
fn wait_for_packet(
    link: Link<'_>,
    buffer: &mut [u8],
    patience: &Patience,
    deadline: Deadline,
) -> Result<Option<Packet>, Error> {
    let mut turn = patience.turn();
    let mut ahead = !deadline.has_passed() && turn.is_ahead() && !link.is_expecting();
    let mut wait = Wait::Try;
    if deadline.is_never() && turn.sleeps_at_once() {
        wait = Wait::Block;
    }
    let packet = loop {
        if !mem::take(&mut ahead) {
            match link.recv(buffer, wait) {
                Ok(Some(packet)) => break Some(packet),
                Ok(None) => return Err(Error::closed()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Error::io("receive", error)),
            }
            // Whoever blocks and is told that it would was handed a descriptor that cannot block.
            if deadline.has_passed() || wait == Wait::Block {
                break None;
            }
        }
        match link.take(buffer, &mut turn) {
            Taken::Packet(len) => break Some(Packet { len, fds: Vec::new() }),
            Taken::Nothing => continue,
            Taken::Enough => {}
        }
        if deadline.is_never() {
            wait = Wait::Block;
        } else {
            // Another may receive what there is; at a passed deadline what is there is still taken.
            let socket = [link.socket];
            poll::readable(socket, deadline).map_err(|error| Error::io("wait for", error))?;
        }
    };
    turn.end(packet.is_some());
    Ok(packet)
}

/// Checks a packet against its header and has its body read.
fn unpack<R>(
    packet: &[u8],
    mut attached: Vec<OwnedFd>,
    deadline: Deadline,
    read: impl FnOnce(Body<'_>, Vec<OwnedFd>) -> R,
) -> Result<R, Error> {
    let Some((header, inline)) = Header::decode(packet) else {
        return Err(Error::corrupt("its header is not of this format"));
    };
    let body = if header.flags & IN_MEMORY != 0 {
        if attached.is_empty() || !inline.is_empty() {
            return Err(Error::corrupt("its body is said to be in memory, and is not"));
        }
        match SealedFile::check(attached.remove(0), header.len) {
            Ok(memory) => Body(Place::Memory(memory)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::corrupt(error.to_string()));
            }
            Err(error) => return Err(Error::io("open", error)),
        }
    } else if header.flags & IN_STREAM != 0 {
        if attached.len() < 2 || !inline.is_empty() {
            return Err(Error::corrupt("its body is said to come over a socket, and does not"));
        }
        let (rest, socket) = (attached.remove(0), attached.remove(0));
        Body(Place::Stream(Inlet::new(rest, socket, header.len, deadline)?))
    } else {
        Body(Place::Inline(inline))
    };
    if body.len() as u64 != header.len {
        return Err(Error::corrupt("it is shorter or longer than its header says"));
    }
    let fds = if header.flags & BY_COURIER != 0 {
        match attached.pop() {
            Some(courier) if attached.is_empty() => unload_courier(courier, header.fds)?,
            _ => return Err(Error::corrupt("it has no courier for its descriptors")),
        }
    } else {
        attached
    };
    if fds.len() != header.fds as usize {
        return Err(Error::corrupt("it has more or fewer descriptors than its header says"));
    }
    Ok(read(body, fds))
}

fn unload_courier(courier: OwnedFd, count: u32) -> Result<Vec<OwnedFd>, Error> {
    let mut fds = Vec::new();
    let mut byte = [0; 1];
    while fds.len() < count as usize {
        match socket::recv(&courier, &mut byte, Wait::Try) {
            Ok(Some(packet)) if !packet.fds.is_empty() => fds.extend(packet.fds),
            Err(error) if socket::is_exhausted(&error) => {
                return Err(Error::io("receive the descriptors of", error));
            }
            // It has no more, is no socket, or none that packets could come from.
            _ => return Err(Error::corrupt("its courier has too few descriptors")),
        }
    }
    Ok(fds)
}

/// The thread's receive buffer, taken out while in use: a `Deserialize` that itself receives gets
/// a fresh one.
struct Buffer(Vec<u8>);

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Buffer {
    fn take() -> Self {
        let mut bytes = BUFFER.take();
        if bytes.is_empty() {
            bytes = vec![0; HEADER + INLINE_MOST];
        }
        Buffer(bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.0));
    }
}
