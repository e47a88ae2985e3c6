#![allow(unsafe_code)] // What the kernel and the C library say of the list's head.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicIsize, AtomicUsize};

use super::FUTEX_OFFSET;

/// `struct robust_list_head` of the kernel.
#[repr(C)]
pub(super) struct Head {
    /// The first entry; the head itself if there is none.
    pub(super) next: AtomicUsize,
    futex_offset: AtomicIsize,
    pub(super) pending: AtomicUsize,
}

impl Head {
    /// One that is not registered.
    pub(super) const fn new() -> Self {
        Head {
            next: AtomicUsize::new(0),
            futex_offset: AtomicIsize::new(FUTEX_OFFSET),
            pending: AtomicUsize::new(0),
        }
    }
}

/// Finds the head that the kernel has of the calling thread, or gives it one. `old` is what it was
/// in the process from which this one was forked; `own` is in memory of the thread.
pub(super) fn find(old: Option<NonNull<Head>>, own: &Head) -> io::Result<NonNull<Head>> {
    let mut head = registered()?;
    if head.is_none() && cfg!(target_env = "musl") {
        if let Some(old) = old {
            // After a fork, musl leaves the parent's entries in the list of the child.
            // SAFETY: the head is in memory of this thread, at the address that it had in the
            // parent; no mutex was linked since the fork, or the head would be registered.
            unsafe { old.as_ref() }.next.store(old.addr().get(), Relaxed);
        }
        lock_a_mutex()?;
        head = registered()?;
    }
    let head = match head {
        Some(head) => head,
        // After a raw `clone`.
        None => register(own)?,
    };
    // SAFETY: the kernel was given it as the head of this thread.
    let offset = unsafe { head.as_ref() }.futex_offset.load(Relaxed);
    if offset != FUTEX_OFFSET {
        let text = format!(
            "the C library keeps the word of a mutex {offset} bytes from its list entry, not \
             {FUTEX_OFFSET}"
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(head)
}

fn registered() -> io::Result<Option<NonNull<Head>>> {
    let mut head: *mut Head = ptr::null_mut();
    let mut len = 0usize;
    // SAFETY: the call writes an address and a length.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &mut head, &mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(head))
}

fn register(head: &Head) -> io::Result<NonNull<Head>> {
    head.next.store(ptr::from_ref(head).expose_provenance(), Relaxed);
    // SAFETY: the head is in memory of this thread, which stays until the thread has ended.
    let result =
        unsafe { libc::syscall(libc::SYS_set_robust_list, ptr::from_ref(head), size_of::<Head>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::from(head))
}

/// Makes a C library register its list that does so with the first robust mutex.
fn lock_a_mutex() -> io::Result<()> {
    let check = |result| match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    // SAFETY: both objects are initialised before they are used, and the mutex is locked and
    // unlocked by this thread alone, without moving.
    unsafe {
        let mut attributes = std::mem::zeroed();
        check(libc::pthread_mutexattr_init(&mut attributes))?;
        check(libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED))?;
        check(libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST))?;
        let mut mutex = std::mem::zeroed();
        check(libc::pthread_mutex_init(&mut mutex, &attributes))?;
        check(libc::pthread_mutex_lock(&mut mutex))?;
        check(libc::pthread_mutex_unlock(&mut mutex))?;
        check(libc::pthread_mutex_destroy(&mut mutex))?;
        check(libc::pthread_mutexattr_destroy(&mut attributes))
    }
}
