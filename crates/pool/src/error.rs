use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use multiproc_process::Panic;
use serde::{Deserialize, Serialize};

use crate::death::Death;

/// Why a pool could not be made, or does not take tasks.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Kind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("a pool needs at least one worker")]
    NoWorkers,
    #[error("a worker that is replaced after no task would run none")]
    NoTasks,
    #[error("cannot start a worker: {0}")]
    Start(#[source] multiproc_process::Error),
    #[error("cannot give a worker its board: {0}")]
    Board(#[source] io::Error),
    #[error("the initializer's argument: {0}")]
    Initializer(#[source] multiproc_wire::Error),
    #[error("the tasks' context: {0}")]
    Context(#[source] multiproc_wire::Error),
    #[error("cannot watch the workers: {0}")]
    Watch(#[source] io::Error),
    #[error("the pool is closed and takes no more tasks")]
    Closed,
    #[error("task {index}: its argument: {source}")]
    Argument { index: usize, source: multiproc_wire::Error },
    #[error(
        "task {index}: its argument has a handle in it (a lock, a queue, shared memory, a file), \
         which has no meaning on another machine: send what is in it instead"
    )]
    Handle { index: usize },
    #[error("{0}")]
    Elsewhere(String),
    #[error("cannot lend a chunk to a worker: {0}")]
    Chunk(#[source] multiproc_shm::Error),
    #[error("the function of the tasks: {0}")]
    Function(#[from] multiproc_os::image::ForeignFunction),
}

impl Error {
    /// Tells whether the pool was closed before the tasks came.
    pub fn is_closed(&self) -> bool {
        matches!(self.0, Kind::Closed)
    }

    /// Tells whether an argument could not be serialised, or cannot go to where the task is run. No task was run then.
    pub fn is_argument(&self) -> bool {
        matches!(self.0, Kind::Argument { .. } | Kind::Handle { .. })
    }
}

/// Why one task did not return a value.
///
/// # Examples
///
/// ```
/// use multiproc_pool::Pool;
///
/// multiproc_process::init();
/// let pool = Pool::builder().workers(1).build()?;
/// let error = pool.apply(|divisor: u32| 12 / divisor, 0).unwrap_err();
/// assert_eq!(error.panic().map(|panic| panic.message()), Some("attempt to divide by zero"));
/// // The worker that panicked lives on.
/// assert_eq!(pool.apply(|divisor: u32| 12 / divisor, 3)?, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It can be serialised, to be kept or sent on.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error(transparent)]
pub struct TaskError(pub(crate) Box<TaskKind>);

#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum TaskKind {
    #[error("panicked: {0}")]
    Panicked(Panic),
    #[error("{0}")]
    Failed(String),
    #[error("its worker {death} while it ran the task{}", tries(*.deaths))]
    Died { death: Death, deaths: u32 },
    #[error("its value could not be read: {0}")]
    Value(String),
    #[error("took longer than {0:?}, and was killed with its worker")]
    TimedOut(Duration),
    #[error("was not done when the time for all tasks was up")]
    Deadline,
    #[error("was cancelled")]
    Cancelled,
    #[error("was not run: {0}")]
    NotRun(String),
}

impl TaskError {
    /// The panic that ended the task.
    pub fn panic(&self) -> Option<&Panic> {
        match &*self.0 {
            TaskKind::Panicked(panic) => Some(panic),
            TaskKind::Died { death, .. } => death.panic.as_ref(),
            _ => None,
        }
    }

    /// Tells whether the worker died while it ran the task.
    pub fn is_death(&self) -> bool {
        matches!(*self.0, TaskKind::Died { .. })
    }

    /// How many workers have died of the task, all its tries counted.
    pub fn deaths(&self) -> u32 {
        match *self.0 {
            TaskKind::Died { deaths, .. } => deaths,
            _ => 0,
        }
    }

    /// Tells whether the worker seems to have died for want of memory: the kernel's out-of-memory
    /// killer has just killed a process, or the worker aborted and had a
    /// [limit](crate::Builder::memory_limit). Neither is certain.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(&*self.0, TaskKind::Died { death, .. } if death.memory.is_some())
    }

    /// Tells whether the task took longer than its [timeout](crate::Pool::with_timeout), or was not
    /// done at the [deadline](crate::Pool::with_deadline).
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, TaskKind::TimedOut(_) | TaskKind::Deadline)
    }

    /// Tells whether the task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.0, TaskKind::Cancelled)
    }

    /// How the worker ended that ran the task, if it died.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match *self.0 {
            TaskKind::Died { ref death, .. } => death.status,
            _ => None,
        }
    }

    /// The signal that killed the worker which ran the task.
    pub fn signal(&self) -> Option<i32> {
        self.exit_status().and_then(|status| status.signal())
    }

    /// Tells whether the task was never begun: the pool was terminated, or had no worker.
    pub fn is_not_run(&self) -> bool {
        matches!(*self.0, TaskKind::NotRun(_))
    }

    pub(crate) fn died(death: Death, deaths: u32) -> Self {
        TaskKind::Died { death, deaths }.into()
    }

    pub(crate) fn not_run(reason: impl fmt::Display) -> Self {
        TaskKind::NotRun(reason.to_string()).into()
    }
}

impl From<TaskKind> for TaskError {
    fn from(kind: TaskKind) -> Self {
        // Small, since there is room for one beside each value.
        TaskError(Box::new(kind))
    }
}

fn tries(deaths: u32) -> String {
    match deaths {
        0 | 1 => String::new(),
        more => format!(", as did those of {} tries before", more - 1),
    }
}

/// Tasks of a map that did not return a value, together with the values of those that did.
///
/// # Examples
///
/// ```
/// use multiproc_pool::Pool;
///
/// multiproc_process::init();
/// let pool = Pool::builder().workers(2).build()?;
/// let error = pool.map(|divisor: u32| 12 / divisor, [1, 0, 3]).unwrap_err();
/// println!("{error}");
/// let outcomes = error.into_outcomes();
/// assert_eq!(outcomes[2].as_ref().ok(), Some(&4));
/// assert!(outcomes[1].is_err());
/// # Ok::<(), multiproc_pool::Error>(())
/// ```
pub struct MapError<R> {
    cause: Option<Error>,
    outcomes: Vec<Result<R, TaskError>>,
}

impl<R> MapError<R> {
    pub(crate) fn new(outcomes: Vec<Result<R, TaskError>>) -> Self {
        MapError { cause: None, outcomes }
    }

    /// What came of each task, in order. Empty if the pool took none.
    pub fn outcomes(&self) -> &[Result<R, TaskError>] {
        &self.outcomes
    }

    /// What came of each task, in order. Empty if the pool took none.
    pub fn into_outcomes(self) -> Vec<Result<R, TaskError>> {
        self.outcomes
    }

    /// Why the pool took no task, if that is the error.
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_ref()
    }
}

impl<R> From<Error> for MapError<R> {
    fn from(cause: Error) -> Self {
        MapError { cause: Some(cause), outcomes: Vec::new() }
    }
}

impl<R> fmt::Display for MapError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cause) = &self.cause {
            return cause.fmt(f);
        }
        let mut failed = self
            .outcomes
            .iter()
            .enumerate()
            .filter_map(|(index, outcome)| Some((index, outcome.as_ref().err()?)));
        let Some((index, error)) = failed.next() else { return f.write_str("no task failed") };
        let count = failed.count() + 1;
        write!(
            f,
            "{count} of {} tasks failed; the first, task {index}, {error}",
            self.outcomes.len()
        )
    }
}

impl<R> fmt::Debug for MapError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be large, or secret.
        write!(f, "MapError({self})")
    }
}

impl<R> std::error::Error for MapError<R> {}
