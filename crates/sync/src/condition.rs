//! [`Condition`]: waiting for what another process does under a lock.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{self, Store, Waited};
use multiproc_os::patience::Patience;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{LockError, MemoryError};
use crate::raw_lock::RawLock;
use crate::region::{Header, Place, Words, sealed};

/// Lets a process wait, with a lock released, until another one says that something has changed.
///
/// It goes with any lock: pass the guard, of a [`Lock`](crate::Lock), an [`RLock`](crate::RLock), or a
/// `Value` or `Array` of `multiproc-shm`. A wait may end though nobody has notified, so wait in a loop,
/// or with [`wait_while`](Self::wait_while).
///
/// `notify` waits for nobody. A notification that a waiter gets and then dies is lost; the next one
/// reaches the next waiter.
///
/// A clone, and what another process reads from a message, is the same condition.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// use multiproc_sync::{Condition, Lock};
///
/// let (lock, changed) = (Lock::new()?, Condition::new()?);
/// let ready = AtomicBool::new(false);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let _held = lock.lock().unwrap();
///         ready.store(true, Relaxed);
///         changed.notify(1);
///     });
///     let held = lock.lock()?;
///     let _held = changed.wait_while(held, |_| !ready.load(Relaxed))?;
///     Ok::<(), multiproc_sync::LockError>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Condvar")]
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Condition {
    place: Place<RawCondition>,
}

/// A condition's words, for structures in shared memory. All zeros is one for which nobody waits.
///
/// # Examples
///
/// ```
/// use multiproc_sync::{RawCondition, RawLock};
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Counter {
///     lock: RawLock,
///     changed: RawCondition,
/// }
/// ```
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawCondition {
    /// How often somebody was notified. Who waits sleeps on it.
    notified: AtomicU32,
    /// How many wait, or more: the dead have not gone.
    waiters: AtomicU32,
}

/// The guard of a lock, which a [`Condition`] gives up while it waits.
///
/// # Examples
///
/// ```
/// use multiproc_sync::condition::Guard;
/// use multiproc_sync::{Condition, Lock, LockError};
///
/// /// Works with the guard of any lock, of a region or of a value.
/// fn once_notified<G: Guard>(changed: &Condition, guard: G) -> Result<G, LockError> {
///     changed.wait(guard)
/// }
///
/// let (lock, changed) = (Lock::new()?, Condition::new()?);
/// std::thread::scope(|scope| {
///     let held = lock.lock().unwrap();
///     scope.spawn(|| {
///         let _held = lock.lock().unwrap();
///         changed.notify(1);
///     });
///     drop(once_notified(&changed, held).unwrap());
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Guard: Sized {
    /// Releases the lock, waits, and takes the lock again. Gives what the wait gave too.
    fn while_released<R>(self, wait: impl FnOnce() -> R) -> (Result<Self, LockError>, R);
}

impl RawCondition {
    /// Makes one for which nobody waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let condition = multiproc_sync::RawCondition::new();
    /// ```
    pub const fn new() -> Self {
        RawCondition { notified: AtomicU32::new(0), waiters: AtomicU32::new(0) }
    }
}

impl Header for RawCondition {
    const KIND: [u8; 8] = *b"conditio";
}

impl sealed::Sealed for RawCondition {}

impl Words for RawCondition {
    type Handle = Condition;

    fn locks(&self) -> &[RawLock] {
        &[]
    }
}

impl Condition {
    /// Makes a condition for which nobody waits.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// let condition = multiproc_sync::Condition::new()?;
    /// condition.notify(1);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new() -> Result<Self, MemoryError> {
        Ok(Place::create("multiproc-condition", RawCondition::new())?.into())
    }

    /// Releases the lock, waits to be notified, and takes the lock again.
    ///
    /// Whoever notifies with the lock held, or after it had it, finds this waiter.
    ///
    /// # Errors
    ///
    /// As for taking the lock: it is poisoned, as a rule.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # let (lock, changed) = (multiproc_sync::Lock::new()?, multiproc_sync::Condition::new()?);
    /// # fn is_ready() -> bool { true }
    /// let mut held = lock.lock()?;
    /// while !is_ready() {
    ///     held = changed.wait(held)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait<G: Guard>(&self, guard: G) -> Result<G, LockError> {
        Ok(self.wait_until(guard, Deadline::NEVER)?.0)
    }

    /// Waits as [`wait`](Self::wait) does, for so long at the most. Tells whether it was notified.
    ///
    /// The lock is taken again in any case, which may take longer. The clock is the monotonic one.
    /// `Duration::MAX` waits for ever.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (lock, changed) = (multiproc_sync::Lock::new()?, multiproc_sync::Condition::new()?);
    /// let (_held, notified) = changed.wait_timeout(lock.lock()?, Duration::from_millis(1))?;
    /// assert!(!notified);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_timeout<G: Guard>(
        &self,
        guard: G,
        timeout: Duration,
    ) -> Result<(G, bool), LockError> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// Waits until what it is about, seen through the guard, is no longer so.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// let (lock, changed) = (multiproc_sync::Lock::new()?, multiproc_sync::Condition::new()?);
    /// let _held = changed.wait_while(lock.lock()?, |_| false)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "wait_for")]
    pub fn wait_while<G: Guard>(
        &self,
        guard: G,
        condition: impl FnMut(&mut G) -> bool,
    ) -> Result<G, LockError> {
        Ok(self.wait_while_until(guard, Deadline::NEVER, condition)?.0)
    }

    /// Waits as [`wait_while`](Self::wait_while) does, for so long at the most. Tells whether what it
    /// waited for came about.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (lock, changed) = (multiproc_sync::Lock::new()?, multiproc_sync::Condition::new()?);
    /// let soon = Duration::from_millis(1);
    /// let (_held, done) = changed.wait_timeout_while(lock.lock()?, soon, |_| true)?;
    /// assert!(!done);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_timeout_while<G: Guard>(
        &self,
        guard: G,
        timeout: Duration,
        condition: impl FnMut(&mut G) -> bool,
    ) -> Result<(G, bool), LockError> {
        self.wait_while_until(guard, Deadline::after(timeout), condition)
    }

    /// Lets so many of those who wait go on, or all if they are fewer.
    ///
    /// Costs no system call where nobody waits. Whoever holds the lock does best to release it soon
    /// after, since they need it.
    ///
    /// # Examples
    ///
    /// ```
    /// multiproc_sync::Condition::new()?.notify(2);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[doc(alias = "notify_one")]
    pub fn notify(&self, waiters: u32) {
        let words = &*self.place;
        if waiters == 0 || words.waiters.load(SeqCst) == 0 {
            return;
        }
        // The kernel's store is none that the language knows of.
        std::sync::atomic::fence(SeqCst);
        if futex::store_and_wake(&words.notified, Store::Add(1), waiters).is_err() {
            // Not in one step, where the kernel cannot: killed in between, it wakes nobody.
            words.notified.fetch_add(1, SeqCst);
            futex::wake(&words.notified, waiters);
        }
    }

    /// Lets all who wait go on.
    ///
    /// # Examples
    ///
    /// ```
    /// multiproc_sync::Condition::new()?.notify_all();
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn notify_all(&self) {
        self.notify(u32::MAX);
    }

    fn wait_while_until<G: Guard>(
        &self,
        mut guard: G,
        deadline: Deadline,
        mut condition: impl FnMut(&mut G) -> bool,
    ) -> Result<(G, bool), LockError> {
        while condition(&mut guard) {
            let notified;
            (guard, notified) = self.wait_until(guard, deadline)?;
            if !notified {
                let done = !condition(&mut guard);
                return Ok((guard, done));
            }
        }
        Ok((guard, true))
    }

    fn wait_until<G: Guard>(&self, guard: G, deadline: Deadline) -> Result<(G, bool), LockError> {
        /// Of all conditions of this process: each wait shows how long one takes.
        static PATIENCE: Patience = Patience::new();

        let words = &*self.place;
        words.waiters.fetch_add(1, SeqCst);
        let seen = words.notified.load(SeqCst);
        let is_notified = || words.notified.load(SeqCst) != seen;
        let attempt = || Ok::<_, Infallible>(is_notified().then_some(true));
        let (guard, Ok(notified)) = guard.while_released(|| {
            let notified = PATIENCE.wait(attempt, || {
                let waited = futex::wait(&words.notified, seen, deadline);
                Ok(waited != Waited::TimedOut || is_notified())
            });
            words.waiters.fetch_sub(1, Relaxed);
            notified
        });
        Ok((guard?, notified))
    }
}

impl From<Place<RawCondition>> for Condition {
    fn from(place: Place<RawCondition>) -> Self {
        Condition { place }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").finish_non_exhaustive()
    }
}
