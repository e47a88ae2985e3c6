mod guard;

use std::fmt;
use std::time::Duration;

use multiproc_sync::LockError;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::elements::Elements;
use crate::error::Error;

pub use guard::ArrayGuard;

/// Elements in shared memory, behind one lock of their own.
///
/// A clone, and what another process reads from a message, is the same array. If whoever holds the
/// lock is killed or panics, the array is poisoned: it may be half changed.
///
/// Each method here takes the lock and releases it. For several elements at once, [`lock`](Self::lock)
/// gives a slice, which is iterated as slices are. There is no iterator over the array itself: it
/// would have to hide that the lock could not be taken. [`to_vec`](Self::to_vec) is a snapshot.
///
/// # Examples
///
/// ```
/// use multiproc_shm::Array;
///
/// let table = Array::from_slice(&[0.0f64; 4])?;
/// {
///     let mut table = table.lock()?;
///     table[3] = 1.5;
///     table.sort_by(|a, b| b.total_cmp(a));
/// }
/// assert_eq!(table.to_vec()?, [1.5, 0.0, 0.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(
    transparent,
    bound(serialize = "", deserialize = "T: FromBytes + IntoBytes + Immutable + KnownLayout")
)]
pub struct Array<T> {
    elements: Elements<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Array<T> {
    /// Copies elements into shared memory.
    ///
    /// # Errors
    ///
    /// As for [`zeroed`](Self::zeroed).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_slice(&[1, 2, 3])?;
    /// assert_eq!(array.len(), 3);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn from_slice(elements: &[T]) -> Result<Self, Error> {
        Ok(Array { elements: Elements::from_slice(NAME, elements)? })
    }

    /// Makes `len` elements that are zero. Memory is taken for them once they are written.
    ///
    /// # Errors
    ///
    /// The length overflows, or the system has no descriptor or address space left, or `T` wants to
    /// be aligned to more than 4096 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::<u64>::zeroed(1000)?;
    /// assert_eq!(array.get(999)?, Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        Ok(Array { elements: Elements::zeroed(NAME, len)? })
    }

    /// How many elements there are.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_shm::Array::<u8>::zeroed(7)?.len(), 7);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Tells whether there are none.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(multiproc_shm::Array::<u8>::zeroed(0)?.is_empty());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    /// let array = multiproc_shm::Array::from_slice(&[1, 2])?;
    /// let mut guard = array.lock()?;
    /// guard.swap(0, 1);
    /// assert_eq!(*guard, [2, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "get_lock")]
    #[inline]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, LockError> {
        Ok(ArrayGuard { guard: self.elements.lock()? })
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
    /// let array = multiproc_shm::Array::from_slice(&[1, 1])?;
    /// if let Some(mut guard) = array.try_lock()? {
    ///     guard.fill(2);
    /// }
    /// assert_eq!(array.to_vec()?, [2, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_lock(&self) -> Result<Option<ArrayGuard<'_, T>>, LockError> {
        Ok(self.elements.try_lock()?.map(|guard| ArrayGuard { guard }))
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
    /// let array = multiproc_shm::Array::from_slice(&[1, 1])?;
    /// array.lock_timeout(Duration::from_secs(1))?[0] += 1;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(&self, timeout: Duration) -> Result<ArrayGuard<'_, T>, LockError> {
        Ok(ArrayGuard { guard: self.elements.lock_timeout(timeout)? })
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
    /// let array = multiproc_shm::Array::from_slice(&[1, 1])?;
    /// array.lock_anyway()?.fill(0);
    /// array.clear_poison();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_anyway(&self) -> Result<ArrayGuard<'_, T>, LockError> {
        Ok(ArrayGuard { guard: self.elements.lock_anyway()? })
    }

    /// Copies all elements: a snapshot, to be iterated with the lock free.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_slice(&[1, 2])?;
    /// let mut sum = 0;
    /// for element in array.to_vec()? {
    ///     sum += element;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "snapshot")]
    pub fn to_vec(&self) -> Result<Vec<T>, LockError>
    where
        T: Copy,
    {
        Ok(self.lock()?.to_vec())
    }

    /// Copies all elements into a slice.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Panics
    ///
    /// If the slice has another length. The array is not poisoned by that.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_slice(&[1, 2])?;
    /// let mut copy = [0; 2];
    /// array.copy_to_slice(&mut copy)?;
    /// assert_eq!(copy, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy_to_slice(&self, elements: &mut [T]) -> Result<(), LockError>
    where
        T: Copy,
    {
        self.assert_len(elements.len());
        elements.copy_from_slice(&self.lock()?);
        Ok(())
    }

    /// Replaces all elements by those of a slice.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Panics
    ///
    /// If the slice has another length. The array is not poisoned by that.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::zeroed(2)?;
    /// array.copy_from_slice(&[1.5, 2.5])?;
    /// assert_eq!(array.to_vec()?, [1.5, 2.5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy_from_slice(&self, elements: &[T]) -> Result<(), LockError>
    where
        T: Copy,
    {
        self.assert_len(elements.len());
        self.lock()?.copy_from_slice(elements);
        Ok(())
    }

    /// Copies one element. `None` if there are not so many.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_slice(&[1, 2])?;
    /// assert_eq!(array.get(1)?, Some(2));
    /// assert_eq!(array.get(2)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self, index: usize) -> Result<Option<T>, LockError>
    where
        T: Copy,
    {
        Ok(self.lock()?.get(index).copied())
    }

    /// Replaces one element.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Panics
    ///
    /// If there are not so many elements. The array is not poisoned by that.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_slice(&[1, 2])?;
    /// array.set(0, 3)?;
    /// assert_eq!(array.to_vec()?, [3, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set(&self, index: usize, element: T) -> Result<(), LockError> {
        self.assert_within(index);
        self.lock()?[index] = element;
        Ok(())
    }

    /// Changes one element, with the lock held, and gives what the function gives.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Panics
    ///
    /// If there are not so many elements. The array is not poisoned by that, but by a panic of the
    /// function.
    ///
    /// # Examples
    ///
    /// ```
    /// let visits = multiproc_shm::Array::<u64>::zeroed(3)?;
    /// let count = visits.update(1, |count| {
    ///     *count += 1;
    ///     *count
    /// })?;
    /// assert_eq!((count, visits.to_vec()?), (1, vec![0, 1, 0]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn update<R>(
        &self,
        index: usize,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, LockError> {
        self.assert_within(index);
        Ok(change(&mut self.lock()?[index]))
    }

    /// Before the lock is taken: a panic while it is held poisons it.
    fn assert_within(&self, index: usize) {
        assert!(index < self.len(), "index {index} is not within the {} elements", self.len());
    }

    /// As `assert_within`.
    fn assert_len(&self, len: usize) {
        assert!(len == self.len(), "{len} elements are not the {} of the array", self.len());
    }
}

impl<T> Array<T> {
    /// Tells whether a holder of the lock has died or panicked, and nobody has cleared that since.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_shm::Array::from_slice(&[7])?.is_poisoned());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.elements.is_poisoned()
    }

    /// Declares that the elements were repaired.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_slice(&[7])?;
    /// array.clear_poison();
    /// assert!(!array.is_poisoned());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn clear_poison(&self) {
        self.elements.clear_poison();
    }
}

/// Shows in `/proc/PID/maps`.
const NAME: &str = "multiproc-array";

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        Array { elements: self.elements.clone() }
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("len", &self.elements.len())
            .field("poisoned", &self.is_poisoned())
            .finish_non_exhaustive()
    }
}
