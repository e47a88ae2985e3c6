//! The thread's list of held locks, which the kernel walks when the thread dies.
//!
//! The C library registers a list head for each of its threads, for its own robust mutexes. Locks
//! of ours stand in the same list: entries link to each other at addresses, and the kernel finds
//! the lock's word at a fixed offset from an entry, the same for all entries of a list. So a lock
//! must look as one of the C library does, as far as the list goes:
//!
//! | C library | word | kind | previous | next, the entry's address |
//! | --- | --- | --- | --- | --- |
//! | glibc | 0 | 16 | 24 | 32 |
//! | musl | 4 | 0 | 24 | 32 |
//!
//! Whoever dies within an operation has announced it as pending, so that the kernel looks at that
//! lock too, whether it is in the list or not.
#![allow(unsafe_code)] // Works on a list that the C library owns, whose entries are addresses.

mod generation;
mod head;
mod tag;

use std::cell::Cell;
use std::io;
use std::iter;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicUsize, compiler_fence};

use generation::Page;
use head::Head;
use tag::{SEVERAL, Tag};

/// Where the lock's word is, seen from the entry.
pub const FUTEX_OFFSET: isize = if cfg!(target_env = "musl") { -28 } else { -32 };

/// How many locks a thread may hold. The kernel walks 2,048 entries and no more; the rest is for
/// mutexes of the C library that are locked later.
pub const MOST_HELD: u32 = 2_000;
const MOST_WALKED: usize = 2_048;

/// The generation of no process. Those that processes have are less, so that 32 bits hold them.
pub const NO_GENERATION: u64 = generation::NEVER;

/// A lock's place in the list: its *tag*, the previous entry and the next one. Zero when the lock is
/// made. The last is what the list's addresses refer to.
///
/// The tag says that it is a lock of ours, how many locks were held when it was taken (or fewer), and
/// which process has lost it: a thread of that has ended with the lock held.
pub type Links = [AtomicUsize; 3];

/// Set in an address for a mutex with priority inheritance.
const MARK: usize = 1;

/// The calling thread and its list.
///
/// It does not leave its thread.
#[derive(Clone, Copy)]
pub struct Thread {
    /// In the thread's own memory, so as good as `'static` to whoever cannot leave the thread.
    head: &'static Head,
    _not_send: PhantomData<*const ()>,
}

/// What is found out once for each thread of each process.
struct State {
    page: Cell<&'static Page>,
    /// That of the page when the rest was found out.
    generation: Cell<u64>,
    id: Cell<u32>,
    head: Cell<NonNull<Head>>,
    /// Stands in where the C library has no head, as after a raw `clone`.
    own_head: Head,
}

thread_local! {
    static STATE: State = const {
        State {
            page: Cell::new(Page::NONE),
            generation: Cell::new(generation::NEVER),
            id: Cell::new(0),
            head: Cell::new(NonNull::dangling()),
            own_head: Head::new(),
        }
    };
    static END: End = const { End };
}

/// Room in the list for one lock more.
#[derive(Clone, Copy)]
pub struct Room {
    /// What comes after it.
    first: usize,
    /// How many there will be then, or fewer.
    depth: u32,
}

impl Room {
    /// Tells whether no other lock is in the list.
    #[inline]
    pub fn is_alone(self) -> bool {
        self.depth == 1
    }
}

impl Thread {
    /// The calling thread. Costs some loads, but for the first time in a thread or after a fork.
    ///
    /// # Errors
    ///
    /// The kernel does not tell about the list, or the C library's mutexes are laid out as none that
    /// we know.
    #[inline]
    pub fn current() -> io::Result<Self> {
        STATE.with(|state| {
            if state.page.get().generation() != state.generation.get() {
                refresh(state)?;
            }
            Ok(Self::known(state))
        })
    }

    /// The calling thread, if it gave this generation; but not in a child into which it was copied.
    #[inline]
    pub fn still(generation: u64) -> Option<Self> {
        STATE
            .with(|state| (state.page.get().generation() == generation).then(|| Self::known(state)))
    }

    /// The calling thread, if it gave this generation and the lock is the first of its list. If it was
    /// linked [alone](Room::is_alone), it is the only one then: later ones are put before it.
    ///
    /// A caller that knows of something against it gives a number beyond 32 bits: one comparison is
    /// enough to tell that all is as usual.
    #[inline]
    pub fn still_with_first(generation: u64, lock: &Links) -> Option<Self> {
        STATE.with(|state| {
            if state.page.get().generation() != generation {
                return None;
            }
            let thread = Self::known(state);
            (thread.head.next.load(Relaxed) == address(lock)).then_some(thread)
        })
    }

    #[inline]
    fn known(state: &State) -> Self {
        // SAFETY: `refresh` has set it to the head that the kernel has of this thread. That is in
        // memory of the thread, which stays until it has run its last code, and a `Thread` is not
        // `Send`.
        let head = unsafe { state.head.get().as_ref() };
        Thread { head, _not_send: PhantomData }
    }

    /// Its number, as the kernel has it in `gettid`.
    #[inline]
    pub fn id(self) -> u32 {
        STATE.with(|state| state.id.get())
    }

    /// A number that changes with each fork. See [`still`](Self::still).
    #[inline]
    pub fn generation(self) -> u64 {
        STATE.with(|state| state.generation.get())
    }

    /// Room for one lock more. `None` if the thread holds [`MOST_HELD`].
    #[inline]
    pub fn room(self) -> Option<Room> {
        let first = self.head.next.load(Relaxed);
        if first == self.end() { Some(Room { first, depth: 1 }) } else { self.room_after(first) }
    }

    #[inline(never)]
    fn room_after(self, first: usize) -> Option<Room> {
        // SAFETY: an entry of the list.
        let depth = match Tag::load(unsafe { tag::of(first & !MARK) }).depth() {
            // Of locks that are not released in the order in which they were taken, the first one
            // may have seen many more than are held now.
            Some(depth) if depth < MOST_HELD => depth,
            _ => self.entries().count() as u32,
        };
        (depth < MOST_HELD).then(|| Room { first, depth: depth + 1 })
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
        self.head.pending.store(address(lock), Relaxed);
        compiler_fence(SeqCst);
    }

    /// The same for a lock that is announced still, as a rule: to look costs less than to write.
    ///
    /// # Safety
    ///
    /// As for [`announce`](Self::announce).
    #[inline]
    pub unsafe fn announce_again(self, lock: &Links) {
        if self.head.pending.load(Relaxed) != address(lock) {
            self.head.pending.store(address(lock), Relaxed);
        }
        compiler_fence(SeqCst);
    }

    /// Ends what was announced.
    #[inline]
    pub fn conclude(self) {
        compiler_fence(SeqCst);
        self.head.pending.store(0, Relaxed);
    }

    /// Puts the lock, which the thread has just taken, into the list.
    ///
    /// Tells whether it is lost to this process: one of its threads has ended with the lock held,
    /// so that whatever its guard has lent out may still be in use.
    ///
    /// # Safety
    ///
    /// 1. It is in no list, and was announced; the room was found since the last link or unlink.
    /// 2. It stays mapped, at this address, until it is unlinked or the thread has ended.
    #[inline]
    #[must_use]
    pub unsafe fn link(self, lock: &Links, room: Room) -> bool {
        compiler_fence(SeqCst);
        let [tag, _, next] = lock;
        let (end, alone) = (self.end(), Tag::new(1, 0));
        // What most locks need, the only one that is held, and have from the last time.
        let ready = room.first == end && Tag::load(tag) == alone && next.load(Relaxed) == end;
        // SAFETY: the room's first entry is that of the list.
        let lost = !ready && unsafe { self.prepare(lock, room) };
        // The list that the kernel would walk is whole before and after this store.
        compiler_fence(SeqCst);
        self.head.next.store(address(lock), Relaxed);
        lost
    }

    /// Writes the lock's link and tag. The link to the previous entry is not needed while it is the first,
    /// and written by whoever puts one before it. Tells whether it is lost to this process.
    ///
    /// # Safety
    ///
    /// The room is that of the list as it is.
    #[inline(never)]
    unsafe fn prepare(self, [tag, _, next]: &Links, room: Room) -> bool {
        next.store(room.first, Relaxed);
        if room.first != self.end() {
            let entry = ptr::from_ref(next).expose_provenance();
            // SAFETY: an entry of the list is mapped, with its previous link before the next.
            unsafe { previous_of(room.first & !MARK) }.store(entry, Relaxed);
        }
        let lost_to = Tag::load(tag).lost_to();
        Tag::new(room.depth, lost_to).store(tag);
        lost_to == SEVERAL || (lost_to != 0 && lost_to == this_process())
    }

    /// Takes the lock, which the thread is about to release, out of the list.
    ///
    /// # Safety
    ///
    /// It is the only one in the list of this thread, and its release was announced. What releases it
    /// is [`Release`](std::sync::atomic::Ordering::Release) at least, so that it stays behind this.
    #[inline]
    pub unsafe fn unlink_only(self) {
        compiler_fence(SeqCst);
        self.head.next.store(self.end(), Relaxed);
    }

    /// The same for one that may be among others.
    ///
    /// # Safety
    ///
    /// It is in the list of this thread, and its release was announced.
    #[inline(never)]
    pub unsafe fn unlink(self, lock: &Links) {
        compiler_fence(SeqCst);
        let [_, previous, next] = lock;
        let is_first = self.head.next.load(Relaxed) == address(lock);
        let previous = if is_first { self.end() } else { previous.load(Relaxed) };
        let next = next.load(Relaxed);
        // SAFETY: what comes before a lock in the list is the head or an entry. Both are mapped, and
        // have at their address what follows them. As in `link`, one store changes what the kernel
        // would walk.
        unsafe { next_of(previous & !MARK) }.store(next, Relaxed);
        compiler_fence(SeqCst);
        if next != self.end() {
            // SAFETY: an entry of the list is mapped, with its previous link before the next.
            unsafe { previous_of(next & !MARK) }.store(previous, Relaxed);
        }
        compiler_fence(SeqCst);
    }

    /// The addresses of the entries, as far as the kernel walks.
    fn entries(self) -> impl Iterator<Item = usize> {
        let end = self.end();
        let first = self.head.next.load(Relaxed) & !MARK;
        // SAFETY: an entry, at whose address is the next.
        let next = |entry: &usize| Some(unsafe { next_of(*entry) }.load(Relaxed) & !MARK);
        iter::successors(Some(first), next).take_while(move |entry| *entry != end).take(MOST_WALKED)
    }

    /// What the last entry refers to.
    #[inline]
    fn end(self) -> usize {
        ptr::from_ref(self.head).addr()
    }
}

/// A number of this process that none has from which it was forked. Costs three loads.
///
/// # Errors
///
/// It is asked for for the first time, and there is no memory left.
#[inline]
pub fn generation() -> io::Result<u64> {
    match generation::page().generation() {
        0 => Ok(generation::begin(forget_announced)?.generation()),
        generation => Ok(generation),
    }
}

/// Tells whether the number is that of a living thread of this process.
pub fn is_thread_of_this_process(id: u32) -> bool {
    let Ok(id) = i32::try_from(id) else { return false };
    // SAFETY: without a signal, the call sends nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, 0) == 0 }
}

/// For a child, before anything else: what its parent's thread had announced, as a lock that it holds,
/// is not the child's. In another pid namespace it may have the very number of the holder, and the
/// kernel would take its end for that of the holder.
extern "C" fn forget_announced() {
    STATE.with(|state| {
        if state.generation.get() != generation::NEVER {
            // SAFETY: it is the head of this thread, at the address that it has in the parent.
            unsafe { state.head.get().as_ref() }.pending.store(0, Relaxed);
        }
    });
}

fn this_process() -> u32 {
    STATE.with(|state| state.page.get().identity())
}

/// Runs when the thread ends in an orderly way: locks of ours that it still holds were forgotten.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let Ok(thread) = Thread::current() else { return };
        let this_process = this_process();
        for entry in thread.entries() {
            // SAFETY: an entry of the list.
            let place = unsafe { tag::of(entry) };
            let Some(depth) = Tag::load(place).depth() else { continue };
            let lost_to = match Tag::load(place).lost_to() {
                0 => this_process,
                lost_to if lost_to == this_process => lost_to,
                _ => SEVERAL,
            };
            Tag::new(depth, lost_to).store(place);
        }
    }
}

/// What the list has as the lock's address.
#[inline]
fn address(lock: &Links) -> usize {
    ptr::from_ref(&lock[2]).expose_provenance()
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
    let page = generation::begin(forget_announced)?;
    let forked = state.generation.get() != generation::NEVER;
    let old = forked.then(|| state.head.get());
    let head = head::find(old, &state.own_head)?;
    if forked {
        // As in `forget_announced`, which a fork that bypasses the C library does not call.
        // SAFETY: it is the head of this thread.
        unsafe { head.as_ref() }.pending.store(0, Relaxed);
    }
    state.id.set(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    state.head.set(head);
    state.page.set(page);
    state.generation.set(page.generation());
    // It fails in a thread that is about to end and runs the destructors of its variables.
    let _ending = END.try_with(|_| ());
    Ok(())
}

#[cfg(test)]
mod tests;
