use std::fmt;
use std::slice;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::condition::Guard;
use crate::error::{Kind, LockError, MemoryError};
use crate::raw_lock::{NotTaken, RawLock, Wait};
use crate::region::{Header, Hold, Place, Words, sealed};

/// A lock that the thread which holds it can take again.
///
/// It is released when as many guards were dropped as were taken. All else is as with a
/// [`Lock`](crate::Lock): a holder's death or panic poisons it.
///
/// # Examples
///
/// ```
/// use multiproc_sync::RLock;
///
/// let lock = RLock::new()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?;
/// drop(outer);
/// // Held still.
/// drop(inner);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "ReentrantLock")]
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RLock {
    place: Place<RawRLock>,
}

/// Holds an [`RLock`] until dropped. It stays in its thread.
///
/// # Examples
///
/// ```compile_fail
/// let lock = multiproc_sync::RLock::new()?;
/// let held = lock.lock()?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(held));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    /// Releases the lock with the last guard only.
    hold: Hold<'a>,
}

/// A reentrant lock's words, for structures in shared memory. All zeros is an unlocked one.
///
/// # Examples
///
/// ```
/// use multiproc_sync::RawRLock;
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct House {
///     front_door: RawRLock,
///     back_door: RawRLock,
/// }
/// ```
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawRLock {
    lock: RawLock,
    /// How many guards the holder has. For the holder only, who starts it at 1.
    depth: AtomicU32,
    reserved: [AtomicU32; 15],
}

impl RawRLock {
    /// Makes an unlocked one.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RawRLock::new();
    /// ```
    pub const fn new() -> Self {
        RawRLock {
            lock: RawLock::new(),
            depth: AtomicU32::new(0),
            reserved: [const { AtomicU32::new(0) }; 15],
        }
    }
}

impl Header for RawRLock {
    const KIND: [u8; 8] = *b"rlock\0\0\0";
}

impl sealed::Sealed for RawRLock {}

impl Words for RawRLock {
    type Handle = RLock;

    fn locks(&self) -> &[RawLock] {
        slice::from_ref(&self.lock)
    }
}

impl RLock {
    /// Makes an unlocked lock.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RLock::new()?;
    /// assert!(!lock.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new() -> Result<Self, MemoryError> {
        Ok(Place::create("multiproc-rlock", RawRLock::new())?.into())
    }

    /// Takes the lock, once it is free or if this thread holds it.
    ///
    /// # Errors
    ///
    /// - [`is_poisoned`](LockError::is_poisoned): a holder has died or panicked;
    /// - one of the rarer reasons that [`LockError`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RLock::new()?;
    /// let _held = lock.lock()?;
    /// let _held_twice = lock.lock()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<RLockGuard<'_>, LockError> {
        self.take(Wait::Until(Deadline::NEVER))
    }

    /// Takes the lock if it is free or this thread holds it. `None` if another thread does.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RLock::new()?;
    /// let held = lock.try_lock()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(lock.try_lock().unwrap().is_none()));
    /// });
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_lock(&self) -> Result<Option<RLockGuard<'_>>, LockError> {
        match self.take(Wait::Try) {
            Err(error) if error.is_timeout() => Ok(None),
            result => result.map(Some),
        }
    }

    /// Waits until the lock is free, for so long at the most, and takes it.
    ///
    /// The clock is the monotonic one. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock), or [`is_timeout`](LockError::is_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let lock = multiproc_sync::RLock::new()?;
    /// let held = lock.lock_timeout(Duration::from_secs(1))?;
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_>, LockError> {
        self.take(Wait::Until(Deadline::after(timeout)))
    }

    /// Takes the lock, once it is free or if this thread holds it, poisoned or not.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock), but for the poison.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RLock::new()?;
    /// let _held = lock.lock_anyway()?;
    /// lock.clear_poison();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_anyway(&self) -> Result<RLockGuard<'_>, LockError> {
        self.take_anyway(Wait::Until(Deadline::NEVER))
    }

    /// Tells whether a holder has died or panicked, and nobody has cleared that since.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_sync::RLock::new()?.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.place.lock.is_poisoned()
    }

    /// Declares that what the lock guards was repaired.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RLock::new()?;
    /// lock.clear_poison();
    /// assert!(!lock.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn clear_poison(&self) {
        self.place.lock.clear_poison();
    }

    #[inline]
    fn take(&self, wait: Wait) -> Result<RLockGuard<'_>, LockError> {
        Self::unless_poisoned(self.take_anyway(wait)?)
    }

    fn take_so_deep(&self, depth: u32) -> Result<RLockGuard<'_>, LockError> {
        let guard = self.take_anyway(Wait::Until(Deadline::NEVER))?;
        self.place.depth.store(depth, Relaxed);
        Self::unless_poisoned(guard)
    }

    #[inline]
    fn unless_poisoned(guard: RLockGuard<'_>) -> Result<RLockGuard<'_>, LockError> {
        if guard.hold.is_poisoned() {
            return Err(Kind::Poisoned.into());
        }
        Ok(guard)
    }

    #[inline]
    fn take_anyway(&self, wait: Wait) -> Result<RLockGuard<'_>, LockError> {
        let depth = &self.place.depth;
        if let Some(hold) = self.place.hold_again(|words| &words.lock) {
            return self.take_once_more(hold);
        }
        let hold = self.place.hold(|words| &words.lock, wait)?;
        // What the dead have left in it counts no more.
        depth.store(1, Relaxed);
        Ok(RLockGuard { lock: self, hold })
    }

    fn take_once_more<'a>(&'a self, mut hold: Hold<'a>) -> Result<RLockGuard<'a>, LockError> {
        let depth = &self.place.depth;
        let Some(guards) = depth.load(Relaxed).checked_add(1) else {
            hold.disarm();
            return Err(NotTaken::TooMany.into());
        };
        depth.store(guards, Relaxed);
        Ok(RLockGuard { lock: self, hold })
    }
}

impl Drop for RLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // A copy that a fork has made is no guard of the child's.
        if !self.hold.is_of_this_process() {
            return;
        }
        let depth = &self.lock.place.depth;
        let others = depth.load(Relaxed).saturating_sub(1);
        depth.store(others, Relaxed);
        if others > 0 {
            if self.hold.has_panicked() {
                self.hold.poison();
            }
            self.hold.disarm();
        }
    }
}

impl Guard for RLockGuard<'_> {
    /// Releases the lock, whatever the depth, as Python does.
    fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, LockError>, R) {
        let lock = self.lock;
        // A copy that a fork has made releases nothing.
        let depth =
            if self.hold.is_of_this_process() { lock.place.depth.swap(1, Relaxed) } else { 1 };
        drop(self);
        let waited = wait();
        (lock.take_so_deep(depth), waited)
    }
}

impl From<Place<RawRLock>> for RLock {
    fn from(place: Place<RawRLock>) -> Self {
        RLock { place }
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLock").field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard").finish_non_exhaustive()
    }
}
