#![allow(unsafe_code)] // The guards: taking, releasing, and what they lend out.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::slice;
use std::sync::atomic::Ordering::Relaxed;

use super::{Bytes, Extent, HEADER_AT, Header, Inner, Region};
use crate::condition::Guard;
use crate::error::{Kind, LockError, MemoryError, Reason};
use crate::raw_lock::{Held, RawLock, Wait};

/// The lock of a region's bytes, held. Dropping it releases the lock, poisoned if a panic has
/// started since it was taken.
///
/// # Examples
///
/// ```
/// use multiproc_sync::RawLock;
/// use multiproc_sync::region::Region;
///
/// let region = Region::<RawLock>::create("example", 3)?;
/// let mut guard = region.lock()?;
/// guard.bytes_mut()[0] = 7;
/// assert_eq!(guard.bytes(), [7, 0, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct RegionGuard<'a, H> {
    region: &'a Region<H>,
    held: Held,
    /// The lock belongs to the thread.
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard lends out shared bytes, which no other thread of any process changes.
unsafe impl<H> Sync for RegionGuard<'_, H> {}

impl<'a, H: Header> RegionGuard<'a, H> {
    #[inline]
    pub(super) fn take(region: &'a Region<H>, wait: Wait, anyway: bool) -> Result<Self, LockError> {
        let preamble = region.preamble();
        // SAFETY: the head stays mapped while the guard borrows the region, and if the guard is
        // forgotten, while the thread lives: see `Inner::drop`.
        let held = unsafe { preamble.lock.lock(&region.guess, wait)? };
        let mut guard = RegionGuard { region, held, _not_send: PhantomData };
        if !anyway && preamble.lock.is_poisoned_while_held() {
            return Err(Kind::Poisoned.into());
        }
        if region.growable && guard.bytes().len() as u64 != preamble.len() {
            guard.follow()?;
        }
        Ok(guard)
    }

    /// Maps the bytes anew after another process has made them more.
    #[cold]
    fn follow(&mut self) -> Result<(), LockError> {
        let inner = &*self.region.inner;
        let bytes = Bytes::map(&inner.memory, inner.extent.at, inner.preamble().len())
            .map_err(|source| LockError::system("follow the growth of shared memory", source))?;
        // SAFETY: this thread holds the lock, and `&mut self` says that nothing borrows the bytes.
        unsafe { *inner.bytes.get() = bytes };
        Ok(())
    }

    /// Makes the bytes `len` if they are fewer. Those that are new are zero.
    ///
    /// # Errors
    ///
    /// The region was not created growable, or the length overflows, or there is no address space
    /// left. The bytes are as they were.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create_growable("example", 3)?;
    /// let mut guard = region.lock()?;
    /// guard.grow(5000)?;
    /// assert_eq!(guard.bytes().len(), 5000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grow(&mut self, len: usize) -> Result<(), MemoryError> {
        let inner = &*self.region.inner;
        if len <= self.bytes().len() {
            return Ok(());
        }
        let grow = || -> Result<_, Reason> {
            let extent = Extent { len: len as u64, ..inner.extent };
            inner.memory.grow(extent.end()?)?;
            let bytes = Bytes::map(&inner.memory, extent.at, extent.len)?;
            // SAFETY: as in `follow`.
            unsafe { *inner.bytes.get() = bytes };
            inner.preamble().set_len(extent.len);
            Ok(())
        };
        grow().map_err(|reason| MemoryError { operation: "cannot grow shared memory", reason })
    }

    /// Makes the bytes of the range zero, and gives the memory behind whole pages of it back to the
    /// system.
    ///
    /// # Errors
    ///
    /// The system refuses.
    ///
    /// # Panics
    ///
    /// If the range is not within the bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 8192)?;
    /// let mut guard = region.lock()?;
    /// guard.bytes_mut().fill(7);
    /// guard.discard(0..4096)?;
    /// assert_eq!((guard.bytes()[4095], guard.bytes()[4096]), (0, 7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn discard(&mut self, range: Range<usize>) -> Result<(), MemoryError> {
        let inner = &*self.region.inner;
        let (start, len) = (range.start as u64, self.bytes_mut()[range].len() as u64);
        inner.memory.discard(inner.extent.at + start, len).map_err(|error| MemoryError {
            operation: "cannot give shared memory back",
            reason: error.into(),
        })
    }
}

impl<H> RegionGuard<'_, H> {
    /// The bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// assert_eq!(region.lock()?.bytes(), [0; 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: this thread holds the lock, so that
        // 1. nobody else, here or in another process, changes the bytes or where they are mapped;
        // 2. this guard is the only one, and borrowed as long as the slice.
        unsafe {
            let bytes = &*self.region.inner.bytes.get();
            slice::from_raw_parts(bytes.start.as_ptr(), bytes.len)
        }
    }

    /// The bytes, to be changed.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// region.lock()?.bytes_mut().fill(7);
    /// assert_eq!(region.lock()?.bytes(), [7; 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the guard is borrowed exclusively.
        unsafe {
            let bytes = &*self.region.inner.bytes.get();
            slice::from_raw_parts_mut(bytes.start.as_ptr(), bytes.len)
        }
    }

    /// The region whose lock this is.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// let guard = region.lock()?;
    /// assert!(guard.region().same(&region));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn region(&self) -> &Region<H> {
        self.region
    }
}

impl<H: Header> Guard for RegionGuard<'_, H> {
    fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, LockError>, R) {
        let region = self.region;
        drop(self);
        let waited = wait();
        (region.lock(), waited)
    }
}

impl<H> Drop for RegionGuard<'_, H> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it was locked by this thread, which the guard has not left, and is mapped.
        unsafe { self.region.preamble().lock.unlock(self.held) };
    }
}

impl<H> fmt::Debug for RegionGuard<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionGuard").field("len", &self.bytes().len()).finish_non_exhaustive()
    }
}

/// A lock in a region's header, held. Dropping it releases the lock.
///
/// # Examples
///
/// ```
/// use multiproc_os::deadline::Deadline;
/// use multiproc_sync::RawLock;
/// use multiproc_sync::region::Region;
///
/// let region = Region::<RawLock>::create("example", 0)?;
/// let gate = region.lock_gate(|gate| gate, Deadline::NEVER)?;
/// assert!(region.try_lock_gate(|gate| gate).unwrap_err().is_deadlock());
/// drop(gate);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the gate is opened at once"]
pub struct GateGuard<'a> {
    inner: &'a Inner,
    gate: &'a RawLock,
    held: Held,
    holder_died: bool,
    _not_send: PhantomData<*mut ()>,
}

impl<'a> GateGuard<'a> {
    pub(super) fn take<H: Header>(
        region: &'a Region<H>,
        pick: impl FnOnce(&H) -> &RawLock,
        wait: Wait,
    ) -> Result<Self, LockError> {
        let inner = &*region.inner;
        let gate = pick(region.header());
        let at = std::ptr::from_ref(gate).addr().wrapping_sub(inner.head.as_ptr().addr());
        let header = HEADER_AT..=HEADER_AT + size_of::<H>() - size_of::<RawLock>();
        assert!(header.contains(&at), "the gate is not in the header of the region");
        inner.gates.fetch_add(1, Relaxed);
        // SAFETY: the gate is in the head, which stays mapped while it is counted.
        let held = unsafe { gate.lock(&gate.guess(), wait) }.inspect_err(|_| {
            inner.gates.fetch_sub(1, Relaxed);
        })?;
        let holder_died = gate.is_poisoned_while_held();
        if holder_died {
            gate.clear_poison();
        }
        Ok(GateGuard { inner, gate, held, holder_died, _not_send: PhantomData })
    }

    /// Tells whether the previous holder has died, or panicked, with the gate held.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 0)?;
    /// let gate = region.try_lock_gate(|gate| gate)?;
    /// assert!(!gate.is_none_or(|gate| gate.holder_died()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn holder_died(&self) -> bool {
        self.holder_died
    }
}

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: as for `RegionGuard`.
        unsafe { self.gate.unlock(self.held) };
        self.inner.gates.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for GateGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateGuard").field("holder_died", &self.holder_died).finish_non_exhaustive()
    }
}
