use std::cell::Cell;
use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, compiler_fence};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{Kind, LockError, MemoryError};
use crate::raw_lock::{NotTaken, RawLock, Wait};
use crate::region::{Header, Hold, Place, Words, sealed};
use crate::slots::{Watched, sleep};

/// A lock that many readers can hold at once, or one writer.
///
/// A reader that dies is gone, and nothing else happens. A writer that dies or panics poisons the
/// lock. Writers do not starve: while one waits, readers that come stand in line behind it; so a thread
/// that reads and takes the lock to read once more may wait for ever. At most
/// [`MAX_READERS`](Self::MAX_READERS) read at once, and the others wait.
///
/// It is made for many readers: to read costs about as much as a [`Lock`](crate::Lock), to write some
/// times that, since a writer looks at the place of each reader.
///
/// A clone, and what another process reads from a message, is the same lock.
///
/// # Examples
///
/// ```
/// use multiproc_sync::RwLock;
///
/// let lock = RwLock::new()?;
/// {
///     let _one = lock.read()?;
///     std::thread::scope(|scope| {
///         scope.spawn(|| assert!(lock.try_read().unwrap().is_some()));
///         scope.spawn(|| assert!(lock.try_write().unwrap().is_none()));
///     });
/// }
/// let _alone = lock.write()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RwLock {
    place: Place<RawRwLock>,
}

/// Lets a thread read under an [`RwLock`] until dropped. It stays in its thread.
///
/// # Examples
///
/// ```compile_fail
/// let lock = multiproc_sync::RwLock::new()?;
/// let held = lock.read()?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(held));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct ReadGuard<'a> {
    _slot: Hold<'a>,
}

/// Lets a thread write under an [`RwLock`] until dropped. It stays in its thread.
///
/// # Examples
///
/// ```compile_fail
/// let lock = multiproc_sync::RwLock::new()?;
/// let held = lock.write()?;
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(held));
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct WriteGuard<'a> {
    words: &'a RawRwLock,
    gate: Hold<'a>,
}

/// A reader-writer lock's words, for structures in shared memory: 4 KiB and 192 bytes. All zeros is an
/// unlocked one.
///
/// # Examples
///
/// ```
/// use multiproc_sync::RawRwLock;
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Library {
///     novels: RawRwLock,
///     poems: RawRwLock,
/// }
/// ```
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawRwLock {
    /// The writer's, and a place for each reader.
    locks: [RawLock; 1 + RwLock::MAX_READERS],
    /// Not zero: somebody writes, or has died at it.
    writing: AtomicU32,
    /// Not zero: a writer has died or panicked, and nobody has cleared that.
    poisoned: AtomicU32,
    reserved: [AtomicU32; 14],
}

impl RawRwLock {
    /// Makes an unlocked one.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RawRwLock::new();
    /// ```
    pub const fn new() -> Self {
        RawRwLock {
            locks: [const { RawLock::new() }; _],
            writing: AtomicU32::new(0),
            poisoned: AtomicU32::new(0),
            reserved: [const { AtomicU32::new(0) }; 14],
        }
    }

    fn gate(&self) -> &RawLock {
        &self.locks[0]
    }

    fn slots(&self) -> &[RawLock] {
        &self.locks[1..]
    }
}

impl Default for RawRwLock {
    fn default() -> Self {
        Self::new()
    }
}

impl Header for RawRwLock {
    const KIND: [u8; 8] = *b"rwlock\0\0";
}

impl sealed::Sealed for RawRwLock {}

impl Words for RawRwLock {
    type Handle = RwLock;

    fn locks(&self) -> &[RawLock] {
        &self.locks
    }
}

impl RwLock {
    /// How many threads of all processes can read at once.
    pub const MAX_READERS: usize = 64;

    /// Makes an unlocked lock.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// assert!(!lock.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new() -> Result<Self, MemoryError> {
        Ok(Place::create("multiproc-rwlock", RawRwLock::new())?.into())
    }

    /// Waits until nobody writes or waits to write, and takes the lock to read.
    ///
    /// # Errors
    ///
    /// - [`is_poisoned`](LockError::is_poisoned): a writer has died or panicked;
    /// - [`is_deadlock`](LockError::is_deadlock): this thread holds the lock to write;
    /// - one of the rarer reasons that [`LockError`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// let _reading = lock.read()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(&self) -> Result<ReadGuard<'_>, LockError> {
        self.unless_poisoned(self.take_to_read(Wait::Until(Deadline::NEVER))?)
    }

    /// Takes the lock to read if nobody writes or waits to write. `None` if somebody does.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// assert!(lock.try_read()?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_read(&self) -> Result<Option<ReadGuard<'_>>, LockError> {
        match self.take_to_read(Wait::Try) {
            Err(error) if error.is_timeout() => Ok(None),
            guard => self.unless_poisoned(guard?).map(Some),
        }
    }

    /// Waits until nobody writes, for so long at the most, and takes the lock to read.
    ///
    /// The clock is the monotonic one. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read), or [`is_timeout`](LockError::is_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let lock = multiproc_sync::RwLock::new()?;
    /// let _reading = lock.read_timeout(Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_timeout(&self, timeout: Duration) -> Result<ReadGuard<'_>, LockError> {
        self.unless_poisoned(self.take_to_read(Wait::Until(Deadline::after(timeout)))?)
    }

    /// Takes the lock to read even if it is poisoned.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read), but for the poison.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// let _reading = lock.read_anyway()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_anyway(&self) -> Result<ReadGuard<'_>, LockError> {
        self.take_to_read(Wait::Until(Deadline::NEVER))
    }

    /// Waits until nobody reads or writes, and takes the lock to write.
    ///
    /// # Errors
    ///
    /// - [`is_poisoned`](LockError::is_poisoned): a writer has died or panicked;
    /// - [`is_deadlock`](LockError::is_deadlock): this thread holds the lock already;
    /// - one of the rarer reasons that [`LockError`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// let writing = lock.write()?;
    /// assert!(lock.read().unwrap_err().is_deadlock());
    /// # drop(writing);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write(&self) -> Result<WriteGuard<'_>, LockError> {
        self.unless_poisoned(self.take_to_write(Wait::Until(Deadline::NEVER))?)
    }

    /// Takes the lock to write if nobody holds it. `None` if somebody does.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// let _reading = lock.read()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(lock.try_write().unwrap().is_none()));
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_write(&self) -> Result<Option<WriteGuard<'_>>, LockError> {
        match self.take_to_write(Wait::Try) {
            Err(NotTaken::Held) => Ok(None),
            guard => self.unless_poisoned(guard?).map(Some),
        }
    }

    /// Waits until nobody reads or writes, for so long at the most, and takes the lock to write.
    ///
    /// The clock is the monotonic one. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write), or [`is_timeout`](LockError::is_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let lock = multiproc_sync::RwLock::new()?;
    /// let writing = lock.write_timeout(Duration::from_secs(1))?;
    /// # drop(writing);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_timeout(&self, timeout: Duration) -> Result<WriteGuard<'_>, LockError> {
        self.unless_poisoned(self.take_to_write(Wait::Until(Deadline::after(timeout)))?)
    }

    /// Takes the lock to write even if it is poisoned.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write), but for the poison.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// let writing = lock.write_anyway()?;
    /// // What the dead writer has left is put in order here.
    /// lock.clear_poison();
    /// # drop(writing);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_anyway(&self) -> Result<WriteGuard<'_>, LockError> {
        Ok(self.take_to_write(Wait::Until(Deadline::NEVER))?)
    }

    /// Tells whether a writer has died or panicked, and nobody has cleared that since.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_sync::RwLock::new()?.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        let words = &*self.place;
        let died = words.writing.load(SeqCst) != 0 && !words.gate().is_held();
        died || words.poisoned.load(SeqCst) != 0
    }

    /// Declares that what the lock guards was repaired. For whoever holds the lock: the death of a
    /// writer shows when it is taken next.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::RwLock::new()?;
    /// lock.clear_poison();
    /// assert!(!lock.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn clear_poison(&self) {
        self.place.poisoned.store(0, SeqCst);
    }

    fn unless_poisoned<G>(&self, guard: G) -> Result<G, LockError> {
        match self.place.poisoned.load(SeqCst) {
            0 => Ok(guard),
            _ => Err(Kind::Poisoned.into()),
        }
    }

    fn take_to_read(&self, wait: Wait) -> Result<ReadGuard<'_>, LockError> {
        let words = &*self.place;
        if !words.gate().is_held()
            && let Some(slot) = self.take_slot()?
        {
            // A writer takes the gate and then looks at the places; who reads takes a place and then
            // looks at the gate. All four steps are in one order, `SeqCst`, so that one of them, at
            // least, sees the other.
            if !words.gate().is_held() {
                return Ok(self.reading(slot));
            }
        }
        let _gate = self.place.hold(RawRwLock::gate, wait)?;
        loop {
            if let Some(slot) = self.take_slot()? {
                return Ok(self.reading(slot));
            }
            let deadline = match wait {
                Wait::Until(deadline) if !deadline.has_passed() => deadline,
                _ => return Err(NotTaken::Held.into()),
            };
            // As many as can read already. Nobody else sleeps on the places, since the gate is closed.
            let watched: Option<Watched<'_>> = words.slots().iter().map(RawLock::watch).collect();
            if let Some(watched) = watched {
                sleep(&watched, deadline)?;
            }
        }
    }

    fn take_slot(&self) -> Result<Option<Hold<'_>>, NotTaken> {
        let slots = self.place.slots();
        let start = own_slot();
        let mut refused = None;
        for index in (0..slots.len()).map(|offset| (start + offset) % slots.len()) {
            if slots[index].is_held() {
                continue;
            }
            match self.place.hold(|words| &words.slots()[index], Wait::Try) {
                Ok(slot) => return Ok(Some(slot)),
                Err(NotTaken::Held | NotTaken::HeldByCaller) => {}
                // Of a place that a thread of this process has left for good, say.
                Err(reason) => refused = Some(reason),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn reading<'a>(&self, slot: Hold<'a>) -> ReadGuard<'a> {
        self.bury();
        ReadGuard { _slot: slot }
    }

    fn take_to_write(&self, wait: Wait) -> Result<WriteGuard<'_>, NotTaken> {
        let words = &*self.place;
        let gate = self.place.hold(RawRwLock::gate, wait)?;
        // As in `take_to_read`, the other way round.
        let slots = words.slots();
        if RawLock::is_any_held(slots) {
            // Whoever waits for itself is told so before it waits for others.
            if slots.iter().any(|slot| slot.held_again().is_some()) {
                return Err(NotTaken::HeldByCaller);
            }
            for index in (0..slots.len()).filter(|index| slots[*index].is_held()) {
                // Once it was free no reader is in it, since the gate is closed.
                drop(self.place.hold(|words| &words.slots()[index], wait)?);
            }
        }
        self.bury();
        // Nothing is written before it: no other thread reads it until the gate is open again, or the
        // kernel has opened it after a death, which comes between two instructions.
        words.writing.store(1, Relaxed);
        compiler_fence(SeqCst);
        Ok(WriteGuard { words, gate })
    }

    /// Poisons the lock if a writer has died. For whoever holds it: nobody writes.
    fn bury(&self) {
        let words = &*self.place;
        if words.writing.load(SeqCst) != 0 {
            words.poisoned.store(1, SeqCst);
            words.writing.store(0, SeqCst);
        }
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        // A copy that a fork has made is no guard of the child's.
        if !self.gate.is_of_this_process() {
            return;
        }
        if self.gate.has_panicked() {
            self.words.poisoned.store(1, SeqCst);
        }
        self.words.writing.store(0, Release);
    }
}

/// Where this thread looks for a place first: one that other threads rarely use.
fn own_slot() -> usize {
    thread_local! {
        static SLOT: Cell<Option<usize>> = const { Cell::new(None) };
    }
    static NEXT: AtomicU32 = AtomicU32::new(0);
    SLOT.get().unwrap_or_else(|| {
        let next = std::process::id().wrapping_add(NEXT.fetch_add(1, Relaxed));
        let slot = next as usize % RwLock::MAX_READERS;
        SLOT.set(Some(slot));
        slot
    })
}

impl From<Place<RawRwLock>> for RwLock {
    fn from(place: Place<RawRwLock>) -> Self {
        RwLock { place }
    }
}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ReadGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadGuard").finish_non_exhaustive()
    }
}

impl fmt::Debug for WriteGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard").finish_non_exhaustive()
    }
}
