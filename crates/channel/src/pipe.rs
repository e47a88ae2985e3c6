//! Two connected ends between which values travel whole and in order.
//!
//! # Examples
//!
//! A request and its reply:
//!
//! ```
//! use multiproc_channel::pipe;
//!
//! let (client, server) = pipe::duplex::<u64, String>()?;
//! client.send(42)?;
//! let request: u64 = server.recv()?;
//! server.send(request.to_string())?;
//! assert_eq!(client.recv()?, "42");
//! # Ok::<(), multiproc_channel::Error>(())
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::poll;
use multiproc_wire::{Body, Endpoint, Moved};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Bytes, Error, Kind, SendError};

/// Makes two connected ends that both send and receive `T`.
///
/// # Errors
///
/// The process or the system has no descriptor left.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Connection, pipe};
/// use multiproc_process::{Process, init};
///
/// init();
/// let (parent, child_end) = pipe::<String>()?;
/// let child = Process::spawn(
///     |end: Connection<String>| end.send("hello".to_string()).unwrap(),
///     child_end,
/// )?;
/// assert_eq!(parent.recv()?, "hello");
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Pipe")]
pub fn pipe<T>() -> Result<(Connection<T>, Connection<T>), Error> {
    duplex()
}

/// Makes two connected ends, of which one sends `A` and receives `B`, and the other the reverse.
///
/// # Errors
///
/// As [`pipe`].
///
/// # Examples
///
/// ```
/// use multiproc_channel::pipe;
///
/// let (client, server) = pipe::duplex::<u64, String>()?;
/// client.send(42)?;
/// server.send(server.recv()?.to_string())?;
/// assert_eq!(client.recv()?, "42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[allow(clippy::type_complexity)] // Two ends are two ends.
pub fn duplex<A, B>() -> Result<(Connection<A, B>, Connection<B, A>), Error> {
    let (here, there) = Endpoint::pair_with_memory()?;
    Ok((Connection::new(here), Connection::new(there)))
}

/// Makes an end that sends and one that receives.
///
/// # Errors
///
/// As [`pipe`].
///
/// # Examples
///
/// ```
/// use multiproc_channel::pipe;
///
/// let (sender, receiver) = pipe::one_way::<u32>()?;
/// sender.send(1)?;
/// sender.send(2)?;
/// drop(sender);
/// let received: Result<Vec<u32>, _> = receiver.iter().collect();
/// assert_eq!(received?, [1, 2]);
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
pub fn one_way<T>() -> Result<(Sender<T>, Receiver<T>), Error> {
    let (sender, receiver) = duplex()?;
    Ok((Sender(sender), Receiver(receiver)))
}

/// One end of a pipe: sends `S`, receives `R`.
///
/// It has a single owner: sent to another process, it is there and not here any more.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Connection, pipe};
///
/// let (here, there): (Connection<u8>, Connection<u8>) = pipe()?;
/// here.send(1)?;
/// assert_eq!(there.recv()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Connection<S, R = S> {
    endpoint: Endpoint,
    types: PhantomData<fn(S) -> R>,
}

/// The end of a one-way pipe that sends.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Sender, pipe};
///
/// let (sender, receiver): (Sender<u8>, _) = pipe::one_way()?;
/// drop(receiver);
/// assert!(sender.send(1).unwrap_err().is_closed());
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Sender<T>(Connection<T, Nothing>);

/// The end of a one-way pipe that receives.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Receiver, pipe};
///
/// let (sender, receiver): (_, Receiver<u8>) = pipe::one_way()?;
/// drop(sender);
/// assert!(receiver.recv().unwrap_err().is_closed());
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Receiver<T>(Connection<Nothing, T>);

/// What the other way of a one-way pipe carries.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Nothing {}

impl<S, R> Connection<S, R> {
    fn new(endpoint: Endpoint) -> Self {
        Connection { endpoint, types: PhantomData }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl<S: Serialize + DeserializeOwned, R> Connection<S, R> {
    /// Sends a value, and waits for room if the other end is slow to receive.
    ///
    /// `Ok` says that it is under way, or in the hands of a thread that waits for it, not that it was
    /// read. A value of any size goes through: one above 64 KiB while it is received, or as memory that is
    /// handed over.
    ///
    /// # Errors
    ///
    /// The other end is closed, or the value does not serialise. It comes back with the error.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// here.send(vec![1, 2, 3])?;
    /// assert_eq!(there.recv()?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send(&self, value: S) -> Result<(), SendError<S>> {
        self.send_until(value, Deadline::NEVER, Kind::TimedOut)
    }

    /// Sends a value if there is room for it now.
    ///
    /// # Errors
    ///
    /// As [`send`](Connection::send), and if there is no room, or the receiver is not ready for the first
    /// handle: [`SendError::is_full`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// let mut sent = 0;
    /// while here.try_send(sent).is_ok() {
    ///     sent += 1;
    /// }
    /// // It is full: somebody has to receive.
    /// assert_eq!(there.recv()?, 0);
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn try_send(&self, value: S) -> Result<(), SendError<S>> {
        self.send_until(value, Deadline::now(), Kind::Full)
    }

    /// Sends a value, and waits for room no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// As [`send`](Connection::send), and if there was no room in time: [`SendError::is_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// while here.send_timeout(7, soon).is_ok() {}
    /// assert!(here.send_timeout(7, soon).unwrap_err().is_timeout());
    /// assert_eq!(there.recv()?, 7);
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn send_timeout(&self, value: S, timeout: Duration) -> Result<(), SendError<S>> {
        self.send_until(value, Deadline::after(timeout), Kind::TimedOut)
    }

    fn send_until(&self, value: S, deadline: Deadline, late: Kind) -> Result<(), SendError<S>> {
        match self.endpoint.stream_vector(&value, deadline) {
            None => {}
            Some(Ok(true)) => return Ok(()),
            Some(Ok(false)) => return Err(SendError::new(late, Some(value))),
            Some(Err(error)) => return Err(SendError::new(error, Some(value))),
        }
        let mut moved = Moved::new(value);
        if let Err(error) = moved.encode() {
            return Err(SendError::new(error, moved.into_value()));
        }
        match self.endpoint.stream(moved.message(), deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SendError::new(late, moved.into_value())),
            Err(error) => Err(SendError::new(error, moved.into_value())),
        }
    }
}

impl<S, R: DeserializeOwned> Connection<S, R> {
    /// Waits for a value.
    ///
    /// # Errors
    ///
    /// The other end is closed and all that it had sent was received ([`Error::is_closed`]), or what
    /// came is not an `R` ([`Error::is_decode`]).
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<u8>()?;
    /// here.send(1)?;
    /// assert_eq!(there.recv()?, 1);
    /// drop(here);
    /// assert!(there.recv().unwrap_err().is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv(&self) -> Result<R, Error> {
        match self.endpoint.recv(Deadline::NEVER)? {
            Some(value) => Ok(value),
            None => Err(Kind::TimedOut.into()),
        }
    }

    /// Receives a value if one is there. `None` if not.
    ///
    /// # Errors
    ///
    /// As [`recv`](Connection::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<u8>()?;
    /// assert_eq!(there.try_recv()?, None);
    /// here.send(1)?;
    /// assert_eq!(there.try_recv()?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_recv(&self) -> Result<Option<R>, Error> {
        Ok(self.endpoint.recv(Deadline::now())?)
    }

    /// Waits for a value no longer than `timeout`. `None` if none came in time.
    ///
    /// # Errors
    ///
    /// As [`recv`](Connection::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<u8>()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// assert_eq!(there.recv_timeout(soon)?, None);
    /// here.send(1)?;
    /// assert_eq!(there.recv_timeout(soon)?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<R>, Error> {
        Ok(self.endpoint.recv(Deadline::after(timeout))?)
    }

    /// Receives until the other end is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// (0..3).try_for_each(|i| there.send(i))?;
    /// drop(there);
    /// assert!(here.iter().map(Result::unwrap).eq(0..3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, S, R> {
        Iter { connection: self, ended: false }
    }
}

impl<S, R> Connection<S, R> {
    /// Sends bytes as one message, which is not serialised, and waits for room if the other end is slow
    /// to receive.
    ///
    /// What is sent as bytes is to be received as bytes, and a value as a value.
    ///
    /// # Errors
    ///
    /// The other end is closed ([`Error::is_closed`]).
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<()>()?;
    /// here.send_bytes(b"hello")?;
    /// assert_eq!(there.recv_bytes()?, b"hello");
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        self.endpoint.stream_bytes(bytes, Deadline::NEVER)?;
        Ok(())
    }

    /// Waits for a message and gives its bytes: see [`send_bytes`](Connection::send_bytes).
    ///
    /// # Errors
    ///
    /// - [`is_closed`](Error::is_closed): the other end is closed and all that it had sent was received;
    /// - [`is_decode`](Error::is_decode): what came is a value with handles. It is gone.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<()>()?;
    /// here.send_bytes(&[])?;
    /// assert_eq!(there.recv_bytes()?, []);
    /// drop(here);
    /// assert!(there.recv_bytes().unwrap_err().is_closed());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn recv_bytes(&self) -> Result<Vec<u8>, Error> {
        self.recv_bytes_with(|body| Ok(body.to_vec()?))
    }

    /// Waits for a message, copies its bytes to the beginning of `buffer` and tells how many they are.
    ///
    /// # Errors
    ///
    /// As for [`recv_bytes`](Connection::recv_bytes), and
    /// [`is_buffer_too_short`](Error::is_buffer_too_short): the message is longer than the buffer. The
    /// error has it: [`Error::into_bytes`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<()>()?;
    /// let mut buffer = [0; 8];
    /// here.send_bytes(b"hello")?;
    /// let len = there.recv_bytes_into(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"hello");
    ///
    /// here.send_bytes(b"hello, world")?;
    /// let error = there.recv_bytes_into(&mut buffer).unwrap_err();
    /// assert!(error.is_buffer_too_short());
    /// assert_eq!(error.into_bytes().as_deref(), Some(&b"hello, world"[..]));
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        let room = buffer.len();
        self.recv_bytes_with(|body| match body.read_into(buffer)? {
            Some(len) => Ok(len),
            None => Err(Kind::BufferTooShort { room, message: Bytes(body.to_vec()?) }.into()),
        })
    }

    fn recv_bytes_with<T>(
        &self,
        read: impl FnOnce(Body<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let received = self.endpoint.recv_bytes_with(Deadline::NEVER, |body, has_fds| {
            if has_fds { Err(Kind::HandlesInBytes.into()) } else { read(body) }
        })?;
        // It waits as long as it takes.
        received.ok_or(Kind::TimedOut)?
    }

    /// Waits no longer than `timeout` until a call to receive would not wait: a value is there, or the
    /// other end is closed.
    ///
    /// # Errors
    ///
    /// The system refused to wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = multiproc_channel::pipe()?;
    /// assert!(!here.poll(Duration::ZERO)?);
    /// there.send(1)?;
    /// assert!(here.poll(Duration::MAX)?);
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn poll(&self, timeout: Duration) -> Result<bool, Error> {
        let [ready] = poll::readable([self.as_fd()], Deadline::after(timeout))?;
        Ok(ready)
    }
}

impl<T: Serialize + DeserializeOwned> Sender<T> {
    /// Sends a value: see [`Connection::send`].
    ///
    /// # Errors
    ///
    /// As [`Connection::send`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::one_way()?;
    /// here.send(vec![1, 2, 3])?;
    /// assert_eq!(there.recv()?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.send(value)
    }

    /// Sends a value if there is room for it now: see [`Connection::try_send`].
    ///
    /// # Errors
    ///
    /// As [`Connection::try_send`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::one_way()?;
    /// let mut sent = 0;
    /// while here.try_send(sent).is_ok() {
    ///     sent += 1;
    /// }
    /// // It is full: somebody has to receive.
    /// assert_eq!(there.recv()?, 0);
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.try_send(value)
    }

    /// Sends a value, and waits for room no longer than `timeout`: see [`Connection::send_timeout`].
    ///
    /// # Errors
    ///
    /// As [`Connection::send_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::one_way()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// while here.send_timeout(7, soon).is_ok() {}
    /// assert!(here.send_timeout(7, soon).unwrap_err().is_timeout());
    /// assert_eq!(there.recv()?, 7);
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.0.send_timeout(value, timeout)
    }
}

impl<T> Sender<T> {
    #[cfg(feature = "tokio")]
    pub(crate) fn connection(&self) -> &Connection<T, Nothing> {
        &self.0
    }

    /// Sends bytes as one message: see [`Connection::send_bytes`].
    ///
    /// # Errors
    ///
    /// As [`Connection::send_bytes`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = multiproc_channel::pipe::one_way::<()>()?;
    /// sender.send_bytes(b"hello")?;
    /// assert_eq!(receiver.recv_bytes()?, b"hello");
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        self.0.send_bytes(bytes)
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Waits for a value: see [`Connection::recv`].
    ///
    /// # Errors
    ///
    /// As [`Connection::recv`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::one_way::<u8>()?;
    /// here.send(1)?;
    /// assert_eq!(there.recv()?, 1);
    /// drop(here);
    /// assert!(there.recv().unwrap_err().is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv(&self) -> Result<T, Error> {
        self.0.recv()
    }

    /// Receives a value if one is there: see [`Connection::try_recv`].
    ///
    /// # Errors
    ///
    /// As [`Connection::recv`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::one_way::<u8>()?;
    /// assert_eq!(there.try_recv()?, None);
    /// here.send(1)?;
    /// assert_eq!(there.try_recv()?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_recv(&self) -> Result<Option<T>, Error> {
        self.0.try_recv()
    }

    /// Waits for a value no longer than `timeout`: see [`Connection::recv_timeout`].
    ///
    /// # Errors
    ///
    /// As [`Connection::recv`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::one_way::<u8>()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// assert_eq!(there.recv_timeout(soon)?, None);
    /// here.send(1)?;
    /// assert_eq!(there.recv_timeout(soon)?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>, Error> {
        self.0.recv_timeout(timeout)
    }

    /// Receives until the other end is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = multiproc_channel::pipe::one_way()?;
    /// (0..3).try_for_each(|i| sender.send(i))?;
    /// drop(sender);
    /// for (i, received) in receiver.iter().enumerate() {
    ///     assert_eq!(received?, i);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> ReceiverIter<'_, T> {
        ReceiverIter(self.0.iter())
    }
}

impl<T> Receiver<T> {
    #[cfg(feature = "tokio")]
    pub(crate) fn connection(&self) -> &Connection<Nothing, T> {
        &self.0
    }

    /// Waits for a message and gives its bytes: see [`Connection::recv_bytes`].
    ///
    /// # Errors
    ///
    /// As [`Connection::recv_bytes`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = multiproc_channel::pipe::one_way::<()>()?;
    /// sender.send_bytes(b"hello")?;
    /// assert_eq!(receiver.recv_bytes()?, b"hello");
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn recv_bytes(&self) -> Result<Vec<u8>, Error> {
        self.0.recv_bytes()
    }

    /// Waits for a message and copies its bytes: see [`Connection::recv_bytes_into`].
    ///
    /// # Errors
    ///
    /// As [`Connection::recv_bytes_into`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, receiver) = multiproc_channel::pipe::one_way::<()>()?;
    /// sender.send_bytes(b"hello")?;
    /// let mut buffer = [0; 5];
    /// assert_eq!(receiver.recv_bytes_into(&mut buffer)?, 5);
    /// assert_eq!(&buffer, b"hello");
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.0.recv_bytes_into(buffer)
    }

    /// Waits no longer than `timeout` until a call to receive would not wait: see
    /// [`Connection::poll`].
    ///
    /// # Errors
    ///
    /// As [`Connection::poll`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, receiver) = multiproc_channel::pipe::one_way()?;
    /// assert!(!receiver.poll(Duration::ZERO)?);
    /// sender.send(1)?;
    /// assert!(receiver.poll(Duration::MAX)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll(&self, timeout: Duration) -> Result<bool, Error> {
        self.0.poll(timeout)
    }
}

/// The values that come over a [`Connection`], until its other end is closed.
///
/// # Examples
///
/// ```
/// let (here, there) = multiproc_channel::pipe()?;
/// there.send(1)?;
/// let mut values: multiproc_channel::pipe::Iter<'_, u8, u8> = here.iter();
/// assert_eq!(values.next().transpose()?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Iter<'a, S, R> {
    connection: &'a Connection<S, R>,
    ended: bool,
}

/// The values that come over a [`Receiver`], until its other end is closed.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = multiproc_channel::pipe::one_way()?;
/// sender.send(1)?;
/// let mut values: multiproc_channel::pipe::ReceiverIter<'_, u8> = receiver.iter();
/// assert_eq!(values.next().transpose()?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ReceiverIter<'a, T>(Iter<'a, Nothing, T>);

impl<T: DeserializeOwned> Iterator for ReceiverIter<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<S, R: DeserializeOwned> Iterator for Iter<'_, S, R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.connection.recv() {
            Err(error) if error.is_closed() => {
                self.ended = true;
                None
            }
            // What cannot be read is one message; those after it may be well.
            Err(error) => {
                self.ended = !error.is_decode();
                Some(Err(error))
            }
            Ok(value) => Some(Ok(value)),
        }
    }
}

impl<'a, S, R: DeserializeOwned> IntoIterator for &'a Connection<S, R> {
    type Item = Result<R, Error>;
    type IntoIter = Iter<'a, S, R>;

    fn into_iter(self) -> Iter<'a, S, R> {
        self.iter()
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a Receiver<T> {
    type Item = Result<T, Error>;
    type IntoIter = ReceiverIter<'a, T>;

    fn into_iter(self) -> ReceiverIter<'a, T> {
        self.iter()
    }
}

impl<S, R> AsFd for Connection<S, R> {
    /// The socket, readable when a call to receive would not wait. It is for that alone: the ends count what
    /// they send and receive.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.endpoint.as_fd()
    }
}

impl<T> AsFd for Sender<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T> AsFd for Receiver<T> {
    /// The socket, readable when a call to receive would not wait. It is for that alone: the ends count what
    /// they send and receive.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<S, R> fmt::Debug for Connection<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<S, R> fmt::Debug for Iter<'_, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
