#![allow(unsafe_code)] // Words in shared memory: what keeps them mapped, and their locks.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};

use multiproc_os::deadline::Deadline;
use multiproc_wire::SharedFd;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use sealed::Sealed;

use super::{HEADER_AT, Header, Inner, Locks, Region, SHARED};
use crate::error::{LockError, MemoryError, Reason};
use crate::raw_lock::{Guess, Held, NotTaken, RawLock, Wait};

/// The words of a primitive in shared memory: of one of this crate's.
///
/// # Examples
///
/// ```
/// use multiproc_sync::region::{Place, Words};
///
/// /// A primitive of any kind.
/// fn make<X: Words>(words: X) -> Result<X::Handle, multiproc_sync::MemoryError> {
///     Ok(Place::create("example", words)?.into())
/// }
///
/// let event: multiproc_sync::Event = make(multiproc_sync::RawEvent::new())?;
/// assert!(!event.is_set());
/// # Ok::<(), multiproc_sync::MemoryError>(())
/// ```
pub trait Words: Header + Sized + Sealed {
    /// What it is used as.
    type Handle: From<Place<Self>>;

    /// The locks among its words.
    fn locks(&self) -> &[RawLock];
}

/// What this crate alone implements.
pub(crate) mod sealed {
    pub trait Sealed {}
}

/// The words of one primitive, in memory of its own or in a header among others.
///
/// Handles such as [`Lock`](crate::Lock) are made of it. It keeps the memory mapped, and travels in
/// messages.
///
/// # Examples
///
/// ```
/// use multiproc_sync::region::Place;
/// use multiproc_sync::{Event, RawEvent};
///
/// let place = Place::create("example", RawEvent::new())?;
/// let (one, other) = (Event::from(place.clone()), Event::from(place));
/// one.set();
/// assert!(other.is_set());
/// # Ok::<(), multiproc_sync::MemoryError>(())
/// ```
pub struct Place<X> {
    words: NonNull<X>,
    /// Of the first of the locks.
    guess: Guess,
    inner: Arc<Inner>,
}

// SAFETY: the words are in a mapping of the process, not of a thread, and `Sync`.
unsafe impl<X> Send for Place<X> {}
// SAFETY: as above.
unsafe impl<X> Sync for Place<X> {}

/// A lock among the words, held. Dropping it releases the lock, poisoned if a panic has started since.
pub(crate) struct Hold<'a> {
    lock: &'a RawLock,
    held: Held,
    /// The lock belongs to the thread.
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared `Hold` does nothing but to look at the lock's words.
unsafe impl Sync for Hold<'_> {}

impl<X: Words> Place<X> {
    /// Puts the words in memory of their own.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::region::Place;
    /// use multiproc_sync::{Lock, RawLock};
    ///
    /// let lock = Lock::from(Place::create("example", RawLock::new())?);
    /// assert!(!lock.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn create(name: &str, words: X) -> Result<Self, MemoryError> {
        Ok(Region::create_with(name, words, 0)?.place(|words| words))
    }

    pub(super) fn of(inner: &Arc<Inner>, words: &X) -> Self {
        let at = inner.offset_of(words);
        assert!(inner.has_room_for::<X>(at), "the words are not in the header of the region");
        let locks = Locks(NonNull::from(words.locks()));
        let mut places = inner.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !words.locks().is_empty() && !places.contains(&locks) {
            places.push(locks);
        }
        Place { words: NonNull::from(words), guess: Guess::default(), inner: Arc::clone(inner) }
    }

    /// Takes one of the words' locks.
    ///
    /// # Panics
    ///
    /// If it is none of those that the words tell of.
    #[inline]
    pub(crate) fn hold(
        &self,
        pick: impl FnOnce(&X) -> &RawLock,
        wait: Wait,
    ) -> Result<Hold<'_>, NotTaken> {
        let lock = pick(self);
        assert!(self.locks().as_ptr_range().contains(&std::ptr::from_ref(lock)));
        let looked;
        let guess = if std::ptr::eq(lock, &raw const self.locks()[0]) {
            &self.guess
        } else {
            looked = lock.guess();
            &looked
        };
        // SAFETY: the lock is in a place that is borrowed as long as the guard, and if the guard is
        // forgotten, the memory stays mapped while the thread lives: see `Inner::drop`.
        let held = unsafe { lock.lock(guess, wait)? };
        Ok(Hold { lock, held, _not_send: PhantomData })
    }

    /// Takes one of the words' locks, unless a word among them has another value first: `None` if it
    /// is that, or if the time is over.
    ///
    /// # Errors
    ///
    /// As for taking the lock, or the kernel is older than Linux 5.16.
    pub(crate) fn hold_while(
        &self,
        pick: impl Fn(&X) -> &RawLock,
        (word, value): (&AtomicU32, u32),
        deadline: Deadline,
    ) -> Result<Option<Hold<'_>>, LockError> {
        loop {
            match self.hold(&pick, Wait::Try) {
                Err(NotTaken::Held) => {}
                hold => return Ok(Some(hold?)),
            }
            if word.load(SeqCst) != value || deadline.has_passed() {
                return Ok(None);
            }
            // SAFETY: the lock is in a place that is borrowed, and is tried by the next round.
            unsafe { pick(self).sleep_beside((word, value), deadline) }
                .map_err(LockError::waiting)?;
        }
    }

    /// Another guard for a lock that this thread holds. `None` if it does not.
    #[inline]
    pub(crate) fn hold_again(&self, pick: impl FnOnce(&X) -> &RawLock) -> Option<Hold<'_>> {
        let lock = pick(self);
        Some(Hold { lock, held: lock.held_again()?, _not_send: PhantomData })
    }
}

impl<X> Place<X> {
    /// Tells whether both are the same words, through the same mapping.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Place;
    ///
    /// let place = Place::create("example", RawLock::new())?;
    /// assert!(place.same(&place.clone()));
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn same(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl<X> Deref for Place<X> {
    type Target = X;

    #[inline]
    fn deref(&self) -> &X {
        // SAFETY: they are in the header, see `of`, which stays mapped and is shared as `&X` only.
        unsafe { self.words.as_ref() }
    }
}

impl<X> Clone for Place<X> {
    fn clone(&self) -> Self {
        Place { words: self.words, guess: self.guess.clone(), inner: Arc::clone(&self.inner) }
    }
}

impl<X> Serialize for Place<X> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // SAFETY: any bytes of the header may be looked at as no bytes.
        let at = self.inner.offset_of(unsafe { self.words.cast::<()>().as_ref() });
        (self.inner.memory.fd(), at as u64).serialize(serializer)
    }
}

impl<'de, X: Words> Deserialize<'de> for Place<X> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (fd, at) = <(SharedFd, u64)>::deserialize(deserializer)?;
        let open = || -> Result<_, Reason> {
            let inner = Inner::open(fd)?;
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            if inner.preamble().kind() != SHARED || !inner.has_room_for::<X>(at) {
                inner.preamble().check_kind::<X>()?;
                if at != 0 {
                    return Err(Reason::Foreign("shorter than the message says".to_owned()));
                }
            }
            // SAFETY: it is within the header, and aligned; any bits are an `X`.
            let words = unsafe { &*inner.head.as_ptr().add(HEADER_AT + at).cast::<X>() };
            Ok(Place::of(&Arc::new(inner), words))
        };
        open().map_err(|reason| multiproc_wire::fail(MemoryError::unusable(reason)))
    }
}

impl<X> fmt::Debug for Place<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl<'a> Hold<'a> {
    /// Releases the lock, waits, and takes the lock again. Gives what the wait gave too.
    pub(crate) fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, NotTaken>, R) {
        let lock: &'a RawLock = self.lock;
        drop(self);
        let waited = wait();
        (Self::take(lock, Wait::Until(Deadline::NEVER)), waited)
    }

    #[inline(always)]
    fn take(lock: &'a RawLock, wait: Wait) -> Result<Self, NotTaken> {
        // SAFETY: the lock is in a place that is borrowed as long as the guard, and if the guard is
        // forgotten, the memory stays mapped while the thread lives: see `Inner::drop`.
        let held = unsafe { lock.lock(&lock.guess(), wait)? };
        Ok(Hold { lock, held, _not_send: PhantomData })
    }

    /// Tells whether a holder has died or panicked, and nobody has cleared that.
    #[inline]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.lock.is_poisoned_while_held()
    }

    /// Tells whether the last holder has died or panicked, once.
    pub(crate) fn take_poison(&self) -> bool {
        let poisoned = self.is_poisoned();
        if poisoned {
            self.lock.clear_poison();
        }
        poisoned
    }

    /// Marks what the lock guards as possibly broken.
    pub(crate) fn poison(&self) {
        self.lock.poison();
    }

    /// Tells whether a panic has started since it was taken.
    #[inline]
    pub(crate) fn has_panicked(&self) -> bool {
        self.held.has_panicked()
    }

    /// The thread id of its holder, who is the caller as a rule.
    pub(crate) fn holder(&self) -> u32 {
        self.lock.holder()
    }

    /// Tells whether it was taken in this process, and not copied into it by a fork.
    #[inline]
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.held.is_of_this_process()
    }

    /// Makes it a guard that does not release the lock.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        self.held.disarm();
    }
}

impl Drop for Hold<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it was locked by this thread, which the guard has not left, and is mapped.
        unsafe { self.lock.unlock(self.held) };
    }
}

impl Inner {
    /// Where something is, seen from the start of the header.
    fn offset_of<X>(&self, words: &X) -> usize {
        let header = self.head.as_ptr().addr().wrapping_add(HEADER_AT);
        std::ptr::from_ref(words).addr().wrapping_sub(header)
    }

    /// Tells whether an `X` can be at this offset of the header.
    fn has_room_for<X>(&self, at: usize) -> bool {
        let end = at.checked_add(size_of::<X>());
        end.is_some_and(|end| end <= self.extent.header_len)
            && (HEADER_AT + at).is_multiple_of(align_of::<X>())
    }
}
