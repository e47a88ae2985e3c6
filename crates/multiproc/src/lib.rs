//! What Python's `multiprocessing` is to Python, for Rust: processes, pools, pipes, queues, shared
//! memory, and locks that the death of whoever holds them does not wedge.
//!
//! # From the top
//!
//! A child process runs the same program. So a program says where its children leave its way: the
//! first line of `main` is [`init`]. In a child it runs the child's function, and never returns.
//!
//! ```
//! use multiproc::Process;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     multiproc::init();
//!
//!     let child = Process::spawn(greet, "world".to_string())?;
//!     println!("{} runs as {}", child.name(), child.pid());
//!     assert_eq!(child.join()?, "hello, world");
//!     Ok(())
//! }
//!
//! fn greet(name: String) -> String {
//!     format!("hello, {name}")
//! }
//! ```
//!
//! What a function needs travels as its argument, several things as a tuple, and what it returns
//! travels back: everything that serde can serialise, and handles. A closure that captures nothing
//! is a function too.
//!
//! # A pool
//!
//! Most programs want a [`Pool`]: as many workers as there are processors, and tasks for them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # multiproc::init();
//! use multiproc::Pool;
//!
//! let pool = Pool::new()?;
//! let squares: Vec<u64> = pool.map(|x: u64| x * x, 1..=5)?;
//! assert_eq!(squares, [1, 4, 9, 16, 25]);
//!
//! // A worker that dies costs the one task that it ran.
//! let outcomes = pool.try_map(|x: i32| if x == 1 { std::process::abort() } else { x }, 0..3)?;
//! assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok());
//!
//! // Workers that share a slice own their chunks of it. Nothing is copied.
//! let mut pixels = multiproc::ShmBox::<[u8]>::zeroed(1 << 20)?;
//! pool.for_each_chunk_mut(&mut pixels, 64 << 10, |chunk, _index| chunk.fill(255))?;
//! assert!(pixels.iter().all(|&pixel| pixel == 255));
//! # Ok(())
//! # }
//! ```
//!
//! Tasks can have [timeouts](Pool::with_timeout), be [tried again](Pool::with_retries), be
//! [cancelled](pool::TaskHandle::cancel) while they run, and be lent what each worker
//! [keeps](pool::Builder::state).
//!
//! # Queues and pipes
//!
//! A [`Queue`] has many producers and many consumers; its iteration ends when it is closed and empty.
//! A [`pipe()`] has two ends.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # multiproc::init();
//! use multiproc::{Connection, Process, Queue, pipe};
//!
//! let queue = Queue::new()?;
//! let producer = Process::spawn(
//!     |queue: Queue<i32>| (0..5).for_each(|i| queue.put(i).unwrap()),
//!     queue.clone(),
//! )?;
//! producer.join()?;
//! queue.close();
//! assert_eq!(queue.iter().filter_map(Result::ok).sum::<i32>(), 10);
//!
//! let (parent, child_end) = pipe::<String>()?;
//! let child = Process::spawn(
//!     |end: Connection<String>| end.send("hello".to_string()).unwrap(),
//!     child_end,
//! )?;
//! assert_eq!(parent.recv()?, "hello");
//! child.join()?;
//! # Ok(())
//! # }
//! ```
//!
//! Programs that were started apart, in Python too, meet at a [`Listener`]: they connect by a [`Client`],
//! and prove a key.
//!
//! # Shared memory and locks
//!
//! A [`Value`] and an [`Array`] own their lock, and the data is reached through it. A [`ShmBox`] owns
//! its memory alone and moves between processes without being copied; frozen to a [`ShmArc`], many
//! read it. [`SharedMemory`] and [`ShareableList`] are found by their names, in Python too.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # multiproc::init();
//! use multiproc::{Process, Value};
//!
//! let counter = Value::new(0i32)?;
//! let workers: Vec<Process> = (0..4)
//!     .map(|_| {
//!         Process::spawn(
//!             |counter: Value<i32>| (0..100).for_each(|_| *counter.lock().unwrap() += 1),
//!             counter.clone(),
//!         )
//!     })
//!     .collect::<Result<_, _>>()?;
//! for worker in workers {
//!     worker.join()?;
//! }
//! assert_eq!(counter.get()?, 400);
//! # Ok(())
//! # }
//! ```
//!
//! Beside the [`Lock`] there are an [`RLock`], an [`RwLock`], a [`Semaphore`] and a
//! [`BoundedSemaphore`], a [`Condition`], an [`Event`] and a [`Barrier`]. Whoever is killed, at whatever
//! instruction, none of them keeps the others waiting. A [`Shared`] structure holds as many as there is
//! use for in one memory.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # multiproc::init();
//! use multiproc::{Condition, Process, Value};
//!
//! let (stock, changed) = (Value::new(0u32)?, Condition::new()?);
//! let baker = Process::spawn(
//!     |(stock, changed): (Value<u32>, Condition)| {
//!         for _ in 0..3 {
//!             stock.update(|loaves| *loaves += 1).unwrap();
//!             changed.notify(1);
//!         }
//!     },
//!     (stock.clone(), changed.clone()),
//! )?;
//! let enough = changed.wait_while(stock.lock()?, |loaves| **loaves < 3)?;
//! assert_eq!(*enough, 3);
//! # drop(enough);
//! # baker.join()?;
//! # Ok(())
//! # }
//! ```
//!
//! # When it is the wrong tool
//!
//! Rust has no global interpreter lock: for plain parallel computing inside one program, threads and
//! `rayon` are faster and simpler. Processes are for code that may crash, hang or leak, for libraries
//! that are not thread-safe, for memory that must be given back, and for programs that were started
//! apart.

#![forbid(unsafe_code)]

pub use multiproc_channel as channel;
pub use multiproc_pool as pool;
pub use multiproc_process as process;
pub use multiproc_shm as shm;
pub use multiproc_sync as sync;

#[cfg(feature = "tokio")]
pub use multiproc_channel::wait_async;
pub use multiproc_channel::{
    Address, Client, Connection, JoinableQueue, Listener, Queue, Receiver, Sender,
    SocketConnection, Task, Waitable, pipe, wait,
};
pub use multiproc_pool::{Failure, Pool, Stateful, as_completed};
pub use multiproc_process::{
    ActiveChild, Limit, ParentProcess, Process, StartMethod, active_children, cpu_count,
    current_process, init, init_before_main, parent_process, set_forkserver_preload,
    set_start_method,
};
pub use multiproc_shm::{Array, ShareableList, Shared, SharedMemory, ShmArc, ShmBox, Value};
pub use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, LockGuard, RLock, RwLock, Semaphore,
};
pub use multiproc_wire::Fd;
