#![allow(unsafe_code)] // A page that the kernel wipes in children.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::deadline::Deadline;

/// No process has it. Those that processes have are less.
pub(super) const NEVER: u64 = u32::MAX as u64;

/// What a process knows of itself. The kernel makes it zero in a child, so that a fork that bypasses
/// the C library is noticed too.
pub(super) struct Page {
    /// Differs from that of every process that this one was forked from.
    generation: AtomicU64,
    /// As good as unique among all processes of the machine, past ones included.
    identity: AtomicU32,
}

/// Before the page is made, one that is zero for good.
static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::from_ref(&ZERO).cast_mut());
static ZERO: Page = Page { generation: AtomicU64::new(0), identity: AtomicU32::new(0) };

impl Page {
    /// That of a process which never asked for one.
    pub(super) const NONE: &Page = &ZERO;

    /// The generation of this process; zero if it is yet to begin.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// The identity of this process, once its generation has begun.
    pub(super) fn identity(&self) -> u32 {
        self.identity.load(Relaxed)
    }
}

#[inline]
pub(super) fn page() -> &'static Page {
    // SAFETY: it points to `ZERO`, or to a page that is never unmapped.
    unsafe { &*PAGE.load(Acquire) }
}

/// Begins the generation of this process, if no other thread has. From then on, a child that the C
/// library forks calls `in_child` first.
pub(super) fn begin(in_child: extern "C" fn()) -> io::Result<&'static Page> {
    /// Copied by a fork, unlike the page.
    static LAST: AtomicU32 = AtomicU32::new(0);

    make_page(in_child)?;
    let page = page();
    // The first one to write it wins; whoever reads the generation finds it written.
    let _lost = page.identity.compare_exchange(0, new_identity(), Relaxed, Relaxed);
    let next = match u64::from(LAST.fetch_add(1, Relaxed).wrapping_add(1)) {
        0 | NEVER => 1,
        next => next,
    };
    let _lost = page.generation.compare_exchange(0, next, AcqRel, Acquire);
    Ok(page)
}

fn new_identity() -> u32 {
    // The state is random, but a fork copies it.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    if let Some(now) = Deadline::now().timespec() {
        hasher.write_i64(now.tv_sec);
        hasher.write_i64(now.tv_nsec);
    }
    (hasher.finish() as u32).clamp(1, u32::MAX - 1)
}

fn make_page(in_child: extern "C" fn()) -> io::Result<()> {
    const LEN: usize = size_of::<Page>();
    let zero = ptr::from_ref(&ZERO).cast_mut();
    if PAGE.load(Acquire) != zero {
        return Ok(());
    }
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), LEN, protection, flags)? };
    // SAFETY: what a child finds zero in it are atomic numbers.
    let advised = unsafe { madvise(page, LEN, Advice::LinuxWipeOnFork) };
    let first = || PAGE.compare_exchange(zero, page.cast(), AcqRel, Acquire).is_ok();
    // SAFETY: registers a function of this program, which stays.
    let registered = match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    if advised.is_err() || registered.is_err() || !first() {
        // SAFETY: nobody else knows of the page.
        unsafe { munmap(page, LEN)? };
    }
    registered.and(Ok(advised?))
}
