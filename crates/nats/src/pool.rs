use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use multiproc_pool::__private as pool;
use multiproc_pool::{Error as HandIn, MapError, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::{Batch, Settings};
use crate::chunk::Arguments;
use crate::driver::{self, AgentInfo, Shared};
use crate::error::Error;
use crate::handle::{MapHandle, TaskHandle};
use crate::imap::{Imap, ImapUnordered};
use crate::options::Options;
use crate::task;

/// The workers of all agents, as one pool.
///
/// Its methods are those of [`multiproc_pool::Pool`], and so are their errors. A task is a function, or a
/// closure that captures nothing, and its argument; it may run more than once, and its result comes
/// once.
///
/// A `Pool` is a handle: a clone has the same agents. All methods may be called from several threads at
/// once. Dropping the last handle ends it: tasks that were not done fail.
///
/// # Examples
///
/// ```no_run
/// use multiproc_nats::{Options, Pool};
///
/// multiproc_process::init();
/// let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
/// assert_eq!(pool.map(|x: u64| x * x, 1..=4)?, [1, 4, 9, 16]);
/// for result in pool.imap(|x: u64| x * 2, 9..12) {
///     println!("{}", result?);
/// }
/// let later = pool.apply_async(|(a, b): (i32, i32)| a - b, (5, 2))?;
/// assert_eq!(later.get()?, 3);
/// pool.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool {
    owner: Arc<Owner>,
    settings: Settings,
}

/// Ends the driver when it is dropped.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Connects to a server, or to one of several whose addresses are separated by commas. Agents need
    /// not be there: tasks wait for them.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, refuses who connects, or has no JetStream; or the key is too short.
    pub fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let (shared, thread) = driver::start(url, options)?;
        let owner = Owner { shared, thread: Mutex::new(Some(thread)) };
        Ok(Pool { owner: Arc::new(owner), settings: Settings::default() })
    }

    /// The agents that are there, and run this program's tasks.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// for agent in pool.agents() {
    ///     println!("{}, process {}, {} workers", agent.host, agent.pid, agent.workers);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn agents(&self) -> Vec<AgentInfo> {
        self.shared().agents()
    }

    /// Waits until so many agents are there, no longer than `timeout`. Returns whether they are.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// if !pool.wait_for_agents(3, Duration::from_secs(60)) {
    ///     eprintln!("there are only {} agents", pool.agents().len());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_agents(&self, count: usize, timeout: Duration) -> bool {
        self.shared().wait_for_agents(count, timeout)
    }

    /// How many workers the agents have that are there.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// println!("{} workers on {} hosts", pool.workers(), pool.agents().len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn workers(&self) -> usize {
        self.shared().workers()
    }

    /// Gives a handle whose tasks travel so many at a time. Without, the pool decides that, from the
    /// time that tasks take.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// let sums = pool.with_chunk_size(1000).map(|x: u64| x + 1, 0..1_000_000)?;
    /// assert_eq!(sums[7], 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "chunksize")]
    pub fn with_chunk_size(&self, tasks: usize) -> Self {
        self.with(|settings| settings.chunk_size = Some(tasks.max(1)))
    }

    /// Gives a handle whose tasks may each take this long. One that takes longer fails, and its worker
    /// is killed, and replaced; other tasks are not touched.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// let pool = pool.with_timeout(Duration::from_secs(10));
    /// let outcomes = pool.try_map(|x: u64| x + 1, 0..10)?;
    /// assert!(outcomes.iter().flatten().all(|&x| x < 11));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "task_timeout")]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.with(|settings| settings.timeout = Some(timeout))
    }

    /// Runs a function on each item and gives the values, in order.
    ///
    /// # Errors
    ///
    /// A task failed: the error has the outcomes of all. Or the pool took none: an argument does not
    /// serialise, or has a handle in it, or the pool is closed.
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

    /// Runs a function on each item and gives what came of each, in order.
    ///
    /// # Errors
    ///
    /// The pool took no task.
    pub fn try_map<A, R>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Result<R, TaskError>>, HandIn>
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
    /// ```no_run
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// let later = pool.map_async(|x: u64| x * x, 0..100)?;
    /// assert_eq!(later.get()?[9], 81);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_async<A, R>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<MapHandle<R>, HandIn>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let mut arguments = Arguments::default();
        for (index, item) in items.into_iter().enumerate() {
            arguments.push(index, &item)?;
        }
        let batch = self.batch(function)?;
        let count = arguments.len();
        self.shared().submit(&batch, arguments, 0)?;
        Ok(MapHandle::new(Arc::clone(self.shared()), batch, count))
    }

    /// Runs one task and gives its value.
    ///
    /// # Errors
    ///
    /// The task failed, or the pool did not take it.
    pub fn apply<A, R>(&self, function: fn(A) -> R, argument: A) -> Result<R, TaskError>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        self.apply_async(function, argument).map_err(TaskError::__not_run)?.get()
    }

    /// Hands in one task and gives a handle to what will come of it.
    ///
    /// # Errors
    ///
    /// The pool is closed, or the argument does not serialise, or has a handle in it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// let later = pool.apply_async(|text: String| text.len(), "hello".to_string())?;
    /// assert_eq!(later.get()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "submit")]
    pub fn apply_async<A, R>(
        &self,
        function: fn(A) -> R,
        argument: A,
    ) -> Result<TaskHandle<R>, HandIn>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        let mut arguments = Arguments::default();
        arguments.push(0, &argument)?;
        let batch = self.batch(function)?;
        self.shared().submit(&batch, arguments, 0)?;
        Ok(TaskHandle::new(Arc::clone(self.shared()), batch))
    }

    /// Runs the function on each item as the iterator gives them, and gives what comes of each, in
    /// order.
    ///
    /// Items are taken while results are, so that an endless iterator is no harm: for each worker four
    /// chunks are under way at a time. Tasks that wait when it is dropped are not begun.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// let firsts: Result<Vec<u64>, _> = pool.imap(|x: u64| x * 2, 9..).take(3).collect();
    /// assert_eq!(firsts?, [18, 20, 22]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn imap<A, R, I>(&self, function: fn(A) -> R, items: I) -> Imap<I::IntoIter, R>
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
    /// ```no_run
    /// # use multiproc_nats::{Options, Pool};
    /// # multiproc_process::init();
    /// # let pool = Pool::connect("nats://hub", Options::new(std::fs::read("/etc/my-program.key")?))?;
    /// for result in pool.imap_unordered(|x: u64| x * 2, 0..50) {
    ///     println!("{}", result?);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "as_completed")]
    pub fn imap_unordered<A, R, I>(
        &self,
        function: fn(A) -> R,
        items: I,
    ) -> ImapUnordered<I::IntoIter, R>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: IntoIterator<Item = A>,
    {
        ImapUnordered::new(Arc::clone(self.shared()), self.batch(function), items.into_iter())
    }

    /// Takes no more tasks, through any handle. Those that were handed in are done.
    #[doc(alias = "shutdown")]
    pub fn close(&self) {
        self.shared().close();
    }

    /// Ends the pool, through any handle: agents are told to kill the workers that run its tasks, and
    /// what was not done fails.
    pub fn terminate(&self) {
        self.owner.end();
    }

    /// Closes the pool, and waits until all tasks are done.
    ///
    /// # Errors
    ///
    /// None so far: it is that of [`multiproc_pool::Pool::join`].
    pub fn join(&self) -> Result<(), HandIn> {
        self.close();
        self.shared().wait_until_idle();
        self.owner.end();
        Ok(())
    }

    fn batch<A, R>(&self, function: fn(A) -> R) -> Result<Arc<Batch>, HandIn>
    where
        A: DeserializeOwned,
        R: Serialize,
    {
        let entry = task::entry(function).map_err(pool::function)?;
        Ok(self.shared().batch(entry, self.settings.clone()))
    }

    fn with(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut pool = self.clone();
        change(&mut pool.settings);
        pool
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl Owner {
    /// Has the driver end, and waits until it has tidied up.
    fn end(&self) {
        self.shared.end("the pool was terminated");
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end();
    }
}

impl Clone for Pool {
    fn clone(&self) -> Self {
        Pool { owner: Arc::clone(&self.owner), settings: self.settings.clone() }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_may_be_sent_and_shared() {
        fn sent_and_shared<T: Send + Sync>() {}
        sent_and_shared::<Pool>();
        sent_and_shared::<MapHandle<u8>>();
        sent_and_shared::<TaskHandle<u8>>();
        sent_and_shared::<Imap<std::ops::Range<u8>, u8>>();
        sent_and_shared::<Error>();
        sent_and_shared::<AgentInfo>();
        sent_and_shared::<Options>();
    }
}
