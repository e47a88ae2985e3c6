use std::fmt;
use std::slice;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{self, MOST_ADDED, Store, Waited};
use multiproc_os::patience::Patience;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{Kind, LockError, MemoryError};
use crate::raw_lock::{NotTaken, RawLock, Wait};
use crate::region::{Header, Place, Words, sealed};

/// A count of units that processes take and give.
///
/// Whoever takes a unit need not be the one who gives it back, so that nobody owns one: the unit
/// that a process has taken and not given back when it dies stays taken. Where it should come back
/// by itself, use a [`BoundedSemaphore`](crate::BoundedSemaphore).
///
/// A clone, and what another process reads from a message, is the same semaphore.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Semaphore;
///
/// let items = Semaphore::new(0)?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| items.acquire().unwrap());
///     items.release();
/// });
/// assert_eq!(items.value(), 0);
/// # Ok::<(), multiproc_sync::MemoryError>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Semaphore {
    place: Place<RawSemaphore>,
}

/// A semaphore's words, for structures in shared memory. All zeros is one without units.
///
/// # Examples
///
/// ```
/// use multiproc_sync::RawSemaphore;
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Depot {
///     full: RawSemaphore,
///     empty: RawSemaphore,
/// }
///
/// let depot = Depot { full: RawSemaphore::new(0), empty: RawSemaphore::new(10) };
/// ```
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawSemaphore {
    /// Whoever waits for a unit stands in line here; the first sleeps on the units.
    gate: RawLock,
    /// How many there are, and [`WAITER`].
    units: AtomicU32,
    reserved: [AtomicU32; 15],
}

/// The first in line may be asleep on the units.
const WAITER: u32 = 1 << 31;

impl RawSemaphore {
    /// Makes one with so many units.
    ///
    /// # Panics
    ///
    /// If there are more than [`Semaphore::MAX_UNITS`].
    ///
    /// # Examples
    ///
    /// ```
    /// let tokens = [const { multiproc_sync::RawSemaphore::new(1) }; 10];
    /// ```
    pub const fn new(units: u32) -> Self {
        assert!(units <= Semaphore::MAX_UNITS, "a semaphore has at most MAX_UNITS units");
        RawSemaphore {
            gate: RawLock::new(),
            units: AtomicU32::new(units),
            reserved: [const { AtomicU32::new(0) }; 15],
        }
    }
}

impl Header for RawSemaphore {
    const KIND: [u8; 8] = *b"semaphor";
}

impl sealed::Sealed for RawSemaphore {}

impl Words for RawSemaphore {
    type Handle = Semaphore;

    fn locks(&self) -> &[RawLock] {
        slice::from_ref(&self.gate)
    }
}

impl Semaphore {
    /// The most units that there can be.
    pub const MAX_UNITS: u32 = (1 << 30) - 1;

    /// Makes a semaphore with so many units.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Panics
    ///
    /// If there are more than [`MAX_UNITS`](Self::MAX_UNITS).
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::Semaphore::new(3)?;
    /// assert_eq!(semaphore.value(), 3);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new(units: u32) -> Result<Self, MemoryError> {
        Ok(Place::create("multiproc-semaphore", RawSemaphore::new(units))?.into())
    }

    /// Waits until there is a unit and takes it.
    ///
    /// # Errors
    ///
    /// One of the rarer reasons that [`LockError`] tells: the thread holds as many locks as the kernel
    /// looks after, or the kernel does not look after any.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::Semaphore::new(1)?;
    /// semaphore.acquire()?;
    /// semaphore.release();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn acquire(&self) -> Result<(), LockError> {
        self.acquire_until(Deadline::NEVER)
    }

    /// Takes a unit if there is one. Tells whether there was.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::Semaphore::new(1)?;
    /// assert!(semaphore.try_acquire());
    /// assert!(!semaphore.try_acquire());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[inline]
    #[must_use = "it tells whether a unit was taken"]
    pub fn try_acquire(&self) -> bool {
        self.take(|units| units)
    }

    /// Waits until there is a unit, for so long at the most, and takes it.
    ///
    /// The clock is the monotonic one. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire), or [`is_timeout`](LockError::is_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let semaphore = multiproc_sync::Semaphore::new(0)?;
    /// let error = semaphore.acquire_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<(), LockError> {
        self.acquire_until(Deadline::after(timeout))
    }

    /// Gives a unit, and wakes one who waits.
    ///
    /// It waits for nobody, and costs no system call where nobody sleeps.
    ///
    /// # Panics
    ///
    /// If there are [`MAX_UNITS`](Self::MAX_UNITS) already.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::Semaphore::new(0)?;
    /// semaphore.release();
    /// assert!(semaphore.try_acquire());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[inline]
    pub fn release(&self) {
        self.release_many(1);
    }

    /// Gives so many units. Whoever is killed within this has given some of them.
    ///
    /// # Panics
    ///
    /// If there would be more than [`MAX_UNITS`](Self::MAX_UNITS).
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::Semaphore::new(1)?;
    /// semaphore.release_many(2);
    /// assert_eq!(semaphore.value(), 3);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn release_many(&self, mut units: u32) {
        let word = &self.place.units;
        let mut seen = word.load(Acquire);
        while units > 0 {
            let sum = (seen & !WAITER).checked_add(units);
            assert!(
                sum.is_some_and(|sum| sum <= Self::MAX_UNITS),
                "{units} units more would be too many for a semaphore"
            );
            if seen & WAITER != 0 {
                let some = units.min(MOST_ADDED.into());
                self.give_and_wake(some as u16);
                units -= some;
                seen = word.load(Acquire);
                continue;
            }
            match word.compare_exchange_weak(seen, seen + units, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// How many units there are. They may be taken by now.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_sync::Semaphore::new(5)?.value(), 5);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[doc(alias = "get_value")]
    pub fn value(&self) -> u32 {
        self.place.units.load(Relaxed) & !WAITER
    }

    #[cold]
    fn give_and_wake(&self, units: u16) {
        let word = &self.place.units;
        // The kernel's store is none that the language knows of.
        std::sync::atomic::fence(SeqCst);
        if futex::store_and_wake(word, Store::Add(units), 1).is_err() {
            // Not in one step, where the kernel cannot: killed in between, it wakes nobody.
            word.fetch_add(units.into(), AcqRel);
            futex::wake(word, 1);
        }
    }

    /// Takes a unit if there is one. `after` makes of the word without the unit what it becomes.
    #[inline]
    fn take(&self, after: impl Fn(u32) -> u32) -> bool {
        let word = &self.place.units;
        let mut seen = word.load(Acquire);
        while seen & !WAITER != 0 {
            match word.compare_exchange_weak(seen, after(seen - 1), AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Takes a unit if there is one and nobody stands in line for it.
    #[inline]
    fn take_out_of_line(&self) -> bool {
        self.place.units.load(Relaxed) & WAITER == 0 && self.take(|units| units)
    }

    #[inline]
    fn acquire_until(&self, deadline: Deadline) -> Result<(), LockError> {
        if self.take_out_of_line() { Ok(()) } else { self.wait(deadline) }
    }

    #[cold]
    fn wait(&self, deadline: Deadline) -> Result<(), LockError> {
        /// Of all semaphores of this process: each wait shows how long one takes.
        static PATIENCE: Patience = Patience::new();

        if deadline.has_passed() {
            return if self.try_acquire() { Ok(()) } else { Err(Kind::Timeout.into()) };
        }
        let attempt = || Ok(self.take_out_of_line().then_some(()));
        PATIENCE.wait_on(attempt, || self.stand_in_line(deadline))
    }

    fn stand_in_line(&self, deadline: Deadline) -> Result<(), LockError> {
        let word = &self.place.units;
        let _first = match self.place.hold(|words| &words.gate, Wait::Until(deadline)) {
            Err(NotTaken::Held) if self.try_acquire() => return Ok(()),
            first => first?,
        };
        loop {
            if self.take(|units| units & !WAITER) {
                return Ok(());
            }
            // Only the first in line sets it and sleeps.
            if word.fetch_or(WAITER, AcqRel) & !WAITER != 0 {
                continue;
            }
            if futex::wait(word, WAITER, deadline) == Waited::TimedOut {
                let taken = self.take(|units| units & !WAITER);
                word.fetch_and(!WAITER, AcqRel);
                return if taken { Ok(()) } else { Err(Kind::Timeout.into()) };
            }
        }
    }
}

impl From<Place<RawSemaphore>> for Semaphore {
    fn from(place: Place<RawSemaphore>) -> Self {
        Semaphore { place }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("value", &self.value()).finish_non_exhaustive()
    }
}
