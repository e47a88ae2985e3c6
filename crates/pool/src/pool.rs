use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use multiproc_os::image::ENTRY_SIZE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::{Builder, Settings};
use crate::child::{TaskEntry, run, run_with};
use crate::context::Sent;
use crate::death;
use crate::engine::job::Jobs;
use crate::engine::{Batch, Dispatcher, Shared};
use crate::error::{Error, Kind, MapError, TaskError};
use crate::handle::{MapHandle, TaskHandle};
use crate::imap::{Imap, ImapUnordered};
use crate::mode::{Mode, Stateful, Stateless};
use crate::options::{Observer, Options};
use crate::outcome;
use crate::statistics::Statistics;
use crate::trace;

/// Worker processes that run tasks.
///
/// A task is a function, or a closure that captures nothing, and its argument; several arguments are a
/// tuple (Python's `starmap`). The function runs in one of the workers, so what it changes in its own
/// memory is not seen here.
///
/// A `Pool` is a handle: a clone has the same workers, and so has one for whose tasks something else
/// holds, as [`with_timeout`](Pool::with_timeout) gives it. All methods may be called from several
/// threads at once. Dropping the last handle terminates the pool.
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
pub struct Pool<M = Stateless> {
    owner: Arc<Owner>,
    options: Options,
    mode: PhantomData<fn() -> M>,
}

/// Ends the pool when it is dropped.
struct Owner {
    shared: Arc<Shared>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
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

    /// Gives the pool that all of this process share, which is made when it is first asked for, with
    /// one worker for each processor. It is never closed, and ends with this process.
    ///
    /// # Errors
    ///
    /// As [`new`](Pool::new). The next call tries again.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// assert_eq!(Pool::global()?.map(|x: u64| x + 1, 0..3)?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_reusable_executor")]
    pub fn global() -> Result<&'static Self, Error> {
        static GLOBAL: OnceLock<Pool> = OnceLock::new();
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        match GLOBAL.get() {
            Some(pool) => Ok(pool),
            None => {
                let pool = Self::new()?;
                Ok(GLOBAL.get_or_init(|| pool))
            }
        }
    }
}

impl<M> Pool<M> {
    pub(crate) fn start(settings: Settings) -> Result<Self, Error> {
        // What was killed before has nothing to do with the workers.
        death::count_kernel_kills();
        let options = settings.options.clone();
        let shared = Arc::new(Shared::new(settings).map_err(Kind::Watch)?);
        let dispatcher = Dispatcher::new(Arc::clone(&shared))?;
        let thread = thread::Builder::new().name("multiproc-pool".into());
        let dispatcher = thread.spawn(|| dispatcher.run()).map_err(Kind::Watch)?;
        let owner = Owner { shared, dispatcher: Mutex::new(Some(dispatcher)) };
        Ok(Pool { owner: Arc::new(owner), options, mode: PhantomData })
    }

    /// How many workers it has, or may have if it [shrinks](Builder::shrink).
    pub fn workers(&self) -> usize {
        self.shared().lock().size
    }

    /// Changes the number of workers. Those that are too many end once they have done what they were
    /// given.
    ///
    /// # Errors
    ///
    /// Zero is refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).build()?;
    /// pool.resize(3)?;
    /// assert_eq!(pool.workers(), 3);
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    pub fn resize(&self, workers: usize) -> Result<(), Error> {
        if workers == 0 {
            return Err(Kind::NoWorkers.into());
        }
        self.shared().lock().size = workers;
        self.shared().bells.call();
        Ok(())
    }

    /// The numbers of the worker processes at this moment.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared().lock().workers.values().map(|worker| worker.process.pid()).collect()
    }

    /// What the pool and its workers have done so far.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// pool.map(|x: u64| x + 1, 0..1000)?;
    /// let statistics = pool.statistics();
    /// assert_eq!(statistics.tasks(), 1000);
    /// println!("{statistics}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_insights")]
    pub fn statistics(&self) -> Statistics {
        let state = self.shared().lock();
        let workers = state.workers.values().map(|worker| worker.statistics()).collect();
        let waiting = state.waiting.tasks();
        Statistics { workers, waiting, ..state.statistics.clone() }
    }

    /// Gives a handle whose tasks go to workers so many at a time. Without, the pool decides that, from
    /// the time that tasks take.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.with_chunk_size(100).map(|x: u64| x + 1, 0..1000)?[999], 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "chunksize")]
    pub fn with_chunk_size(&self, tasks: usize) -> Self {
        self.with(|options| options.chunk_size = Some(tasks.max(1)))
    }

    /// Gives a handle whose tasks may each take this long. One that takes longer fails, and its worker
    /// is killed, and replaced; other tasks are not touched.
    ///
    /// The time counts from the task's own begin. Without a timeout, a task whose worker is stopped (by
    /// `SIGSTOP`, or a debugger) waits until that is continued.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let hang = |x: u32| if x == 3 { loop { std::thread::park() } } else { x };
    /// let outcomes = pool.with_timeout(Duration::from_millis(100)).try_map(hang, 0..6)?;
    /// assert!(outcomes[3].as_ref().unwrap_err().is_timeout());
    /// assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    #[doc(alias = "task_timeout")]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.with(|options| options.timeout = Some(timeout))
    }

    /// Gives a handle where the tasks of one call may together take this long. Those that are not done
    /// then fail; workers that run some are killed, and replaced.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let work = |x: u32| if x < 2 { x } else { loop { std::thread::park() } };
    /// let outcomes = pool.with_deadline(Duration::from_millis(200)).try_map(work, 0..10)?;
    /// assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    /// assert!(outcomes[9].as_ref().unwrap_err().is_timeout());
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    pub fn with_deadline(&self, time: Duration) -> Self {
        self.with(|options| options.deadline = Some(time))
    }

    /// Gives a handle whose tasks are tried again when their worker has died, so many times. Without,
    /// they fail at once.
    ///
    /// A task may then run more than once, though never to its end. Errors, panics and timeouts are
    /// results, and not tried again. Handles with a single owner in the argument, such as a `ShmBox`,
    /// are lost with the first worker that has read it.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).build()?;
    /// let always = pool.with_retries(2).apply(|()| -> () { std::process::abort() }, ());
    /// assert_eq!(always.unwrap_err().deaths(), 3);
    /// # Ok::<(), multiproc_pool::Error>(())
    /// ```
    pub fn with_retries(&self, retries: u32) -> Self {
        self.with(|options| options.retries = retries)
    }

    /// Gives a handle whose tasks are begun before those of lower priority, and after those of higher.
    /// Zero without. Tasks that were begun are not interrupted.
    pub fn with_priority(&self, priority: i32) -> Self {
        self.with(|options| options.priority = priority)
    }

    /// Gives a handle that tells how far a map has come: how many tasks are done, and of how many.
    /// The function is called by who waits for the results, as they come.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// use multiproc_pool::Pool;
    ///
    /// static DONE: AtomicUsize = AtomicUsize::new(0);
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let observed = pool.with_progress(|done, of| DONE.store(done * 100 / of, Relaxed));
    /// observed.map(|x: u64| x + 1, 0..1000)?;
    /// assert_eq!(DONE.load(Relaxed), 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "progress_bar")]
    pub fn with_progress(&self, observer: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        self.with(|options| options.progress = Some(Observer(Arc::new(observer))))
    }

    /// Gives a handle that shows on the bar how far a map has come. Its length becomes the number of
    /// tasks.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let bar = indicatif::ProgressBar::no_length();
    /// pool.with_progress_bar(bar.clone()).map(|x: u64| x + 1, 0..1000)?;
    /// assert_eq!((bar.position(), bar.length()), (1000, Some(1000)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "indicatif")]
    pub fn with_progress_bar(&self, bar: indicatif::ProgressBar) -> Self {
        self.with_progress(move |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        })
    }

    fn with(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut pool = self.clone();
        change(&mut pool.options);
        pool
    }

    /// Takes no more tasks, through any handle. Those that were handed in are done.
    #[doc(alias = "shutdown")]
    pub fn close(&self) {
        self.shared().lock().closed = true;
        self.shared().bells.call();
    }

    /// Ends all workers at once. Tasks that were not done fail.
    pub fn terminate(&self) {
        self.owner.terminate();
    }

    /// Closes the pool, unless it is closed or terminated, and waits until all tasks are done and the
    /// workers have ended.
    ///
    /// # Errors
    ///
    /// The thread that watched the workers panicked, which is a defect of this library.
    #[doc(alias = "shutdown")]
    pub fn join(self) -> Result<(), Error> {
        self.close();
        self.owner.wait()
    }

    /// What tasks that are handed in together have in common.
    pub(crate) fn batch(&self, entry: [u8; ENTRY_SIZE], context: Option<Sent>) -> Arc<Batch> {
        let bells = Arc::clone(&self.shared().bells);
        let pace = self.shared().pace(entry);
        Arc::new(Batch::new(self.options.clone(), context, pace, bells))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl<S, F> Pool<Stateful<S, F>>
where
    Stateful<S, F>: Mode<Final = F>,
    F: DeserializeOwned,
{
    /// Joins the pool, and gives what the [finalizer](Builder::finalizer) of each worker has returned
    /// or why it did not: of those that ended before as well, and in the order in which they ended.
    ///
    /// # Errors
    ///
    /// As [`join`](Pool::join).
    #[doc(alias = "get_exit_results")]
    pub fn join_with_finals(self) -> Result<Vec<Result<F, TaskError>>, Error> {
        self.close();
        self.owner.wait()?;
        let finals = std::mem::take(&mut self.shared().lock().finals);
        Ok(finals.iter().map(|message| outcome::read(&mut message.reader())).collect())
    }
}

impl<M: Mode> Pool<M> {
    /// Runs the function on each item and gives the values, in order.
    ///
    /// # Errors
    ///
    /// A task failed: the error has the outcomes of all. Or the pool took none: it is closed, or an
    /// item does not serialise.
    #[doc(alias = "starmap")]
    pub fn map<A, R>(
        &self,
        function: M::Task<A, R>,
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
        function: M::Task<A, R>,
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
        function: M::Task<A, R>,
        items: impl IntoIterator<Item = A>,
    ) -> Result<MapHandle<R>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.hand_in(entry::<M, A, R>(function)?, None, items)
    }

    /// Runs a function of an argument that all tasks share, and one of their own, and gives the
    /// values, in order. The shared argument is sent once to each worker.
    ///
    /// Workers keep the last four of such arguments.
    ///
    /// # Errors
    ///
    /// As [`map`](Pool::map), and if the shared argument does not serialise.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let table: Vec<u64> = (0..100_000).map(|x| x * x).collect();
    /// assert_eq!(pool.map_with(&table, |table, x: usize| table[x], [3, 4])?, [9, 16]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "shared_objects")]
    pub fn map_with<C, A, R>(
        &self,
        context: &C,
        function: M::TaskWith<C, A, R>,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, MapError<R>>
    where
        C: Serialize + DeserializeOwned + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.map_async_with(context, function, items)?.get()
    }

    /// As [`try_map`](Pool::try_map), with an argument that all tasks share: see
    /// [`map_with`](Pool::map_with).
    ///
    /// # Errors
    ///
    /// As `try_map`, and if the shared argument does not serialise.
    pub fn try_map_with<C, A, R>(
        &self,
        context: &C,
        function: M::TaskWith<C, A, R>,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Result<R, TaskError>>, Error>
    where
        C: Serialize + DeserializeOwned + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        Ok(self.map_async_with(context, function, items)?.outcomes())
    }

    /// As [`map_async`](Pool::map_async), with an argument that all tasks share: see
    /// [`map_with`](Pool::map_with).
    ///
    /// # Errors
    ///
    /// As `map_async`, and if the shared argument does not serialise.
    pub fn map_async_with<C, A, R>(
        &self,
        context: &C,
        function: M::TaskWith<C, A, R>,
        items: impl IntoIterator<Item = A>,
    ) -> Result<MapHandle<R>, Error>
    where
        C: Serialize + DeserializeOwned + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let context = Sent::new(context).map_err(Kind::Context)?;
        self.hand_in(entry_with::<M, C, A, R>(function)?, Some(context), items)
    }

    fn hand_in<A: Serialize, R: DeserializeOwned>(
        &self,
        entry: [u8; ENTRY_SIZE],
        context: Option<Sent>,
        items: impl IntoIterator<Item = A>,
    ) -> Result<MapHandle<R>, Error> {
        let batch = self.batch(entry, context);
        let mut jobs = Jobs::new(entry, &batch, 0);
        for item in items {
            jobs.push(item)?;
        }
        let (works, count) = jobs.finish();
        self.shared().submit(works)?;
        trace::handed_in(count);
        Ok(MapHandle::new(Arc::clone(self.shared()), batch, count))
    }

    /// Runs one task and gives its value.
    ///
    /// # Errors
    ///
    /// The task failed, or the pool is closed, or the argument does not serialise.
    pub fn apply<A, R>(&self, function: M::Task<A, R>, argument: A) -> Result<R, TaskError>
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
        function: M::Task<A, R>,
        argument: A,
    ) -> Result<TaskHandle<R>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let entry = entry::<M, A, R>(function)?;
        let batch = self.batch(entry, None);
        let mut jobs = Jobs::new(entry, &batch, 0);
        jobs.push(argument)?;
        self.shared().submit(jobs.finish().0)?;
        Ok(TaskHandle::new(Arc::clone(self.shared()), batch))
    }

    /// Runs the function on each item as the iterator gives them, and gives what comes of each, in
    /// order.
    ///
    /// Items are taken while results are, so that an endless iterator is no harm: for each worker four
    /// tasks are under way at a time, or four chunks where a [chunk size](Pool::with_chunk_size) is set,
    /// or as many as take it some milliseconds, 256 at most. Tasks that wait when it is dropped are not
    /// begun.
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
    pub fn imap<A, R, I>(&self, function: M::Task<A, R>, items: I) -> Imap<I::IntoIter, R>
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
        function: M::Task<A, R>,
        items: I,
    ) -> ImapUnordered<I::IntoIter, R>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        self.take_as_they_come(entry::<M, A, R>(function).map(|entry| (entry, None)), items)
    }

    /// As [`imap`](Pool::imap), with an argument that all tasks share: see
    /// [`map_with`](Pool::map_with).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let firsts: Result<Vec<u64>, _> = pool.imap_with(&5, |by, x: u64| x * by, 1..).take(3).collect();
    /// assert_eq!(firsts?, [5, 10, 15]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap_with<C, A, R, I>(
        &self,
        context: &C,
        function: M::TaskWith<C, A, R>,
        items: I,
    ) -> Imap<I::IntoIter, R>
    where
        C: Serialize + DeserializeOwned + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        Imap::new(self.imap_unordered_with(context, function, items))
    }

    /// As [`imap_unordered`](Pool::imap_unordered), with an argument that all tasks share: see
    /// [`map_with`](Pool::map_with).
    pub fn imap_unordered_with<C, A, R, I>(
        &self,
        context: &C,
        function: M::TaskWith<C, A, R>,
        items: I,
    ) -> ImapUnordered<I::IntoIter, R>
    where
        C: Serialize + DeserializeOwned + 'static,
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        let context = Sent::new(context).map_err(|error| Kind::Context(error).into());
        let entry = entry_with::<M, C, A, R>(function);
        let ready = entry.and_then(|entry| context.map(|context| (entry, Some(context))));
        self.take_as_they_come(ready, items)
    }

    fn take_as_they_come<I: IntoIterator, R>(
        &self,
        ready: Result<([u8; ENTRY_SIZE], Option<Sent>), Error>,
        items: I,
    ) -> ImapUnordered<I::IntoIter, R> {
        let (entry, batch) = match ready {
            Ok((entry, context)) => (Ok(entry), self.batch(entry, context)),
            Err(error) => (Err(error), Arc::default()),
        };
        ImapUnordered::new(Arc::clone(self.shared()), entry, batch, items.into_iter())
    }
}

/// The form in which a task's function travels.
fn entry<M: Mode, A: DeserializeOwned, R: Serialize>(
    function: M::Task<A, R>,
) -> Result<[u8; ENTRY_SIZE], Error> {
    let entry = TaskEntry::new(function, run::<M, A, R>).map_err(Kind::Function)?;
    Ok(entry.encode())
}

/// The same, for a function whose tasks share an argument.
fn entry_with<M: Mode, C: DeserializeOwned + 'static, A: DeserializeOwned, R: Serialize>(
    function: M::TaskWith<C, A, R>,
) -> Result<[u8; ENTRY_SIZE], Error> {
    let entry = TaskEntry::new(function, run_with::<M, C, A, R>).map_err(Kind::Function)?;
    Ok(entry.encode())
}

impl Owner {
    fn terminate(&self) {
        self.shared.lock().terminated = true;
        self.shared.bells.call();
    }

    fn wait(&self) -> Result<(), Error> {
        self.shared.wait_for_the_end();
        let dispatcher = self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        match dispatcher.map(JoinHandle::join) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Kind::Watch(std::io::Error::other("its thread panicked")).into()),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.terminate();
        let dispatcher = self.dispatcher.lock().unwrap_or_else(PoisonError::into_inner);
        let here = thread::current().id();
        // What a waker keeps is dropped by whoever wakes it: the dispatcher does not wait for itself.
        if dispatcher.as_ref().is_none_or(|dispatcher| dispatcher.thread().id() != here) {
            drop(dispatcher);
            let _watched = self.wait();
        }
    }
}

impl<M> Clone for Pool<M> {
    fn clone(&self) -> Self {
        let Pool { owner, options, .. } = self;
        Pool { owner: Arc::clone(owner), options: options.clone(), mode: PhantomData }
    }
}

impl<M> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers()).finish_non_exhaustive()
    }
}
