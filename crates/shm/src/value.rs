use std::fmt;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::time::Duration;

use multiproc_sync::LockError;
use multiproc_sync::condition::Guard;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::elements::{Elements, ElementsGuard};
use crate::error::Error;

/// A value in shared memory, behind its own lock: the `Mutex<T>` of processes.
///
/// A clone, and what another process reads from a message, is the same value. If whoever holds the
/// lock is killed or panics, the value is poisoned: it may be half changed.
///
/// # Examples
///
/// ```
/// use multiproc_shm::Value;
///
/// let counter = Value::new(0)?;
/// *counter.lock()? += 1;
/// counter.update(|count| *count += 1)?;
/// assert_eq!(counter.get()?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A type with a pointer in it does not compile, nor does one of which some bytes are none:
///
/// ```compile_fail,E0277
/// let text = multiproc_shm::Value::new(String::new());
/// ```
///
/// ```compile_fail,E0277
/// let text = multiproc_shm::Value::new("text");
/// ```
///
/// ```compile_fail,E0277
/// let ready = multiproc_shm::Value::new(true);
/// ```
#[derive(Serialize, Deserialize)]
#[serde(
    transparent,
    bound(serialize = "", deserialize = "T: FromBytes + IntoBytes + Immutable + KnownLayout")
)]
pub struct Value<T> {
    /// One.
    elements: Elements<T>,
}

/// A [`Value`], locked until this is dropped. It stays in its thread.
///
/// # Examples
///
/// ```
/// let value = multiproc_shm::Value::new([1, 2])?;
/// let mut guard = value.lock()?;
/// guard.reverse();
/// assert_eq!(*guard, [2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0277
/// let value = multiproc_shm::Value::new(1)?;
/// let guard = value.lock()?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct ValueGuard<'a, T> {
    guard: ElementsGuard<'a, T>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Value<T> {
    /// Puts a value into shared memory.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left, or `T` wants to be aligned to more than
    /// 4096 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// let ratio = multiproc_shm::Value::new(0.5)?;
    /// assert_eq!(ratio.get()?, 0.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(value: T) -> Result<Self, Error> {
        let elements = Elements::from_slice("multiproc-value", slice::from_ref(&value))?;
        Ok(Value { elements })
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
    /// let value = multiproc_shm::Value::new([1, 2])?;
    /// let mut guard = value.lock()?;
    /// guard.swap(0, 1);
    /// assert_eq!(*guard, [2, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_lock")]
    #[inline]
    pub fn lock(&self) -> Result<ValueGuard<'_, T>, LockError> {
        Ok(ValueGuard { guard: self.elements.lock()? })
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
    /// let value = multiproc_shm::Value::new(1)?;
    /// if let Some(mut guard) = value.try_lock()? {
    ///     *guard = 2;
    /// }
    /// assert_eq!(value.get()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_lock(&self) -> Result<Option<ValueGuard<'_, T>>, LockError> {
        Ok(self.elements.try_lock()?.map(|guard| ValueGuard { guard }))
    }

    /// Waits until the lock is free, for so long at the most, and takes it.
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
    /// let value = multiproc_shm::Value::new(1)?;
    /// *value.lock_timeout(Duration::from_secs(1))? += 1;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ValueGuard<'_, T>, LockError> {
        Ok(ValueGuard { guard: self.elements.lock_timeout(timeout)? })
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
    /// let value = multiproc_shm::Value::new(1)?;
    /// *value.lock_anyway()? = 0;
    /// value.clear_poison();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_anyway(&self) -> Result<ValueGuard<'_, T>, LockError> {
        Ok(ValueGuard { guard: self.elements.lock_anyway()? })
    }

    /// Copies the value.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_shm::Value::new(7)?.get()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "value")]
    pub fn get(&self) -> Result<T, LockError>
    where
        T: Copy,
    {
        Ok(*self.lock()?)
    }

    /// Replaces the value.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiproc_shm::Value::new(7)?;
    /// value.set(8)?;
    /// assert_eq!(value.get()?, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set(&self, value: T) -> Result<(), LockError> {
        *self.lock()? = value;
        Ok(())
    }

    /// Changes the value, with the lock held, and gives what the function gives.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let next = multiproc_shm::Value::new(7)?;
    /// let number = next.update(|next| {
    ///     *next += 1;
    ///     *next - 1
    /// })?;
    /// assert_eq!(number, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, LockError> {
        Ok(change(&mut *self.lock()?))
    }
}

impl<T> Value<T> {
    /// Tells whether a holder of the lock has died or panicked, and nobody has cleared that since.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_shm::Value::new(7)?.is_poisoned());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.elements.is_poisoned()
    }

    /// Declares that the value was repaired.
    ///
    /// # Examples
    ///
    /// ```
    /// let value = multiproc_shm::Value::new(7)?;
    /// value.clear_poison();
    /// assert!(!value.is_poisoned());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn clear_poison(&self) {
        self.elements.clear_poison();
    }
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Value { elements: self.elements.clone() }
    }
}

impl<T> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl<T> Guard for ValueGuard<'_, T> {
    fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, LockError>, R) {
        let (guard, waited) = self.guard.while_released(wait);
        (guard.map(|guard| ValueGuard { guard }), waited)
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Deref for ValueGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard.elements()[0]
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> DerefMut for ValueGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard.elements_mut()[0]
    }
}

impl<T> fmt::Debug for ValueGuard<'_, T>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout + fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
