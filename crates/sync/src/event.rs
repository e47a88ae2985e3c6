use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{self, Store, Waited};
use multiproc_os::patience::Patience;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::MemoryError;
use crate::raw_lock::RawLock;
use crate::region::{Header, Place, Words, sealed};

/// A flag that processes wait for: many may wait, and one `set` lets all of them go on.
///
/// A clone, and what another process reads from a message, is the same event. Nobody holds it, so
/// nobody's death leaves it in a state of its own: it is set, or it is not.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Event;
///
/// let ready = Event::new()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| ready.wait());
///     ready.set();
/// });
/// assert!(ready.is_set());
/// # Ok::<(), multiproc_sync::MemoryError>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Event {
    place: Place<RawEvent>,
}

/// An event's words, for structures in shared memory. All zeros is one that is not set.
///
/// # Examples
///
/// ```
/// use multiproc_sync::{RawEvent, RawLock};
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Plant {
///     gate: RawLock,
///     opened: RawEvent,
///     closed: RawEvent,
/// }
/// ```
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawEvent {
    /// [`SET`], [`WAITERS`], and above them how often it was cleared.
    word: AtomicU32,
    reserved: AtomicU32,
}

const SET: u32 = 1 << SET_BIT;
const SET_BIT: u8 = 0;
/// Somebody may be asleep on the word.
const WAITERS: u32 = 1 << 1;
/// The event was cleared once more.
const ONCE: u32 = 1 << 2;

impl RawEvent {
    /// Makes one that is not set.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiproc_sync::RawEvent::new();
    /// ```
    pub const fn new() -> Self {
        RawEvent { word: AtomicU32::new(0), reserved: AtomicU32::new(0) }
    }
}

impl Header for RawEvent {
    const KIND: [u8; 8] = *b"event\0\0\0";
}

impl sealed::Sealed for RawEvent {}

impl Words for RawEvent {
    type Handle = Event;

    fn locks(&self) -> &[RawLock] {
        &[]
    }
}

impl Event {
    /// Makes an event that is not set.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_sync::Event::new()?.is_set());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new() -> Result<Self, MemoryError> {
        Ok(Place::create("multiproc-event", RawEvent::new())?.into())
    }

    /// Tells whether the event is set.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiproc_sync::Event::new()?;
    /// event.set();
    /// assert!(event.is_set());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[inline]
    pub fn is_set(&self) -> bool {
        self.place.word.load(Acquire) & SET != 0
    }

    /// Sets the event. All who wait go on, and whoever comes does not wait, until it is cleared.
    ///
    /// It waits for nobody, and costs no system call where nobody sleeps.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiproc_sync::Event::new()?;
    /// event.set();
    /// event.wait();
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn set(&self) {
        let word = &self.place.word;
        let mut seen = word.load(Acquire);
        while seen & (SET | WAITERS) == 0 {
            match word.compare_exchange_weak(seen, seen | SET, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
        if seen & SET == 0 {
            self.set_and_wake();
        }
    }

    #[cold]
    fn set_and_wake(&self) {
        let word = &self.place.word;
        // The kernel's store is none that the language knows of.
        std::sync::atomic::fence(SeqCst);
        if futex::store_and_wake(word, Store::Set(SET_BIT), u32::MAX).is_err() {
            // Not in one step, where the kernel cannot: killed in between, it wakes nobody.
            word.fetch_or(SET, AcqRel);
            futex::wake(word, u32::MAX);
        }
    }

    /// Takes the event back: whoever comes waits again.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiproc_sync::Event::new()?;
    /// event.set();
    /// event.clear();
    /// assert!(!event.is_set());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn clear(&self) {
        let word = &self.place.word;
        let mut seen = word.load(Acquire);
        while seen & SET != 0 {
            // All who slept were woken when it was set; who still waits finds the count another.
            let cleared = (seen & !(SET | WAITERS)).wrapping_add(ONCE);
            match word.compare_exchange_weak(seen, cleared, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Waits until the event is set. One that is set and cleared meanwhile has been set.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiproc_sync::Event::new()?;
    /// event.set();
    /// event.wait();
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn wait(&self) {
        self.wait_until(Deadline::NEVER);
    }

    /// Waits until the event is set, for so long at the most. Tells whether it was.
    ///
    /// The clock is the monotonic one. `Duration::MAX` waits for ever.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event = multiproc_sync::Event::new()?;
    /// assert!(!event.wait_timeout(Duration::from_millis(1)));
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[must_use = "it tells whether the event was set"]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.is_set() || self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> bool {
        /// Of all events of this process: each wait shows how long one takes.
        static PATIENCE: Patience = Patience::new();

        let start = self.place.word.load(Acquire);
        if start & SET != 0 {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        let attempt = || Ok::<_, Infallible>(self.was_set_since(start).then_some(true));
        let Ok(set) = PATIENCE.wait(attempt, || Ok(self.sleep(start, deadline)));
        set
    }

    /// Tells whether the event is set, or has been, since the word was this.
    fn was_set_since(&self, start: u32) -> bool {
        (self.place.word.load(Acquire) ^ start) & !WAITERS != 0
    }

    fn sleep(&self, start: u32, deadline: Deadline) -> bool {
        let word = &self.place.word;
        let (seen, waiting) = (start & !WAITERS, start | WAITERS);
        loop {
            if self.was_set_since(start) {
                return true;
            }
            if word.load(Acquire) != waiting
                && word.compare_exchange(seen, waiting, AcqRel, Acquire).is_err()
            {
                continue;
            }
            match futex::wait(word, waiting, deadline) {
                Waited::TimedOut => return self.was_set_since(start),
                Waited::Woken | Waited::Changed => {}
            }
        }
    }
}

impl From<Place<RawEvent>> for Event {
    fn from(place: Place<RawEvent>) -> Self {
        Event { place }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish_non_exhaustive()
    }
}
