#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "tokio")]
mod asynchronous;
mod error;
pub mod pipe;
mod queue;
mod socket;
mod wait;

#[cfg(feature = "tokio")]
pub use asynchronous::{QueueStream, ReceiverStream, wait_async};
pub use error::{Error, SendError};
pub use pipe::{Connection, Receiver, Sender, pipe};
pub use queue::{JoinableQueue, Queue, Task};
pub use socket::{
    Address, Client, Codec, Credentials, Digest, Listener, SocketConnection, SocketOptions,
};
pub use wait::{Waitable, wait};
