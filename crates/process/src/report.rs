//! What comes over the line.

use multiproc_wire::SharedFd;
use serde::{Deserialize, Serialize};

use crate::error::Panic;

/// A message to the parent. [`Returned`](Report::Returned) is followed by the value.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// From the child: it has taken over. The fork server's children, whose parent did not start
    /// them itself, say who they are.
    Hello { pid: u32, pidfd: Option<SharedFd> },
    /// From the child: its function returned.
    Returned,
    /// From the child: its function panicked.
    Panicked(Panic),
    /// From the child: it could not run its function, or its value could not be sent.
    Failed(String),
    /// From the fork server: it could not fork. The system's error number, if it was the system's.
    NotForked { number: Option<i32>, reason: String },
    /// From the fork server: the child has ended, with the status as wait(2) gives it.
    Exited(i32),
}
