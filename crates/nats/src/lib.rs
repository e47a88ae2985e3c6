#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod error;
mod handle;
mod imap;
mod options;
mod pool;

mod batch;
mod build;
mod chunk;
mod connection;
mod driver;
mod key;
mod message;
mod names;
mod payload;
mod task;

pub use agent::agent;
pub use async_nats::ConnectOptions;
pub use driver::AgentInfo;
pub use error::Error;
pub use handle::{MapHandle, TaskHandle};
pub use imap::{Imap, ImapUnordered};
pub use multiproc_pool::{Failure, MapError, TaskError};
pub use options::Options;
pub use pool::Pool;
