//! Elements behind one lock: what values and arrays are made of.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_sync::LockError;
use multiproc_sync::condition::Guard;
use multiproc_sync::region::{self, Region, RegionGuard};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Kind};

/// The greatest alignment that a region's bytes have.
const MOST_ALIGNED: usize = 4096;

/// Some number of `T`, which stays the same.
pub(crate) struct Elements<T> {
    region: Region<Header>,
    len: usize,
    _elements: PhantomData<T>,
}

/// The elements, locked.
pub(crate) struct ElementsGuard<'a, T> {
    guard: RegionGuard<'a, Header>,
    len: usize,
    _elements: PhantomData<T>,
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Header {
    element_size: AtomicU64,
    len: AtomicU64,
}

impl region::Header for Header {
    const KIND: [u8; 8] = *b"elements";
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Elements<T> {
    pub(crate) fn zeroed(name: &str, len: usize) -> Result<Self, Error> {
        let size = len.checked_mul(size_of::<T>()).ok_or(Kind::TooLong)?;
        if align_of::<T>() > MOST_ALIGNED {
            return Err(Kind::Alignment(type_name::<T>()).into());
        }
        let region = Region::<Header>::create(name, size)?;
        region.header().element_size.store(size_of::<T>() as u64, Relaxed);
        region.header().len.store(len as u64, Relaxed);
        Ok(Elements { region, len, _elements: PhantomData })
    }

    pub(crate) fn from_slice(name: &str, elements: &[T]) -> Result<Self, Error> {
        let new = Self::zeroed(name, elements.len())?;
        // Nobody else has the lock.
        let mut guard = new.region.lock().map_err(Kind::Lock)?;
        guard.bytes_mut().copy_from_slice(elements.as_bytes());
        drop(guard);
        Ok(new)
    }

    fn open(region: Region<Header>) -> Result<Self, Error> {
        let header = region.header();
        let len = usize::try_from(header.len.load(Relaxed)).unwrap_or(usize::MAX);
        if header.element_size.load(Relaxed) != size_of::<T>() as u64
            || len.checked_mul(size_of::<T>()) != Some(region.len())
            || align_of::<T>() > MOST_ALIGNED
        {
            return Err(Kind::Foreign(type_name::<T>()).into());
        }
        Ok(Elements { region, len, _elements: PhantomData })
    }

    #[inline]
    pub(crate) fn lock(&self) -> Result<ElementsGuard<'_, T>, LockError> {
        Ok(self.guard(self.region.lock()?))
    }

    pub(crate) fn try_lock(&self) -> Result<Option<ElementsGuard<'_, T>>, LockError> {
        Ok(self.region.try_lock()?.map(|guard| self.guard(guard)))
    }

    pub(crate) fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<ElementsGuard<'_, T>, LockError> {
        Ok(self.guard(self.region.lock_until(Deadline::after(timeout))?))
    }

    pub(crate) fn lock_anyway(&self) -> Result<ElementsGuard<'_, T>, LockError> {
        Ok(self.guard(self.region.lock_anyway()?))
    }

    #[inline]
    fn guard<'a>(&self, guard: RegionGuard<'a, Header>) -> ElementsGuard<'a, T> {
        ElementsGuard { guard, len: self.len, _elements: PhantomData }
    }
}

impl<T> Elements<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.region.is_poisoned()
    }

    pub(crate) fn clear_poison(&self) {
        self.region.clear_poison();
    }
}

/// `open` and `zeroed` see to it that the bytes are so many elements, and aligned as they want.
const CHECKED: &str = "the memory has changed its layout";

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> ElementsGuard<'_, T> {
    #[inline]
    pub(crate) fn elements(&self) -> &[T] {
        match <[T]>::ref_from_bytes_with_elems(self.guard.bytes(), self.len) {
            Ok(elements) => elements,
            Err(_) => unreachable!("{CHECKED}"),
        }
    }

    #[inline]
    pub(crate) fn elements_mut(&mut self) -> &mut [T] {
        match <[T]>::mut_from_bytes_with_elems(self.guard.bytes_mut(), self.len) {
            Ok(elements) => elements,
            Err(_) => unreachable!("{CHECKED}"),
        }
    }
}

impl<T> Guard for ElementsGuard<'_, T> {
    fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, LockError>, R) {
        let len = self.len;
        let (guard, waited) = self.guard.while_released(wait);
        (guard.map(|guard| ElementsGuard { guard, len, _elements: PhantomData }), waited)
    }
}

impl<T> Clone for Elements<T> {
    fn clone(&self) -> Self {
        Elements { region: self.region.clone(), len: self.len, _elements: PhantomData }
    }
}

impl<T> Serialize for Elements<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.region.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Elements<T>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Elements::open(Region::deserialize(deserializer)?).map_err(multiproc_wire::fail)
    }
}
