use std::fmt;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use serde::{Deserialize, Serialize};

use crate::condition::Guard;
use crate::error::{Kind, LockError, MemoryError};
use crate::raw_lock::{NotTaken, RawLock, Wait};
use crate::region::{Hold, Place};

/// A mutual exclusion lock between processes, and between the threads in them.
///
/// If whoever holds it is killed, the next one gets it at once, poisoned; so it is after a panic.
/// A clone, and what another process reads from a message, is the same lock.
///
/// To guard a value, take a `Value` or an `Array` of `multiproc-shm`, which are reached through
/// their lock only.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Lock;
///
/// let lock = Lock::new()?;
/// {
///     let _held = lock.lock()?;
///     // One at a time is here.
/// }
/// assert!(lock.try_lock()?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Mutex")]
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lock {
    place: Place<RawLock>,
}

/// Holds a [`Lock`] until dropped. It stays in its thread.
///
/// # Examples
///
/// ```compile_fail
/// let lock = multiproc_sync::Lock::new()?;
/// let held = lock.lock()?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(held));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct LockGuard<'a> {
    hold: Hold<'a>,
}

impl Lock {
    /// Makes an unlocked lock.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// assert!(!lock.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new() -> Result<Self, MemoryError> {
        Ok(Place::create("multiproc-lock", RawLock::new())?.into())
    }

    /// Waits until the lock is free and takes it.
    ///
    /// # Errors
    ///
    /// - [`is_poisoned`](LockError::is_poisoned): a holder has died or panicked;
    /// - [`is_deadlock`](LockError::is_deadlock): this thread holds the lock already;
    /// - one of the rarer reasons that [`LockError`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// let held = lock.lock()?;
    /// assert!(lock.lock().unwrap_err().is_deadlock());
    /// drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "acquire")]
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError> {
        self.take(Wait::Until(Deadline::NEVER))
    }

    /// Takes the lock if it is free. `None` if another thread or process holds it.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// let held = lock.lock()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(lock.try_lock().unwrap().is_none()));
    /// });
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<Option<LockGuard<'_>>, LockError> {
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
    /// let lock = multiproc_sync::Lock::new()?;
    /// let held = lock.lock_timeout(Duration::from_secs(1))?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         let error = lock.lock_timeout(Duration::from_millis(1)).unwrap_err();
    ///         assert!(error.is_timeout());
    ///     });
    /// });
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_>, LockError> {
        self.take(Wait::Until(Deadline::after(timeout)))
    }

    /// Waits until the lock is free and takes it, poisoned or not.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock), but for the poison.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// # let hook = std::panic::take_hook();
    /// # std::panic::set_hook(Box::new(|_| ()));
    /// let _panic = std::panic::catch_unwind(|| {
    ///     let _held = lock.lock().unwrap();
    ///     panic!("halfway through");
    /// });
    /// # std::panic::set_hook(hook);
    /// assert!(lock.lock().unwrap_err().is_poisoned());
    ///
    /// let held = lock.lock_anyway()?;
    /// // What the panic has left is put in order here.
    /// lock.clear_poison();
    /// drop(held);
    /// assert!(lock.lock().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_anyway(&self) -> Result<LockGuard<'_>, LockError> {
        Ok(self.take_anyway(Wait::Until(Deadline::NEVER))?)
    }

    /// Tells whether a holder has died or panicked, and nobody has cleared that since.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_sync::Lock::new()?.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.place.is_poisoned()
    }

    /// Declares that what the lock guards was repaired.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// lock.clear_poison();
    /// assert!(!lock.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn clear_poison(&self) {
        self.place.clear_poison();
    }

    #[inline]
    fn take(&self, wait: Wait) -> Result<LockGuard<'_>, LockError> {
        self.take_anyway(wait)?.unless_poisoned()
    }

    #[inline]
    fn take_anyway(&self, wait: Wait) -> Result<LockGuard<'_>, NotTaken> {
        Ok(LockGuard { hold: self.place.hold(|lock| lock, wait)? })
    }
}

impl LockGuard<'_> {
    #[inline]
    fn unless_poisoned(self) -> Result<Self, LockError> {
        if self.hold.is_poisoned() { Err(self.give_up()) } else { Ok(self) }
    }

    /// Out of the way, so that the compiler inlines the release at the end of a section.
    #[cold]
    #[inline(never)]
    fn give_up(self) -> LockError {
        Kind::Poisoned.into()
    }
}

impl From<Place<RawLock>> for Lock {
    fn from(place: Place<RawLock>) -> Self {
        Lock { place }
    }
}

impl Guard for LockGuard<'_> {
    fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, LockError>, R) {
        let (hold, waited) = self.hold.while_released(wait);
        (
            hold.map_err(LockError::from).and_then(|hold| LockGuard { hold }.unless_poisoned()),
            waited,
        )
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").finish_non_exhaustive()
    }
}
