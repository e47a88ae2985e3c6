use std::fmt;
use std::ops::{Deref, DerefMut};
use std::slice;

use multiproc_sync::LockError;
use multiproc_sync::condition::Guard;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::elements::ElementsGuard;

/// An [`Array`](crate::Array), locked until this is dropped: a slice. It stays in its thread.
///
/// # Examples
///
/// ```
/// let array = multiproc_shm::Array::from_slice(&[1, 2, 3])?;
/// let mut guard = array.lock()?;
/// for element in &mut guard {
///     *element *= 2;
/// }
/// assert_eq!(guard.iter().sum::<i32>(), 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0277
/// let array = multiproc_shm::Array::from_slice(&[1, 2, 3])?;
/// let guard = array.lock()?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct ArrayGuard<'a, T> {
    pub(super) guard: ElementsGuard<'a, T>,
}

impl<T> Guard for ArrayGuard<'_, T> {
    fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, LockError>, R) {
        let (guard, waited) = self.guard.while_released(wait);
        (guard.map(|guard| ArrayGuard { guard }), waited)
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.guard.elements()
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> DerefMut for ArrayGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.guard.elements_mut()
    }
}

impl<T> fmt::Debug for ArrayGuard<'_, T>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout + fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<'a, T: FromBytes + IntoBytes + Immutable + KnownLayout> IntoIterator
    for &'a ArrayGuard<'_, T>
{
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: FromBytes + IntoBytes + Immutable + KnownLayout> IntoIterator
    for &'a mut ArrayGuard<'_, T>
{
    type Item = &'a mut T;
    type IntoIter = slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
