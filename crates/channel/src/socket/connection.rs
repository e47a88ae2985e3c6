use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::peer;
#[cfg(feature = "tokio")]
use multiproc_wire::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Codec;
use super::frame::Incoming;
use super::outgoing::Outgoing;
use super::stream::Stream;
use crate::error::{Error, Kind};

/// One end of a connection between a [`Listener`](super::Listener) and a [`Client`](super::Client), of
/// programs that were started apart.
///
/// It carries messages, whole and in order, in CPython's format: Python's `multiprocessing.connection`
/// is understood at the other end. Values travel by a [`Codec`]. Handles such as queues and locks do
/// not: for them take a [`pipe`](crate::pipe()).
///
/// Nothing is encrypted.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Address, Client, Listener};
///
/// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| Client::connect(listener.address().clone())?.send(&("answer", 42)));
///     let connection = listener.accept()?;
///     assert_eq!(connection.recv::<(String, i32)>()?, ("answer".to_string(), 42));
///     Ok::<(), multiproc_channel::Error>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SocketConnection {
    stream: Stream,
    codec: Codec,
    longest: usize,
    /// Held while a message is written.
    outgoing: Mutex<Outgoing>,
    /// What has come of the next message.
    incoming: Mutex<Incoming>,
}

/// Who is at the other end of a local connection, as the kernel knows it.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Address, Client, Credentials, Listener};
///
/// let name = format!("credentials-{}", std::process::id());
/// let listener = Listener::bind(Address::abstract_name(name))?;
/// let _client = Client::connect(listener.address().clone())?;
/// let Some(Credentials { pid, .. }) = listener.accept()?.peer_credentials()? else {
///     unreachable!("it is no TCP connection");
/// };
/// assert_eq!(pid, std::process::id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The process that connected, or that listens; it may have ended since. 0 if it is outside this
    /// process's pid namespace, as one in another container is.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl SocketConnection {
    pub(super) fn new(stream: Stream, codec: Codec, longest: usize) -> Self {
        let (outgoing, incoming) = (Mutex::default(), Mutex::default());
        SocketConnection { stream, codec, longest, outgoing, incoming }
    }

    /// Sends a value. Waits while the other end does not read.
    ///
    /// # Errors
    ///
    /// - [`is_encode`](Error::is_encode): the value does not serialise;
    /// - [`is_closed`](Error::is_closed): the other end is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// client.send(&("answer", 42))?;
    /// assert_eq!(connection.recv::<(String, i32)>()?, ("answer".to_string(), 42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        self.send_bytes(self.codec.encode(value)?.bytes())
    }

    /// Waits for a value.
    ///
    /// # Errors
    ///
    /// - [`is_closed`](Error::is_closed): the other end is closed, and all it had sent was read;
    /// - [`is_decode`](Error::is_decode): what came is no such value. It is gone.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// client.send(&1)?;
    /// drop(client);
    /// assert_eq!(connection.recv::<i32>()?, 1);
    /// assert!(connection.recv::<i32>().unwrap_err().is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.codec.decode(self.recv_bytes()?)
    }

    /// Waits for a value, for so long at the most.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// assert_eq!(connection.recv_timeout::<i32>(soon)?, None);
    /// client.send(&1)?;
    /// assert_eq!(connection.recv_timeout(soon * 1000)?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_timeout<T: DeserializeOwned>(&self, timeout: Duration) -> Result<Option<T>, Error> {
        let bytes = self.recv_bytes_until(Deadline::after(timeout))?;
        bytes.map(|bytes| self.codec.decode(bytes)).transpose()
    }

    /// Sends bytes as one message.
    ///
    /// # Errors
    ///
    /// [`is_closed`](Error::is_closed): the other end is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// client.send_bytes(b"hello")?;
    /// assert_eq!(listener.accept()?.recv_bytes()?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        lock(&self.outgoing).write_all(&self.stream, bytes)
    }

    /// Waits for a message and gives its bytes.
    ///
    /// # Errors
    ///
    /// - [`is_closed`](Error::is_closed): the other end is closed, and all it had sent was read;
    /// - what comes is no message, or longer than it may be.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// client.send_bytes(b"hello")?;
    /// assert_eq!(connection.recv_bytes()?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes(&self) -> Result<Vec<u8>, Error> {
        match self.recv_bytes_until(Deadline::NEVER)? {
            Some(bytes) => Ok(bytes),
            None => unreachable!("it waits as long as it takes"),
        }
    }

    /// Waits for a message, for so long at the most, and gives its bytes.
    ///
    /// # Errors
    ///
    /// As for [`recv_bytes`](Self::recv_bytes).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// assert_eq!(connection.recv_bytes_timeout(soon)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes_timeout(&self, timeout: Duration) -> Result<Option<Vec<u8>>, Error> {
        self.recv_bytes_until(Deadline::after(timeout))
    }

    /// Tells whether something can be received, or the other end is closed, within this time.
    ///
    /// # Errors
    ///
    /// The system refuses to wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// assert!(!connection.poll(soon)?);
    /// client.send_bytes(b"hello")?;
    /// assert!(connection.poll(soon * 1000)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll(&self, timeout: Duration) -> Result<bool, Error> {
        let deadline = Deadline::after(timeout);
        Ok(multiproc_os::poll::readable([self.as_fd()], deadline)?[0])
    }

    /// Who is at the other end. `None` over TCP.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// assert_eq!(connection.peer_credentials()?, None);
    ///
    /// let listener = Listener::bind(Address::abstract_name(format!("who-{}", std::process::id())))?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let peer = client.peer_credentials()?.unwrap();
    /// assert_eq!(peer.pid, std::process::id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peer_credentials(&self) -> Result<Option<Credentials>, Error> {
        let Stream::Local(stream) = &self.stream else { return Ok(None) };
        let (pid, uid, gid) = peer::credentials(stream)?;
        Ok(Some(Credentials { pid, uid, gid }))
    }

    #[cfg(feature = "tokio")]
    pub(super) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Message, Error> {
        self.codec.encode(value)
    }

    /// Begins a message if there is room for a part of it. Gives the position at which it ends.
    #[cfg(feature = "tokio")]
    pub(super) fn begin(&self, bytes: &[u8]) -> Result<Option<u64>, Error> {
        lock(&self.outgoing).begin(&self.stream, bytes)
    }

    /// Writes what there is room for. Tells whether all up to this position is written.
    #[cfg(feature = "tokio")]
    pub(super) fn write_to(&self, position: u64) -> Result<Option<()>, Error> {
        lock(&self.outgoing).write_to(&self.stream, position)
    }

    #[cfg(feature = "tokio")]
    pub(super) fn decode<T: DeserializeOwned>(&self, bytes: Vec<u8>) -> Result<T, Error> {
        self.codec.decode(bytes)
    }

    fn recv_bytes_until(&self, deadline: Deadline) -> Result<Option<Vec<u8>>, Error> {
        let mut incoming = lock(&self.incoming);
        receive(&self.stream, &mut incoming, self.longest, deadline)
    }
}

/// Waits until all of a message has come. What has come until the deadline stays in `incoming`.
pub(super) fn receive(
    stream: &Stream,
    incoming: &mut Incoming,
    longest: usize,
    deadline: Deadline,
) -> Result<Option<Vec<u8>>, Error> {
    while let Some(room) = incoming.room(longest)? {
        match stream.read(room, deadline).map_err(closed_or)? {
            Some(0) if incoming.is_empty() => return Err(Kind::ConnectionClosed.into()),
            Some(0) => return Err(Kind::Frame("the other end was closed amid it").into()),
            Some(read) => incoming.add(read),
            None => return Ok(None),
        }
    }
    Ok(Some(incoming.take()))
}

/// What was closed, in whatever way, is closed.
pub(super) fn closed_or(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Kind::ConnectionClosed.into(),
        _ => error.into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsFd for SocketConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl fmt::Debug for SocketConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketConnection").field("codec", &self.codec).finish_non_exhaustive()
    }
}
