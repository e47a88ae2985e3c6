#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod endpoint;
mod error;
mod explain;
mod fd;
mod frame;
mod link;
mod message;
mod stream;
mod table;

pub use endpoint::{Attempt, Endpoint};
pub use error::Error;
pub use fd::{Fd, SharedFd, UniqueFd};
pub use frame::{Body, INLINE_MAX};
pub use message::{
    Message, Moved, Reader, Rejected, Series, decode, encode, encode_move, framed_len,
};
pub use table::fail;
