#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod error;
pub mod pipe;
mod queue;

pub use error::{Error, SendError};
pub use pipe::{Connection, Receiver, Sender, pipe};
pub use queue::Queue;
