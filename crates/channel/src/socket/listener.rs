use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
#[cfg(feature = "tokio")]
use std::sync::TryLockError;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use interprocess::local_socket as local;
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use multiproc_os::deadline::Deadline;
use multiproc_os::poll;

use super::file::SocketFile;
use super::handshake::Handshake;
use super::proof::Proof;
use super::stream::Stream;
use super::{Address, SocketConnection, SocketOptions, local_name};
use crate::error::{Error, Kind};

/// Takes connections from programs that were started apart, in Rust or in Python.
///
/// With a key, both ends prove that they know it, as Python's do, before [`accept`](Self::accept) gives
/// a connection. A client that is silent, or has no key, holds up nobody else, and is dropped in time.
///
/// The key says who may connect. Nothing is encrypted: use TCP where you would send the data in the
/// clear.
///
/// Of a socket file only its user may connect (mode 0600). It is removed when the listener is dropped; one
/// that a killed listener has left is replaced, if nobody listens there.
///
/// # Examples
///
/// ```no_run
/// use multiproc_channel::{Address, Digest, Listener};
///
/// // In Python: Client("/tmp/example.sock", authkey=b"secret").send_bytes(b"hello")
/// let listener = Listener::builder()
///     .authkey("secret")
///     .digest(Digest::Md5) // all that Python up to 3.11 knows
///     .bind(Address::path("/tmp/example.sock"))?;
/// for connection in listener.incoming() {
///     match connection {
///         Ok(connection) => println!("{:?}", connection.recv_bytes()),
///         Err(error) => eprintln!("somebody was refused: {error}"),
///     }
/// }
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
pub struct Listener {
    socket: Socket,
    address: Address,
    options: SocketOptions,
    /// Those that have not proved their key yet.
    pending: Mutex<Vec<Proof>>,
    /// Of the tasks that accept, the one that has it waits for all.
    #[cfg(feature = "tokio")]
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Tells the task that a thread is done, which may have left others that are about to prove the key.
    #[cfg(feature = "tokio")]
    pub(super) left: tokio::sync::Notify,
    _file: Option<SocketFile>,
}

/// What came of an attempt to accept without waiting.
#[cfg(feature = "tokio")]
pub(super) enum Attempt {
    Accepted(SocketConnection),
    /// Until one of these can be read, or this moment.
    WaitFor {
        fds: Vec<OwnedFd>,
        until: Deadline,
    },
    /// A thread waits in a call that blocks.
    InUse,
}

enum Socket {
    Local(UnixListener),
    Tcp(TcpListener),
}

/// More than so many at once are not listened to.
const MOST_PENDING: usize = 64;

impl Listener {
    /// Listens without a key: whoever can connect may.
    ///
    /// # Errors
    ///
    /// Somebody listens there already, or nobody may.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// client.send(&1)?;
    /// assert_eq!(listener.accept()?.recv::<i32>()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind(address: impl Into<Address>) -> Result<Self, Error> {
        Self::builder().bind(address)
    }

    /// Sets how to listen: with a key, say.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::builder().authkey("secret").bind(Address::tcp("127.0.0.1:0")?)?;
    /// assert!(listener.address().to_string().starts_with("127.0.0.1:"));
    /// # let _ = Client::builder();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> SocketOptions {
        SocketOptions::new()
    }

    /// Waits for a connection. Calls from several threads take turns.
    ///
    /// # Errors
    ///
    /// - [`is_authentication`](Error::is_authentication) and [`is_timeout`](Error::is_timeout): somebody
    ///   has connected and not proved the key, or not in time. The next call takes the next one;
    /// - the process has no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// connection.send("welcome")?;
    /// assert_eq!(client.recv::<String>()?, "welcome");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn accept(&self) -> Result<SocketConnection, Error> {
        match self.accept_until(Deadline::NEVER)? {
            Some(connection) => Ok(connection),
            None => unreachable!("it waits as long as it takes"),
        }
    }

    /// Waits for a connection, for so long at the most.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # let _ = Client::builder();
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let soon = std::time::Duration::from_millis(1);
    /// assert!(listener.accept_timeout(soon)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Option<SocketConnection>, Error> {
        self.accept_until(Deadline::after(timeout))
    }

    /// Accepts again and again, without an end.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// client.send(&1)?;
    /// for connection in listener.incoming().take(1) {
    ///     assert_eq!(connection?.recv::<i32>()?, 1);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn incoming(&self) -> impl Iterator<Item = Result<SocketConnection, Error>> + '_ {
        std::iter::repeat_with(|| self.accept())
    }

    /// Where it listens: with the port that the system has chosen.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # let _ = Client::builder();
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// assert!(!listener.address().to_string().ends_with(":0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn address(&self) -> &Address {
        &self.address
    }

    fn accept_until(&self, deadline: Deadline) -> Result<Option<SocketConnection>, Error> {
        // Dropped last, when a task finds the others.
        #[cfg(feature = "tokio")]
        let _leaving = Leaving(&self.left);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        self.accept_among(&mut pending, deadline)
    }

    /// For a task that has its turn: a connection, or what to wait for.
    #[cfg(feature = "tokio")]
    pub(super) fn try_accept(&self) -> Result<Attempt, Error> {
        let mut pending = match self.pending.try_lock() {
            Ok(pending) => pending,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Attempt::InUse),
        };
        if let Some(connection) = self.accept_among(&mut pending, Deadline::now())? {
            return Ok(Attempt::Accepted(connection));
        }
        let (fds, until) = self.waited(&pending);
        let fds = fds.into_iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>()?;
        Ok(Attempt::WaitFor { fds, until })
    }

    fn accept_among(
        &self,
        pending: &mut Vec<Proof>,
        deadline: Deadline,
    ) -> Result<Option<SocketConnection>, Error> {
        loop {
            if let Some(proved) = self.look(pending)? {
                return Ok(Some(self.options.connection(proved)));
            }
            let ready = {
                let (fds, until) = self.waited(pending);
                poll::any_readable(&fds, until.min(deadline))?
            };
            let comes = ready.len() > pending.len() && ready[pending.len()];
            if comes && let Some(stream) = self.socket.accept()? {
                match &self.options.authkey {
                    None => return Ok(Some(self.options.connection(stream))),
                    Some(key) => pending.extend(self.challenge(stream, key)?),
                }
            }
            if deadline.has_passed() && !ready.contains(&true) {
                return Ok(None);
            }
        }
    }

    /// Those that are pending and then, while it takes more, the listener; and until when to wait.
    fn waited<'a>(&'a self, pending: &'a [Proof]) -> (Vec<BorrowedFd<'a>>, Deadline) {
        let listener = (pending.len() < MOST_PENDING).then(|| self.as_fd());
        let until = pending.iter().map(Proof::deadline).fold(Deadline::NEVER, Deadline::min);
        (pending.iter().map(Proof::as_fd).chain(listener).collect(), until)
    }

    /// Takes what has come from those that are pending. Gives the first that has proved its key.
    fn look(&self, pending: &mut Vec<Proof>) -> Result<Option<Stream>, Error> {
        for index in 0..pending.len() {
            match pending[index].look() {
                Ok(false) => {}
                // Not as if the listener were.
                Err(error) if error.is_closed() => {
                    pending.swap_remove(index);
                    return Err(
                        Kind::Authentication("it has gone before it has proved its key").into()
                    );
                }
                Ok(true) => return Ok(Some(pending.swap_remove(index).into_stream())),
                Err(error) => {
                    pending.swap_remove(index);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// `None` if the other end has gone again.
    fn challenge(&self, stream: Stream, key: &[u8]) -> Result<Option<Proof>, Error> {
        let (handshake, frame) = Handshake::listener(key, self.options.digest)?;
        let proof = Proof::new(stream, handshake, Deadline::after(self.options.timeout));
        match proof.send(&[frame]) {
            Err(error) if error.is_closed() => Ok(None),
            sent => sent.map(|()| Some(proof)),
        }
    }
}

/// Tells a task when it is dropped.
#[cfg(feature = "tokio")]
struct Leaving<'a>(&'a tokio::sync::Notify);

#[cfg(feature = "tokio")]
impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Socket {
    /// Takes a connection that was announced; `None` if it is gone again.
    fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match self {
            Socket::Local(listener) => {
                listener.accept().and_then(|(stream, _)| Stream::local(stream))
            }
            Socket::Tcp(listener) => listener.accept().and_then(|(stream, _)| Stream::tcp(stream)),
        };
        match accepted {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionAborted => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// Listens as the options say.
pub(super) fn bind(options: &SocketOptions, address: Address) -> Result<Listener, Error> {
    let bound = try_bind(&address);
    let (socket, address, file) = bound.map_err(|source| Kind::Socket {
        operation: "listen at",
        address: address.to_string(),
        source,
    })?;
    Ok(Listener {
        socket,
        address,
        options: options.clone(),
        pending: Mutex::default(),
        #[cfg(feature = "tokio")]
        turn: tokio::sync::Mutex::default(),
        #[cfg(feature = "tokio")]
        left: tokio::sync::Notify::new(),
        _file: file,
    })
}

fn try_bind(address: &Address) -> io::Result<(Socket, Address, Option<SocketFile>)> {
    match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            // One that was announced may be gone again: accept must not wait for the next.
            listener.set_nonblocking(true)?;
            let address = Address::Tcp(listener.local_addr()?);
            Ok((Socket::Tcp(listener), address, None))
        }
        Address::Path(path) => {
            let (listener, file) = SocketFile::claim(path, || local_listener(address))?;
            Ok((Socket::Local(listener), address.clone(), Some(file)))
        }
        Address::Abstract(_) => {
            Ok((Socket::Local(local_listener(address)?), address.clone(), None))
        }
    }
}

fn local_listener(address: &Address) -> io::Result<UnixListener> {
    let mut options = local::ListenerOptions::new().name(local_name(address)?).reclaim_name(false);
    if let Address::Path(_) = address {
        options = options.mode(0o600);
    }
    let local::Listener::UdSocket(listener) = options.create_sync()?;
    let listener = UnixListener::from(OwnedFd::from(listener));
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Local(listener) => listener.as_fd(),
            Socket::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}
