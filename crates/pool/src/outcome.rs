//! What came of one task, as it travels from the worker.

use multiproc_process::Panic;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome<R> {
    Returned(R),
    Panicked(Panic),
    /// The argument could not be read, or the value could not be sent.
    Failed(String),
}
