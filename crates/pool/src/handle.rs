use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_wire::Reader;
use serde::de::DeserializeOwned;

use crate::error::{MapError, TaskError, TaskKind};
use crate::job::{Collector, Content, Part};
use crate::outcome::Outcome;

/// What will come of one task: see [`Pool::apply_async`](crate::Pool::apply_async).
///
/// Dropping it does not stop the task.
#[must_use = "the value is lost unless it is taken"]
pub struct TaskHandle<R> {
    tasks: MapHandle<R>,
}

/// What will come of several tasks: see [`Pool::map_async`](crate::Pool::map_async).
///
/// Dropping it does not stop the tasks.
#[must_use = "the values are lost unless they are taken"]
pub struct MapHandle<R> {
    collector: Arc<Collector>,
    /// By the task's number; `None` until it is done.
    outcomes: Vec<Option<Result<R, TaskError>>>,
    missing: usize,
    returns: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> TaskHandle<R> {
    pub(crate) fn new(collector: Arc<Collector>) -> Self {
        TaskHandle { tasks: MapHandle::new(collector, 1) }
    }

    /// Waits for the task and gives its value.
    ///
    /// # Errors
    ///
    /// The task failed.
    #[doc(alias = "result")]
    pub fn get(self) -> Result<R, TaskError> {
        self.tasks.outcomes().pop().unwrap_or_else(lost)
    }

    /// Waits for the task no longer than `timeout`, and gives what came of it.
    ///
    /// # Errors
    ///
    /// The time was up: the handle comes back.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).build()?;
    /// let later = pool.apply_async(|()| std::thread::sleep(Duration::from_secs(600)), ())?;
    /// assert!(later.get_timeout(Duration::from_millis(10)).is_err());
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    pub fn get_timeout(mut self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        if self.tasks.wait(timeout) { Ok(self.get()) } else { Err(self) }
    }

    /// Waits for the task no longer than `timeout`. Returns whether it is done.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.tasks.wait(timeout)
    }

    /// Tells whether the task is done.
    #[doc(alias = "done")]
    pub fn ready(&mut self) -> bool {
        self.tasks.ready()
    }
}

impl<R: DeserializeOwned> MapHandle<R> {
    pub(crate) fn new(collector: Arc<Collector>, count: usize) -> Self {
        let outcomes = std::iter::repeat_with(|| None).take(count).collect();
        MapHandle { collector, outcomes, missing: count, returns: PhantomData }
    }

    /// Waits for all tasks and gives their values, in order.
    ///
    /// # Errors
    ///
    /// A task failed: the error has the outcomes of all.
    pub fn get(self) -> Result<Vec<R>, MapError<R>> {
        let outcomes = self.outcomes();
        if outcomes.iter().any(Result::is_err) {
            return Err(MapError::new(outcomes));
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Waits for all tasks no longer than `timeout`, and gives their values as [`get`](MapHandle::get)
    /// does.
    ///
    /// # Errors
    ///
    /// The time was up: the handle comes back.
    pub fn get_timeout(mut self, timeout: Duration) -> Result<Result<Vec<R>, MapError<R>>, Self> {
        if self.wait(timeout) { Ok(self.get()) } else { Err(self) }
    }

    /// Waits for all tasks and gives what came of each, in order.
    pub fn outcomes(mut self) -> Vec<Result<R, TaskError>> {
        self.collect(Deadline::NEVER);
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }

    /// Waits for all tasks no longer than `timeout`. Returns whether they are done.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.collect(Deadline::after(timeout))
    }

    /// Tells whether all tasks are done.
    pub fn ready(&mut self) -> bool {
        self.collect(Deadline::now())
    }

    fn collect(&mut self, deadline: Deadline) -> bool {
        while self.missing > 0 {
            let Some(part) = self.collector.take(deadline) else { return false };
            let (outcomes, missing) = (&mut self.outcomes, &mut self.missing);
            read(part, |index, outcome| {
                if let Some(place @ None) = outcomes.get_mut(index) {
                    *place = Some(outcome);
                    *missing -= 1;
                }
            });
        }
        true
    }
}

/// Reads what came of some tasks, with the number of each.
pub(crate) fn read<R: DeserializeOwned>(
    part: Part,
    mut take: impl FnMut(usize, Result<R, TaskError>),
) {
    let indices = part.first..part.first + part.count;
    match part.content {
        Content::Failed(error) => indices.for_each(|index| take(index, Err(error.clone()))),
        Content::Outcomes(message) => {
            let mut reader = message.reader();
            for index in indices {
                take(index, read_one(&mut reader));
            }
        }
    }
}

fn read_one<R: DeserializeOwned>(reader: &mut Reader<'_>) -> Result<R, TaskError> {
    let kind = match reader.read_framed::<Outcome<R>>() {
        Ok(Outcome::Returned(value)) => return Ok(value),
        Ok(Outcome::Panicked(panic)) => TaskKind::Panicked(panic),
        Ok(Outcome::Failed(reason)) => TaskKind::Failed(reason),
        Err(error) => TaskKind::Value(error.to_string()),
    };
    Err(kind.into())
}

/// Every task is done once, so that none is ever missing at the end.
fn lost<R>() -> Result<R, TaskError> {
    Err(TaskError::not_run("its result was lost"))
}

impl<R> fmt::Debug for TaskHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for MapHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapHandle")
            .field("tasks", &self.outcomes.len())
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}
