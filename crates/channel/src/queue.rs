mod header;
mod log;
mod waiting;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::patience::Patience;
use multiproc_sync::region::Region;
use multiproc_wire::{Endpoint, Message, Reader, SharedFd, encode_move};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, SendError};
use header::Header;
use log::{Item, Log};
use waiting::Place;

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
    /// Items with handles.
    sender: Endpoint<SharedFd>,
    receiver: Endpoint<SharedFd>,
    get_patience: Patience,
    put_patience: Patience,
}

/// Stands before each item: the number of one that travels over the socket.
type Number = [u8; 8];

impl<T> Queue<T> {
    /// Makes an empty queue that takes as many items as memory does.
    ///
    /// # Errors
    ///
    /// The process or the system has no descriptor or memory left.
    pub fn new() -> Result<Self, Error> {
        Self::with_bound(u64::MAX)
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
        if bound == 0 {
            return Err(Kind::ZeroBound.into());
        }
        Self::with_bound(bound as u64)
    }

    fn with_bound(bound: u64) -> Result<Self, Error> {
        let region = Region::<Header>::create_growable("multiproc-queue", log::SMALLEST)?;
        region.header().set_up(bound, log::SMALLEST as u64);
        let (sender, receiver) = Endpoint::pair_of()?;
        Ok(Self::assemble(region, sender, receiver))
    }

    fn assemble(
        region: Region<Header>,
        sender: Endpoint<SharedFd>,
        receiver: Endpoint<SharedFd>,
    ) -> Self {
        let shared = Shared {
            region,
            sender,
            receiver,
            get_patience: Patience::new(),
            put_patience: Patience::new(),
        };
        Queue { shared: Arc::new(shared), items: PhantomData }
    }

    /// How many items wait in it, at this moment.
    #[doc(alias = "qsize")]
    pub fn len(&self) -> usize {
        usize::try_from(self.header().count.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// Tells whether no item waits in it, at this moment.
    #[doc(alias = "empty")]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether it takes no item, at this moment, because as many wait in it as it is bounded to.
    #[doc(alias = "full")]
    pub fn is_full(&self) -> bool {
        self.header().is_full()
    }

    /// Takes no more items. Those that wait in it can still be taken; then every consumer's call, and
    /// every iteration, ends.
    pub fn close(&self) {
        // A queue whose lock cannot be had cannot be used by anyone in this process.
        if let Ok(log) = self.open() {
            log.close();
        }
    }

    /// Tells whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.header().is_closed()
    }

    fn header(&self) -> &Header {
        self.shared.region.header()
    }

    fn open(&self) -> Result<Log<'_>, Error> {
        Log::open(&self.shared.region)
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
    pub fn put(&self, item: T) -> Result<(), SendError<T>> {
        self.put_until(item, Deadline::NEVER, Kind::TimedOut)
    }

    /// Puts an item in if the queue is not full.
    ///
    /// # Errors
    ///
    /// As [`put`](Queue::put), and if the queue is full: [`SendError::is_full`].
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, item: T) -> Result<(), SendError<T>> {
        self.put_until(item, Deadline::now(), Kind::Full)
    }

    /// Puts an item in, and waits no longer than `timeout` while the queue is full.
    ///
    /// # Errors
    ///
    /// As [`put`](Queue::put), and if the time was up: [`SendError::is_timeout`].
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.put_until(item, Deadline::after(timeout), Kind::TimedOut)
    }

    fn put_until(&self, item: T, deadline: Deadline, late: Kind) -> Result<(), SendError<T>> {
        let mut moved = match encode_move((Number::default(), item)) {
            Ok(moved) => moved,
            Err(rejected) => {
                return Err(SendError::new(rejected.error, rejected.value.map(|(_, item)| item)));
            }
        };
        let error = match self.put_message(moved.message_mut(), deadline) {
            Ok(true) => return Ok(()),
            Ok(false) => late.into(),
            Err(error) => error,
        };
        Err(SendError::new(error, moved.into_value().map(|(_, item)| item)))
    }

    /// Returns `false` if the deadline passed before there was room.
    fn put_message(&self, message: &mut Message, deadline: Deadline) -> Result<bool, Error> {
        let shared = &*self.shared;
        let (region, patience) = (&shared.region, &shared.put_patience);
        let put = if message.has_fds() {
            waiting::wait(region, patience, deadline, Place::producer().with_handles(), |log| {
                log.put_with_handles(&shared.sender, &shared.receiver, message)
            })
        } else {
            let item = &message.bytes()[size_of::<Number>()..];
            waiting::wait(region, patience, deadline, Place::producer(), |log| log.put(item))
        };
        Ok(put?.is_some())
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes the next item, and waits while there is none.
    ///
    /// # Errors
    ///
    /// The queue is closed and empty ([`Error::is_closed`]), or the next item is not a `T`
    /// ([`Error::is_decode`]; it is gone then).
    pub fn get(&self) -> Result<T, Error> {
        match self.get_until(Deadline::NEVER)? {
            Some(item) => Ok(item),
            None => Err(Kind::TimedOut.into()),
        }
    }

    /// Takes the next item if there is one.
    ///
    /// # Errors
    ///
    /// As [`get`](Queue::get).
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
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<T>, Error> {
        self.get_until(Deadline::after(timeout))
    }

    fn get_until(&self, deadline: Deadline) -> Result<Option<T>, Error> {
        let shared = &*self.shared;
        let (region, patience) = (&shared.region, &shared.get_patience);
        let get = |log: &mut Log<'_>| log.get(&shared.receiver);
        match waiting::wait(region, patience, deadline, Place::consumer(), get)? {
            None => Ok(None),
            Some(Item::Bytes(bytes)) => {
                let mut reader = Reader::new(&bytes, Vec::new());
                let item = reader.read()?;
                reader.finish()?;
                Ok(Some(item))
            }
            Some(Item::WithHandles(message)) => Ok(Some(multiproc_wire::decode(message)?)),
        }
    }

    /// Takes items until the queue is closed and empty.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { queue: self, ended: false }
    }
}

/// The items of a [`Queue`], until it is closed and empty.
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
        let Shared { region, sender, receiver, .. } = &*self.shared;
        (region, sender, receiver).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (region, sender, receiver) = Deserialize::deserialize(deserializer)?;
        Ok(Self::assemble(region, sender, receiver))
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
