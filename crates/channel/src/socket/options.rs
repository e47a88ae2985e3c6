use std::fmt;
use std::time::Duration;

use super::stream::Stream;
use super::{Address, Codec, Digest, Listener, SocketConnection, client, listener};
use crate::error::Error;

/// How a [`Listener`] listens, or a [`Client`](super::Client) connects: the same for both.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Address, SocketOptions};
///
/// let mut options = SocketOptions::new();
/// options = options.authkey("secret").max_message_len(1 << 20);
/// let listener = options.bind(Address::tcp("127.0.0.1:0")?)?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| options.connect(listener.address().clone())?.send_bytes(b"hello"));
///     assert_eq!(listener.accept()?.recv_bytes()?, b"hello");
///     Ok::<(), multiproc_channel::Error>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SocketOptions {
    pub(super) authkey: Option<Vec<u8>>,
    pub(super) digest: Digest,
    pub(super) codec: Codec,
    pub(super) longest: usize,
    pub(super) timeout: Duration,
}

impl SocketOptions {
    /// No key, and the defaults of all others.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::SocketOptions;
    ///
    /// let options = SocketOptions::new(); // no key, SHA-256, postcard, 10 s
    /// ```
    pub fn new() -> Self {
        SocketOptions {
            authkey: None,
            digest: Digest::default(),
            codec: Codec::default(),
            longest: usize::MAX,
            timeout: Duration::from_secs(10),
        }
    }

    /// The key that both ends prove to know. Without one, the other end must have none, and whoever can
    /// connect may.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::SocketOptions;
    ///
    /// let options = SocketOptions::new().authkey("secret");
    /// assert!(!format!("{options:?}").contains("secret"));
    /// ```
    #[must_use]
    pub fn authkey(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.authkey = Some(key.into());
        self
    }

    /// The weakest digest that is good enough, for this end and for the other. For Python up to 3.11 it
    /// must be [`Digest::Md5`]. The default is [`Digest::Sha256`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Digest, SocketOptions};
    ///
    /// let for_older_pythons = SocketOptions::new().authkey("secret").digest(Digest::Md5);
    /// ```
    #[must_use]
    pub fn digest(mut self, weakest: Digest) -> Self {
        self.digest = weakest;
        self
    }

    /// How values become bytes. The default is [`Codec::Postcard`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Codec, SocketOptions};
    ///
    /// let options = SocketOptions::new().codec(Codec::Postcard);
    /// ```
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// The longest message that is received, in bytes. The default is no limit; memory is taken as
    /// bytes come, whatever length was announced.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, SocketOptions};
    ///
    /// let options = SocketOptions::new().max_message_len(1024);
    /// let listener = options.bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = options.connect(listener.address().clone())?;
    /// client.send_bytes(&[0; 2048])?;
    /// assert!(listener.accept()?.recv_bytes().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_message_len(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }

    /// How long the other end may take to prove its key, and a TCP connection to come about. The default
    /// is 10 s.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::SocketOptions;
    ///
    /// let options = SocketOptions::new().timeout(std::time::Duration::from_secs(1));
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Listens.
    ///
    /// # Errors
    ///
    /// Somebody listens there already, or nobody may.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Listener};
    ///
    /// let listener = Listener::builder().authkey("secret").bind(Address::abstract_name("example"))?;
    /// assert!(Listener::bind(listener.address().clone()).is_err());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn bind(&self, address: impl Into<Address>) -> Result<Listener, Error> {
        listener::bind(self, address.into())
    }

    /// Connects. To a local address it waits while the listener has no room for more.
    ///
    /// # Errors
    ///
    /// - nobody listens there;
    /// - [`is_authentication`](Error::is_authentication): the key is another, or one end has none;
    /// - [`is_timeout`](Error::is_timeout): the other end took too long.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, SocketOptions};
    ///
    /// let options = SocketOptions::new().authkey("secret");
    /// let error = options.connect(Address::abstract_name("nobody listens here")).unwrap_err();
    /// assert!(!error.is_authentication());
    /// ```
    pub fn connect(&self, address: impl Into<Address>) -> Result<SocketConnection, Error> {
        client::connect(self, &address.into())
    }
}

impl SocketOptions {
    pub(super) fn connection(&self, stream: Stream) -> SocketConnection {
        SocketConnection::new(stream, self.codec, self.longest)
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        f.debug_struct("SocketOptions")
            .field("digest", &self.digest)
            .field("codec", &self.codec)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
