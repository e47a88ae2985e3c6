use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use multiproc_os::deadline::Deadline;
use multiproc_pool::__private as pool;
use multiproc_pool::{MapError, TaskError};
use multiproc_process::__private::catch;
use multiproc_wire::Reader;
use serde::de::DeserializeOwned;

use crate::batch::{Batch, Part};
use crate::driver::Shared;

/// What will come of one task: see [`Pool::apply_async`](crate::Pool::apply_async).
///
/// It is a future, on any runtime, of what [`get`](TaskHandle::get) returns. Dropping it does not stop
/// the task.
#[must_use = "the value is lost unless it is taken"]
pub struct TaskHandle<R> {
    tasks: MapHandle<R>,
}

/// What will come of several tasks: see [`Pool::map_async`](crate::Pool::map_async).
///
/// It is a future, on any runtime, of what [`get`](MapHandle::get) returns. Dropping it does not stop
/// the tasks.
#[must_use = "the values are lost unless they are taken"]
pub struct MapHandle<R> {
    shared: Arc<Shared>,
    batch: Arc<Batch>,
    /// By the task's number; `None` until it is done.
    outcomes: Vec<Option<Result<R, TaskError>>>,
    missing: usize,
    returns: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> TaskHandle<R> {
    pub(crate) fn new(shared: Arc<Shared>, batch: Arc<Batch>) -> Self {
        TaskHandle { tasks: MapHandle::new(shared, batch, 1) }
    }

    /// Waits for the task and gives its value.
    ///
    /// # Errors
    ///
    /// The task failed.
    pub fn get(self) -> Result<R, TaskError> {
        self.tasks.outcomes().pop().unwrap_or_else(lost)
    }

    /// Waits for the task no longer than `timeout`, and gives what came of it.
    ///
    /// # Errors
    ///
    /// The time was up: the handle comes back.
    pub fn get_timeout(mut self, timeout: Duration) -> Result<Result<R, TaskError>, Self> {
        if self.tasks.wait(timeout) { Ok(self.get()) } else { Err(self) }
    }

    /// Waits for the task no longer than `timeout`. Returns whether it is done.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.tasks.wait(timeout)
    }

    /// Tells whether the task is done.
    pub fn ready(&mut self) -> bool {
        self.tasks.ready()
    }

    /// Tells whether the task returned a value. `None` if it is not done.
    pub fn successful(&mut self) -> Option<bool> {
        self.tasks.successful()
    }

    /// Sees to it that the task does not run on: if it waits, it is not begun; if it runs, its worker is
    /// killed, as soon as the agent hears of it. If it is done already, its result stands.
    pub fn cancel(&self) {
        self.tasks.cancel();
    }

    /// Has a function called with what comes of the task, by a thread that all pools of this process
    /// share for that.
    pub fn on_done(self, callback: impl FnOnce(Result<R, TaskError>) + Send + 'static)
    where
        R: Send + 'static,
    {
        pool::call_with(self, callback);
    }
}

impl<R: DeserializeOwned> MapHandle<R> {
    pub(crate) fn new(shared: Arc<Shared>, batch: Arc<Batch>, count: usize) -> Self {
        let outcomes = std::iter::repeat_with(|| None).take(count).collect();
        MapHandle { shared, batch, outcomes, missing: count, returns: PhantomData }
    }

    /// Waits for all tasks and gives their values, in order.
    ///
    /// # Errors
    ///
    /// A task failed: the error has the outcomes of all.
    pub fn get(self) -> Result<Vec<R>, MapError<R>> {
        values(self.outcomes())
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
        self.take_outcomes()
    }

    /// Waits for all tasks no longer than `timeout`. Returns whether they are done.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.collect(Deadline::after(timeout))
    }

    /// Tells whether all tasks are done.
    pub fn ready(&mut self) -> bool {
        self.collect(Deadline::now())
    }

    /// Tells whether all tasks returned a value. `None` if they are not done.
    pub fn successful(&mut self) -> Option<bool> {
        self.ready().then(|| self.outcomes.iter().flatten().all(Result::is_ok))
    }

    /// Sees to it that the tasks do not run on: those that wait are not begun, and workers that run
    /// some are killed, as soon as their agent hears of it. The results of those that are done stand.
    pub fn cancel(&self) {
        self.shared.cancel(&self.batch, true);
    }

    /// Has a function called with what [`get`](MapHandle::get) would return, once all tasks are done.
    pub fn on_done(self, callback: impl FnOnce(Result<Vec<R>, MapError<R>>) + Send + 'static)
    where
        R: Send + 'static,
    {
        pool::call_with(self, callback);
    }

    fn collect(&mut self, deadline: Deadline) -> bool {
        while self.missing > 0 {
            match self.batch.take(deadline) {
                Some(parts) => self.note(parts),
                None if self.batch.is_cancelled() => self.give_up(),
                None => return false,
            }
        }
        true
    }

    fn note(&mut self, parts: VecDeque<Part>) {
        for Part { index, outcome } in parts {
            if let Some(place @ None) = self.outcomes.get_mut(index) {
                *place = Some(outcome.and_then(|value| decode(&value)));
                self.missing -= 1;
            }
        }
    }

    /// After the batch was cancelled.
    fn give_up(&mut self) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(Err(TaskError::__cancelled()));
        }
        self.missing = 0;
    }

    fn take_outcomes(&mut self) -> Vec<Result<R, TaskError>> {
        let outcomes = std::mem::take(&mut self.outcomes);
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }

    fn poll_outcomes(&mut self, context: &mut Context<'_>) -> Poll<Vec<Result<R, TaskError>>> {
        while self.missing > 0 {
            match self.batch.poll_take(context) {
                Poll::Ready(Some(parts)) => self.note(parts),
                Poll::Ready(None) => self.give_up(),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(self.take_outcomes())
    }
}

impl<R: DeserializeOwned> Future for TaskHandle<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcomes = self.tasks.poll_outcomes(context);
        outcomes.map(|mut outcomes| outcomes.pop().unwrap_or_else(lost))
    }
}

impl<R: DeserializeOwned> Future for MapHandle<R> {
    type Output = Result<Vec<R>, MapError<R>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_outcomes(context).map(values)
    }
}

// No value is ever pinned.
impl<R> Unpin for TaskHandle<R> {}
impl<R> Unpin for MapHandle<R> {}

/// Reads a value as it came.
pub(crate) fn decode<R: DeserializeOwned>(value: &Bytes) -> Result<R, TaskError> {
    let read = catch(|| {
        let mut reader = Reader::new(value, Vec::new());
        let value = reader.read()?;
        reader.finish().map(|()| value)
    });
    match read {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(TaskError::__value(error)),
        // Or those beside it would be lost with it.
        Err(panic) => Err(TaskError::__value(format_args!("panicked: {panic}"))),
    }
}

fn values<R>(outcomes: Vec<Result<R, TaskError>>) -> Result<Vec<R>, MapError<R>> {
    if outcomes.iter().any(Result::is_err) {
        return Err(pool::map_error(outcomes));
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// Every task is done once, so that none is ever missing at the end.
fn lost<R>() -> Result<R, TaskError> {
    Err(TaskError::__not_run("its result was taken before"))
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
