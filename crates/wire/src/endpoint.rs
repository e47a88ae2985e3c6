use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::octets;
use multiproc_os::patience::Patience;
use multiproc_os::poll;
use multiproc_os::socket::{self, Wait};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Error;
use crate::explain;
use crate::fd::UniqueFd;
use crate::frame::{self, Body};
use crate::link::{Link, Page};
use crate::message::{Message, Reader};
use crate::table;

/// One end of a socket over which messages travel whole, in order, in both directions.
///
/// It is itself a handle that can be sent: one with a single owner, or, as `Endpoint<SharedFd>`, one
/// that many processes send into or receive from. Each message then reaches one of them.
///
/// # Examples
///
/// ```
/// use multiproc_os::deadline::Deadline;
/// use multiproc_wire::{Endpoint, encode};
///
/// let (here, there) = Endpoint::pair()?;
/// here.send(&encode(&("hello", 3))?, Deadline::NEVER)?;
/// let received: Option<(String, i32)> = there.recv(Deadline::NEVER)?;
/// assert_eq!(received, Some(("hello".to_string(), 3)));
///
/// drop(here);
/// assert!(there.recv::<()>(Deadline::NEVER).unwrap_err().is_closed());
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Debug, Serialize)]
pub struct Endpoint<F = UniqueFd> {
    fd: F,
    page: Option<Page>,
    #[serde(skip)]
    patience: Patience,
}

impl Endpoint {
    /// Makes two connected ends.
    ///
    /// # Errors
    ///
    /// The process or the system has no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_wire::Endpoint::pair()?;
    /// drop(here);
    /// drop(there);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn pair() -> Result<(Self, Self), Error> {
        Self::pair_of()
    }

    /// Makes two connected ends that share memory as well. A short message without handles is handed over
    /// there, without a system call, to a thread that waits in a call of the other end and yields. An end
    /// has one descriptor more for it once it was sent to another process; before, both have one.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::pair`], or there is no memory or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::{Endpoint, encode};
    ///
    /// let (here, there) = Endpoint::pair_with_memory()?;
    /// here.send(&encode(&7u8)?, Deadline::NEVER)?;
    /// assert_eq!(there.recv(Deadline::NEVER)?, Some(7u8));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn pair_with_memory() -> Result<(Self, Self), Error> {
        let (here, there) = Self::pair()?;
        let pages = Page::pair().map_err(|error| Error::io("make memory for", error))?;
        let with = |end, page| Endpoint { page: Some(page), ..end };
        Ok((with(here, pages.0), with(there, pages.1)))
    }
}

impl<F: AsFd + From<OwnedFd>> Endpoint<F> {
    /// Makes two connected ends with descriptors of this kind.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::pair`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_wire::{Endpoint, SharedFd};
    ///
    /// let (here, _there) = Endpoint::<SharedFd>::pair_of()?;
    /// // An end that several processes may have.
    /// let _message = multiproc_wire::encode(&here)?;
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn pair_of() -> Result<(Self, Self), Error> {
        let (here, there) =
            socket::pair().map_err(|error| Error::io("make a socket for", error))?;
        Ok((here.into(), there.into()))
    }
}

impl<F: AsFd> Endpoint<F> {
    /// Has waits on this end yield for as long as this says before they sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::patience::Patience;
    /// use multiproc_wire::Endpoint;
    ///
    /// let (here, _there) = Endpoint::pair()?;
    /// let _patient = here.with_patience(Patience::for_processes());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Endpoint { patience, ..self }
    }

    /// Sends one message. Returns `false` if the deadline passed before there was room for it.
    ///
    /// `Ok(true)` says that the message is under way, not that it was received.
    ///
    /// # Errors
    ///
    /// The other end is closed, or the system refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::{Endpoint, encode};
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// assert!(here.send(&encode("hello")?, Deadline::NEVER)?);
    /// assert_eq!(there.recv(Deadline::NEVER)?, Some("hello".to_string()));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn send(&self, message: &Message, deadline: Deadline) -> Result<bool, Error> {
        self.send_parts([message.bytes(), &[]], &message.fds(), deadline)
    }

    /// Sends bytes that need no encoding as one message: see [`send`](Endpoint::send).
    ///
    /// # Errors
    ///
    /// The other end is closed, or the system refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::Endpoint;
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// here.send_bytes(b"hello", Deadline::NEVER)?;
    /// let len = there.recv_bytes_with(Deadline::NEVER, |body, _| body.len())?;
    /// assert_eq!(len, Some(5));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8], deadline: Deadline) -> Result<bool, Error> {
        self.send_parts([bytes, &[]], &[], deadline)
    }

    /// Receives one value. Returns `None` if the deadline passed before one came.
    ///
    /// # Errors
    ///
    /// The other end is closed and all was received, or what came is not a value of this type. What
    /// came is then gone; the next call receives the next message.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::{Endpoint, encode};
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// assert_eq!(there.recv::<u8>(Deadline::now())?, None);
    /// here.send(&encode(&7u8)?, Deadline::NEVER)?;
    /// assert_eq!(there.recv::<u8>(Deadline::now())?, Some(7));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn recv<T: DeserializeOwned>(&self, deadline: Deadline) -> Result<Option<T>, Error> {
        if octets::is_vector::<T>() {
            let read = |body: Body<'_>, fds| body.into_vector(fds);
            return frame::receive_body(self.link(), &self.patience, deadline, read)?.transpose();
        }
        self.recv_with(deadline, |reader| reader.read_only())?.transpose()
    }

    /// Receives one message and has it read. Returns `None` if the deadline passed before one came.
    ///
    /// # Errors
    ///
    /// The other end is closed and all was received, or what came is no message.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::{Endpoint, Message};
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// let mut message = Message::new();
    /// message.push(&1u8)?;
    /// message.push("one")?;
    /// here.send(&message, Deadline::NEVER)?;
    /// let first = there.recv_with(Deadline::NEVER, |mut reader| reader.read::<u8>())?;
    /// assert_eq!(first.transpose()?, Some(1));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn recv_with<R>(
        &self,
        deadline: Deadline,
        read: impl FnOnce(Reader<'_>) -> R,
    ) -> Result<Option<R>, Error> {
        frame::receive(self.link(), &self.patience, deadline, read)
    }

    /// Receives one message that is bytes alone: see [`send_bytes`](Endpoint::send_bytes). They are
    /// had for a copy, which costs less than reading them in place. Returns `None` if the deadline
    /// passed before one came.
    ///
    /// `read` is also told whether the message has descriptors, which are closed.
    ///
    /// # Errors
    ///
    /// As [`recv_with`](Endpoint::recv_with).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::Endpoint;
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// here.send_bytes(b"hello", Deadline::NEVER)?;
    /// let copied = there.recv_bytes_with(Deadline::NEVER, |body, _| body.to_vec())?;
    /// assert_eq!(copied.transpose()?.as_deref(), Some(&b"hello"[..]));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn recv_bytes_with<R>(
        &self,
        deadline: Deadline,
        read: impl FnOnce(Body<'_>, bool) -> R,
    ) -> Result<Option<R>, Error> {
        let read = |body: Body<'_>, fds: Vec<OwnedFd>| read(body, !fds.is_empty());
        frame::receive_body(self.link(), &self.patience, deadline, read)
    }

    /// Sends two parts, one after the other, and descriptors as one message: see
    /// [`send`](Endpoint::send).
    ///
    /// # Errors
    ///
    /// The other end is closed, or the system refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::Endpoint;
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// here.send_parts([b"hel", b"lo"], &[], Deadline::NEVER)?;
    /// let len = there.recv_bytes_with(Deadline::NEVER, |body, _| body.len())?;
    /// assert_eq!(len, Some(5));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn send_parts(
        &self,
        parts: [&[u8]; 2],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<bool, Error> {
        self.try_send_parts(parts, fds, deadline, false).map_err(|error| Error::io("send", error))
    }

    /// Sends one message as [`send`](Endpoint::send) does, but a long one, if it may wait, while it is
    /// received: for a receiver that has nothing better to do meanwhile.
    ///
    /// # Errors
    ///
    /// As [`send`](Endpoint::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::{Endpoint, encode};
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// assert!(here.stream(&encode("hello")?, Deadline::NEVER)?);
    /// assert_eq!(there.recv(Deadline::NEVER)?, Some("hello".to_string()));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn stream(&self, message: &Message, deadline: Deadline) -> Result<bool, Error> {
        // As most messages do: in one go. Whatever is in the way of that is told by the next attempt.
        if !message.has_fds()
            && frame::send_short(self.link(), message.bytes(), Self::wait(deadline))
        {
            return Ok(true);
        }
        self.try_send_parts([message.bytes(), &[]], &message.fds(), deadline, true)
            .map_err(|error| Error::io("send", error))
    }

    /// Sends bytes as [`send_bytes`](Endpoint::send_bytes) does, but many of them as
    /// [`stream`](Endpoint::stream).
    ///
    /// # Errors
    ///
    /// As [`send`](Endpoint::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::Endpoint;
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// // Nobody receives it meanwhile: it goes through memory.
    /// here.stream_bytes(&vec![7; 1 << 20], Deadline::NEVER)?;
    /// let len = there.recv_bytes_with(Deadline::NEVER, |body, _| body.len())?;
    /// assert_eq!(len, Some(1 << 20));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn stream_bytes(&self, bytes: &[u8], deadline: Deadline) -> Result<bool, Error> {
        self.try_send_parts([bytes, &[]], &[], deadline, true)
            .map_err(|error| Error::io("send", error))
    }

    /// Sends a value as [`stream`](Endpoint::stream) does, if it is a vector of bytes: those are sent from
    /// where they are. `None` if it is something else.
    ///
    /// # Errors
    ///
    /// As [`send`](Endpoint::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::Endpoint;
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// let bytes = vec![7u8; 1 << 20];
    /// assert!(here.stream_vector(&bytes, Deadline::NEVER).transpose()?.is_some());
    /// assert!(there.recv::<Vec<u8>>(Deadline::NEVER)? == Some(bytes));
    ///
    /// assert!(here.stream_vector("hello", Deadline::NEVER).is_none());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn stream_vector<T: ?Sized>(
        &self,
        value: &T,
        deadline: Deadline,
    ) -> Option<Result<bool, Error>> {
        let bytes = octets::of(value)?;
        let mut room = [0; 10];
        let prefix = match postcard::to_slice(&bytes.len(), &mut room) {
            Ok(prefix) => &*prefix,
            Err(error) => return Some(Err(explain::encode_error(bytes, &error))),
        };
        let sent = self.try_send_parts([prefix, bytes], &[], deadline, true);
        Some(sent.map_err(|error| Error::io("send", error)))
    }

    #[inline]
    fn link(&self) -> Link<'_> {
        Link { socket: self.as_fd(), handoff: self.page.as_ref().map(|page| &page.handoff) }
    }

    #[inline]
    fn wait(deadline: Deadline) -> Wait {
        if deadline.is_never() { Wait::Block } else { Wait::Try }
    }

    /// Makes one attempt to send a message, which does not wait.
    ///
    /// # Errors
    ///
    /// As [`send`](Endpoint::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_wire::{Attempt, Endpoint, encode};
    ///
    /// let (here, _there) = Endpoint::pair()?;
    /// let message = encode(&[7u8; 1000][..])?;
    /// while here.attempt(&message)? == Attempt::Sent {}
    /// // It is full: somebody has to receive.
    /// assert_eq!(here.attempt(&message)?, Attempt::NoRoom);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn attempt(&self, message: &Message) -> Result<Attempt, Error> {
        self.attempt_parts([message.bytes(), &[]], &message.fds(), Wait::Try, false)
            .map_err(|error| Error::io("send", error))
    }

    fn try_send_parts(
        &self,
        parts: [&[u8]; 2],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
        streams: bool,
    ) -> io::Result<bool> {
        const PAUSE: Duration = Duration::from_millis(1);
        let wait = Self::wait(deadline);
        loop {
            match self.attempt_parts(parts, fds, wait, streams)? {
                Attempt::Sent => return Ok(true),
                Attempt::NoRoom => {
                    if !poll::writable(self, deadline)? {
                        return Ok(false);
                    }
                }
                Attempt::Busy => {
                    if deadline.has_passed() {
                        return Ok(false);
                    }
                    #[allow(clippy::disallowed_methods)]
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn attempt_parts(
        &self,
        parts: [&[u8]; 2],
        fds: &[BorrowedFd<'_>],
        wait: Wait,
        streams: bool,
    ) -> io::Result<Attempt> {
        match frame::send(self.link(), parts, fds, wait, streams) {
            Ok(()) => Ok(Attempt::Sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Attempt::NoRoom),
            Err(error) if socket::is_full(&error) => Ok(Attempt::Busy),
            Err(error) => Err(error),
        }
    }
}

/// What came of an attempt to send.
///
/// # Examples
///
/// ```
/// use multiproc_wire::{Attempt, Endpoint, encode};
///
/// let (here, _there) = Endpoint::pair()?;
/// assert_eq!(here.attempt(&encode("hello")?)?, Attempt::Sent);
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The message is under way.
    Sent,
    /// There is no room for it. The endpoint is writable as soon as there is some.
    NoRoom,
    /// Something is in the way of its descriptors, or of those that a long body has: as many are under way
    /// as may be, or the receiver is not ready for the first of them. Nothing tells when it is over; that
    /// is as a rule soon.
    Busy,
}

impl<F: From<OwnedFd>> From<OwnedFd> for Endpoint<F> {
    /// Takes one end of a connected `SOCK_SEQPACKET` socket.
    fn from(fd: OwnedFd) -> Self {
        Endpoint { fd: fd.into(), page: None, patience: Patience::new() }
    }
}

impl<F: AsFd> AsFd for Endpoint<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<'de, F: AsFd + Deserialize<'de>> Deserialize<'de> for Endpoint<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts<F> {
            fd: F,
            page: Option<Page>,
        }
        let Parts::<F> { fd, page } = Deserialize::deserialize(deserializer)?;
        socket::check(&fd).map_err(table::fail)?;
        Ok(Endpoint { fd, page, patience: Patience::default() })
    }
}
