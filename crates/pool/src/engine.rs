//! What gets tasks to workers and results back: see the crate's README.

pub(crate) mod board;
pub(crate) mod job;

mod batch;
mod bells;
mod deadlines;
mod dispatcher;
mod outcomes;
mod shared;
mod waiting;
mod worker;

pub(crate) use batch::{Batch, Content, Part};
pub(crate) use dispatcher::Dispatcher;
pub(crate) use shared::{Shared, State};
