#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod builder;
mod error;
mod handle;
mod imap;
mod pool;

mod dispatcher;
mod job;
mod outbox;
mod outcome;
mod state;
mod worker;

pub use builder::Builder;
pub use error::{Error, MapError, TaskError};
pub use handle::{MapHandle, TaskHandle};
pub use imap::{Imap, ImapUnordered};
pub use pool::Pool;
