//! Slices with one owner, of whatever process.

mod freeze;
mod part;
mod recall;
mod ticket;

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use multiproc_os::memory::ticket as os_ticket;
use multiproc_wire::{SharedFd, UniqueFd};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Kind};
use part::{Part, Place};

pub use freeze::FreezeError;
pub use recall::{Recall, RecallError};

/// A slice in shared memory with a single owner: the `Box<[T]>` of processes.
///
/// It derefs to `&mut [T]`, without a lock. It moves to another process in a message, which copies not
/// one byte of it, and takes as long for a gigabyte as for a kilobyte. (The sender unmaps its pages
/// then, which the receiver does not wait for.) [`split`](Self::split) makes disjoint chunks of it that different processes own at
/// the same time, and [`join`](Self::join) makes them one again. [`freeze`](Self::freeze) gives up its
/// changes, for many readers.
///
/// A child that is forked off does not get its parent's slices: to use one there panics. Memory that an
/// owner has not dropped when it is killed is lost to the others, and given back to the system, unless
/// one of them has made it [recallable](Self::recallable).
///
/// # Examples
///
/// ```
/// use multiproc_shm::ShmBox;
///
/// let mut pixels = ShmBox::<[u8]>::zeroed(1 << 20)?;
/// pixels[7] = 255;
///
/// let mut halves = pixels.split(2);
/// halves[1].fill(1);
/// let pixels = ShmBox::join(halves)?;
/// assert_eq!((pixels[7], pixels[1 << 19]), (255, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An owner is not cloned, and elements have no pointers:
///
/// ```compile_fail,E0599
/// let pixels = multiproc_shm::ShmBox::<[u8]>::zeroed(8)?;
/// let twice: multiproc_shm::ShmBox<[u8]> = pixels.clone();
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
///
/// ```compile_fail,E0277
/// let words = multiproc_shm::ShmBox::from_slice(&["one", "two"]);
/// ```
pub struct ShmBox<T: ?Sized> {
    /// `None` if there are no bytes.
    part: Option<Part>,
    len: usize,
    _elements: PhantomData<T>,
}

/// Why parts were not joined, and the parts.
///
/// # Examples
///
/// ```
/// use multiproc_shm::ShmBox;
///
/// let mut halves = ShmBox::from_slice(&[1, 2])?.split(2);
/// halves.reverse();
/// let error = ShmBox::join(halves).unwrap_err();
/// let mut halves = error.into_parts();
/// halves.reverse();
/// assert_eq!(*ShmBox::join(halves)?, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct JoinError<T> {
    error: Error,
    parts: Vec<ShmBox<[T]>>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> ShmBox<[T]> {
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
    /// let numbers = multiproc_shm::ShmBox::<[u64]>::zeroed(3)?;
    /// assert_eq!(*numbers, [0, 0, 0]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn zeroed(len: usize) -> Result<Self, Error> {
        let size = len.checked_mul(size_of::<T>()).filter(|size| isize::try_from(*size).is_ok());
        let size = size.ok_or(Kind::TooLong)? as u64;
        check_alignment::<T>()?;
        let part = if size == 0 { None } else { Some(Part::create(size)?) };
        Ok(ShmBox { part, len, _elements: PhantomData })
    }

    /// Copies elements into shared memory.
    ///
    /// # Errors
    ///
    /// As for [`zeroed`](Self::zeroed).
    ///
    /// # Examples
    ///
    /// ```
    /// let numbers = multiproc_shm::ShmBox::from_slice(&[1, 2, 3])?;
    /// assert_eq!(*numbers, [1, 2, 3]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn from_slice(elements: &[T]) -> Result<Self, Error> {
        let mut new = Self::zeroed(elements.len())?;
        new.as_mut_bytes().copy_from_slice(elements.as_bytes());
        Ok(new)
    }

    /// Divides it into `count` chunks that are equally long, or longer by one element than others.
    ///
    /// # Panics
    ///
    /// If `count` is zero.
    ///
    /// # Examples
    ///
    /// ```
    /// let chunks = multiproc_shm::ShmBox::from_slice(&[1, 2, 3, 4, 5])?.split(2);
    /// assert_eq!(*chunks[0], [1, 2, 3]);
    /// assert_eq!(*chunks[1], [4, 5]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn split(self, count: usize) -> Vec<Self> {
        assert!(count > 0, "cannot split a slice into no chunks");
        let (shorter, longer) = (self.len / count, self.len % count);
        let mut rest = self;
        let chunks = (0..count).map(|i| {
            let chunk;
            let len = if i < longer { shorter + 1 } else { shorter };
            (chunk, rest) = std::mem::take(&mut rest).split_at(len);
            chunk
        });
        chunks.collect()
    }

    /// Divides it into chunks of `len` elements; the last one may be shorter.
    ///
    /// # Panics
    ///
    /// If `len` is zero.
    ///
    /// # Examples
    ///
    /// ```
    /// let chunks = multiproc_shm::ShmBox::from_slice(&[1, 2, 3, 4, 5])?.into_chunks(2);
    /// assert_eq!(*chunks[2], [5]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn into_chunks(self, len: usize) -> Vec<Self> {
        assert!(len > 0, "cannot split a slice into chunks of nothing");
        let mut chunks = Vec::with_capacity(self.len.div_ceil(len));
        let mut rest = self;
        while rest.len > len {
            let chunk;
            (chunk, rest) = rest.split_at(len);
            chunks.push(chunk);
        }
        if rest.len > 0 {
            chunks.push(rest);
        }
        chunks
    }

    /// Divides it in two, before the element with this index.
    ///
    /// # Panics
    ///
    /// If there are fewer elements.
    ///
    /// # Examples
    ///
    /// ```
    /// let (head, tail) = multiproc_shm::ShmBox::from_slice(&[1, 2, 3])?.split_at(1);
    /// assert_eq!((&*head, &*tail), (&[1][..], &[2, 3][..]));
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn split_at(self, index: usize) -> (Self, Self) {
        let ShmBox { part, len, .. } = self;
        assert!(index <= len, "index {index} is not within the {len} elements");
        let (head, tail) = match part {
            None => (None, None),
            part if index == 0 => (None, part),
            part if index == len => (part, None),
            Some(part) => {
                let (head, tail) = part.split_at((index * size_of::<T>()) as u64);
                (Some(head), Some(tail))
            }
        };
        let of = |part, len| ShmBox { part, len, _elements: PhantomData };
        (of(head, index), of(tail, len - index))
    }

    /// Makes one of parts that follow each other in the same memory. Empty ones may be among them.
    ///
    /// # Errors
    ///
    /// They are of different memory, or not adjacent, or not in order; or parts that were in other
    /// processes cannot be mapped as one. The parts come back in the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShmBox;
    ///
    /// let chunks = ShmBox::from_slice(&[1, 2, 3])?.split(3);
    /// assert_eq!(*ShmBox::join(chunks)?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Result<Self, JoinError<T>> {
        let boxes: Vec<Self> = parts.into_iter().collect();
        let len = boxes.iter().fold(0, |len: usize, part| len.saturating_add(part.len));
        let joint = {
            let parts: Vec<&Part> = boxes.iter().filter_map(|each| each.part.as_ref()).collect();
            let follow = |pair: &[&Part]| pair[0].is_followed_by(pair[1]);
            match parts.windows(2).try_for_each(follow) {
                Err(why) => Err(Kind::Join(why)),
                Ok(()) if parts.is_empty() => Ok(None),
                Ok(()) => Part::map_joined(&parts).map(Some),
            }
        };
        let joint = match joint {
            Ok(joint) => joint,
            Err(kind) => return Err(JoinError { error: kind.into(), parts: boxes }),
        };
        let parts = boxes.into_iter().filter_map(|each| each.part).collect();
        let part = joint.and_then(|joint| Part::join(parts, joint));
        Ok(ShmBox { part, len, _elements: PhantomData })
    }
}

pub(crate) fn check_alignment<T>() -> Result<(), Kind> {
    if align_of::<T>() > 4096 {
        return Err(Kind::Alignment(type_name::<T>()));
    }
    Ok(())
}

impl<T: FromBytes + IntoBytes> Deref for ShmBox<[T]> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        part::elements(self.part.as_ref(), self.len)
    }
}

impl<T: FromBytes + IntoBytes> DerefMut for ShmBox<[T]> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        part::elements_mut(self.part.as_mut(), self.len)
    }
}

/// No elements, and no memory.
impl<T> Default for ShmBox<[T]> {
    fn default() -> Self {
        ShmBox { part: None, len: 0, _elements: PhantomData }
    }
}

impl<T: FromBytes + IntoBytes + fmt::Debug> fmt::Debug for ShmBox<[T]> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[derive(Serialize)]
struct Outgoing<'a> {
    len: usize,
    part: Option<(&'a SharedFd, &'a UniqueFd, Place, &'a [SharedFd])>,
}

#[derive(Deserialize)]
struct Incoming {
    len: usize,
    part: Option<(SharedFd, UniqueFd, Place, Vec<SharedFd>)>,
}

impl<T> Serialize for ShmBox<[T]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let part = match &self.part {
            Some(part) => {
                let (memory, ticket, place, leases) = part.parcel().map_err(ser::Error::custom)?;
                Some((memory, ticket.fd().map_err(ser::Error::custom)?, place, leases))
            }
            None => None,
        };
        Outgoing { len: self.len, part }.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for ShmBox<[T]>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let incoming = Incoming::deserialize(deserializer)?;
        Self::receive(incoming).map_err(multiproc_wire::fail)
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> ShmBox<[T]> {
    fn receive(Incoming { len, part }: Incoming) -> Result<Self, Error> {
        check_alignment::<T>()?;
        let said = len.checked_mul(size_of::<T>()).ok_or(Kind::TooLong)? as u64;
        let (start, size) = match &part {
            Some((_, _, (_, start, end), _)) => (*start, end.saturating_sub(*start)),
            None => (0, 0),
        };
        if size != said || !start.is_multiple_of(align_of::<T>() as u64) {
            return Err(Kind::Foreign(type_name::<[T]>()).into());
        }
        let part = match part {
            Some((memory, ticket, place, leases)) => {
                Some(Part::receive(memory, place, leases, || os_ticket::take(&ticket))?)
            }
            None => None,
        };
        Ok(ShmBox { part, len, _elements: PhantomData })
    }
}

impl<T> JoinError<T> {
    /// Gives the parts back.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShmBox;
    ///
    /// let parts = [ShmBox::from_slice(&[1])?, ShmBox::from_slice(&[2])?];
    /// let error = ShmBox::join(parts).unwrap_err();
    /// assert_eq!(*error.into_parts()[1], [2]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn into_parts(self) -> Vec<ShmBox<[T]>> {
        self.parts
    }
}

impl<T> fmt::Debug for JoinError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinError")
            .field("error", &self.error)
            .field("parts", &self.parts.len())
            .finish()
    }
}
