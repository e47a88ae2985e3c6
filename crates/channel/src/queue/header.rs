use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

use multiproc_sync::RawLock;
use multiproc_sync::region::Header as RegionHeader;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// The words of a queue: see the crate's README. Those that one side writes for each item share no
/// cache line with those that the other does, nor with those that hardly ever change.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) putters: RawLock,
    pub(super) tail: AtomicU64,
    pub(super) put: AtomicU64,
    pub(super) head_seen: AtomicU64,
    pub(super) got_seen: AtomicU64,
    pub(super) unfinished: AtomicU64,
    pub(super) next_unfinished: AtomicU64,
    pub(super) next_tail: AtomicU64,
    pub(super) rounds: AtomicU64,

    pub(super) getters: RawLock,
    pub(super) head: AtomicU64,
    pub(super) got: AtomicU64,
    pub(super) tail_seen: AtomicU64,
    _reserved: [AtomicU64; 5],

    pub(super) capacity: AtomicU64,
    pub(super) bound: AtomicU64,
    pub(super) closed: AtomicU32,
    pub(super) joinable: AtomicU32,
    pub(super) consumer_sleeps: AtomicU32,
    pub(super) producer_sleeps: AtomicU32,
    pub(super) joiner_sleeps: AtomicU32,
    pub(super) items_polled: AtomicU32,
    pub(super) room_polled: AtomicU32,
    pub(super) done_polled: AtomicU32,
    pub(super) markers: AtomicU64,
    pub(super) last_number: AtomicU64,

    pub(super) consumers: RawLock,
    pub(super) producers: RawLock,
    pub(super) joiners: RawLock,
    pub(super) items: AtomicU32,
    pub(super) room: AtomicU32,
    pub(super) done: AtomicU32,
    pub(super) strays: AtomicU32,
}

impl RegionHeader for Header {
    const KIND: [u8; 8] = *b"queue\0\0\0";
}

impl Header {
    /// Before anybody else has the region.
    pub(super) fn set_up(&self, bound: u64, capacity: u64, joinable: bool) {
        self.bound.store(bound, Relaxed);
        self.joinable.store(joinable.into(), Relaxed);
        self.capacity.store(capacity, Relaxed);
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Acquire) != 0
    }

    #[inline]
    pub(super) fn is_joinable(&self) -> bool {
        self.joinable.load(Relaxed) != 0
    }

    #[inline]
    pub(super) fn has_item_or_end(&self) -> bool {
        self.tail.load(Acquire) != self.head.load(Relaxed) || self.is_closed()
    }

    /// How many items there are at a moment of the call.
    pub(super) fn count(&self) -> u64 {
        loop {
            let put = self.put.load(Acquire);
            let got = self.got.load(Acquire);
            if self.put.load(Relaxed) == put {
                // Those that were taken out since were put in before.
                return put.saturating_sub(got);
            }
            std::hint::spin_loop();
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.bound.load(Relaxed)
    }
}
