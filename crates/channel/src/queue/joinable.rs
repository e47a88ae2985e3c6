use std::fmt;
use std::ops::{Deref, DerefMut};
#[cfg(feature = "tokio")]
use std::os::fd::BorrowedFd;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::waiting::{self, JOINER};
use super::whole::Whole;
use super::{Iter, Queue, checked};
use crate::error::Error;

/// A [`Queue`] that knows when all of its items are done.
///
/// Each item that was put in is *unfinished* until a consumer that has taken it says so:
/// [`task_done`](Self::task_done). [`join`](Self::join) waits until none is.
///
/// What is left of an item whose consumer was killed is that it is unfinished, as in Python: whoever
/// notices the death, by the consumer's [pidfd or exit](crate::wait), marks it as done, or puts it in
/// anew and then marks the old one as done.
///
/// # Examples
///
/// ```
/// use multiproc_channel::JoinableQueue;
/// use multiproc_process::{Process, init};
///
/// init();
/// let queue = JoinableQueue::new()?;
/// let consumer = Process::spawn(
///     |queue: JoinableQueue<u32>| {
///         while let Ok(task) = queue.get_task() {
///             println!("at work on {}", *task);
///         } // and here it is done
///     },
///     queue.clone(),
/// )?;
/// for number in 0..10 {
///     queue.put(number)?;
/// }
/// queue.join()?;
/// assert_eq!(queue.unfinished()?, 0);
/// queue.close();
/// consumer.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JoinableQueue<T>(Queue<T>);

impl<T> JoinableQueue<T> {
    /// Makes an empty queue that takes as many items as memory does.
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::JoinableQueue::new()?;
    /// queue.put("item".to_string())?;
    /// drop(queue.get_task()?);
    /// queue.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new() -> Result<Self, Error> {
        Ok(JoinableQueue(Queue::with_bound(u64::MAX, true)?))
    }

    /// Makes an empty queue that takes `bound` items at a time.
    ///
    /// # Errors
    ///
    /// As [`Queue::bounded`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.is_full());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn bounded(bound: usize) -> Result<Self, Error> {
        Ok(JoinableQueue(Queue::with_bound(checked(bound)?, true)?))
    }

    /// Marks one item that was taken as done.
    ///
    /// # Errors
    ///
    /// All that were put in are done already: this was called more often than items were taken.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::new()?;
    /// queue.put("item".to_string())?;
    /// queue.get()?;
    /// queue.task_done()?;
    /// assert!(queue.task_done().is_err());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn task_done(&self) -> Result<(), Error> {
        self.0.shared.open()?.task_done()
    }

    /// How many items were put in and are not done yet, at this moment.
    ///
    /// # Errors
    ///
    /// The queue's lock cannot be had.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::new()?;
    /// queue.put(1)?;
    /// queue.get()?;
    /// assert_eq!((queue.len(), queue.unfinished()?), (0, 1));
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn unfinished(&self) -> Result<u64, Error> {
        Ok(self.0.shared.open()?.unfinished())
    }

    /// Waits until all items that were put in are done; it need not be so any more when it returns.
    ///
    /// It waits for ever for an item that nobody marks as done, be it that its consumer was killed.
    ///
    /// # Errors
    ///
    /// The queue's lock cannot be had.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::new()?;
    /// queue.join()?; // nothing was put in
    /// queue.put(1)?;
    /// drop(queue.get_task()?);
    /// queue.join()?;
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn join(&self) -> Result<(), Error> {
        self.join_until(Deadline::NEVER).map(|_| ())
    }

    /// Waits until all items are done, no longer than `timeout`. Returns `false` if the time was up.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::new()?;
    /// queue.put(1)?;
    /// assert!(!queue.join_timeout(Duration::from_millis(1))?);
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn join_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        self.join_until(Deadline::after(timeout))
    }

    fn join_until(&self, deadline: Deadline) -> Result<bool, Error> {
        let mut at_first = None;
        let shared = &*self.0.shared;
        let attempt = |whole: Option<&mut Whole<'_>>| {
            let were_done = match whole {
                Some(whole) => whole.were_done_since(&mut at_first),
                None => shared.open()?.were_done_since(&mut at_first),
            };
            Ok(were_done.then_some(()))
        };
        Ok(waiting::wait(shared, &JOINER, deadline, attempt)?.is_some())
    }

    /// Made readable each time that all is done, by whoever finds that a task waits for it.
    #[cfg(feature = "tokio")]
    pub(crate) fn done_signal(&self) -> Result<BorrowedFd<'_>, Error> {
        self.0.shared.signals.done()
    }

    /// Tells whether all were done at a moment since the first call. If not, the signal tells when they
    /// are.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_join_or_arm(&self, at_first: &mut Option<u64>) -> Result<Option<()>, Error> {
        Ok(self.0.shared.open()?.arm_done(at_first).then_some(()))
    }
}

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Takes the next item, and waits while there is none. It is marked as done when what this returns
    /// is dropped, also by a panic.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`]. An item that is not a `T` is marked as done.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::JoinableQueue;
    ///
    /// let queue = JoinableQueue::new()?;
    /// queue.put(vec![1, 2])?;
    /// let mut task = queue.get_task()?;
    /// task.push(3);
    /// assert_eq!(*task, [1, 2, 3]);
    /// assert_eq!(queue.unfinished()?, 1);
    /// drop(task);
    /// assert_eq!(queue.unfinished()?, 0);
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn get_task(&self) -> Result<Task<'_, T>, Error> {
        self.task(self.0.get())
    }

    pub(crate) fn task(&self, taken: Result<T, Error>) -> Result<Task<'_, T>, Error> {
        match taken {
            Ok(item) => Ok(Task { queue: self, item }),
            Err(error) => {
                if error.is_decode() {
                    self.task_done()?;
                }
                Err(error)
            }
        }
    }
}

/// An item of a [`JoinableQueue`], which is marked as done when this is dropped.
///
/// If the process is killed before, the item stays unfinished.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{JoinableQueue, Task};
///
/// let queue = JoinableQueue::new()?;
/// queue.put(7)?;
/// let task: Task<'_, i32> = queue.get_task()?;
/// assert_eq!(*task, 7);
/// drop(task); // done
/// queue.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the item is marked as done when this is dropped"]
pub struct Task<'a, T> {
    queue: &'a JoinableQueue<T>,
    item: T,
}

impl<T> Deref for Task<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for Task<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

impl<T> Drop for Task<'_, T> {
    fn drop(&mut self) {
        // Somebody has marked it before, or the queue cannot be used by anyone in this process.
        let _done = self.queue.task_done();
    }
}

/// As a [`Queue`], whose methods it has.
impl<T> Deref for JoinableQueue<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a JoinableQueue<T> {
    type Item = Result<T, Error>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.0.iter()
    }
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        JoinableQueue(self.0.clone())
    }
}

impl<T> Serialize for JoinableQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for JoinableQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let queue = Queue::deserialize(deserializer)?;
        if !queue.shared.region.header().is_joinable() {
            return Err(de::Error::custom(
                "a queue does not count what is done: it is not joinable",
            ));
        }
        Ok(JoinableQueue(queue))
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinableQueue").field(&self.0).finish()
    }
}

impl<T> fmt::Debug for Task<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}
