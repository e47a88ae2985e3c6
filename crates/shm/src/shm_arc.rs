use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, RangeBounds};
use std::slice;
use std::sync::Arc;

use multiproc_os::memory::Frozen;
use multiproc_wire::SharedFd;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Kind};
use crate::shm_box::check_alignment;

/// A slice in shared memory that nobody can change, read by many: the `Arc<[T]>` of processes.
///
/// It derefs to `&[T]`, without a lock. A clone, and what another process reads from a message, is the
/// same memory: not one byte is copied. The kernel refuses every writer, so that even a hostile sender
/// can not change what a receiver reads.
///
/// It is a frozen [`ShmBox`](crate::ShmBox), as `Bytes` is a frozen `BytesMut`, or a copy of elements
/// that are elsewhere.
///
/// # Examples
///
/// ```
/// use multiproc_shm::{ShmArc, ShmBox};
///
/// let mut pixels = ShmBox::<[u8]>::zeroed(1 << 20)?;
/// pixels.fill(7);
/// let pixels: ShmArc<[u8]> = pixels.freeze()?;
///
/// let row = pixels.slice(1024..2048);
/// assert!(row.len() == 1024 && row.iter().all(|pixel| *pixel == 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0594
/// let mut frozen = multiproc_shm::ShmArc::from_slice(&[1, 2, 3])?;
/// frozen[0] = 2;
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
pub struct ShmArc<T: ?Sized> {
    /// `None` if there are no bytes.
    mapped: Option<Arc<Mapped>>,
    /// Where the elements start in the mapping, in bytes.
    start: usize,
    len: usize,
    _elements: PhantomData<T>,
}

struct Mapped {
    frozen: Frozen<SharedFd>,
    /// Where it starts in the memory.
    at: u64,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> ShmArc<[T]> {
    /// Copies elements into shared memory, for good.
    ///
    /// # Errors
    ///
    /// The system has no descriptor, memory or address space left, or `T` wants to be aligned to more
    /// than 4096 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// let numbers = multiproc_shm::ShmArc::from_slice(&[1, 2, 3])?;
    /// assert_eq!(*numbers, [1, 2, 3]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn from_slice(elements: &[T]) -> Result<Self, Error> {
        check_alignment::<T>()?;
        let bytes = elements.as_bytes();
        let frozen = match bytes.len() {
            0 => None,
            _ => Some(Frozen::copy("multiproc-arc", bytes).map_err(Kind::system("make"))?),
        };
        Ok(Self::from_frozen(frozen, elements.len()))
    }

    /// Collects elements, and copies them into shared memory, for good.
    ///
    /// # Errors
    ///
    /// As for [`from_slice`](Self::from_slice).
    ///
    /// # Examples
    ///
    /// ```
    /// let squares = multiproc_shm::ShmArc::try_from_iter((1..4u32).map(|x| x * x))?;
    /// assert_eq!(*squares, [1, 4, 9]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[doc(alias = "from_iter")]
    pub fn try_from_iter(elements: impl IntoIterator<Item = T>) -> Result<Self, Error> {
        Self::from_slice(&elements.into_iter().collect::<Vec<T>>())
    }
}

impl<T> ShmArc<[T]> {
    /// Of as many bytes as so many elements have.
    pub(crate) fn from_frozen(frozen: Option<Frozen<SharedFd>>, len: usize) -> Self {
        let mapped = frozen.map(|frozen| Arc::new(Mapped { frozen, at: 0 }));
        ShmArc { mapped, start: 0, len, _elements: PhantomData }
    }

    /// A part of it, with the same memory, which stays as long as the part does. It keeps no secrets: a
    /// process that gets the part in a message gets the descriptor of the whole.
    ///
    /// # Panics
    ///
    /// If the range is not within the elements.
    ///
    /// # Examples
    ///
    /// ```
    /// let numbers = multiproc_shm::ShmArc::from_slice(&[1, 2, 3])?;
    /// assert_eq!(*numbers.slice(1..), [2, 3]);
    /// assert!(numbers.slice(3..).is_empty());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(start) => Some(*start),
            Bound::Excluded(before) => before.checked_add(1),
            Bound::Unbounded => Some(0),
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.checked_add(1),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => Some(self.len),
        };
        let within = start.zip(end).filter(|(start, end)| start <= end && *end <= self.len);
        let Some((start, end)) = within else {
            panic!("the range is not within the {} elements", self.len);
        };
        ShmArc {
            // An empty one keeps no memory.
            mapped: self.mapped.clone().filter(|_| start < end),
            start: self.start + start * size_of::<T>(),
            len: end - start,
            _elements: PhantomData,
        }
    }
}

/// Whoever makes one sees to it that the bytes are so many elements, and aligned as they want.
const CHECKED: &str = "frozen memory has changed";

impl<T: FromBytes + Immutable + KnownLayout> Deref for ShmArc<[T]> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        let bytes: &[u8] = match &self.mapped {
            Some(mapped) => &mapped.frozen[self.start..self.start + self.len * size_of::<T>()],
            None => &NOWHERE.0,
        };
        match <[T]>::ref_from_bytes_with_elems(bytes, self.len) {
            Ok(elements) => elements,
            Err(_) => unreachable!("{CHECKED}"),
        }
    }
}

/// No bytes, aligned for any type that is taken.
#[repr(align(4096))]
struct Nowhere([u8; 0]);

static NOWHERE: Nowhere = Nowhere([]);

impl<T: FromBytes + Immutable + KnownLayout> AsRef<[T]> for ShmArc<[T]> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<'a, T: FromBytes + Immutable + KnownLayout> IntoIterator for &'a ShmArc<[T]> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> Clone for ShmArc<[T]> {
    fn clone(&self) -> Self {
        ShmArc {
            mapped: self.mapped.clone(),
            start: self.start,
            len: self.len,
            _elements: PhantomData,
        }
    }
}

/// No elements, and no memory.
impl<T> Default for ShmArc<[T]> {
    fn default() -> Self {
        Self::from_frozen(None, 0)
    }
}

impl<T: FromBytes + Immutable + KnownLayout + fmt::Debug> fmt::Debug for ShmArc<[T]> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// How many elements, and in what memory they start where.
type Parcel<F> = (usize, Option<(F, u64)>);

impl<T> Serialize for ShmArc<[T]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let memory = self.mapped.as_ref();
        let memory = memory.map(|mapped| (mapped.frozen.fd(), mapped.at + self.start as u64));
        let parcel: Parcel<&SharedFd> = (self.len, memory);
        parcel.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for ShmArc<[T]>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parcel = Parcel::deserialize(deserializer)?;
        Self::receive(parcel).map_err(multiproc_wire::fail)
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> ShmArc<[T]> {
    fn receive((len, memory): Parcel<SharedFd>) -> Result<Self, Error> {
        check_alignment::<T>()?;
        let size = len.checked_mul(size_of::<T>()).ok_or(Kind::TooLong)?;
        let mapped = match memory {
            None if size == 0 => None,
            Some((fd, at)) if size > 0 && at.is_multiple_of(align_of::<T>() as u64) => {
                let frozen = Frozen::open(fd, at, size).map_err(Kind::system("use"))?;
                Some(Arc::new(Mapped { frozen, at }))
            }
            _ => return Err(Kind::Foreign(type_name::<[T]>()).into()),
        };
        Ok(ShmArc { mapped, start: 0, len, _elements: PhantomData })
    }
}
