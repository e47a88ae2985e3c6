//! The async forms, on tokio: feature `tokio`.
//!
//! Each tries first, and waits for a descriptor only if there is nothing. That descriptor is a duplicate,
//! registered for as long as the call lasts, so that any number of calls wait at one handle.

mod joinable;
mod stream;
mod wait;

use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

use multiproc_wire::{Attempt, Message, encode_move};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, SendError};
use crate::{Connection, Queue, Receiver, Sender};

pub use stream::{QueueStream, ReceiverStream};
pub use wait::wait_async;

/// Nothing tells when descriptors under way are taken out.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn register(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, Error> {
    // Its successor is unsafe; what that asks for, an `OwnedFd` keeps.
    #[allow(deprecated)]
    Ok(AsyncFd::with_interest(fd, interest)?)
}

/// Attempts until it gives something, each time that the descriptor is ready.
pub(crate) async fn when_ready<T>(
    fd: BorrowedFd<'_>,
    interest: Interest,
    mut attempt: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    if let Some(done) = attempt()? {
        return Ok(done);
    }
    let fd = register(fd.try_clone_to_owned()?, interest)?;
    loop {
        let mut ready = fd.ready(interest).await?;
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        ready.clear_ready();
    }
}

/// Waits until one of the descriptors may be readable. What was there before is told as well.
pub(crate) async fn any_ready(fds: &[AsyncFd<OwnedFd>]) -> Result<(), Error> {
    poll_fn(|context| {
        for fd in fds {
            if let Poll::Ready(ready) = fd.poll_read_ready(context) {
                ready?.clear_ready();
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    })
    .await
}

impl<S: Serialize + DeserializeOwned, R> Connection<S, R> {
    /// Sends a value, and waits for room if the other end is slow to receive: [`send`](Self::send) for
    /// tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, the value was not sent, and is dropped with it.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled; for a value with handles, or of more than 64 KiB, also
    /// time.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (here, there) = multiproc_channel::pipe()?;
    /// here.send_async("hello".to_string()).await?;
    /// assert_eq!(there.recv_async().await?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_async(&self, value: S) -> Result<(), SendError<S>> {
        let moved = match encode_move(value) {
            Ok(moved) => moved,
            Err(rejected) => return Err(SendError::new(rejected.error, rejected.value)),
        };
        match self.send_message(moved.message()).await {
            Ok(()) => Ok(()),
            Err(error) => Err(SendError::new(error, moved.into_value())),
        }
    }

    async fn send_message(&self, message: &Message) -> Result<(), Error> {
        let attempt = || match self.endpoint().attempt(message)? {
            Attempt::Sent => Ok(Some(true)),
            Attempt::Busy => Ok(Some(false)),
            Attempt::NoRoom => Ok(None),
        };
        while !when_ready(self.as_fd(), Interest::WRITABLE, attempt).await? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl<S, R: DeserializeOwned> Connection<S, R> {
    /// Waits for a value: [`recv`](Self::recv) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, no value was received: the next call gets it.
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
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (here, there) = multiproc_channel::pipe()?;
    /// let (sent, received) = tokio::join!(there.send_async(1), here.recv_async());
    /// sent?;
    /// assert_eq!(received?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv_async(&self) -> Result<R, Error> {
        when_ready(self.as_fd(), Interest::READABLE, || self.try_recv()).await
    }
}

impl<T: Serialize + DeserializeOwned> Sender<T> {
    /// Sends a value: see [`Connection::send_async`].
    ///
    /// # Cancel safety
    ///
    /// As [`Connection::send_async`].
    ///
    /// # Errors
    ///
    /// As [`Connection::send_async`].
    ///
    /// # Panics
    ///
    /// As [`Connection::send_async`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, receiver) = multiproc_channel::pipe::one_way()?;
    /// sender.send_async(1).await?;
    /// assert_eq!(receiver.recv_async().await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_async(&self, value: T) -> Result<(), SendError<T>> {
        self.connection().send_async(value).await
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Waits for a value: see [`Connection::recv_async`].
    ///
    /// # Cancel safety
    ///
    /// As [`Connection::recv_async`].
    ///
    /// # Errors
    ///
    /// As [`Connection::recv_async`].
    ///
    /// # Panics
    ///
    /// As [`Connection::recv_async`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, receiver) = multiproc_channel::pipe::one_way::<u8>()?;
    /// drop(sender);
    /// assert!(receiver.recv_async().await.unwrap_err().is_closed());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv_async(&self) -> Result<T, Error> {
        self.connection().recv_async().await
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes the next item, and waits while there is none: [`get`](Self::get) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, no item was taken.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// let (_, second) = tokio::join!(
    ///     async { queue.put_async(1).await.and(queue.put_async(2).await) },
    ///     async { queue.get_async().await.and(queue.get_async().await) },
    /// );
    /// assert_eq!(second?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_async(&self) -> Result<T, Error> {
        let attempt = || self.try_get_or_arm();
        when_ready(self.items_signal(), Interest::READABLE, attempt).await
    }

    /// The next item; if there is none, the signal tells when there is.
    fn try_get_or_arm(&self) -> Result<Option<T>, Error> {
        loop {
            if let Some(item) = self.try_get()? {
                return Ok(Some(item));
            }
            if !self.arm_items()? {
                return Ok(None);
            }
        }
    }
}

impl<T: Serialize + DeserializeOwned> Queue<T> {
    /// Puts an item in, and waits while the queue is full: [`put`](Self::put) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, the item was not put in, and is dropped with it.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled; for an item with handles, also time.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = multiproc_channel::Queue::new()?;
    /// queue.put_async("item".to_string()).await?;
    /// assert_eq!(queue.get()?, "item");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_async(&self, item: T) -> Result<(), SendError<T>> {
        let moved = match encode_move(item) {
            Ok(moved) => moved,
            Err(rejected) => return Err(SendError::new(rejected.error, rejected.value)),
        };
        match self.put_message(moved.message()).await {
            Ok(()) => Ok(()),
            Err(error) => Err(SendError::new(error, moved.into_value())),
        }
    }

    async fn put_message(&self, message: &Message) -> Result<(), Error> {
        let attempt = || self.try_put_or_arm(message);
        match self.room_signal() {
            Some(room) if !message.has_fds() => when_ready(room, Interest::READABLE, attempt).await,
            _ => {
                while attempt()?.is_none() {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(())
            }
        }
    }
}
