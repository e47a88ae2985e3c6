use std::fmt;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{LockError, MemoryError};
use crate::region::{Header, Region, RegionGuard};

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
    region: Region<NoHeader>,
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
    _guard: RegionGuard<'a, NoHeader>,
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct NoHeader;

impl Header for NoHeader {
    const KIND: [u8; 8] = *b"lock\0\0\0\0";
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
        Ok(Lock { region: Region::create("multiproc-lock", 0)? })
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
        Ok(LockGuard { _guard: self.region.lock()? })
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
        Ok(self.region.try_lock()?.map(|guard| LockGuard { _guard: guard }))
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
        Ok(LockGuard { _guard: self.region.lock_until(Deadline::after(timeout))? })
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
        Ok(LockGuard { _guard: self.region.lock_anyway()? })
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
        self.region.is_poisoned()
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
        self.region.clear_poison();
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
