mod header;
mod joinable;
mod log;
mod ring;
mod side;
mod signal;
mod waiting;
mod whole;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::patience::Patience;
use multiproc_os::poll;
use multiproc_sync::Lock;
use multiproc_sync::region::Region;
use multiproc_wire::{Message, Moved, Reader, decode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, SendError};
use header::Header;
use log::{Alone, Log};
use ring::Rings;
use side::Side;
use signal::Signals;
use waiting::{CONSUMER, PRODUCER};
use whole::Whole;

pub use joinable::{JoinableQueue, Task};

/// A queue between any number of producers and consumers, in any number of processes.
///
/// Clones, and what a message carries to another process, are the same queue. Items come out in the
/// order in which they were put in, each once. They lie in shared memory: a producer may end as soon
/// as `put` has returned, and the death of a process never blocks another.
///
/// # Examples
///
/// ```
/// use multiproc_channel::Queue;
/// use multiproc_process::{Process, init};
///
/// init();
/// let queue = Queue::new()?;
/// let producer = Process::spawn(
///     |queue: Queue<i32>| (0..5).for_each(|i| queue.put(i).unwrap()),
///     queue.clone(),
/// )?;
/// producer.join()?;
/// queue.close();
/// let items: Result<Vec<i32>, _> = queue.iter().collect();
/// assert_eq!(items?, [0, 1, 2, 3, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "SimpleQueue")]
pub struct Queue<T> {
    shared: Arc<Shared>,
    items: PhantomData<fn(T) -> T>,
}

struct Shared {
    region: Region<Header>,
    /// Of those who put.
    putters: Lock,
    /// Of those who take.
    getters: Lock,
    rings: Rings,
    side: Side,
    signals: Signals,
    get_patience: Patience,
    put_patience: Patience,
    join_patience: Patience,
}

impl<T> Queue<T> {
    /// Makes an empty queue that takes as many items as memory does.
    ///
    /// # Errors
    ///
    /// The process or the system has no descriptor or memory left.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// queue.put("item".to_string())?;
    /// assert_eq!(queue.get()?, "item");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new() -> Result<Self, Error> {
        Self::with_bound(u64::MAX, false)
    }

    /// Makes an empty queue that takes `bound` items at a time; [`put`](Queue::put) waits while there
    /// are as many.
    ///
    /// # Errors
    ///
    /// As [`new`](Queue::new), and for a bound of zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::Queue;
    ///
    /// let queue = Queue::bounded(1)?;
    /// queue.put("first".to_string())?;
    /// let error = queue.try_put("second".to_string()).unwrap_err();
    /// assert!(error.is_full());
    /// assert_eq!(error.into_inner(), Some("second".to_string()));
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    #[doc(alias = "maxsize")]
    pub fn bounded(bound: usize) -> Result<Self, Error> {
        Self::with_bound(checked(bound)?, false)
    }

    fn with_bound(bound: u64, joinable: bool) -> Result<Self, Error> {
        let region = Region::<Header>::create_growable("multiproc-queue", 0)?;
        ring::grow(&region, ring::SMALLEST)?;
        region.header().set_up(bound, ring::SMALLEST, joinable);
        Ok(Self::assemble(region, Side::new()?, Signals::new(bound != u64::MAX, joinable)?))
    }

    fn assemble(region: Region<Header>, side: Side, signals: Signals) -> Self {
        let shared = Shared {
            putters: region.place(|header| &header.putters).into(),
            getters: region.place(|header| &header.getters).into(),
            region,
            rings: Rings::new(),
            side,
            signals,
            get_patience: Patience::new(),
            put_patience: Patience::new(),
            join_patience: Patience::new(),
        };
        Queue { shared: Arc::new(shared), items: PhantomData }
    }

    /// How many items wait in it, at this moment.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// queue.put(1)?;
    /// queue.put(2)?;
    /// assert_eq!(queue.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "qsize")]
    pub fn len(&self) -> usize {
        usize::try_from(self.shared.counts().count()).unwrap_or(usize::MAX)
    }

    /// Tells whether no item waits in it, at this moment.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// assert!(queue.is_empty());
    /// queue.put(1)?;
    /// assert!(!queue.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "empty")]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether it takes no item, at this moment, because as many wait in it as it is bounded to.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// assert!(!queue.is_full());
    /// queue.put(1)?;
    /// assert!(queue.is_full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "full")]
    pub fn is_full(&self) -> bool {
        self.shared.counts().is_full()
    }

    /// Takes no more items. Those that wait in it can still be taken; then every consumer's call, and
    /// every iteration, ends.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// queue.put(1)?;
    /// queue.close();
    /// assert!(queue.put(2).unwrap_err().is_closed());
    /// assert_eq!(queue.get()?, 1);
    /// assert!(queue.get().unwrap_err().is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        // A queue whose lock cannot be had cannot be used by anyone in this process.
        if let Ok(whole) = self.shared.open() {
            whole.close();
        }
    }

    /// Tells whether it was closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::<u8>::new()?;
    /// assert!(!queue.is_closed());
    /// queue.close();
    /// assert!(queue.is_closed());
    /// # Ok::<(), multiproc_channel::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.shared.region.header().is_closed()
    }
}

impl<T> Queue<T> {
    /// Readable when there may be an item, or the end: see [`arm_items`](Self::arm_items).
    pub(crate) fn items_signal(&self) -> BorrowedFd<'_> {
        self.shared.signals.items.as_fd()
    }

    /// Tells whether there is an item or the end. If not, the signal is readable when there is.
    pub(crate) fn arm_items(&self) -> Result<bool, Error> {
        Ok(self.shared.open()?.arm_items())
    }

    /// Readable when there may be room, or the end, of a queue with a bound.
    #[cfg(feature = "tokio")]
    pub(crate) fn room_signal(&self) -> Option<BorrowedFd<'_>> {
        self.shared.signals.room.as_ref().map(AsFd::as_fd)
    }

    /// Puts a message in if there is room. If not, the signal is readable when there is; of the room for
    /// handles nothing tells.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_put_or_arm(&self, message: &Message) -> Result<Option<()>, Error> {
        loop {
            if self.shared.put(message, Deadline::now())? {
                return Ok(Some(()));
            }
            if message.has_fds() || !self.shared.open()?.arm_room() {
                return Ok(None);
            }
        }
    }

    /// Tells whether there is an item or the end.
    pub(crate) fn has_item_or_end(&self) -> Result<bool, Error> {
        Ok(self.shared.region.header().has_item_or_end())
    }
}

impl<T: Serialize + DeserializeOwned> Queue<T> {
    /// Puts an item in, and waits while the queue is full.
    ///
    /// `Ok` says that the item is in the queue, not that anybody takes it.
    ///
    /// # Errors
    ///
    /// The queue is closed, or the item does not serialise. It comes back with the error.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// queue.put(1)?;
    /// queue.close();
    /// assert_eq!(queue.put(2).unwrap_err().into_inner(), Some(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(&self, item: T) -> Result<(), SendError<T>> {
        self.put_until(item, Deadline::NEVER, Kind::TimedOut)
    }

    /// Puts an item in if the queue is not full.
    ///
    /// # Errors
    ///
    /// As [`put`](Queue::put), and if the queue is full: [`SendError::is_full`].
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// queue.try_put(1)?;
    /// assert!(queue.try_put(2).unwrap_err().is_full());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, item: T) -> Result<(), SendError<T>> {
        self.put_until(item, Deadline::now(), Kind::Full)
    }

    /// Puts an item in, and waits no longer than `timeout` while the queue is full.
    ///
    /// # Errors
    ///
    /// As [`put`](Queue::put), and if the time was up: [`SendError::is_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::bounded(1)?;
    /// let soon = std::time::Duration::from_millis(1);
    /// queue.put_timeout(1, soon)?;
    /// assert!(queue.put_timeout(2, soon).unwrap_err().is_timeout());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.put_until(item, Deadline::after(timeout), Kind::TimedOut)
    }

    fn put_until(&self, item: T, deadline: Deadline, late: Kind) -> Result<(), SendError<T>> {
        let mut moved = Moved::new(item);
        if let Err(error) = moved.encode() {
            return Err(SendError::new(error, moved.into_value()));
        }
        let error = match self.shared.put(moved.message(), deadline) {
            Ok(true) => return Ok(()),
            Ok(false) => late.into(),
            Err(error) => error,
        };
        Err(SendError::new(error, moved.into_value()))
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes the next item, and waits while there is none.
    ///
    /// # Errors
    ///
    /// The queue is closed and empty ([`Error::is_closed`]), or the next item is not a `T`
    /// ([`Error::is_decode`]; it is gone then).
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// queue.put(1)?;
    /// queue.close();
    /// assert_eq!(queue.get()?, 1);
    /// assert!(queue.get().unwrap_err().is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self) -> Result<T, Error> {
        self.take(Deadline::NEVER)
    }

    /// Takes the next item if there is one.
    ///
    /// # Errors
    ///
    /// As [`get`](Queue::get).
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// assert_eq!(queue.try_get()?, None);
    /// queue.put(1)?;
    /// assert_eq!(queue.try_get()?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> Result<Option<T>, Error> {
        self.get_until(Deadline::now())
    }

    /// Takes the next item, and waits no longer than `timeout` while there is none. `None` if the time
    /// was up.
    ///
    /// # Errors
    ///
    /// As [`get`](Queue::get).
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// let soon = std::time::Duration::from_millis(1);
    /// assert_eq!(queue.get_timeout(soon)?, None);
    /// queue.put(1)?;
    /// assert_eq!(queue.get_timeout(soon)?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<T>, Error> {
        self.get_until(Deadline::after(timeout))
    }

    fn get_until(&self, deadline: Deadline) -> Result<Option<T>, Error> {
        match self.take(deadline) {
            Ok(item) => Ok(Some(item)),
            Err(error) if error.is_timeout() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn take(&self, deadline: Deadline) -> Result<T, Error> {
        let mut buffer = Buffer::take();
        let taken = match self.shared.get_alone(&mut buffer.0)? {
            Some(taken) => taken,
            None => self.shared.get(&mut buffer.0, deadline)?.ok_or(Kind::TimedOut)?,
        };
        match taken {
            Taken::Bytes(len) => {
                let mut reader = Reader::new(&buffer.0[..len], Vec::new());
                let item = reader.read()?;
                reader.finish()?;
                Ok(item)
            }
            Taken::WithHandles(message) => Ok(decode(message)?),
        }
    }

    /// Takes items until the queue is closed and empty.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiproc_channel::Queue::new()?;
    /// (0..3).try_for_each(|i| queue.put(i))?;
    /// queue.close();
    /// for (i, item) in queue.iter().enumerate() {
    ///     assert_eq!(item?, i);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { queue: self, ended: false }
    }
}

fn checked(bound: usize) -> Result<u64, Error> {
    if bound == 0 { Err(Kind::ZeroBound.into()) } else { Ok(bound as u64) }
}

/// What was taken out.
enum Taken {
    /// An item without handles, of so many bytes.
    Bytes(usize),
    WithHandles(Message),
}

impl Shared {
    fn open(&self) -> Result<Whole<'_>, Error> {
        Whole::open(self)
    }

    /// The header, with counts that are right even if a lock's last holder was killed between two stores.
    fn counts(&self) -> &Header {
        if self.putters.is_poisoned() || self.getters.is_poisoned() {
            // What cannot be repaired cannot be counted.
            let _repaired = self.open();
        }
        self.region.header()
    }

    /// Returns `false` if the deadline passed before there was room.
    fn put(&self, message: &Message, deadline: Deadline) -> Result<bool, Error> {
        /// Nothing tells when descriptors under way are taken out: they are counted over all sockets
        /// of a user.
        const PAUSE: Duration = Duration::from_millis(1);

        if !message.has_fds() {
            // There is room as a rule.
            if self.put_alone(message.bytes())?.is_some() {
                return Ok(true);
            }
            let put = |whole: Option<&mut Whole<'_>>| match whole {
                Some(whole) => whole.put(message.bytes()),
                None => self.put_alone(message.bytes()),
            };
            return Ok(waiting::wait_on(self, &PRODUCER, deadline, put)?.is_some());
        }
        loop {
            let put = |whole: Option<&mut Whole<'_>>| match whole {
                Some(whole) => whole.put_with_handles(message),
                None => self.open()?.put_with_handles(message),
            };
            let sent = waiting::wait(self, &PRODUCER, deadline, put)?;
            if sent == Some(true) || deadline.has_passed() {
                return Ok(sent == Some(true));
            }
            // Outside the gate, where others wait for room in the queue alone.
            let pause = deadline.remaining().map_or(PAUSE, |left| left.min(PAUSE));
            let [] = poll::readable([], Deadline::after(pause))?;
        }
    }

    /// Puts an item in with one lock if that is enough. `None` if the queue is full.
    #[inline]
    fn put_alone(&self, item: &[u8]) -> Result<Option<()>, Error> {
        if let Ok(_putters) = self.putters.lock() {
            match Log::of(self)?.put(item)? {
                Alone::Done(()) => return Ok(Some(())),
                // It may be that the dead have taken more than they have counted.
                Alone::Nothing if !self.getters.is_poisoned() => return Ok(None),
                Alone::Nothing | Alone::NeedsBoth => {}
            }
        }
        self.open()?.put(item)
    }

    /// Waits for the first item and takes it. `None` if the deadline passed before there was one.
    fn get(&self, buffer: &mut Vec<u8>, deadline: Deadline) -> Result<Option<Taken>, Error> {
        waiting::wait_on(self, &CONSUMER, deadline, |whole| match whole {
            Some(whole) => whole.get(buffer),
            None => self.get_alone(buffer),
        })
    }

    /// Takes the first item with one lock if that is enough. `None` if there is none.
    #[inline]
    fn get_alone(&self, buffer: &mut Vec<u8>) -> Result<Option<Taken>, Error> {
        if let Ok(getters) = self.getters.lock() {
            let log = Log::of(self)?;
            match log.get(buffer)? {
                Alone::Done(len) => {
                    drop(getters);
                    if Whole::is_large(log.ring.capacity()) && !log.header.has_item_or_end() {
                        self.open()?.give_memory_back()?;
                    }
                    return Ok(Some(Taken::Bytes(len)));
                }
                Alone::Nothing => return Ok(None),
                Alone::NeedsBoth => {}
            }
        }
        self.open()?.get(buffer)
    }
}

/// What this thread reads items from, taken out while in use: a `Deserialize` that itself takes an
/// item gets a fresh one.
struct Buffer(Vec<u8>);

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Buffer {
    fn take() -> Self {
        Buffer(BUFFER.take())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        /// A large item is no reason to keep as much.
        const KEPT: usize = 64 << 10;

        if self.0.capacity() <= KEPT {
            BUFFER.set(std::mem::take(&mut self.0));
        }
    }
}

/// The items of a [`Queue`], until it is closed and empty.
///
/// # Examples
///
/// ```
/// let queue = multiproc_channel::Queue::new()?;
/// queue.put(1)?;
/// let mut items = queue.iter();
/// assert_eq!(items.next().transpose()?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Iter<'a, T> {
    queue: &'a Queue<T>,
    ended: bool,
}

impl<T: DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.queue.get() {
            Err(error) if error.is_closed() => {
                self.ended = true;
                None
            }
            // What cannot be read is one item; those after it may be well.
            Err(error) => {
                self.ended = !error.is_decode();
                Some(Err(error))
            }
            Ok(item) => Some(Ok(item)),
        }
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a Queue<T> {
    type Item = Result<T, Error>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { shared: Arc::clone(&self.shared), items: PhantomData }
    }
}

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Shared { region, side, signals, .. } = &*self.shared;
        (region, side, signals).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (region, side, signals) = Deserialize::deserialize(deserializer)?;
        Ok(Self::assemble(region, side, signals))
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("queue", self.queue).finish_non_exhaustive()
    }
}
