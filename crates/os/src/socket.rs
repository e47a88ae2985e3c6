//! Packets with file descriptors over Unix sockets that keep message boundaries.

mod control;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::Space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
    sockopt,
};

/// The most file descriptors that one packet takes: the kernel's `SCM_MAX_FD`.
pub const MAX_FDS: usize = 253;

/// Room for them, and for what comes unasked where whoever had a receiving socket before has set its options: the
/// sender's credentials, label and process.
const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS)) + 512;

/// Whether a call may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The call blocks until it can be done.
    Block,
    /// The call fails with [`io::ErrorKind::WouldBlock`] instead of blocking.
    ///
    /// It is asked of this one call and not of the descriptor: a descriptor that travels shares its
    /// `O_NONBLOCK` flag with every process that holds it.
    Try,
}

/// A packet as it was received.
#[derive(Debug)]
pub struct Packet {
    /// How many bytes it has. More than the buffer held means that the rest is lost.
    pub len: usize,
    /// The descriptors that came with it, closed on exec.
    pub fds: Vec<OwnedFd>,
}

/// Makes two connected sockets of type `SOCK_SEQPACKET`, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Checks that it is a socket as [`pair`] makes them. Others do not always do what the functions here rely on: a
/// TCP socket that is asked for a packet's true length (`MSG_TRUNC`, `tcp(7)`) discards the bytes instead of writing
/// them to the buffer.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`]: it is none.
///
/// # Examples
///
/// ```
/// use multiproc_os::socket;
///
/// let (here, _there) = socket::pair()?;
/// socket::check(&here)?;
/// assert!(socket::check(std::io::stdin()).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn check(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    match (sockopt::socket_domain(socket), sockopt::socket_type(socket)) {
        (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no socket for packets")),
    }
}

/// Says that nothing more is sent, which closing the descriptor alone does not if another process has it too.
///
/// # Errors
///
/// It is no socket.
///
/// # Examples
///
/// ```
/// use multiproc_os::socket;
///
/// let (here, there) = socket::pair()?;
/// let _copy = here.try_clone()?;
/// socket::finish(&here)?;
/// assert_eq!(socket::recv_into(&there, &mut [0; 8])?, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn finish(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, Shutdown::Write)?)
}

/// Receives one packet to the end of a vector, up to its capacity, or what there is of a stream, and tells how
/// many bytes it added: none at the end of it. What does not fit is lost, and so are descriptors.
///
/// # Errors
///
/// There is none yet, or it is no socket.
///
/// # Examples
///
/// ```
/// use multiproc_os::socket::{self, Wait};
///
/// let (here, there) = socket::pair()?;
/// socket::send_bytes(&here, b"hello", Wait::Block)?;
/// let mut bytes = Vec::with_capacity(8);
/// assert_eq!(socket::recv_onto(&there, &mut bytes)?, 5);
/// assert_eq!(bytes, b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn recv_onto(socket: impl AsFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let socket = socket.as_fd();
    until_the_end(|| {
        // Other sockets than ours know `MSG_TRUNC` for not writing what they say that they received.
        let room = rustix::buffer::spare_capacity(bytes);
        rustix::net::recv(socket, room, RecvFlags::DONTWAIT)
    })
}

/// The same for room that is there.
///
/// # Errors
///
/// As [`recv_onto`].
///
/// # Examples
///
/// ```
/// use multiproc_os::socket::{self, Wait};
///
/// let (here, there) = socket::pair()?;
/// let mut room = [0; 8];
/// let error = socket::recv_into(&there, &mut room).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
///
/// socket::send_bytes(&here, b"hello", Wait::Block)?;
/// assert_eq!(socket::recv_into(&there, &mut room)?, 5);
/// drop(here);
/// assert_eq!(socket::recv_into(&there, &mut room)?, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn recv_into(socket: impl AsFd, room: &mut [u8]) -> io::Result<usize> {
    let socket = socket.as_fd();
    until_the_end(|| rustix::net::recv(socket, &mut *room, RecvFlags::DONTWAIT))
}

/// What is told as the end may be none: see [`recv`].
fn until_the_end<T>(
    mut receive: impl FnMut() -> rustix::io::Result<(T, usize)>,
) -> io::Result<usize> {
    let mut receive = || retry_on_intr(|| receive().map(|(_, len)| len));
    match receive()? {
        0 => match receive() {
            Err(Errno::AGAIN) => Ok(0),
            result => Ok(result?),
        },
        len => Ok(len),
    }
}

/// Sends one packet: the parts one after the other, and duplicates of the descriptors.
///
/// A packet goes whole or not at all. Never raises `SIGPIPE`.
///
/// # Errors
///
/// `EMSGSIZE`: larger than the socket's send buffer. `ETOOMANYREFS`: as many descriptors are under
/// way as this user may have open. `EPIPE` or `ECONNRESET`: the other end is closed.
pub fn send(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    wait: Wait,
) -> io::Result<()> {
    let flags = send_flags(wait);
    let mut space = [MaybeUninit::<u8>::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} descriptors in one packet, the kernel takes {MAX_FDS}", fds.len()),
        ));
    }
    let socket = socket.as_fd();
    retry_on_intr(|| rustix::net::sendmsg(socket, parts, &mut control, flags))?;
    Ok(())
}

/// Sends one packet that has no descriptors, as [`send`] does.
#[inline]
pub fn send_bytes(socket: impl AsFd, packet: &[u8], wait: Wait) -> io::Result<()> {
    let socket = socket.as_fd();
    retry_on_intr(|| rustix::net::send(socket, packet, send_flags(wait)))?;
    Ok(())
}

#[inline]
fn send_flags(wait: Wait) -> SendFlags {
    match wait {
        Wait::Block => SendFlags::NOSIGNAL,
        Wait::Try => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    }
}

/// Receives one packet into `buffer`. `None` means that the other end is closed.
///
/// # Errors
///
/// `EMFILE` where this process had no room for all descriptors of the packet: the packet is lost,
/// and the descriptors that did arrive are closed.
#[inline]
pub fn recv(socket: impl AsFd, buffer: &mut [u8], wait: Wait) -> io::Result<Option<Packet>> {
    let socket = socket.as_fd();
    match recv_once(socket, buffer, wait)? {
        Some(packet) => Ok(Some(packet)),
        // The kernel finds no packet, then looks whether the other end is closed: one that sends its
        // last packet and closes in between is told as ended, with the packet still here. What is
        // told the second time is true, since nothing comes after the end.
        None => recv_at_end(socket, buffer),
    }
}

/// Receives one packet that has no descriptors, if one is there: they would be lost. `None` means that
/// the other end is closed.
#[inline]
pub fn recv_bytes(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let socket = socket.as_fd();
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, 0)) => break Ok(recv_at_end(socket, buffer)?.map(|packet| packet.len)),
            Ok((_, len)) => break Ok(Some(len)),
            // See `recv_once`.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(error) => break Err(error.into()),
        }
    }
}

#[cold]
fn recv_at_end(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
    match recv_once(socket, buffer, Wait::Try) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result,
    }
}

#[inline]
fn recv_once(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: Wait) -> io::Result<Option<Packet>> {
    let mut flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
    if wait == Wait::Try {
        flags |= RecvFlags::DONTWAIT;
    }
    let mut space = Space::new();
    let mut control = RecvAncillaryBuffer::new(space.room());
    let message = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, flags) {
            // The other end was closed with packets for it unread. That is told once, ahead of what it
            // has itself sent, which is still here.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    // All was taken, and its `Drop` would look for more at a place where no header begins.
    mem::forget(control);
    drop(space.take_pidfd());
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE.into());
    }
    // Every packet of ours has a header, so that one without bytes can only be the end.
    if message.bytes == 0 {
        return Ok(None);
    }
    Ok(Some(Packet { len: message.bytes, fds }))
}

/// Tells whether the error says that the other end is closed.
pub fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Tells whether the error says that the call would have blocked.
///
/// Too many descriptors under way count as a full socket: they are taken out sooner or later. So does a
/// receiver that is busy (see [`handoff`](crate::handoff)).
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
        || error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error())
}

/// Tells whether the error says that this process or the system has no descriptor or memory left.
pub fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Tells whether the error of [`recv`] says that it took a packet and lost it.
pub fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MFILE.raw_os_error())
}

/// Tells whether the error says that there is no room for a packet of this length, whoever receives: in the socket's
/// send buffer, or in memory, of which it needs large pieces.
pub fn is_too_large(error: &io::Error) -> bool {
    let too_large = [Errno::MSGSIZE, Errno::NOBUFS, Errno::NOMEM];
    too_large.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
