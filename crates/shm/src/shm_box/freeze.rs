use std::fmt;
use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ShmBox;
use crate::error::{Error, Kind};
use crate::shm_arc::ShmArc;

/// Why a slice was not frozen, and the slice.
///
/// # Examples
///
/// ```
/// use multiproc_shm::ShmBox;
///
/// let half = ShmBox::from_slice(&[1, 2])?.split(2).remove(0);
/// let error = half.freeze().unwrap_err();
/// assert!(error.to_string().contains("only a part"));
/// let half = error.into_box().ok_or("it is lost")?;
/// assert_eq!(*half, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct FreezeError<T> {
    error: Error,
    slice: Option<Box<ShmBox<[T]>>>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> ShmBox<[T]> {
    /// Makes the elements unchangeable for everybody and for good, so that many processes may read
    /// them. Not one byte is copied.
    ///
    /// # Errors
    ///
    /// - it is only a part of what was split: [`join`](Self::join) it first;
    /// - [`is_in_use`](FreezeError::is_in_use): somebody else has the memory mapped. Owners of parts
    ///   that gave them back have not, or unmap them just then, for which it waits: for 2 seconds,
    ///   and 1 more for each GiB.
    ///
    /// The slice comes back in the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShmBox;
    ///
    /// let mut table = ShmBox::<[u64]>::zeroed(1000)?;
    /// table[7] = 49;
    /// let table = table.freeze()?;
    /// let readers = [table.clone(), table.clone()];
    /// assert!(readers.iter().all(|table| table[7] == 49));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn freeze(self) -> Result<ShmArc<[T]>, FreezeError<T>> {
        let ShmBox { part, len, .. } = self;
        let Some(part) = part else { return Ok(ShmArc::from_frozen(None, len)) };
        part.freeze().map(|frozen| ShmArc::from_frozen(Some(frozen), len)).map_err(
            |(kind, part)| {
                let slice = part.map(|part| {
                    Box::new(ShmBox { part: Some(*part), len, _elements: PhantomData })
                });
                FreezeError { error: kind.into(), slice }
            },
        )
    }
}

impl<T> FreezeError<T> {
    /// Gives the slice back. `None` only if the system, after it had refused to freeze the memory,
    /// also refused to map it again, and it is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// let half = multiproc_shm::ShmBox::from_slice(&[1, 2])?.split(2).remove(0);
    /// let error = half.freeze().unwrap_err();
    /// assert_eq!(error.into_box().as_deref(), Some(&[1][..]));
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn into_box(self) -> Option<ShmBox<[T]>> {
        self.slice.map(|slice| *slice)
    }

    /// Tells whether somebody else has the memory mapped.
    ///
    /// # Examples
    ///
    /// ```
    /// let half = multiproc_shm::ShmBox::from_slice(&[1, 2])?.split(2).remove(0);
    /// let error = half.freeze().unwrap_err();
    /// assert!(!error.is_in_use());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_in_use(&self) -> bool {
        matches!(self.error.kind(), Kind::InUse)
    }

    /// Tells whether the slice is only a part of its memory.
    ///
    /// # Examples
    ///
    /// ```
    /// let half = multiproc_shm::ShmBox::from_slice(&[1, 2])?.split(2).remove(0);
    /// let error = half.freeze().unwrap_err();
    /// assert!(error.is_part());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_part(&self) -> bool {
        matches!(self.error.kind(), Kind::Partial)
    }
}

impl<T> fmt::Debug for FreezeError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreezeError").field("error", &self.error).finish_non_exhaustive()
    }
}
