//! The thread's list of held locks, which the kernel walks when the thread dies.
//!
//! The C library registers a list head for each of its threads, for its own robust mutexes. Locks
//! of ours stand in the same list: entries link to each other at addresses, and the kernel finds
//! the lock's word at a fixed offset from an entry, the same for all entries of a list. So a lock
//! must look as one of the C library does, as far as the list goes:
//!
//! | C library | word | previous | next, the entry's address |
//! | --- | --- | --- | --- |
//! | glibc | 0 | 24 | 32 |
//! | musl | 4 | 24 | 32 |
//!
//! Whoever dies within an operation has announced it as pending, so that the kernel looks at that
//! lock too, whether it is in the list or not.
#![allow(unsafe_code)] // Works on a list that the C library owns, whose entries are addresses.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicUsize, compiler_fence};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Where the lock's word is, seen from the entry.
pub const FUTEX_OFFSET: isize = if cfg!(target_env = "musl") { -28 } else { -32 };

/// How many locks of ours a thread may hold. The kernel walks 2,048 entries and no more; the rest
/// is for mutexes of the C library.
pub const MOST_HELD: u32 = 2_000;

/// A lock's place in the list: the previous entry and the next one. Zero when the lock is made.
///
/// The second is what the list's addresses refer to.
pub type Links = [AtomicUsize; 2];

/// Set in an address for a mutex with priority inheritance.
const MARK: usize = 1;

/// `struct robust_list_head` of the kernel.
#[repr(C)]
struct Head {
    /// The first entry; the head itself if there is none.
    next: AtomicUsize,
    futex_offset: AtomicIsize,
    pending: AtomicUsize,
}

/// The calling thread, its kernel number and its list.
///
/// It does not leave its thread.
#[derive(Clone, Copy)]
pub struct Thread {
    /// In the thread's own memory, so as good as `'static` to whoever cannot leave the thread.
    state: &'static State,
}

struct State {
    /// The value of [`generation`] for which the rest was found out.
    generation: Cell<u32>,
    id: Cell<u32>,
    process: Cell<u32>,
    head: Cell<*const Head>,
    /// How many locks of ours are in the list.
    held: Cell<u32>,
    /// Stands in where the C library has no head, as after a raw `clone`.
    own_head: Head,
}

/// The generation of a thread that has not asked yet.
const NEVER: u32 = u32::MAX;

thread_local! {
    static STATE: State = const {
        State {
            generation: Cell::new(NEVER),
            id: Cell::new(0),
            process: Cell::new(0),
            head: Cell::new(ptr::null()),
            held: Cell::new(0),
            own_head: Head {
                next: AtomicUsize::new(0),
                futex_offset: AtomicIsize::new(FUTEX_OFFSET),
                pending: AtomicUsize::new(0),
            },
        }
    };
}

impl Thread {
    /// The calling thread. Costs two loads, but for the first time in a thread or after a fork.
    ///
    /// # Errors
    ///
    /// The kernel does not tell about the list, or the C library's mutexes are laid out as none that
    /// we know.
    #[inline]
    pub fn current() -> io::Result<Self> {
        STATE.with(|state| {
            // SAFETY: the memory stays until the thread has run its last code, since `State` needs
            // no drop; and neither a `Thread` nor anything made of it is `Send`.
            let state = unsafe { &*ptr::from_ref(state) };
            if state.generation.get() != generation() {
                refresh(state)?;
            }
            Ok(Thread { state })
        })
    }

    /// Its number, as the kernel has it in `gettid`.
    #[inline]
    pub fn id(self) -> u32 {
        self.state.id.get()
    }

    /// The number of its process.
    #[inline]
    pub fn process(self) -> u32 {
        self.state.process.get()
    }

    /// Tells whether it may hold one lock more.
    #[inline]
    pub fn has_room(self) -> bool {
        self.state.held.get() < MOST_HELD
    }

    /// Announces that this lock is about to be taken, or waited for, or released. If the thread dies
    /// before [`conclude`](Self::conclude), the kernel looks at the lock: it marks it if the thread
    /// owns it, and wakes a sleeper if nobody does.
    ///
    /// # Safety
    ///
    /// The lock stays mapped until the operation is concluded.
    #[inline]
    pub unsafe fn announce(self, lock: &Links) {
        self.head().pending.store(address(lock), Relaxed);
        compiler_fence(SeqCst);
    }

    /// Ends what was announced.
    #[inline]
    pub fn conclude(self) {
        compiler_fence(SeqCst);
        self.head().pending.store(0, Relaxed);
    }

    /// Puts the lock, which the thread has just taken, into the list.
    ///
    /// # Safety
    ///
    /// 1. It is in no list, and was announced.
    /// 2. It stays mapped, at this address, until it is unlinked or the thread has ended.
    #[inline]
    pub unsafe fn link(self, lock: &Links) {
        compiler_fence(SeqCst);
        let [previous, next] = lock;
        let (head, entry) = (self.head(), address(lock));
        let first = head.next.load(Relaxed);
        next.store(first, Relaxed);
        previous.store(self.state.head.get().addr(), Relaxed);
        if first & !MARK != self.state.head.get().addr() {
            // SAFETY: an entry of the list is mapped, with its previous link before the next.
            unsafe { previous_of(first & !MARK) }.store(entry, Relaxed);
        }
        // The list that the kernel would walk is whole before and after this store.
        compiler_fence(SeqCst);
        head.next.store(entry, Relaxed);
        self.state.held.set(self.state.held.get() + 1);
    }

    /// Takes the lock, which the thread is about to release, out of the list.
    ///
    /// # Safety
    ///
    /// It is in the list of this thread, and its release was announced.
    #[inline]
    pub unsafe fn unlink(self, lock: &Links) {
        compiler_fence(SeqCst);
        let [previous, next] = lock;
        let (previous, next) = (previous.load(Relaxed), next.load(Relaxed));
        // SAFETY: what comes before a lock in the list is the head or an entry. Both are mapped, and
        // are at their address what follows them. As in `link`, one store changes what the kernel
        // would walk.
        unsafe { next_of(previous & !MARK) }.store(next, Relaxed);
        compiler_fence(SeqCst);
        if next & !MARK != self.state.head.get().addr() {
            // SAFETY: as in `link`.
            unsafe { previous_of(next & !MARK) }.store(previous, Relaxed);
        }
        self.state.held.set(self.state.held.get() - 1);
        compiler_fence(SeqCst);
    }

    #[inline]
    fn head(self) -> &'static Head {
        // SAFETY: `refresh` has set it to the head that the kernel has of this thread, in memory of
        // the thread itself.
        unsafe { &*self.state.head.get() }
    }
}

/// Tells whether the number is that of a living thread of this process.
pub fn is_thread_of_this_process(id: u32) -> bool {
    let Ok(id) = i32::try_from(id) else { return false };
    // SAFETY: without a signal, the call sends nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, 0) == 0 }
}

/// What the list has as the lock's address.
#[inline]
fn address(lock: &Links) -> usize {
    ptr::from_ref(&lock[1]).expose_provenance()
}

/// # Safety
///
/// The address is that of an entry.
#[inline]
unsafe fn previous_of<'a>(entry: usize) -> &'a AtomicUsize {
    // SAFETY: an entry's previous link stands before it; the caller vouches for the entry.
    unsafe { &*ptr::with_exposed_provenance(entry - size_of::<usize>()) }
}

/// # Safety
///
/// The address is that of an entry or of the head.
#[inline]
unsafe fn next_of<'a>(entry: usize) -> &'a AtomicUsize {
    // SAFETY: the caller vouches for it.
    unsafe { &*ptr::with_exposed_provenance(entry) }
}

/// Finds out about the thread, in a process that may be a new one.
#[cold]
fn refresh(state: &State) -> io::Result<()> {
    let generation = begin_generation()?;
    let mut head = registered_head()?;
    if head.is_null() && cfg!(target_env = "musl") {
        if state.generation.get() != NEVER && !state.head.get().is_null() {
            // After a fork, musl leaves the parent's entries in the list of the child.
            // SAFETY: the head is in memory of this thread, at the address that it had in the
            // parent; no mutex was linked since the fork, or the head would be registered.
            unsafe { (*state.head.get()).next.store(state.head.get().addr(), Relaxed) };
        }
        lock_a_mutex()?;
        head = registered_head()?;
    }
    if head.is_null() {
        head = register(&state.own_head)?;
    }
    // SAFETY: the kernel was given it as the head of this thread.
    let offset = unsafe { (*head).futex_offset.load(Relaxed) };
    if offset != FUTEX_OFFSET {
        let text = format!(
            "the C library keeps the word of a mutex {offset} bytes from its list entry, not {FUTEX_OFFSET}"
        );
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    state.id.set(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    state.process.set(std::process::id());
    state.head.set(head);
    // A child holds none of its parent's locks.
    state.held.set(0);
    state.generation.set(generation);
    Ok(())
}

fn registered_head() -> io::Result<*const Head> {
    let mut head: *const Head = ptr::null();
    let mut len = 0usize;
    // SAFETY: the call writes an address and a length.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &mut head, &mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(head)
}

fn register(head: &Head) -> io::Result<*const Head> {
    let pointer = ptr::from_ref(head);
    head.next.store(pointer.expose_provenance(), Relaxed);
    // SAFETY: the head is in memory of this thread, which stays until the thread has ended.
    let result = unsafe { libc::syscall(libc::SYS_set_robust_list, pointer, size_of::<Head>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pointer)
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

/// A word that is not zero, and that the kernel makes zero in a child: a fork that bypasses the C
/// library is noticed too. Before it is made, a word that is zero for good.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::from_ref(&ZERO).cast_mut());
static ZERO: AtomicU32 = AtomicU32::new(0);

/// Differs from that of every process that this one was forked from; zero if it is yet to be set.
#[inline]
fn generation() -> u32 {
    // SAFETY: it points to `ZERO`, or to a page that is never unmapped.
    unsafe { &*WORD.load(Acquire) }.load(Relaxed)
}

/// Sets the generation of this process, if no other thread has, and returns it.
fn begin_generation() -> io::Result<u32> {
    /// Copied by a fork, unlike the word.
    static LAST: AtomicU32 = AtomicU32::new(0);

    make_word()?;
    // SAFETY: as in `generation`.
    let word = unsafe { &*WORD.load(Acquire) };
    let next = match LAST.fetch_add(1, Relaxed).wrapping_add(1) {
        0 | NEVER => 1,
        next => next,
    };
    match word.compare_exchange(0, next, Relaxed, Relaxed) {
        Ok(_) => Ok(next),
        Err(set) => Ok(set),
    }
}

fn make_word() -> io::Result<()> {
    const LEN: usize = size_of::<AtomicU32>();
    let zero = ptr::from_ref(&ZERO).cast_mut();
    if WORD.load(Acquire) != zero {
        return Ok(());
    }
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), LEN, protection, flags)? };
    // SAFETY: what a child finds zero in it is an atomic number.
    let advised = unsafe { madvise(page, LEN, Advice::LinuxWipeOnFork) };
    let first = || WORD.compare_exchange(zero, page.cast(), AcqRel, Acquire).is_ok();
    if advised.is_err() || !first() {
        // SAFETY: nobody else knows of the page.
        unsafe { munmap(page, LEN)? };
    }
    Ok(advised?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Default)]
    struct Lock {
        words: [AtomicU32; 6],
        links: Links,
    }

    /// The locks of ours in the list, first to last. Mutexes of the C library are not expected.
    fn listed(thread: Thread) -> Vec<usize> {
        let mut all = Vec::new();
        let mut entry = thread.head().next.load(Relaxed);
        while entry != thread.state.head.get().addr() {
            all.push(entry);
            // SAFETY: an entry of the list.
            entry = unsafe { next_of(entry) }.load(Relaxed);
        }
        all
    }

    #[test]
    fn a_thread_knows_its_number_and_its_list() {
        let id = || Thread::current().unwrap().id();
        assert_eq!(id(), rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
        assert_eq!(id(), id());
        let other = std::thread::spawn(id).join().unwrap();
        assert_ne!(other, id());
        assert!(is_thread_of_this_process(id()));
        assert!(!is_thread_of_this_process(u32::MAX));
        assert!(!is_thread_of_this_process(0));
    }

    #[test]
    fn locks_are_linked_and_unlinked_in_any_order() {
        let thread = Thread::current().unwrap();
        let locks: [Lock; 3] = Default::default();
        let [a, b, c] = [0, 1, 2].map(|i| address(&locks[i].links));
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for order in orders {
            for lock in &locks {
                // SAFETY: the locks outlive the test.
                unsafe {
                    thread.announce(&lock.links);
                    thread.link(&lock.links);
                    thread.conclude();
                }
            }
            assert_eq!(listed(thread), [c, b, a]);
            let mut left = vec![c, b, a];
            for i in order {
                // SAFETY: they were linked above.
                unsafe {
                    thread.announce(&locks[i].links);
                    thread.unlink(&locks[i].links);
                    thread.conclude();
                }
                left.retain(|entry| *entry != [a, b, c][i]);
                assert_eq!(listed(thread), left);
            }
        }
        assert_eq!(thread.state.held.get(), 0);
    }

    #[test]
    fn the_kernel_marks_what_a_dead_thread_has_held() {
        const OWNER_DIED: u32 = 1 << 30;
        let locks: &'static [Lock; 2] = Box::leak(Box::default());
        std::thread::spawn(move || {
            let thread = Thread::current().unwrap();
            let word = if cfg!(target_env = "musl") { 1 } else { 0 };
            for lock in locks {
                lock.words[word].store(thread.id(), Relaxed);
                // SAFETY: the locks are never freed.
                unsafe { thread.announce(&lock.links) };
            }
            // SAFETY: as above. The second stays announced only.
            unsafe { thread.link(&locks[0].links) };
        })
        .join()
        .unwrap();
        // A joined thread has written its last word, but the kernel may be at its list yet.
        for lock in locks {
            let word = &lock.words[if cfg!(target_env = "musl") { 1 } else { 0 }];
            while word.load(Acquire) != OWNER_DIED {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn pthread_mutexes_share_the_list() {
        let thread = Thread::current().unwrap();
        let ours = Lock::default();
        // SAFETY: the mutex is initialised before it is used and does not move; the lock outlives
        // its place in the list.
        unsafe {
            let mut attributes = std::mem::zeroed();
            libc::pthread_mutexattr_init(&mut attributes);
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            let mut mutexes: [libc::pthread_mutex_t; 2] = std::mem::zeroed();
            for mutex in &mut mutexes {
                assert_eq!(libc::pthread_mutex_init(mutex, &attributes), 0);
            }
            let [first, second] = &mut mutexes;
            assert_eq!(libc::pthread_mutex_lock(first), 0);
            thread.announce(&ours.links);
            thread.link(&ours.links);
            thread.conclude();
            assert_eq!(libc::pthread_mutex_lock(second), 0);
            assert_eq!(listed(thread).len(), 3);
            assert_eq!(libc::pthread_mutex_unlock(first), 0);
            assert_eq!(listed(thread)[1], address(&ours.links));
            thread.announce(&ours.links);
            thread.unlink(&ours.links);
            thread.conclude();
            assert_eq!(libc::pthread_mutex_unlock(second), 0);
            assert!(listed(thread).is_empty());
        }
    }
}
