//! The lock's words in shared memory: the protocol of the crate's README.
#![allow(unsafe_code)] // Links words into the thread's robust list, and names half of one to the kernel.

use std::io;
use std::mem::offset_of;
use std::slice;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, fence};
use std::thread::panicking;

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{self, Store, Waited};
use multiproc_os::patience::Patience;
use multiproc_os::robust::{self, FUTEX_OFFSET, Links, NO_GENERATION, Room, Thread};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::lock::Lock;
use crate::region::{Header, Words, sealed};

/// A lock's words, for structures in shared memory. All zeros is an unlocked one.
///
/// It is taken through whatever keeps it mapped, such as a [`Region`](crate::region::Region).
///
/// # Examples
///
/// ```
/// use std::sync::atomic::AtomicU32;
/// use multiproc_sync::RawLock;
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Turnstile {
///     gate: RawLock,
///     passed: AtomicU32,
///     sleeping: AtomicU32,
/// }
/// ```
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawLock {
    /// A `State`.
    state: AtomicU64,
    /// Not zero: whoever held the lock died or panicked, and nobody has declared the data repaired.
    poisoned: AtomicU32,
    /// The thread id of a waiter that was woken and found the lock taken again, time after time: others
    /// let it pass. A hint; it may be dead.
    hungry: AtomicU32,
    links: Links,
    /// Together a cache line.
    also_reserved: [AtomicU64; 3],
}

/// The word is where the robust list wants it: at the start of `state`, or in its second half.
const WORD_AT: usize = (offset_of!(RawLock, links) + 2 * size_of::<usize>())
    .strict_add_signed(FUTEX_OFFSET)
    .strict_sub(offset_of!(RawLock, state));
const WORD_SHIFT: u32 =
    if cfg!(target_endian = "little") { 8 * WORD_AT as u32 } else { 32 - 8 * WORD_AT as u32 };
const _: () = assert!(WORD_AT == 0 || WORD_AT == 4);
const _: () = assert!(size_of::<RawLock>() == 64);

/// The part of the word that is the holder's thread id; zero: free.
const OWNER: u32 = 0x3fff_ffff;
/// The kernel sets it, in place of the owner, when the holder dies.
const OWNER_DIED: u32 = 1 << 30;
/// Somebody may be asleep on the word.
const WAITERS: u32 = 1 << 31;
const WAITERS_BIT: u8 = 31;

/// The futex word, and a count of the times that the lock was taken with `WAITERS` set: its *turn*.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl State {
    #[inline]
    fn new(word: u32, turn: u32) -> Self {
        State(u64::from(word) << WORD_SHIFT | u64::from(turn) << (32 - WORD_SHIFT))
    }

    #[inline]
    fn word(self) -> u32 {
        (self.0 >> WORD_SHIFT) as u32
    }

    #[inline]
    fn turn(self) -> u32 {
        (self.0 >> (32 - WORD_SHIFT)) as u32
    }

    #[inline]
    fn owner(self) -> u32 {
        self.word() & OWNER
    }

    #[inline]
    fn has(self, bit: u32) -> bool {
        self.word() & bit != 0
    }

    /// What a thread makes of a free lock. `WAITERS` stays, since a woken waiter may be killed
    /// before it is here.
    #[inline]
    fn taken_by(self, thread: u32) -> Self {
        let waiters = self.word() & WAITERS;
        State::new(waiters | thread, self.turn().wrapping_add(waiters >> WAITERS_BIT))
    }
}

/// The turn that a free lock has, as far as a handle knows. It is there as soon as the lock's address
/// is; to load the state first costs 2.5 ns, of 18.
#[derive(Debug, Default)]
pub(crate) struct Guess(AtomicU32);

impl Clone for Guess {
    fn clone(&self) -> Self {
        Guess(self.0.load(Relaxed).into())
    }
}

/// A lock that was taken: the generation of the process, and above it what was unusual then.
#[derive(Clone, Copy)]
pub(crate) struct Held(u64);

impl Held {
    /// A panic was under way, which says nothing of what the lock guards.
    const PANICKING: u64 = 1 << 32;
    /// Others are in the thread's list, or may be.
    const AMONG_OTHERS: u64 = 1 << 33;
    /// `WAITERS` was set.
    const AWAITED: u64 = 1 << 34;

    #[inline]
    fn new(state: State, thread: Thread, room: Room) -> Self {
        let among_others = if room.is_alone() { 0 } else { Self::AMONG_OTHERS };
        Self::with(state, thread, among_others)
    }

    /// Of a lock that the thread holds already.
    #[inline]
    fn again(state: State, thread: Thread) -> Self {
        Self::with(state, thread, Self::AMONG_OTHERS)
    }

    #[inline]
    fn with(state: State, thread: Thread, unusual: u64) -> Self {
        let panicking = if panicking() { Self::PANICKING } else { 0 };
        let awaited = if state.has(WAITERS) { Self::AWAITED } else { 0 };
        Held(thread.generation() | unusual | panicking | awaited)
    }

    #[inline]
    fn generation(self) -> u64 {
        self.0 & u64::from(u32::MAX)
    }

    #[inline]
    fn has(self, unusual: u64) -> bool {
        self.0 & unusual != 0
    }

    /// Tells whether a panic has started since it was taken.
    #[inline]
    pub(crate) fn has_panicked(self) -> bool {
        panicking() && !self.has(Self::PANICKING)
    }

    /// The same for a guard that releases nothing.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        self.0 = NO_GENERATION;
    }

    /// Tells whether it was taken in this process, and not copied into it by a fork.
    #[inline]
    pub(crate) fn is_of_this_process(self) -> bool {
        Thread::still(self.generation()).is_some()
    }
}

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    Try,
    /// Until then.
    Until(Deadline),
}

/// Why a lock was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// Another thread holds it, and the wait was over.
    Held,
    /// This thread holds it.
    HeldByCaller,
    /// A thread of this process has ended without releasing it.
    Leaked,
    /// This thread holds as many as the kernel looks after.
    TooMany,
    /// The thread's robust list cannot be had.
    System(io::Error),
}

impl Header for RawLock {
    const KIND: [u8; 8] = *b"lock\0\0\0\0";
}

impl sealed::Sealed for RawLock {}

impl Words for RawLock {
    type Handle = Lock;

    fn locks(&self) -> &[RawLock] {
        slice::from_ref(self)
    }
}

impl RawLock {
    /// Makes an unlocked one.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RawLock::new();
    /// ```
    pub const fn new() -> Self {
        RawLock {
            state: AtomicU64::new(0),
            poisoned: AtomicU32::new(0),
            hungry: AtomicU32::new(0),
            links: [const { AtomicUsize::new(0) }; 3],
            also_reserved: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// Looks what turn it is.
    #[inline]
    pub(crate) fn guess(&self) -> Guess {
        Guess(self.load().turn().into())
    }

    /// Takes the lock, slowly if the guess is wrong, which is mended then.
    ///
    /// # Safety
    ///
    /// The lock stays mapped, at this address, until it is unlocked by this thread, or the thread
    /// has ended.
    #[inline(always)] // Left to itself, the compiler makes it a call: 8.9 ns a lock and unlock, not 6.5.
    pub(crate) unsafe fn lock(&self, guess: &Guess, wait: Wait) -> Result<Held, NotTaken> {
        let thread = Thread::current().map_err(NotTaken::System)?;
        let Some(room) = thread.room() else { return Err(NotTaken::TooMany) };
        // SAFETY: the caller keeps the lock mapped.
        unsafe { thread.announce(&self.links) };
        let free = State::new(0, guess.0.load(Relaxed));
        let mut state = free.taken_by(thread.id());
        if !self.replace(free, state) {
            self.lock_contended(thread, wait)?;
            state = self.load();
            guess.0.store(state.turn(), Relaxed);
        }
        // SAFETY: it was free, so that it is in no list of a living thread, and it was announced. The
        // caller keeps it mapped.
        let lost = unsafe { thread.link(&self.links, room) };
        let held = Held::new(state, thread, room);
        if lost {
            return Err(self.give_up(held));
        }
        Ok(held)
    }

    /// Releases the lock, poisoned if a panic has started since it was taken; but not in a child to
    /// which a fork has copied the guard.
    ///
    /// # Safety
    ///
    /// The lock is mapped where it was when this thread, or its parent's, took it.
    #[inline]
    pub(crate) unsafe fn unlock(&self, held: Held) {
        // Small enough that the compiler inlines it where a guard is dropped; so the rest is calls.
        let usual = if panicking() { None } else { Thread::still_with_first(held.0, &self.links) };
        let Some(thread) = usual else {
            // SAFETY: as the caller says.
            return unsafe { self.unlock_slowly(held) };
        };
        // SAFETY: this thread holds the lock, which is the only one in its list.
        unsafe {
            thread.announce_again(&self.links);
            thread.unlink_only();
        }
        self.release(thread);
    }

    /// # Safety
    ///
    /// As for [`unlock`](Self::unlock).
    #[cold]
    #[inline(never)]
    unsafe fn unlock_slowly(&self, held: Held) {
        let Some(thread) = Thread::still(held.generation()) else { return };
        if held.has_panicked() {
            self.poison();
        }
        // SAFETY: the lock is in the list of this thread, which holds it.
        unsafe {
            thread.announce(&self.links);
            thread.unlink(&self.links);
        }
        if held.has(Held::AWAITED) {
            // Of a lock that is held, the turn stays.
            self.unlock_contended(thread, self.load().turn());
        } else {
            self.release(thread);
        }
    }

    /// Releases a lock that was taken without `WAITERS`, and concludes the operation.
    #[inline]
    fn release(&self, thread: Thread) {
        // Faster than to compare and exchange. What others have set meanwhile stays.
        let left = State(self.state.fetch_sub(State::new(thread.id(), 0).0, Release));
        if left.has(WAITERS) {
            self.wake_left(left);
        } else {
            thread.conclude();
        }
    }

    /// Releases a lock that is lost to this process.
    #[cold]
    fn give_up(&self, held: Held) -> NotTaken {
        // SAFETY: whoever took it just now keeps it mapped.
        unsafe { self.unlock(held) };
        NotTaken::Leaked
    }

    /// Takes the lock or waits for it. The operation is announced, and concluded if it fails.
    #[cold]
    #[inline(never)]
    fn lock_contended(&self, thread: Thread, wait: Wait) -> Result<(), NotTaken> {
        let result = self.take_or_wait(thread, wait);
        if result.is_err() {
            thread.conclude();
        }
        result
    }

    fn take_or_wait(&self, thread: Thread, wait: Wait) -> Result<(), NotTaken> {
        /// Of all locks of this process: each wait shows how long one takes.
        static PATIENCE: Patience = Patience::new();
        /// A moment in which a holder on another processor is done with a short section.
        const SPINS: u32 = 30;

        let deadline = match wait {
            Wait::Until(deadline) if !deadline.has_passed() => deadline,
            _ => return self.attempt(thread)?.ok_or(NotTaken::Held),
        };
        self.let_pass();
        if self.attempt(thread)?.is_some() {
            return Ok(());
        }
        for _ in 0..SPINS {
            let seen = self.load();
            if seen.owner() == 0 || seen.has(WAITERS) {
                break;
            }
            std::hint::spin_loop();
        }
        let attempt = || match self.hungry.load(Relaxed) {
            0 => self.attempt(thread),
            _ => Ok(None),
        };
        PATIENCE.wait(attempt, || self.sleep(thread, deadline))
    }

    /// Lets a hungry waiter pass, if there is one. For whoever has just come: as a rule it has just
    /// released the lock, and is faster than the one that it has woken.
    fn let_pass(&self) {
        /// Some 100 µs: longer than it takes to wake a thread on another processor.
        const YIELDS: u32 = 200;

        let hungry = self.hungry.load(Relaxed);
        if hungry == 0 {
            return;
        }
        for _ in 0..YIELDS {
            std::thread::yield_now();
            if self.hungry.load(Relaxed) != hungry {
                return;
            }
        }
        // It has died, or was stopped.
        let _other = self.hungry.compare_exchange(hungry, 0, Relaxed, Relaxed);
    }

    /// Takes the lock if it is free.
    fn attempt(&self, thread: Thread) -> Result<Option<()>, NotTaken> {
        loop {
            let seen = self.load();
            if seen.owner() == thread.id() {
                return Err(NotTaken::HeldByCaller);
            }
            if seen.owner() != 0 {
                return Ok(None);
            }
            if self.replace(seen, seen.taken_by(thread.id())) {
                if seen.has(OWNER_DIED) {
                    // Whoever is killed before this store has died as the holder, and the next one
                    // comes here.
                    self.poison();
                }
                return Ok(Some(()));
            }
        }
    }

    /// Sleeps until the lock is free, and takes it.
    fn sleep(&self, thread: Thread, deadline: Deadline) -> Result<(), NotTaken> {
        let taken = self.sleep_until(thread, deadline);
        // Nobody else writes its number; it is somebody else's as a rule.
        let _other = self.hungry.compare_exchange(thread.id(), 0, Relaxed, Relaxed);
        taken
    }

    fn sleep_until(&self, thread: Thread, deadline: Deadline) -> Result<(), NotTaken> {
        /// How often a waiter is woken in vain before others let it pass.
        const PATIENT: u32 = 1;

        let mut woken = 0;
        loop {
            if self.attempt(thread)?.is_some() {
                return Ok(());
            }
            if woken >= PATIENT {
                let _other = self.hungry.compare_exchange(0, thread.id(), Relaxed, Relaxed);
            }
            let seen = self.load();
            let waiting = State::new(seen.word() | WAITERS, seen.turn());
            if seen.owner() == 0 || (seen != waiting && !self.replace(seen, waiting)) {
                continue;
            }
            // Whoever was woken must try the lock before it gives up: the wake is lost otherwise.
            match futex::wait(self.word(), waiting.word(), deadline) {
                Waited::Woken => woken += 1,
                Waited::Changed => {}
                Waited::TimedOut => return self.attempt(thread)?.ok_or(NotTaken::Held),
            }
        }
    }

    /// Releases the lock and wakes one waiter, if there is one. The operation is announced, and
    /// concluded then.
    #[cold]
    #[inline(never)]
    fn unlock_contended(&self, thread: Thread, turn: u32) {
        // The kernel's store is none that the language knows of.
        fence(SeqCst);
        match futex::store_and_wake(self.word(), Store::Bit(WAITERS_BIT), 1) {
            Ok(0) => self.forget_waiters(turn),
            Ok(_) => {}
            Err(_) => {
                // Where the kernel cannot do both in one step.
                self.state.store(State::new(WAITERS, turn).0, Release);
                return self.wake_first(thread, turn);
            }
        }
        thread.conclude();
    }

    /// The same for the calling thread, which has got this far.
    #[cold]
    #[inline(never)]
    fn wake_left(&self, left: State) {
        if let Ok(thread) = Thread::current() {
            self.wake_first(thread, left.turn());
        }
    }

    /// Wakes one waiter, if there is one, of a lock that was released with `WAITERS` set. Who is killed
    /// before that has announced the operation, so that the kernel wakes one. Concludes it.
    #[cold]
    #[inline(never)]
    fn wake_first(&self, thread: Thread, turn: u32) {
        if futex::wake(self.word(), 1) == 0 {
            self.forget_waiters(turn);
        }
        thread.conclude();
    }

    /// Takes `WAITERS` away, for whoever has released the lock in this turn and found that nobody
    /// slept. Nobody has fallen asleep since if the lock was not taken since, which the turn tells:
    /// without it, this could come late and hide later sleepers.
    fn forget_waiters(&self, turn: u32) {
        self.replace(State::new(WAITERS, turn), State::new(0, turn));
    }

    /// Tells whether a holder has died or panicked and the data were not declared repaired.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Relaxed) != 0 || self.load().has(OWNER_DIED)
    }

    /// The same, for whoever holds the lock: it is not the kernel's to poison then.
    #[inline]
    pub(crate) fn is_poisoned_while_held(&self) -> bool {
        self.poisoned.load(Relaxed) != 0
    }

    /// Marks the data as possibly broken. For whoever holds the lock.
    #[cold]
    pub(crate) fn poison(&self) {
        self.poisoned.store(1, Relaxed);
    }

    /// Declares the data repaired.
    pub(crate) fn clear_poison(&self) {
        self.poisoned.store(0, Relaxed);
        let seen = self.load();
        if seen.has(OWNER_DIED) {
            // If it fails, somebody has taken the lock just now, and poisons it for what it found.
            self.replace(seen, State::new(seen.word() & !OWNER_DIED, seen.turn()));
        }
    }

    /// Tells whether anybody holds the lock, this thread or another. The dead hold nothing.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        State(self.state.load(SeqCst)).owner() != 0
    }

    /// The same of any of these locks. With one decision for all it takes half as long.
    #[inline]
    pub(crate) fn is_any_held(locks: &[RawLock]) -> bool {
        State(locks.iter().fold(0, |all, lock| all | lock.state.load(SeqCst))).owner() != 0
    }

    /// Another guard for a lock that this thread holds. `None` if it does not.
    #[inline]
    pub(crate) fn held_again(&self) -> Option<Held> {
        let thread = Thread::current().ok()?;
        let state = self.load();
        (state.owner() == thread.id()).then(|| Held::again(state, thread))
    }

    /// The word and its value, for a sleeper that is to be woken when the lock is released or its
    /// holder dies. `None` if nobody holds the lock.
    ///
    /// Such a sleeper looks after it was woken, or leaves that to one who comes after it: it is the
    /// only one who sleeps there.
    pub(crate) fn watch(&self) -> Option<(&AtomicU32, u32)> {
        loop {
            let seen = self.load();
            let waiting = State::new(seen.word() | WAITERS, seen.turn());
            if seen.owner() == 0 {
                return None;
            }
            if seen == waiting || self.replace(seen, waiting) {
                return Some((self.word(), waiting.word()));
            }
        }
    }

    /// As [`watch`](Self::watch), but `None` too if it is held by another than this thread.
    pub(crate) fn watch_holder(&self, holder: u32) -> Option<(&AtomicU32, u32)> {
        self.watch().filter(|(_, word)| word & OWNER == holder)
    }

    /// The thread id of whoever holds the lock; zero if nobody does.
    pub(crate) fn holder(&self) -> u32 {
        State(self.state.load(Acquire)).owner()
    }

    /// Sleeps while the lock is held and another word has a value, or until the deadline.
    ///
    /// Whatever it was woken by, the caller tries the lock next, before it gives up: the wake is lost
    /// otherwise. If it is killed before that, the kernel wakes another, since it has announced the
    /// lock.
    ///
    /// # Safety
    ///
    /// The lock stays mapped until this thread has tried it.
    pub(crate) unsafe fn sleep_beside(
        &self,
        other: (&AtomicU32, u32),
        deadline: Deadline,
    ) -> io::Result<()> {
        let thread = Thread::current()?;
        // SAFETY: the caller keeps the lock mapped.
        unsafe { thread.announce(&self.links) };
        let Some(word) = self.watch() else { return Ok(()) };
        futex::wait_any(&[word, other], deadline).map(drop).inspect_err(|_| thread.conclude())
    }

    /// Tells whether a living thread of this process holds the lock, so that its list refers to it.
    pub(crate) fn is_held_in_this_process(&self) -> bool {
        let owner = self.load().owner();
        owner != 0 && robust::is_thread_of_this_process(owner)
    }

    #[inline]
    fn load(&self) -> State {
        State(self.state.load(Relaxed))
    }

    #[inline]
    fn replace(&self, seen: State, new: State) -> bool {
        // In the one order of all `SeqCst` steps, for who takes a lock and then looks at another with
        // `is_held`. No caller needs all of that; it costs no more than what each needs.
        self.state.compare_exchange(seen.0, new.0, SeqCst, Relaxed).is_ok()
    }

    /// The half of `state` that the kernel compares and changes.
    fn word(&self) -> &AtomicU32 {
        // SAFETY: it lies within the state and is aligned as it must be. The program itself never
        // reads or writes it, so that no access of another size races with those to the whole.
        unsafe { &*self.state.as_ptr().cast::<AtomicU32>().byte_add(WORD_AT) }
    }
}
