use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::patience::Patience;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{LockError, MemoryError};
use crate::raw_lock::{RawLock, Wait};
use crate::region::{Header, Hold, Place, Words, sealed};
use crate::slots::Slots;

/// Lets so many threads at a time, of all processes, have a permit.
///
/// A permit has an owner. It comes back when it is dropped, and when its owner is killed, at once: so
/// there are never more than the bound, and never fewer for good.
///
/// A clone, and what another process reads from a message, is the same semaphore. To wait needs Linux
/// 5.16.
///
/// # Examples
///
/// ```
/// use multiproc_sync::BoundedSemaphore;
///
/// let licences = BoundedSemaphore::new(2)?;
/// let one = licences.acquire()?;
/// let two = licences.acquire()?;
/// assert!(licences.try_acquire()?.is_none());
/// drop(one);
/// assert_eq!(licences.value(), 1);
/// # drop(two);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BoundedSemaphore {
    place: Place<RawBoundedSemaphore>,
}

/// One of the permits of a [`BoundedSemaphore`], until dropped. It stays in its thread.
///
/// # Examples
///
/// ```compile_fail
/// let semaphore = multiproc_sync::BoundedSemaphore::new(1)?;
/// let permit = semaphore.acquire()?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(permit));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the permit is given back at once"]
pub struct Permit<'a> {
    _hold: Hold<'a>,
}

/// A bounded semaphore's words, for structures in shared memory: 8 KiB, whatever the bound is. All
/// zeros is none: see [`new`](Self::new).
///
/// # Examples
///
/// ```
/// use multiproc_sync::RawBoundedSemaphore;
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Garage {
///     cars: RawBoundedSemaphore,
///     bicycles: RawBoundedSemaphore,
/// }
///
/// let garage = Garage { cars: RawBoundedSemaphore::new(4), bicycles: RawBoundedSemaphore::new(20) };
/// ```
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawBoundedSemaphore {
    /// Where whoever waits stands in line, and a lock for each permit.
    locks: [RawLock; 1 + BoundedSemaphore::MAX_PERMITS as usize],
    bound: AtomicU32,
    reserved: [AtomicU32; 15],
}

impl RawBoundedSemaphore {
    /// Makes one with so many permits.
    ///
    /// # Panics
    ///
    /// If there are none, or more than [`BoundedSemaphore::MAX_PERMITS`].
    ///
    /// # Examples
    ///
    /// ```
    /// let licences = multiproc_sync::RawBoundedSemaphore::new(3);
    /// ```
    pub const fn new(permits: u32) -> Self {
        assert!(
            0 < permits && permits <= BoundedSemaphore::MAX_PERMITS,
            "a bounded semaphore has one permit at least, and MAX_PERMITS at the most"
        );
        RawBoundedSemaphore {
            locks: [const { RawLock::new() }; _],
            bound: AtomicU32::new(permits),
            reserved: [const { AtomicU32::new(0) }; 15],
        }
    }
}

impl Header for RawBoundedSemaphore {
    const KIND: [u8; 8] = *b"bounded\0";
}

impl sealed::Sealed for RawBoundedSemaphore {}

impl Words for RawBoundedSemaphore {
    type Handle = BoundedSemaphore;

    fn locks(&self) -> &[RawLock] {
        &self.locks
    }
}

impl BoundedSemaphore {
    /// The most permits that there can be: the kernel lets a thread sleep on 128 words.
    pub const MAX_PERMITS: u32 = 127;

    /// Makes a semaphore with so many permits.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Panics
    ///
    /// If there are none, or more than [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::BoundedSemaphore::new(3)?;
    /// assert_eq!(semaphore.value(), 3);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new(permits: u32) -> Result<Self, MemoryError> {
        let words = RawBoundedSemaphore::new(permits);
        Ok(Place::create("multiproc-bounded-semaphore", words)?.into())
    }

    /// Waits until there is a permit and takes it.
    ///
    /// # Errors
    ///
    /// One of the rarer reasons that [`LockError`] tells: the thread holds as many locks as the kernel
    /// looks after, or the kernel is older than Linux 5.16.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::BoundedSemaphore::new(1)?;
    /// let permit = semaphore.acquire()?;
    /// assert_eq!(semaphore.value(), 0);
    /// # drop(permit);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn acquire(&self) -> Result<Permit<'_>, LockError> {
        self.take(Wait::Until(Deadline::NEVER))
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::BoundedSemaphore::new(1)?;
    /// let permit = semaphore.acquire()?;
    /// assert!(semaphore.try_acquire()?.is_none());
    /// # drop(permit);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_acquire(&self) -> Result<Option<Permit<'_>>, LockError> {
        match self.take(Wait::Try) {
            Err(error) if error.is_timeout() => Ok(None),
            result => result.map(Some),
        }
    }

    /// Waits until there is a permit, for so long at the most, and takes it.
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
    /// let semaphore = multiproc_sync::BoundedSemaphore::new(1)?;
    /// let permit = semaphore.acquire()?;
    /// let error = semaphore.acquire_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert!(error.is_timeout());
    /// # drop(permit);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, LockError> {
        self.take(Wait::Until(Deadline::after(timeout)))
    }

    /// How many permits there are to be had. They may be taken by now.
    ///
    /// # Examples
    ///
    /// ```
    /// let semaphore = multiproc_sync::BoundedSemaphore::new(2)?;
    /// let permit = semaphore.acquire()?;
    /// assert_eq!(semaphore.value(), 1);
    /// # drop(permit);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_value")]
    pub fn value(&self) -> u32 {
        self.slots().free() as u32
    }

    fn take(&self, wait: Wait) -> Result<Permit<'_>, LockError> {
        let (_, hold) = self.slots().take(wait)?;
        Ok(Permit { _hold: hold })
    }

    fn slots(&self) -> Slots<'_, RawBoundedSemaphore> {
        /// Of all bounded semaphores of this process: each wait shows how long one takes.
        static PATIENCE: Patience = Patience::new();
        Slots {
            place: &self.place,
            gate: |words| &words.locks[0],
            slots: |words| &words.locks[1..],
            count: self.place.bound.load(Relaxed).min(Self::MAX_PERMITS) as usize,
            patience: &PATIENCE,
        }
    }
}

impl From<Place<RawBoundedSemaphore>> for BoundedSemaphore {
    fn from(place: Place<RawBoundedSemaphore>) -> Self {
        BoundedSemaphore { place }
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore").field("value", &self.value()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
