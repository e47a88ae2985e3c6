//! Locks of other programs: a `pthread_mutex_t` or `pthread_rwlock_t` that a program in C, C++ or Rust
//! keeps in named shared memory.
//!
//! They are taken through [raw_sync](https://docs.rs/raw_sync), and are what they are:
//!
//! - *not robust*: if whoever holds one is killed, all others wait for ever. A mutex with the attribute
//!   `PTHREAD_MUTEX_ROBUST` must not be joined, since nobody would declare it consistent;
//! - *without time limits*: the C library's timed calls go by the wall clock, and raw_sync passes on times
//!   that are no times (whose nanoseconds overflow), which fail at once. So there is waiting and trying;
//! - as fair as the C library makes them.
//!
//! Where all programs are yours, take a [`Lock`](crate::Lock).
#![allow(unsafe_code)] // The memory is another program's: the caller vouches for what is in it.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ptr;

use multiproc_os::memory::Mapping;
use multiproc_os::memory::named::Named;
use raw_sync::Timeout;
use raw_sync::locks::{self, LockGuard, LockImpl, LockInit, ReadLockGuard};

use crate::error::LockError;

/// A mutex of another program.
///
/// # Examples
///
/// ```no_run
/// use multiproc_sync::posix::Mutex;
///
/// // The other program has initialised it, 64 bytes from the start of /dev/shm/scoreboard.
/// // SAFETY: it has, for use between processes, and it leaves it there.
/// let mutex = unsafe { Mutex::open("scoreboard", 64)? };
/// {
///     let _held = mutex.lock()?;
///     // Neither that program nor this one is elsewhere in a section like this.
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mutex(Joined);

/// A reader-writer lock of another program.
///
/// # Examples
///
/// ```no_run
/// use multiproc_sync::posix::RwLock;
///
/// // SAFETY: the other program has initialised it for use between processes, and leaves it there.
/// let lock = unsafe { RwLock::open("scoreboard", 128)? };
/// let _reading = lock.read()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RwLock(Joined);

/// Holds a [`Mutex`], or an [`RwLock`] to write, until dropped. It stays in its thread.
///
/// # Examples
///
/// ```no_run
/// use multiproc_sync::posix::{Guard, Mutex};
///
/// /// Is given the right to be in the section.
/// fn book(_held: &Guard<'_>) {}
///
/// // SAFETY: the other program has initialised it for use between processes, and leaves it there.
/// let mutex = unsafe { Mutex::open("scoreboard", 64)? };
/// book(&mutex.lock()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct Guard<'a> {
    _guard: LockGuard<'a>,
    _not_send: PhantomData<*mut ()>,
}

/// Holds an [`RwLock`] to read, until dropped. It stays in its thread.
///
/// # Examples
///
/// ```no_run
/// use multiproc_sync::posix::{ReadGuard, RwLock};
///
/// fn look(_reading: &ReadGuard<'_>) {}
///
/// // SAFETY: the other program has initialised it for use between processes, and leaves it there.
/// let lock = unsafe { RwLock::open("scoreboard", 128)? };
/// look(&lock.read()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lock is released at once"]
pub struct ReadGuard<'a> {
    _guard: ReadLockGuard<'a>,
    _not_send: PhantomData<*mut ()>,
}

/// A lock, and the memory that it is in.
struct Joined {
    lock: Box<dyn LockImpl>,
    _mapping: Mapping,
}

// SAFETY: it is a lock of the C library's for processes, in memory of this process: any of its threads
// may call for it, at any time. Guards are not `Send`.
unsafe impl Send for Joined {}
// SAFETY: as above.
unsafe impl Sync for Joined {}

impl Mutex {
    /// Joins the mutex at this offset of the named shared memory.
    ///
    /// # Errors
    ///
    /// There is no such memory, or it is shorter, or the offset is not that of a mutex, which is
    /// aligned to 8.
    ///
    /// # Safety
    ///
    /// As long as it is used:
    ///
    /// 1. a `pthread_mutex_t` of this machine's C library is there, initialised with
    ///    `PTHREAD_PROCESS_SHARED` and without `PTHREAD_MUTEX_ROBUST`;
    /// 2. nobody destroys it, writes over it, or truncates the memory.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::posix::Mutex;
    ///
    /// // SAFETY: there is nothing of this name.
    /// let missing = unsafe { Mutex::open("nobody-has-made-this", 0) };
    /// assert!(missing.is_err());
    /// ```
    pub unsafe fn open(name: &str, offset: usize) -> io::Result<Self> {
        // SAFETY: the caller's.
        unsafe { Joined::open::<locks::Mutex>(name, offset) }.map(Mutex)
    }

    /// Waits until the mutex is free and takes it.
    ///
    /// # Errors
    ///
    /// The C library refuses: for some kinds of mutexes, if this thread holds it already.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::LockError;
    /// use multiproc_sync::posix::Mutex;
    ///
    /// fn section(mutex: &Mutex) -> Result<(), LockError> {
    ///     let _held = mutex.lock()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn lock(&self) -> Result<Guard<'_>, LockError> {
        self.0.lock()
    }

    /// Takes the mutex if it is free.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::LockError;
    /// use multiproc_sync::posix::Mutex;
    ///
    /// fn section(mutex: &Mutex) -> Result<(), LockError> {
    ///     if let Some(_held) = mutex.try_lock()? {
    ///         // Nobody else is here.
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn try_lock(&self) -> Result<Option<Guard<'_>>, LockError> {
        self.0.try_lock()
    }
}

impl RwLock {
    /// Joins the lock at this offset of the named shared memory.
    ///
    /// # Errors
    ///
    /// As for [`Mutex::open`].
    ///
    /// # Safety
    ///
    /// As for [`Mutex::open`], with a `pthread_rwlock_t`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::posix::RwLock;
    ///
    /// // SAFETY: there is nothing of this name.
    /// let missing = unsafe { RwLock::open("nobody-has-made-this", 0) };
    /// assert!(missing.is_err());
    /// ```
    pub unsafe fn open(name: &str, offset: usize) -> io::Result<Self> {
        // SAFETY: the caller's.
        unsafe { Joined::open::<locks::RwLock>(name, offset) }.map(RwLock)
    }

    /// Waits until nobody writes, and takes the lock to read.
    ///
    /// # Errors
    ///
    /// The C library refuses: if this thread writes, say.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::LockError;
    /// use multiproc_sync::posix::RwLock;
    ///
    /// fn section(lock: &RwLock) -> Result<(), LockError> {
    ///     let _reading = lock.read()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn read(&self) -> Result<ReadGuard<'_>, LockError> {
        let guard = self.0.lock.rlock().map_err(refused)?;
        Ok(ReadGuard { _guard: guard, _not_send: PhantomData })
    }

    /// Takes the lock to read if nobody writes.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::LockError;
    /// use multiproc_sync::posix::RwLock;
    ///
    /// fn section(lock: &RwLock) -> Result<(), LockError> {
    ///     if let Some(_reading) = lock.try_read()? {
    ///         // Nobody writes.
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn try_read(&self) -> Result<Option<ReadGuard<'_>>, LockError> {
        let guard = unless_held(self.0.lock.try_rlock(NOW))?;
        Ok(guard.map(|guard| ReadGuard { _guard: guard, _not_send: PhantomData }))
    }

    /// Waits until nobody reads or writes, and takes the lock to write.
    ///
    /// # Errors
    ///
    /// The C library refuses: if this thread holds the lock, say.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::LockError;
    /// use multiproc_sync::posix::RwLock;
    ///
    /// fn section(lock: &RwLock) -> Result<(), LockError> {
    ///     let _writing = lock.write()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn write(&self) -> Result<Guard<'_>, LockError> {
        self.0.lock()
    }

    /// Takes the lock to write if nobody holds it.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::LockError;
    /// use multiproc_sync::posix::RwLock;
    ///
    /// fn section(lock: &RwLock) -> Result<(), LockError> {
    ///     if let Some(_writing) = lock.try_write()? {
    ///         // Nobody else is here.
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn try_write(&self) -> Result<Option<Guard<'_>>, LockError> {
        self.0.try_lock()
    }
}

/// The one time limit that raw_sync gets right: it does not wait.
const NOW: Timeout = Timeout::Val(std::time::Duration::ZERO);

impl Joined {
    /// # Safety
    ///
    /// As for [`Mutex::open`].
    unsafe fn open<L: LockInit>(name: &str, offset: usize) -> io::Result<Self> {
        let mapping = Named::open(name)?.map()?;
        let end = offset.checked_add(L::size_of(None));
        if end.is_none_or(|end| end > mapping.len()) || !offset.is_multiple_of(align_of::<u64>()) {
            let text = format!(
                "no lock can be {offset} bytes from the start of the {} bytes of {name:?}",
                mapping.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // SAFETY: it is within the mapping, which is kept; what is there, the caller vouches for. No
        // data are reached through it.
        let lock = unsafe { L::from_existing(mapping.as_ptr().add(offset), ptr::null_mut()) };
        let (lock, _) = lock.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Joined { lock, _mapping: mapping })
    }

    fn lock(&self) -> Result<Guard<'_>, LockError> {
        let guard = self.lock.lock().map_err(refused)?;
        Ok(Guard { _guard: guard, _not_send: PhantomData })
    }

    fn try_lock(&self) -> Result<Option<Guard<'_>>, LockError> {
        let guard = unless_held(self.lock.try_lock(NOW))?;
        Ok(guard.map(|guard| Guard { _guard: guard, _not_send: PhantomData }))
    }
}

type Tried<G> = Result<G, Box<dyn std::error::Error>>;

fn unless_held<G>(tried: Tried<G>) -> Result<Option<G>, LockError> {
    match tried {
        Ok(guard) => Ok(Some(guard)),
        // raw_sync has the number at the end of a text.
        Err(error) if number(&*error) == Some(TIMED_OUT) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

/// `ETIMEDOUT`, on all Linux machines but MIPS and the like.
const TIMED_OUT: i32 = 110;

fn refused(error: Box<dyn std::error::Error>) -> LockError {
    let source = match number(&*error) {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::other(error.to_string()),
    };
    LockError::system("take a lock of another program", source)
}

fn number(error: &dyn std::error::Error) -> Option<i32> {
    error.to_string().rsplit(' ').next()?.parse().ok()
}

impl fmt::Debug for Mutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl fmt::Debug for ReadGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadGuard").finish_non_exhaustive()
    }
}
