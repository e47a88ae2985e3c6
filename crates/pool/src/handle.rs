use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use serde::de::DeserializeOwned;

use crate::callback;
use crate::engine::{Batch, Content, Part, Shared};
use crate::error::{MapError, TaskError, TaskKind};
use crate::gathered::Gathered;
use crate::outcome;

/// What will come of one task: see [`Pool::apply_async`](crate::Pool::apply_async).
///
/// It is a future, on any runtime, of what [`get`](TaskHandle::get) returns. Dropping it does not stop
/// the task.
///
/// # Cancel safety
///
/// The result stays with the handle: a `&mut` of it can be polled, dropped, and polled again.
#[doc(alias = "AsyncResult")]
#[doc(alias = "Future")]
#[must_use = "the value is lost unless it is taken"]
pub struct TaskHandle<R> {
    tasks: MapHandle<R>,
}

/// What will come of several tasks: see [`Pool::map_async`](crate::Pool::map_async).
///
/// It is a future, on any runtime, of what [`get`](MapHandle::get) returns. Dropping it does not stop
/// the tasks.
#[doc(alias = "MapResult")]
#[must_use = "the values are lost unless they are taken"]
pub struct MapHandle<R> {
    shared: Arc<Shared>,
    batch: Arc<Batch>,
    gathered: Gathered<R>,
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
    #[doc(alias = "result")]
    pub fn get(self) -> Result<R, TaskError> {
        only(self.tasks.wait_for_all())
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

    /// Tells whether the task returned a value. `None` if it is not done.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).build()?;
    /// let mut later = pool.apply_async(|x: u32| 6 / x, 0)?;
    /// assert!(later.wait(Duration::MAX) && later.ready());
    /// assert_eq!(later.successful(), Some(false));
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    pub fn successful(&mut self) -> Option<bool> {
        self.tasks.successful()
    }

    /// Sees to it that the task does not run on: if it waits, it is not begun; if it runs, its worker
    /// is killed, and replaced. If it is done already, its result stands.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).build()?;
    /// let endless = pool.apply_async(|()| -> () { loop { std::thread::park() } }, ())?;
    /// endless.cancel();
    /// assert!(endless.get().unwrap_err().is_cancelled());
    /// assert_eq!(pool.apply(|x: u32| x + 1, 1)?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) {
        self.tasks.cancel();
    }

    /// Has a function called with what comes of the task, by a thread that all pools of this process
    /// share for that.
    ///
    /// A function that panics costs nobody else anything: the panic is printed, as any other. One that
    /// blocks keeps the others waiting. If that thread cannot be started, this call waits for the task,
    /// and calls the function itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).build()?;
    /// let (sender, receiver) = mpsc::channel();
    /// pool.apply_async(|x: u32| x + 1, 1)?.on_done(move |result| sender.send(result).unwrap());
    /// assert_eq!(receiver.recv()??, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "callback")]
    #[doc(alias = "error_callback")]
    #[doc(alias = "add_done_callback")]
    pub fn on_done(self, callback: impl FnOnce(Result<R, TaskError>) + Send + 'static)
    where
        R: Send + 'static,
    {
        callback::call_with(self, callback);
    }
}

impl<R: DeserializeOwned> MapHandle<R> {
    pub(crate) fn new(shared: Arc<Shared>, batch: Arc<Batch>, count: usize) -> Self {
        MapHandle { shared, batch, gathered: Gathered::new(count), returns: PhantomData }
    }

    /// Waits for all tasks and gives their values, in order.
    ///
    /// # Errors
    ///
    /// A task failed: the error has the outcomes of all.
    pub fn get(self) -> Result<Vec<R>, MapError<R>> {
        values(self.wait_for_all())
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
    pub fn outcomes(self) -> Vec<Result<R, TaskError>> {
        self.wait_for_all().into_outcomes()
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
        self.ready().then(|| self.gathered.is_successful())
    }

    /// Sees to it that the tasks do not run on: those that wait are not begun, and workers that run
    /// some are killed, and replaced. The results of those that are done stand.
    pub fn cancel(&self) {
        self.shared.cancel(&self.batch);
    }

    /// Has a function called with what [`get`](MapHandle::get) would return, once all tasks are done:
    /// see [`TaskHandle::on_done`].
    #[doc(alias = "callback")]
    #[doc(alias = "error_callback")]
    pub fn on_done(self, callback: impl FnOnce(Result<Vec<R>, MapError<R>>) + Send + 'static)
    where
        R: Send + 'static,
    {
        callback::call_with(self, callback);
    }

    fn wait_for_all(mut self) -> Gathered<R> {
        self.collect(Deadline::NEVER);
        self.gathered
    }

    fn collect(&mut self, deadline: Deadline) -> bool {
        while !self.gathered.is_complete() {
            match self.batch.take(deadline) {
                Some(part) => self.note(part),
                None if self.batch.is_cancelled() => self.give_up(),
                None => return false,
            }
        }
        true
    }

    fn note(&mut self, part: Part) {
        self.gathered.put(part);
        if let Some(observer) = &self.batch.options.progress {
            (observer.0)(self.gathered.done(), self.gathered.count());
        }
    }

    /// After the batch was cancelled.
    fn give_up(&mut self) {
        self.gathered.fail_missing(|| TaskKind::Cancelled.into());
    }

    fn poll_all(&mut self, context: &mut Context<'_>) -> Poll<Gathered<R>> {
        while !self.gathered.is_complete() {
            match self.batch.poll_take(context) {
                Poll::Ready(Some(part)) => self.note(part),
                Poll::Ready(None) => self.give_up(),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(mem::replace(&mut self.gathered, Gathered::new(0)))
    }
}

impl<R: DeserializeOwned> Future for TaskHandle<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.tasks.poll_all(context).map(only)
    }
}

impl<R: DeserializeOwned> Future for MapHandle<R> {
    type Output = Result<Vec<R>, MapError<R>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_all(context).map(values)
    }
}

// No value is ever pinned.
impl<R> Unpin for TaskHandle<R> {}
impl<R> Unpin for MapHandle<R> {}

fn values<R>(gathered: Gathered<R>) -> Result<Vec<R>, MapError<R>> {
    gathered.into_values().map_err(MapError::new)
}

fn only<R>(gathered: Gathered<R>) -> Result<R, TaskError> {
    // Every task is done once, so that none is ever missing at the end.
    let lost = || Err(TaskError::not_run("its result was taken before"));
    gathered.into_only().unwrap_or_else(lost)
}

/// Reads what came of some tasks, and gives each to `take`, which must not panic, with its number.
pub(crate) fn read<R: DeserializeOwned>(
    part: Part,
    mut take: impl FnMut(usize, Result<R, TaskError>),
) {
    let indices = part.first..part.first + part.count;
    match part.content {
        Content::Failed(error) => indices.for_each(|index| take(index, Err(error.clone()))),
        Content::Outcomes(message) => {
            let (mut reader, count) = (message.reader(), part.count);
            let mut indices = indices;
            outcome::read_each(&mut reader, count, |outcome| {
                if let Some(index) = indices.next() {
                    take(index, outcome);
                }
            });
        }
    }
}

impl<R> fmt::Debug for TaskHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for MapHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapHandle")
            .field("tasks", &self.gathered.count())
            .field("done", &self.gathered.done())
            .finish_non_exhaustive()
    }
}
