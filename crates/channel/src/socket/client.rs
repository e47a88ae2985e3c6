use std::fmt;
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
use super::{Address, Codec, Digest, SocketConnection, local_name};
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

/// How a [`Client`] connects.
#[derive(Clone)]
pub struct ClientBuilder {
    authkey: Option<Vec<u8>>,
    digest: Digest,
    codec: Codec,
    longest: usize,
    timeout: Duration,
}

impl Client {
    /// Connects without a key.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub fn connect(address: impl Into<Address>) -> Result<SocketConnection, Error> {
        Self::builder().connect(address)
    }

    /// Sets how to connect.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            authkey: None,
            digest: Digest::default(),
            codec: Codec::default(),
            longest: usize::MAX,
            timeout: Duration::from_secs(10),
        }
    }
}

impl ClientBuilder {
    /// The key that both ends prove to know. Without one, the listener must have none.
    #[must_use]
    pub fn authkey(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.authkey = Some(key.into());
        self
    }

    /// The weakest digest that is good enough, for this end and for the other. For Python up to 3.11 it
    /// must be [`Digest::Md5`]. The default is [`Digest::Sha256`].
    #[must_use]
    pub fn digest(mut self, weakest: Digest) -> Self {
        self.digest = weakest;
        self
    }

    /// How values become bytes. The default is [`Codec::Postcard`].
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The longest message that is received, in bytes. The default is no limit; memory is taken as
    /// bytes come, whatever length was announced.
    #[must_use]
    pub fn max_message_len(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }

    /// How long the other end may take to prove its key, and a TCP connection to come about. The default
    /// is 10 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// - nobody listens there;
    /// - [`is_authentication`](Error::is_authentication): the key is another, or one end has none;
    /// - [`is_timeout`](Error::is_timeout): the other end took too long.
    pub fn connect(&self, address: impl Into<Address>) -> Result<SocketConnection, Error> {
        let address = address.into();
        let deadline = Deadline::after(self.timeout);
        let stream = self.stream(&address).map_err(|source| Kind::Socket {
            operation: "connect to",
            address: address.to_string(),
            source,
        })?;
        if let Some(key) = &self.authkey {
            prove(&stream, Handshake::client(key, self.digest), deadline)?;
        }
        Ok(SocketConnection::new(stream, self.codec, self.longest))
    }

    fn stream(&self, address: &Address) -> io::Result<Stream> {
        match address {
            Address::Tcp(address) if self.timeout.is_zero() => {
                Stream::tcp(TcpStream::connect(address)?)
            }
            Address::Tcp(address) => {
                Stream::tcp(TcpStream::connect_timeout(address, self.timeout)?)
            }
            Address::Path(_) | Address::Abstract(_) => {
                let stream = local::Stream::connect(local_name(address)?)?;
                let local::Stream::UdSocket(stream) = stream;
                Ok(Stream::Local(UnixStream::from(OwnedFd::from(stream))))
            }
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

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        f.debug_struct("ClientBuilder")
            .field("digest", &self.digest)
            .field("codec", &self.codec)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
