use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::time::Duration;

use multiproc_os::image::ENTRY_SIZE;
use multiproc_process::{Limit, Process, StartMethod, cpu_count};
use multiproc_wire::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::child::{self, CloseEntry, OpenEntry};
use crate::engine::State;
use crate::error::{Error, Kind};
use crate::mode::{Stateful, Stateless};
use crate::options::Options;
use crate::pool::Pool;

/// Says how a pool is to be made: see [`Pool::builder`].
#[must_use = "it makes nothing before `build`"]
pub struct Builder<M = Stateless> {
    settings: Settings,
    /// What was wrong with what was said, if something was.
    wrong: Option<Kind>,
    thread_caps: bool,
    /// The variables that were set.
    named: Vec<OsString>,
    mode: PhantomData<fn() -> M>,
}

/// What was said.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) workers: usize,
    pub(crate) least_workers: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) most_tasks: Option<NonZeroU64>,
    pub(crate) most_resident: Option<u64>,
    pub(crate) memory_limit: bool,
    pub(crate) open: Option<Open>,
    pub(crate) close: Option<[u8; ENTRY_SIZE]>,
    pub(crate) options: Options,
    pinned: Vec<u32>,
    process: multiproc_process::Builder,
}

/// An initializer and its argument.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) entry: [u8; ENTRY_SIZE],
    pub(crate) argument: Message,
}

/// The variables by which libraries are told how many threads to have.
const THREAD_CAPS: [&str; 5] = [
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

impl Default for Builder {
    fn default() -> Self {
        let settings = Settings {
            workers: cpu_count(),
            least_workers: 1,
            idle_timeout: None,
            lifetime: None,
            most_tasks: None,
            most_resident: None,
            memory_limit: false,
            open: None,
            close: None,
            options: Options::default(),
            pinned: Vec::new(),
            process: Process::builder().daemon(true),
        };
        Builder { settings, wrong: None, thread_caps: true, named: Vec::new(), mode: PhantomData }
    }
}

impl Builder {
    /// Has each worker run a function before its first task.
    ///
    /// The argument is sent to each worker, those that take the place of others among them. If the
    /// function panics, the worker ends, and another is tried; after ten in a row the waiting tasks
    /// fail.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use multiproc_pool::Pool;
    ///
    /// static GREETING: OnceLock<String> = OnceLock::new();
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder()
    ///     .workers(2)
    ///     .initializer(|greeting: String| GREETING.set(greeting).unwrap(), "hello".into())
    ///     .build()?;
    /// let greet = |name: String| format!("{}, {name}", GREETING.get().unwrap());
    /// assert_eq!(pool.apply(greet, "world".into())?, "hello, world");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "initargs")]
    pub fn initializer<A>(mut self, function: fn(A), argument: A) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        self.open(function, argument);
        self
    }

    /// Has each worker make a state, which it keeps and lends to each of its tasks: `fn(&mut S, A) -> R`.
    ///
    /// A task that panics leaves the state as it is then. Otherwise as
    /// [`initializer`](Builder::initializer).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use multiproc_pool::{Pool, Stateful};
    ///
    /// multiproc_process::init();
    /// let load = |words: Vec<String>| -> HashMap<String, usize> { words.into_iter().zip(0..).collect() };
    /// let pool: Pool<Stateful<HashMap<String, usize>>> =
    ///     Pool::builder().workers(2).state(load, vec!["zero".into(), "one".into()]).build()?;
    /// let index = pool.apply(|words, word: String| words.get(&word).copied(), "one".into())?;
    /// assert_eq!(index, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn state<A, S>(mut self, function: fn(A) -> S, argument: A) -> Builder<Stateful<S>>
    where
        A: Serialize + DeserializeOwned,
        S: Any,
    {
        self.open(function, argument);
        self.into_mode()
    }
}

impl<S: Any> Builder<Stateful<S>> {
    /// Has each worker make something of its state before it ends in peace. What it returns is given
    /// by [`Pool::join_with_finals`].
    ///
    /// A worker that is killed, as by [`Pool::terminate`], does not run it.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder()
    ///     .workers(2)
    ///     .state(|()| 0u64, ())
    ///     .finalizer(|sum| sum)
    ///     .build()?;
    /// pool.map(|sum, x: u64| *sum += x, 1..=100)?;
    /// let sums: Result<Vec<u64>, _> = pool.join_with_finals()?.into_iter().collect();
    /// assert_eq!(sums?.iter().sum::<u64>(), 5050);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "worker_exit")]
    pub fn finalizer<F>(mut self, function: fn(S) -> F) -> Builder<Stateful<S, F>>
    where
        F: Serialize + DeserializeOwned,
    {
        match CloseEntry::new(function, child::close::<S, F>) {
            Ok(entry) => self.settings.close = Some(entry.encode()),
            Err(error) => self.wrong = Some(Kind::Function(error)),
        }
        self.into_mode()
    }
}

impl<M> Builder<M> {
    /// Sets the number of workers; one for each processor that this process may use, without.
    #[doc(alias = "processes")]
    #[doc(alias = "max_workers")]
    pub fn workers(mut self, workers: usize) -> Self {
        self.settings.workers = workers;
        self
    }

    /// Sets how the workers are started; [`StartMethod::ForkServer`] without.
    ///
    /// [`StartMethod::Fork`] works only where the pool is the first thing in the process that has a
    /// thread, and cannot replace a worker that died: the pool has a thread of its own.
    #[doc(alias = "mp_context")]
    pub fn start_method(mut self, start_method: StartMethod) -> Self {
        self.settings.process = self.settings.process.start_method(start_method);
        self
    }

    /// Lets workers end that have had nothing to do for this long, down to `least`, and starts workers
    /// only when there are tasks for them. Without, there are always as many as were asked for.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(8).shrink(Duration::from_secs(10), 1).build()?;
    /// assert_eq!(pool.worker_pids().len(), 1);
    /// assert_eq!(pool.map(|x: u32| x + 1, 0..100)?.len(), 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shrink(mut self, idle_timeout: Duration, least: usize) -> Self {
        self.settings.idle_timeout = Some(idle_timeout);
        self.settings.least_workers = least;
        self
    }

    /// Replaces a worker once it has run so many tasks, in order that what they leak is given back.
    /// Zero is refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).max_tasks_per_child(2).build()?;
    /// let pids = pool.map(|_: u32| std::process::id(), 0..6)?;
    /// assert!(pids[0] == pids[1] && pids[1] != pids[2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "maxtasksperchild")]
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        self.settings.most_tasks = NonZeroU64::new(tasks);
        if tasks == 0 {
            self.wrong = Some(Kind::NoTasks);
        }
        self
    }

    /// Replaces a worker that has been there for this long, after the assignment that it runs then.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.lifetime = Some(lifetime);
        self
    }

    /// Replaces a worker that has more than so many bytes of memory resident after a task.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).max_resident(64 << 20).build()?;
    /// let leak = |len: usize| {
    ///     std::mem::forget(std::hint::black_box(vec![1u8; len]));
    ///     std::process::id()
    /// };
    /// let pids = pool.map(leak, [1 << 10, 100 << 20, 1 << 10])?;
    /// assert!(pids[0] == pids[1] && pids[1] != pids[2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_resident(mut self, bytes: u64) -> Self {
        self.settings.most_resident = Some(bytes);
        self
    }

    /// Limits the address space of each worker to so many bytes, the program and its libraries
    /// included. A task that needs more gets no memory: as a rule it aborts, and its worker dies of
    /// that.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).memory_limit(1 << 30).build()?;
    /// let fill = |len: usize| std::hint::black_box(vec![1u8; len]).len();
    /// assert!(pool.apply(fill, 2 << 30).unwrap_err().is_out_of_memory());
    /// assert_eq!(pool.apply(fill, 1 << 20)?, 1 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = true;
        self.limit(Limit::AddressSpace, bytes)
    }

    /// Limits what each worker may use of something.
    pub fn limit(mut self, limit: Limit, most: u64) -> Self {
        self.settings.process = self.settings.process.limit(limit, most);
        self
    }

    /// Sets a variable of the workers' environment.
    ///
    /// Without, and unless this process has them set, the variables by which thread pools are told
    /// their size (`RAYON_NUM_THREADS`, `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS`, `MKL_NUM_THREADS`,
    /// `NUMEXPR_NUM_THREADS`) are set to the number of processors divided by that of workers.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(1).env("GREETING", "hello").build()?;
    /// assert_eq!(pool.apply(|name: String| std::env::var(name).ok(), "GREETING".into())?.unwrap(), "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.named.push(name.as_ref().to_owned());
        self.settings.process = self.settings.process.env(name, value);
        self
    }

    /// Sets whether libraries are told how many threads to have: see [`env`](Builder::env). They are,
    /// without.
    pub fn thread_caps(mut self, caps: bool) -> Self {
        self.thread_caps = caps;
        self
    }

    /// Lets each worker run on one of these processors only, in turn. Without, each may run on all
    /// that this process may use.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).cpu_affinity([0]).build()?;
    /// assert_eq!(pool.apply(|()| multiproc_process::cpu_count(), ())?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.settings.pinned = cpus.into_iter().collect();
        self
    }

    /// Sets how nice the workers are to other processes: see
    /// [`niceness`](multiproc_process::Builder::niceness) of a process.
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.settings.process = self.settings.process.niceness(niceness);
        self
    }

    /// Makes the pool and starts its workers.
    ///
    /// # Errors
    ///
    /// No workers were asked for, [`init`](multiproc_process::init) was not called, or the system has
    /// no process, memory or descriptor left.
    pub fn build(mut self) -> Result<Pool<M>, Error> {
        if let Some(wrong) = self.wrong {
            return Err(wrong.into());
        }
        if self.settings.workers == 0 {
            return Err(Kind::NoWorkers.into());
        }
        if self.thread_caps {
            let threads = (cpu_count() / self.settings.workers).max(1).to_string();
            for name in THREAD_CAPS {
                if std::env::var_os(name).is_none() && !self.named.iter().any(|set| set == name) {
                    self.settings.process = self.settings.process.env(name, &threads);
                }
            }
        }
        Pool::start(self.settings)
    }

    fn open<A, S>(&mut self, function: fn(A) -> S, argument: A)
    where
        A: Serialize + DeserializeOwned,
        S: Any,
    {
        let mut message = Message::new();
        let entry = OpenEntry::new(function, child::open::<A, S>).map_err(Kind::Function);
        let pushed = message.push_framed(argument).map_err(Kind::Initializer);
        match entry.and_then(|entry| pushed.map(|()| entry)) {
            Ok(entry) => {
                self.settings.open = Some(Open { entry: entry.encode(), argument: message });
            }
            Err(wrong) => self.wrong = Some(wrong),
        }
    }

    fn into_mode<N>(self) -> Builder<N> {
        let Builder { settings, wrong, thread_caps, named, .. } = self;
        Builder { settings, wrong, thread_caps, named, mode: PhantomData }
    }
}

impl Settings {
    /// How the process of a worker is started.
    pub(crate) fn process(&self, id: u64) -> multiproc_process::Builder {
        let process = self.process.clone().name(format!("PoolWorker-{}", id + 1));
        match self.pinned.len() {
            0 => process,
            count => process.cpu_affinity([self.pinned[(id % count as u64) as usize]]),
        }
    }

    /// How many workers are started with the pool.
    pub(crate) fn at_first(&self) -> usize {
        if self.idle_timeout.is_some() {
            self.least_workers.min(self.workers)
        } else {
            self.workers
        }
    }

    /// How many workers are to take tasks.
    pub(crate) fn needed(&self, state: &State) -> usize {
        if !state.waiting.is_empty() {
            state.size
        } else if state.closed {
            0
        } else if self.idle_timeout.is_some() {
            self.least_workers.min(state.size)
        } else {
            state.size
        }
    }
}

impl<M> std::fmt::Debug for Builder<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
