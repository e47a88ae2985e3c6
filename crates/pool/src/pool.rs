use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::Builder;
use crate::dispatcher::Dispatcher;
use crate::error::{Error, Kind, MapError, TaskError};
use crate::handle::{MapHandle, TaskHandle};
use crate::imap::{Imap, ImapUnordered};
use crate::job::{Arguments, Collector, Job, Jobs};
use crate::state::Shared;
use crate::worker::{TaskEntry, run_chunk};

/// Worker processes that run tasks.
///
/// A task is a function, or a closure that captures nothing, and its argument; several arguments are a
/// tuple (Python's `starmap`). The function runs in one of the workers, so what it changes in its own
/// memory is not seen here.
///
/// All methods may be called from several threads at once. Dropping the pool terminates it.
///
/// # Examples
///
/// ```
/// use multiproc_pool::Pool;
///
/// multiproc_process::init();
/// let pool = Pool::new()?;
/// assert_eq!(pool.map(|x: u64| x * x, 1..=4)?, [1, 4, 9, 16]);
/// assert_eq!(pool.apply(|(a, b): (i32, i32)| a - b, (5, 2))?, 3);
/// pool.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "ProcessPoolExecutor")]
pub struct Pool {
    shared: Arc<Shared>,
    dispatcher: Option<JoinHandle<()>>,
}

impl Pool {
    /// Makes a pool with one worker for each processor that this process may use.
    ///
    /// # Errors
    ///
    /// [`init`](multiproc_process::init) was not called, or the system has no process, memory or
    /// descriptor left.
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// Sets the number of workers and more before the pool is made.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(3).build()?;
    /// assert_eq!(pool.workers(), 3);
    /// assert!(Pool::builder().workers(0).build().is_err());
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(settings: Builder) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(settings).map_err(Kind::Watch)?);
        let dispatcher = Dispatcher::new(Arc::clone(&shared))?;
        let thread = thread::Builder::new().name("multiproc-pool".into());
        let dispatcher = thread.spawn(|| dispatcher.run()).map_err(Kind::Watch)?;
        Ok(Pool { shared, dispatcher: Some(dispatcher) })
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.shared.settings.workers
    }

    /// The numbers of the worker processes at this moment.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared.lock().workers.values().map(|worker| worker.process.pid()).collect()
    }

    /// Runs the function on each item and gives the values, in order.
    ///
    /// # Errors
    ///
    /// A task failed: the error has the outcomes of all. Or the pool took none: it is closed, or an
    /// item does not serialise.
    #[doc(alias = "starmap")]
    pub fn map<A, R>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError<R>>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.map_async(function, items)?.get()
    }

    /// Runs the function on each item and gives what came of each, in order.
    ///
    /// # Errors
    ///
    /// The pool took no task: it is closed, or an item does not serialise.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let outcomes = pool.try_map(|x: u32| 12 / x, [3, 0])?;
    /// assert_eq!(outcomes[0].as_ref().ok(), Some(&4));
    /// assert!(outcomes[1].is_err());
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    pub fn try_map<A, R>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Result<R, TaskError>>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        Ok(self.map_async(function, items)?.outcomes())
    }

    /// Hands in all items at once and gives a handle to what will come of them.
    ///
    /// # Errors
    ///
    /// As [`try_map`](Pool::try_map).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let later = pool.map_async(|x: u32| x + 1, 0..3)?;
    /// assert_eq!(later.get()?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "starmap_async")]
    pub fn map_async<A, R>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<MapHandle<R>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let entry = TaskEntry::new(function, run_chunk::<A, R>).map_err(Kind::Function)?.encode();
        let collector = Arc::new(Collector::default());
        let mut jobs = Jobs::new(entry, &collector);
        for item in items {
            jobs.push(item)?;
        }
        let (jobs, count) = jobs.finish();
        self.shared.submit(jobs)?;
        Ok(MapHandle::new(collector, count))
    }

    /// Runs one task and gives its value.
    ///
    /// # Errors
    ///
    /// The task failed, or the pool is closed, or the argument does not serialise.
    pub fn apply<A, R>(&self, function: fn(A) -> R, argument: A) -> Result<R, TaskError>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.apply_async(function, argument).map_err(TaskError::not_run)?.get()
    }

    /// Hands in one task and gives a handle to what will come of it.
    ///
    /// # Errors
    ///
    /// The pool is closed, or the argument does not serialise.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).build()?;
    /// let later = pool.apply_async(|text: String| text.len(), "hello".to_string())?;
    /// assert_eq!(later.get()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "submit")]
    pub fn apply_async<A, R>(
        &self,
        function: fn(A) -> R,
        argument: A,
    ) -> Result<TaskHandle<R>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let collector = Arc::new(Collector::default());
        let entry = TaskEntry::new(function, run_chunk::<A, R>).map_err(Kind::Function)?.encode();
        self.submit_one(entry, argument, 0, &collector)?;
        Ok(TaskHandle::new(collector))
    }

    /// Runs the function on each item as the iterator gives them, and gives what comes of each, in
    /// order.
    ///
    /// Items are taken while results are: a few tasks for each worker are under way at a time, so
    /// that an endless iterator is no harm.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let firsts: Result<Vec<u64>, _> = pool.imap(|x: u64| x * 2, 9..).take(3).collect();
    /// assert_eq!(firsts?, [18, 20, 22]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap<A, R, I>(&self, function: fn(A) -> R, items: I) -> Imap<'_, I::IntoIter, A, R>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        Imap::new(self.imap_unordered(function, items))
    }

    /// Runs the function on each item as the iterator gives them, and gives what comes of each, as it
    /// comes.
    ///
    /// Otherwise as [`imap`](Pool::imap).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let mut all: Vec<u64> = pool.imap_unordered(|x: u64| x * 2, 0..50).collect::<Result<_, _>>()?;
    /// all.sort();
    /// assert_eq!(all, (0..50).map(|x| x * 2).collect::<Vec<_>>());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "as_completed")]
    pub fn imap_unordered<A, R, I>(
        &self,
        function: fn(A) -> R,
        items: I,
    ) -> ImapUnordered<'_, I::IntoIter, A, R>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        let entry = TaskEntry::new(function, run_chunk::<A, R>).map(|entry| entry.encode());
        ImapUnordered::new(
            self,
            entry.map_err(|error| Kind::Function(error).into()),
            items.into_iter(),
        )
    }

    pub(crate) fn submit_one<A: Serialize>(
        &self,
        entry: [u8; multiproc_os::image::ENTRY_SIZE],
        argument: A,
        index: usize,
        collector: &Arc<Collector>,
    ) -> Result<(), Error> {
        let mut arguments = Arguments::default();
        arguments.push(argument).map_err(|source| Kind::Argument { index, source })?;
        self.shared.submit(vec![Job::new(entry, arguments, index, Arc::clone(collector))])
    }

    /// Takes no more tasks. Those that were handed in are done.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.waker.wake();
    }

    /// Ends all workers at once. Tasks that were not done fail.
    pub fn terminate(&self) {
        self.shared.lock().terminated = true;
        self.shared.waker.wake();
    }

    /// Closes the pool, unless it is closed or terminated, and waits until all tasks are done and the
    /// workers have ended.
    ///
    /// # Errors
    ///
    /// The thread that watched the workers panicked, which is a defect of this library.
    pub fn join(mut self) -> Result<(), Error> {
        self.close();
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Error> {
        match self.dispatcher.take().map(JoinHandle::join) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Kind::Watch(std::io::Error::other("its thread panicked")).into()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.terminate();
        let _watched = self.wait();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers()).finish_non_exhaustive()
    }
}
