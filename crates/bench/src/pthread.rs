//! The C library's mutexes, bare and through raw_sync, in memory that processes share.
#![allow(unsafe_code)] // The peers' own interfaces.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64};

use multiproc_os::memory::{Mapping, Memory};
use raw_sync::events::{EventImpl, EventInit};
use raw_sync::locks::{LockImpl, LockInit};

/// Memory for the peers' words.
pub struct Page {
    mapping: Mapping,
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl Page {
    /// A page of zeros.
    pub fn new() -> Self {
        Page { mapping: Memory::create("bench", 4096).unwrap().map(0, 4096).unwrap() }
    }

    /// The word at this byte.
    pub fn word32(&self, at: usize) -> &AtomicU32 {
        assert!(at + 4 <= 4096);
        // SAFETY: within the mapping, aligned, and used as atomic words only.
        unsafe { &*self.mapping.as_ptr().add(at).cast() }
    }

    /// The word at this byte.
    pub fn word64(&self, at: usize) -> &AtomicU64 {
        assert!(at + 8 <= 4096);
        // SAFETY: as above.
        unsafe { &*self.mapping.as_ptr().add(at).cast() }
    }
}

/// The C library's.
pub struct Mutex(*mut libc::pthread_mutex_t);

impl Mutex {
    /// Makes it at this byte.
    pub fn new(page: &Page, at: usize, robust: bool) -> Self {
        let mutex = page.word64(at).as_ptr().cast::<libc::pthread_mutex_t>();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised first; the mutex has room in the page.
        unsafe {
            assert_eq!(libc::pthread_mutexattr_init(attributes), 0);
            let shared = libc::PTHREAD_PROCESS_SHARED;
            assert_eq!(libc::pthread_mutexattr_setpshared(attributes, shared), 0);
            if robust {
                let robust = libc::PTHREAD_MUTEX_ROBUST;
                assert_eq!(libc::pthread_mutexattr_setrobust(attributes, robust), 0);
            }
            assert_eq!(libc::pthread_mutex_init(mutex, attributes), 0);
        }
        Mutex(mutex)
    }

    /// Does something while it is held.
    pub fn with(&self, section: impl Fn()) {
        // SAFETY: it is initialised, and stays in its page.
        unsafe { assert_eq!(libc::pthread_mutex_lock(self.0), 0) };
        section();
        // SAFETY: as above, and held.
        unsafe { assert_eq!(libc::pthread_mutex_unlock(self.0), 0) };
    }
}

/// One of raw_sync's, at this byte.
pub fn raw_sync(page: &Page, at: usize) -> Box<dyn LockImpl> {
    let memory = page.word64(at).as_ptr().cast();
    // SAFETY: there is room in the page, which outlives it.
    unsafe { raw_sync::locks::Mutex::new(memory, memory) }.unwrap().0
}

/// An event of raw_sync's, which resets itself, at this byte.
pub fn raw_sync_event(page: &Page, at: usize) -> Box<dyn EventImpl> {
    let memory = page.word64(at).as_ptr().cast();
    // SAFETY: as above.
    unsafe { raw_sync::events::Event::new(memory, true) }.unwrap().0
}
