//! The async forms, on tokio: feature `tokio`.

use std::ffi::OsStr;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::client::{Begun, begin};
use super::listener::Attempt;
use super::proof::Proof;
use super::stream::Stream;
use super::{Address, Client, Listener, SocketConnection, SocketOptions};
use crate::asynchronous::{PAUSE, any_ready, register, when_ready};
use crate::error::{Error, Kind};

impl Listener {
    /// Waits for a connection: [`accept`](Self::accept) for tasks.
    ///
    /// Calls take turns: while a thread waits in a call that blocks, this one waits until that is done.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, no connection is lost: who was about to prove the key goes on
    /// with the next call.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::builder().authkey("secret").bind(Address::tcp("127.0.0.1:0")?)?;
    /// let options = Client::builder().authkey("secret");
    /// let (client, connection) = tokio::join!(
    ///     options.connect_async(listener.address().clone()),
    ///     listener.accept_async(),
    /// );
    /// client?.send(&1)?;
    /// assert_eq!(connection?.recv::<i32>()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn accept_async(&self) -> Result<SocketConnection, Error> {
        let _turn = self.turn.lock().await;
        loop {
            match self.try_accept()? {
                Attempt::Accepted(connection) => return Ok(connection),
                Attempt::InUse => self.left.notified().await,
                Attempt::WaitFor { fds, until } => {
                    let fds = fds.into_iter().map(|fd| register(fd, Interest::READABLE));
                    let fds = fds.collect::<Result<Vec<_>, Error>>()?;
                    let ready = async { any_ready(&fds).await.err() };
                    // What a thread leaves behind is not among these.
                    let changed = either(ready, async {
                        self.left.notified().await;
                        None
                    });
                    // Who has not proved it in time is refused by the next attempt.
                    match until.remaining() {
                        Some(left) => timeout(left, changed).await.unwrap_or(None),
                        None => changed.await,
                    }
                    .map_or(Ok(()), Err)?;
                }
            }
        }
    }
}

/// What comes first of two.
async fn either<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Pending => other.as_mut().poll(context),
        ready => ready,
    })
    .await
}

impl Client {
    /// Connects without a key: [`connect`](Self::connect) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, there is no connection.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::bind(Address::abstract_name("tasks"))?;
    /// let client = Client::connect_async(listener.address().clone()).await?;
    /// client.send(&1)?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_async(address: impl Into<Address>) -> Result<SocketConnection, Error> {
        Self::builder().connect_async(address).await
    }
}

impl SocketOptions {
    /// Connects: [`connect`](Self::connect) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, there is no connection; to the listener it is one that has gone.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, SocketOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = SocketOptions::new().authkey("secret");
    /// let listener = options.bind(Address::tcp("127.0.0.1:0")?)?;
    /// let wrong = SocketOptions::new().authkey("another");
    /// let (refused, accepted) = tokio::join!(
    ///     wrong.connect_async(listener.address().clone()),
    ///     listener.accept_async(),
    /// );
    /// assert!(refused.unwrap_err().is_authentication());
    /// assert!(accepted.unwrap_err().is_authentication());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_async(
        &self,
        address: impl Into<Address>,
    ) -> Result<SocketConnection, Error> {
        let (address, deadline) = (address.into(), Deadline::after(self.timeout));
        let connected = match self.timeout {
            Duration::ZERO => connected(&address).await,
            limit => match timeout(limit, connected(&address)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
        };
        match begin(self, connected, &address, deadline)? {
            Begun::Connected(connection) => Ok(connection),
            Begun::ToProve(proof) => {
                let left = deadline.remaining().unwrap_or(Duration::MAX);
                let proved = timeout(left, proved(proof)).await;
                Ok(self.connection(proved.map_err(|_| Kind::HandshakeTimedOut)??))
            }
        }
    }
}

async fn connected(address: &Address) -> io::Result<Stream> {
    let path = match address {
        Address::Tcp(address) => {
            return Stream::tcp(TcpStream::connect(address).await?.into_std()?);
        }
        Address::Path(path) => path.as_os_str().as_bytes().to_vec(),
        // As tokio knows them.
        Address::Abstract(name) => [b"\0", &name[..]].concat(),
    };
    loop {
        match UnixStream::connect(OsStr::from_bytes(&path)).await {
            Ok(stream) => return Stream::local(stream.into_std()?),
            // The listener has no room for more, and nothing tells when it has.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

async fn proved(mut proof: Proof) -> Result<Stream, Error> {
    let fd = proof.as_fd().try_clone_to_owned()?;
    let attempt = || Ok(proof.look()?.then_some(()));
    when_ready(fd.as_fd(), Interest::READABLE, attempt).await?;
    Ok(proof.into_stream())
}

impl SocketConnection {
    /// Sends a value: [`send`](Self::send) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, the other end gets the message whole or not at all, and nothing
    /// tells which: what is left of one that was begun goes in front of the next that is sent.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect_async(listener.address().clone()).await?;
    /// client.send_async(&("answer", 42)).await?;
    /// let connection = listener.accept_async().await?;
    /// assert_eq!(connection.recv_async::<(String, i32)>().await?, ("answer".to_string(), 42));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_async<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        let message = self.encode(value)?;
        self.send_bytes_async(message.bytes()).await
    }

    /// Sends bytes as one message: [`send_bytes`](Self::send_bytes) for tasks.
    ///
    /// # Cancel safety
    ///
    /// As [`send_async`](Self::send_async).
    ///
    /// # Errors
    ///
    /// As [`send_bytes`](Self::send_bytes).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// let connection = listener.accept()?;
    /// // More than the socket takes: it is received meanwhile.
    /// let bytes = vec![7; 64 << 20];
    /// let (sent, received) =
    ///     tokio::join!(client.send_bytes_async(&bytes), connection.recv_bytes_async());
    /// sent?;
    /// assert!(received? == bytes);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_bytes_async(&self, bytes: &[u8]) -> Result<(), Error> {
        let writable = Interest::WRITABLE;
        let end = when_ready(self.as_fd(), writable, || self.begin(bytes)).await?;
        when_ready(self.as_fd(), writable, || self.write_to(end)).await
    }

    /// Waits for a value: [`recv`](Self::recv) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, what has come of a message is kept for the next call.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// client.send(&1)?;
    /// assert_eq!(listener.accept()?.recv_async::<i32>().await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv_async<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.decode(self.recv_bytes_async().await?)
    }

    /// Waits for a message and gives its bytes: [`recv_bytes`](Self::recv_bytes) for tasks.
    ///
    /// # Cancel safety
    ///
    /// As [`recv_async`](Self::recv_async).
    ///
    /// # Errors
    ///
    /// As [`recv_bytes`](Self::recv_bytes).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::{Address, Client, Listener};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = Listener::bind(Address::tcp("127.0.0.1:0")?)?;
    /// let client = Client::connect(listener.address().clone())?;
    /// client.send_bytes(b"hello")?;
    /// assert_eq!(listener.accept()?.recv_bytes_async().await?, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv_bytes_async(&self) -> Result<Vec<u8>, Error> {
        let attempt = || self.recv_bytes_timeout(Duration::ZERO);
        when_ready(self.as_fd(), Interest::READABLE, attempt).await
    }
}
