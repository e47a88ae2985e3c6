use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::register;
use crate::error::Error;
use crate::{Queue, Receiver};

/// The items of a [`Queue`] as a stream, until it is closed and empty: [`Queue::stream`].
///
/// # Examples
///
/// ```
/// let queue = multiproc_channel::Queue::<u8>::new()?;
/// let items: multiproc_channel::QueueStream<'_, u8> = queue.stream();
/// # drop(items);
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
pub struct QueueStream<'a, T> {
    queue: &'a Queue<T>,
    waits: Waits,
}

/// The values that come over a [`Receiver`] as a stream, until its other end is closed:
/// [`Receiver::stream`].
///
/// # Examples
///
/// ```
/// let (_sender, receiver) = multiproc_channel::pipe::one_way::<u8>()?;
/// let values: multiproc_channel::ReceiverStream<'_, u8> = receiver.stream();
/// # drop(values);
/// # Ok::<(), multiproc_channel::Error>(())
/// ```
pub struct ReceiverStream<'a, T> {
    receiver: &'a Receiver<T>,
    waits: Waits,
}

#[derive(Default)]
struct Waits {
    /// Registered once it had to wait.
    fd: Option<AsyncFd<OwnedFd>>,
    ended: bool,
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes items until the queue is closed and empty: [`iter`](Self::iter) for tasks.
    ///
    /// # Cancel safety
    ///
    /// Dropping it, or a future that waits for its next item, loses none.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::pin::pin;
    /// use futures_core::Stream;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = multiproc_channel::Queue::new()?;
    /// queue.put(1)?;
    /// queue.close();
    /// let mut items = pin!(queue.stream());
    /// // Or `items.next().await`, with futures' `StreamExt`.
    /// let first = std::future::poll_fn(|context| items.as_mut().poll_next(context)).await;
    /// assert_eq!(first.unwrap()?, 1);
    /// assert!(std::future::poll_fn(|context| items.as_mut().poll_next(context)).await.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(&self) -> QueueStream<'_, T> {
        QueueStream { queue: self, waits: Waits::default() }
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Receives until the other end is closed: [`iter`](Self::iter) for tasks.
    ///
    /// # Cancel safety
    ///
    /// Dropping it, or a future that waits for its next value, loses none.
    ///
    /// # Panics
    ///
    /// When it is polled outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::pin::pin;
    /// use futures_core::Stream;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, receiver) = multiproc_channel::pipe::one_way()?;
    /// sender.send(1)?;
    /// let mut values = pin!(receiver.stream());
    /// let first = std::future::poll_fn(|context| values.as_mut().poll_next(context)).await;
    /// assert_eq!(first.unwrap()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(&self) -> ReceiverStream<'_, T> {
        ReceiverStream { receiver: self, waits: Waits::default() }
    }
}

impl Waits {
    fn poll_next<T>(
        &mut self,
        context: &mut Context<'_>,
        fd: BorrowedFd<'_>,
        attempt: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Poll<Option<Result<T, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_attempt(context, fd, attempt));
        if let Err(error) = &next {
            // What cannot be read is one value; those after it may be well.
            self.ended = !error.is_decode();
            if error.is_closed() {
                return Poll::Ready(None);
            }
        }
        Poll::Ready(Some(next))
    }

    fn poll_attempt<T>(
        &mut self,
        context: &mut Context<'_>,
        fd: BorrowedFd<'_>,
        mut attempt: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Poll<Result<T, Error>> {
        loop {
            if let Some(value) = attempt()? {
                return Poll::Ready(Ok(value));
            }
            let fd = match &self.fd {
                Some(fd) => fd,
                None => self.fd.insert(register(fd.try_clone_to_owned()?, Interest::READABLE)?),
            };
            // Cleared before the attempt, which then sees whatever came before.
            ready!(fd.poll_read_ready(context))?.clear_ready();
        }
    }
}

impl<T: DeserializeOwned> Stream for QueueStream<'_, T> {
    type Item = Result<T, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { queue, waits } = self.get_mut();
        waits.poll_next(context, queue.items_signal(), || queue.try_get_or_arm())
    }
}

impl<T: DeserializeOwned> Stream for ReceiverStream<'_, T> {
    type Item = Result<T, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { receiver, waits } = self.get_mut();
        waits.poll_next(context, receiver.as_fd(), || receiver.try_recv())
    }
}

impl<T> fmt::Debug for QueueStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueStream").field("queue", self.queue).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ReceiverStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverStream").finish_non_exhaustive()
    }
}
