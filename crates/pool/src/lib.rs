#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod builder;
mod chunks;
mod completed;
mod error;
mod failure;
mod handle;
mod imap;
mod mode;
mod pool;
mod statistics;

mod callback;
mod child;
mod context;
mod death;
mod engine;
mod gathered;
mod options;
mod outcome;
mod private;
mod trace;

pub use builder::Builder;
pub use chunks::{ChunksError, Element};
pub use completed::{AsCompleted, as_completed};
pub use error::{Error, MapError, TaskError};
pub use failure::Failure;
pub use handle::{MapHandle, TaskHandle};
pub use imap::{Imap, ImapUnordered};
pub use mode::{Mode, Stateful, Stateless};
pub use pool::Pool;
pub use statistics::{Statistics, WorkerStatistics};

#[doc(hidden)]
pub mod __private {
    //! What the pool over many machines needs.
    pub use crate::callback::call_with;
    pub use crate::private::*;
}
