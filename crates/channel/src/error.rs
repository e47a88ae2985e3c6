use std::fmt;
use std::io;

use multiproc_sync::{LockError, MemoryError};

/// Why nothing could be sent or received, other than that it is not there yet.
///
/// # Examples
///
/// ```
/// let (here, there) = multiproc_channel::pipe::<String>()?;
/// drop(here);
/// assert!(there.recv().unwrap_err().is_closed());
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Kind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error(transparent)]
    Message(#[from] multiproc_wire::Error),
    #[error("the queue is closed")]
    QueueClosed,
    #[error("the queue is full")]
    Full,
    #[error("nothing could be sent before the time was up")]
    TimedOut,
    #[error("the queue's memory: {0}")]
    Memory(#[from] MemoryError),
    #[error("the queue's lock: {0}")]
    Lock(#[source] LockError),
    #[error(
        "an item of {len} bytes is too long for a queue, which takes up to 4 GiB: send it as shared memory"
    )]
    TooLong { len: usize },
    #[error("the queue's memory is corrupt: {0}")]
    Corrupt(&'static str),
    #[error("cannot wait for the queue: {0}")]
    Wait(#[from] io::Error),
    #[error(
        "a handle cannot travel to a program that was started apart: send it through a pipe or a queue"
    )]
    Handles,
    #[error("the other end of the connection is closed")]
    ConnectionClosed,
    #[error("the connection is broken: a message was not sent whole")]
    Broken,
    #[error("cannot {operation} {address}: {source}")]
    Socket { operation: &'static str, address: String, source: io::Error },
    #[error("the other end is not authenticated: {0}")]
    Authentication(&'static str),
    #[error(
        "the other end has not proved its key in time: it is slow, or only one end has a key, or it \
         speaks another protocol"
    )]
    HandshakeTimedOut,
    #[error("a message is corrupt: {0}")]
    Frame(&'static str),
    #[error("a message of {len} bytes was announced where {most} are the most")]
    FrameTooLong { len: usize, most: usize },
    #[error("there is no memory for a message of {len} bytes")]
    NoMemory { len: usize },
    #[cfg(feature = "pickle")]
    #[error("cannot pickle a value: {0}")]
    Encode(String),
    #[cfg(feature = "pickle")]
    #[error("cannot read a pickle: {0}")]
    Decode(String),
    #[error("a queue needs room for at least one item")]
    ZeroBound,
    #[error("an item was marked as done, and all that were put in are done already")]
    NothingUnfinished,
    #[error("a message of {} bytes does not fit into a buffer of {room}", .message.0.len())]
    BufferTooShort { room: usize, message: Bytes },
    #[error("a message has handles, and only its bytes are asked for: receive it as a value")]
    HandlesInBytes,
}

/// What a message had.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They may be many, or secret.
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<multiproc_wire::Error> for Error {
    fn from(error: multiproc_wire::Error) -> Self {
        Kind::from(error).into()
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Kind::from(error).into()
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Kind::from(error).into()
    }
}

impl Error {
    /// Tells whether the other end, or the queue, is closed: nothing more will come, nothing more can
    /// be sent.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::<u8>::new()?;
    /// queue.close();
    /// assert!(queue.get().unwrap_err().is_closed());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Kind::Message(error) => error.is_closed(),
            Kind::QueueClosed | Kind::ConnectionClosed => true,
            _ => false,
        }
    }

    /// Tells whether there was no room, for a call that does not wait for it.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.try_put(2).unwrap_err().into_error().is_full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_full(&self) -> bool {
        matches!(self.0, Kind::Full)
    }

    /// Tells whether there was no room before the time was up, or no proof of the other end's key.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// queue.put(1)?;
    /// let late = queue.put_timeout(2, Duration::from_millis(1)).unwrap_err();
    /// assert!(late.into_error().is_timeout());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Kind::TimedOut | Kind::HandshakeTimedOut)
    }

    /// Tells whether the other end of a connection has another key than this one, or proves it in a
    /// way that is not good enough.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::builder().authkey("secret").bind(Address::tcp("127.0.0.1:0")?)?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| Client::builder().authkey("guess").connect(listener.address().clone()));
    ///     assert!(listener.accept().unwrap_err().is_authentication());
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_authentication(&self) -> bool {
        matches!(self.0, Kind::Authentication(_))
    }

    /// Tells whether the value could not be serialised.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Mutex;
    ///
    /// let mutex = Mutex::new(1);
    /// let (here, _there) = multiproc_channel::pipe::<Mutex<u8>>()?;
    /// std::thread::scope(|scope| {
    ///     let poison = scope.spawn(|| {
    ///         let _held = mutex.lock().unwrap();
    ///         std::panic::resume_unwind(Box::new(()));
    ///     });
    ///     poison.join().unwrap_err();
    /// });
    /// // What is poisoned does not serialise.
    /// assert!(here.send(mutex).unwrap_err().into_error().is_encode());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn is_encode(&self) -> bool {
        match &self.0 {
            Kind::Message(error) => error.is_encode(),
            Kind::Handles => true,
            #[cfg(feature = "pickle")]
            Kind::Encode(_) => true,
            _ => false,
        }
    }

    /// Tells whether what came is not a value of the expected type. It is gone; the next call gets
    /// what comes next.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::duplex::<u32, ()>()?;
    /// here.send_bytes(&[255])?; // the beginning of a number
    /// assert!(there.recv().unwrap_err().is_decode());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn is_decode(&self) -> bool {
        match &self.0 {
            Kind::Message(error) => error.is_decode(),
            Kind::HandlesInBytes => true,
            #[cfg(feature = "pickle")]
            Kind::Decode(_) => true,
            _ => false,
        }
    }

    /// Tells whether a message came that is longer than the buffer that it was to be copied to. The
    /// error has it: [`into_bytes`](Error::into_bytes).
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<()>()?;
    /// here.send_bytes(b"hello")?;
    /// assert!(there.recv_bytes_into(&mut [0; 4]).unwrap_err().is_buffer_too_short());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    #[doc(alias = "BufferTooShort")]
    pub fn is_buffer_too_short(&self) -> bool {
        matches!(self.0, Kind::BufferTooShort { .. })
    }

    /// The message that was received and did not fit into the buffer:
    /// [`is_buffer_too_short`](Error::is_buffer_too_short).
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe::<()>()?;
    /// here.send_bytes(b"hello")?;
    /// let error = there.recv_bytes_into(&mut []).unwrap_err();
    /// assert_eq!(error.into_bytes(), Some(b"hello".to_vec()));
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self.0 {
            Kind::BufferTooShort { message, .. } => Some(message.0),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error.0 {
            Kind::QueueClosed | Kind::ConnectionClosed | Kind::Broken => io::ErrorKind::BrokenPipe,
            Kind::Authentication(_) => io::ErrorKind::PermissionDenied,
            Kind::HandshakeTimedOut => io::ErrorKind::TimedOut,
            Kind::Socket { source, .. } => source.kind(),
            Kind::NoMemory { .. } => io::ErrorKind::OutOfMemory,
            Kind::Message(inner) if inner.is_closed() => io::ErrorKind::BrokenPipe,
            Kind::Full => io::ErrorKind::WouldBlock,
            Kind::TimedOut => io::ErrorKind::TimedOut,
            Kind::Wait(source) => source.kind(),
            Kind::ZeroBound | Kind::NothingUnfinished => io::ErrorKind::InvalidInput,
            Kind::Message(inner) if inner.is_encode() => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// A value that was not sent, and why.
///
/// # Examples
///
/// ```
/// let (here, there) = multiproc_channel::pipe::<String>()?;
/// drop(there);
/// let error = here.send("hello".to_string()).unwrap_err();
/// assert!(error.is_closed());
/// assert_eq!(error.into_inner(), Some("hello".to_string()));
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
pub struct SendError<T> {
    error: Error,
    value: Option<T>,
}

impl<T> SendError<T> {
    pub(crate) fn new(error: impl Into<Error>, value: Option<T>) -> Self {
        SendError { error: error.into(), value }
    }

    /// The value that was not sent.
    ///
    /// `None` only if it holds a handle with a single owner, had to be taken apart for sending, and
    /// its `Deserialize` refuses what its `Serialize` wrote.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// drop(there);
    /// let error = here.send("lost".to_string()).unwrap_err();
    /// assert_eq!(error.into_inner().as_deref(), Some("lost"));
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn into_inner(self) -> Option<T> {
        self.value
    }

    /// Why, without the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// drop(there);
    /// let error: multiproc_channel::Error = here.send(1).unwrap_err().into_error();
    /// assert!(error.is_closed());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn into_error(self) -> Error {
        self.error
    }

    /// Tells whether nobody can receive it any more: see [`Error::is_closed`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// drop(there);
    /// assert!(here.send(1).unwrap_err().is_closed());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.error.is_closed()
    }

    /// Tells whether there was no room for it: see [`Error::is_full`].
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.try_put(2).unwrap_err().is_full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_full(&self) -> bool {
        self.error.is_full()
    }

    /// Tells whether there was no room for it before the time was up: see [`Error::is_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.put_timeout(2, Duration::from_millis(1)).unwrap_err().is_timeout());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        self.error.is_timeout()
    }

    /// Tells whether it could not be serialised: see [`Error::is_encode`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiproc_channel::pipe()?;
    /// drop(there);
    /// assert!(!here.send(1).unwrap_err().is_encode());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn is_encode(&self) -> bool {
        self.error.is_encode()
    }
}

impl<T> From<SendError<T>> for Error {
    fn from(error: SendError<T>) -> Self {
        error.error
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be large, or secret.
        f.debug_struct("SendError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for SendError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}
