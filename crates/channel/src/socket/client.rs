use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use interprocess::local_socket as local;
use interprocess::local_socket::traits::Stream as _;
use multiproc_os::deadline::Deadline;
use multiproc_os::poll;

use super::handshake::Handshake;
use super::proof::Proof;
use super::stream::Stream;
use super::{Address, SocketConnection, SocketOptions, local_name};
use crate::error::{Error, Kind};

/// Connects to a [`Listener`](super::Listener), or to Python's.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Address, Client, Listener};
///
/// let listener = Listener::builder().authkey("secret").bind(Address::tcp("127.0.0.1:0")?)?;
/// let address = listener.address().clone();
/// std::thread::scope(|scope| {
///     scope.spawn(|| listener.accept()?.send("welcome"));
///     let connection = Client::builder().authkey("secret").connect(address)?;
///     assert_eq!(connection.recv::<String>()?, "welcome");
///     Ok::<(), multiproc_channel::Error>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub enum Client {}

impl Client {
    /// Connects without a key.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// client.send(&1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(address: impl Into<Address>) -> Result<SocketConnection, Error> {
        Self::builder().connect(address)
    }

    /// Sets how to connect: with a key, say.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client};
    ///
    /// let nobody = Client::builder().authkey("secret").connect(Address::abstract_name("nobody"));
    /// assert!(nobody.is_err());
    /// ```
    pub fn builder() -> SocketOptions {
        SocketOptions::new()
    }
}

/// Connects as the options say.
pub(super) fn connect(
    options: &SocketOptions,
    address: &Address,
) -> Result<SocketConnection, Error> {
    let deadline = Deadline::after(options.timeout);
    let mut proof = match begin(options, connected(address, options.timeout), address, deadline)? {
        Begun::Connected(connection) => return Ok(connection),
        Begun::ToProve(proof) => proof,
    };
    while !proof.look()? {
        poll::readable([proof.as_fd()], deadline)?;
    }
    Ok(options.connection(proof.into_stream()))
}

fn connected(address: &Address, timeout: Duration) -> io::Result<Stream> {
    match address {
        Address::Tcp(address) if timeout.is_zero() => Stream::tcp(TcpStream::connect(address)?),
        Address::Tcp(address) => Stream::tcp(TcpStream::connect_timeout(address, timeout)?),
        Address::Path(_) | Address::Abstract(_) => {
            let local::Stream::UdSocket(stream) = local::Stream::connect(local_name(address)?)?;
            Stream::local(UnixStream::from(OwnedFd::from(stream)))
        }
    }
}

pub(super) enum Begun {
    Connected(SocketConnection),
    ToProve(Proof),
}

/// What is done with a socket that is connected or failed to be.
pub(super) fn begin(
    options: &SocketOptions,
    connected: io::Result<Stream>,
    address: &Address,
    deadline: Deadline,
) -> Result<Begun, Error> {
    let stream = connected.map_err(|source| Kind::Socket {
        operation: "connect to",
        address: address.to_string(),
        source,
    })?;
    Ok(match &options.authkey {
        None => Begun::Connected(options.connection(stream)),
        Some(key) => {
            let handshake = Handshake::client(key, options.digest);
            Begun::ToProve(Proof::new(stream, handshake, deadline))
        }
    })
}
