#![allow(unsafe_code)] // Entries of the list are addresses.

use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Where a mutex of the C library has its kind, it has none like this.
const OURS: u32 = 0x6d70_0000;
const DEPTH: u32 = 0xffff;
/// What stands for the process if several have lost the lock.
pub(super) const SEVERAL: u32 = u32::MAX;

/// What stands before a lock's links: in one half, where a mutex of glibc has its kind on machines of
/// either byte order, that it is ours, and its depth in the list; in the other, the process that has
/// lost it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(usize);

impl Tag {
    const KIND_SHIFT: u32 = if cfg!(target_endian = "little") { 0 } else { 32 };

    #[inline]
    pub(super) fn new(depth: u32, lost_to: u32) -> Self {
        let kind = OURS | depth;
        Tag((kind as usize) << Self::KIND_SHIFT | (lost_to as usize) << (32 - Self::KIND_SHIFT))
    }

    #[inline]
    pub(super) fn load(place: &AtomicUsize) -> Self {
        Tag(place.load(Relaxed))
    }

    pub(super) fn store(self, place: &AtomicUsize) {
        place.store(self.0, Relaxed);
    }

    /// `None` if it is not that of a lock of ours.
    pub(super) fn depth(self) -> Option<u32> {
        let kind = (self.0 >> Self::KIND_SHIFT) as u32;
        (kind & !DEPTH == OURS).then_some(kind & DEPTH)
    }

    pub(super) fn lost_to(self) -> u32 {
        (self.0 >> (32 - Self::KIND_SHIFT)) as u32
    }
}

/// Where an entry has its tag, if it is a lock of ours.
///
/// # Safety
///
/// The address is that of an entry.
pub(super) unsafe fn of<'a>(entry: usize) -> &'a AtomicUsize {
    // SAFETY: a lock or a mutex reaches there; the caller vouches for the entry.
    unsafe { &*ptr::with_exposed_provenance(entry - 2 * size_of::<usize>()) }
}
