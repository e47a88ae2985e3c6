use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use interprocess::local_socket as local;
use interprocess::local_socket::traits::Stream as _;
use multiproc_os::deadline::Deadline;

use super::connection::{closed_or, receive};
use super::frame::{self, Incoming};
use super::handshake::{Handshake, LONGEST, Outcome};
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
    let stream = stream(address, options.timeout).map_err(|source| Kind::Socket {
        operation: "connect to",
        address: address.to_string(),
        source,
    })?;
    if let Some(key) = &options.authkey {
        prove(&stream, Handshake::client(key, options.digest), deadline)?;
    }
    Ok(SocketConnection::new(stream, options.codec, options.longest))
}

fn stream(address: &Address, timeout: Duration) -> io::Result<Stream> {
    match address {
        Address::Tcp(address) if timeout.is_zero() => Stream::tcp(TcpStream::connect(address)?),
        Address::Tcp(address) => Stream::tcp(TcpStream::connect_timeout(address, timeout)?),
        Address::Path(_) | Address::Abstract(_) => {
            let local::Stream::UdSocket(stream) = local::Stream::connect(local_name(address)?)?;
            Ok(Stream::Local(UnixStream::from(OwnedFd::from(stream))))
        }
    }
}

fn prove(stream: &Stream, mut handshake: Handshake, deadline: Deadline) -> Result<(), Error> {
    loop {
        let frame = receive(stream, &mut Incoming::default(), LONGEST, deadline)?;
        let frame = frame.ok_or(Kind::HandshakeTimedOut)?;
        let step = handshake.step(&frame);
        for frame in step.send {
            let bytes = [frame::head(frame.len()), frame].concat();
            stream.write_all(&bytes).map_err(closed_or)?;
        }
        match step.outcome {
            Outcome::More => {}
            Outcome::Done => return Ok(()),
            Outcome::Refused(error) => return Err(error),
        }
    }
}
