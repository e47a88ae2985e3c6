//! What a pool of another kind needs, whose tasks fail in the same ways: the one over many machines.

use std::fmt;

use crate::error::{Error, Kind, MapError, TaskError, TaskKind};

/// The pool takes no more tasks.
pub fn closed() -> Error {
    Kind::Closed.into()
}

/// The argument of this task does not serialise.
pub fn argument(index: usize, source: multiproc_wire::Error) -> Error {
    Kind::Argument { index, source }.into()
}

/// The argument of this task has a handle in it.
pub fn handle(index: usize) -> Error {
    Kind::Handle { index }.into()
}

/// The function is not in the program's own image.
pub fn function(error: multiproc_os::image::ForeignFunction) -> Error {
    Kind::Function(error).into()
}

/// The pool took no task for a reason of its own.
pub fn elsewhere(reason: impl fmt::Display) -> Error {
    Kind::Elsewhere(reason.to_string()).into()
}

/// What came of all tasks, some of which failed.
pub fn map_error<R>(outcomes: Vec<Result<R, TaskError>>) -> MapError<R> {
    MapError::new(outcomes)
}

impl TaskError {
    #[doc(hidden)]
    pub fn __not_run(reason: impl fmt::Display) -> Self {
        Self::not_run(reason)
    }

    #[doc(hidden)]
    pub fn __failed(reason: impl fmt::Display) -> Self {
        TaskKind::Failed(reason.to_string()).into()
    }

    #[doc(hidden)]
    pub fn __value(reason: impl fmt::Display) -> Self {
        TaskKind::Value(reason.to_string()).into()
    }

    #[doc(hidden)]
    pub fn __cancelled() -> Self {
        TaskKind::Cancelled.into()
    }

    /// Sets how many workers have died of the task, if one has.
    #[doc(hidden)]
    #[must_use]
    pub fn __after_deaths(mut self, count: u32) -> Self {
        if let TaskKind::Died { deaths, .. } = &mut *self.0 {
            *deaths = count;
        }
        self
    }
}
