use std::io;

use crate::raw_lock::NotTaken;

/// Why a lock, a unit or a permit was not taken.
///
/// It carries no guard, so that it is `'static` and `?` works: [`Lock::lock_anyway`] takes a
/// poisoned lock.
///
/// [`Lock::lock_anyway`]: crate::Lock::lock_anyway
///
/// # Examples
///
/// ```
/// let lock = multiproc_sync::Lock::new()?;
/// let _held = lock.lock()?;
/// let error = lock.lock().unwrap_err();
/// assert!(error.is_deadlock());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LockError(#[from] Kind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error(
        "the lock is poisoned: a holder died or panicked, and what the lock guards may be broken: \
         take it with lock_anyway and call clear_poison once that is repaired"
    )]
    Poisoned,
    #[error("timed out: it was not free in time")]
    Timeout,
    #[error("this thread holds the lock already")]
    Deadlock,
    #[error("a thread of this process has ended without releasing the lock, whose guard it forgot")]
    Leaked,
    #[error("this thread holds as many locks as the kernel looks after when it dies")]
    TooMany,
    #[error(transparent)]
    System(Box<System>),
}

/// In a box: the error is as small as the guard that comes in its place.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {source}")]
pub(crate) struct System {
    operation: &'static str,
    source: io::Error,
}

impl LockError {
    /// Tells whether a holder has died or panicked, and nobody has called `clear_poison` since.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// # let hook = std::panic::take_hook();
    /// # std::panic::set_hook(Box::new(|_| ()));
    /// let _panic = std::panic::catch_unwind(|| {
    ///     let _held = lock.lock().unwrap();
    ///     panic!("halfway through");
    /// });
    /// # std::panic::set_hook(hook);
    /// assert!(lock.lock().unwrap_err().is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        matches!(self.0, Kind::Poisoned)
    }

    /// Tells whether the time was over before the lock was free.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_sync::Semaphore;
    ///
    /// let error = Semaphore::new(0)?.acquire_timeout(Duration::ZERO).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Kind::Timeout)
    }

    /// Tells whether the calling thread holds the lock itself and would have waited for ever.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// let _held = lock.lock()?;
    /// assert!(lock.lock().unwrap_err().is_deadlock());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_deadlock(&self) -> bool {
        matches!(self.0, Kind::Deadlock)
    }

    /// Tells whether a thread of this process has ended with the lock held, its guard forgotten. The
    /// guard may have lent out for good what the lock guards, so that this process never gets it
    /// again; others find it poisoned.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiproc_sync::Lock::new()?;
    /// let forgetful = lock.clone();
    /// std::thread::spawn(move || std::mem::forget(forgetful.lock().unwrap())).join().unwrap();
    /// let error = lock.lock().unwrap_err();
    /// assert!(error.is_leaked() || error.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_leaked(&self) -> bool {
        matches!(self.0, Kind::Leaked)
    }

    /// Tells whether the calling thread holds 2,000 locks already.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::Lock;
    ///
    /// let locks: Vec<Lock> = (0..3).map(|_| Lock::new()).collect::<Result<_, _>>()?;
    /// let _all: Vec<_> = locks.iter().map(|lock| lock.lock()).collect::<Result<_, _>>()?;
    /// // It would be with 2,001.
    /// assert!(!locks[0].lock().unwrap_err().is_too_many());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_too_many(&self) -> bool {
        matches!(self.0, Kind::TooMany)
    }

    /// Of a wait on several words.
    pub(crate) fn waiting(source: io::Error) -> Self {
        Self::system("wait for several locks, which needs Linux 5.16", source)
    }

    pub(crate) fn system(operation: &'static str, source: io::Error) -> Self {
        Kind::System(Box::new(System { operation, source })).into()
    }
}

impl From<NotTaken> for LockError {
    #[cold]
    fn from(reason: NotTaken) -> Self {
        match reason {
            NotTaken::Held => Kind::Timeout,
            NotTaken::HeldByCaller => Kind::Deadlock,
            NotTaken::Leaked => Kind::Leaked,
            NotTaken::TooMany => Kind::TooMany,
            NotTaken::System(source) => {
                let operation = "have the kernel look after a lock";
                Kind::System(Box::new(System { operation, source }))
            }
        }
        .into()
    }
}

impl From<LockError> for io::Error {
    fn from(error: LockError) -> Self {
        let kind = match &error.0 {
            Kind::Poisoned => io::ErrorKind::InvalidData,
            Kind::Timeout => io::ErrorKind::TimedOut,
            Kind::Deadlock => io::ErrorKind::Deadlock,
            Kind::Leaked => io::ErrorKind::Deadlock,
            Kind::TooMany => io::ErrorKind::QuotaExceeded,
            Kind::System(system) => system.source.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// Why shared memory could not be made, or was not taken from a message.
///
/// # Examples
///
/// ```
/// use multiproc_sync::region::{Header, Region};
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Nothing;
/// impl Header for Nothing {
///     const KIND: [u8; 8] = *b"example\0";
/// }
///
/// let (pipe, _writer) = std::io::pipe()?;
/// let error = Region::<Nothing>::from_fd(std::os::fd::OwnedFd::from(pipe)).unwrap_err();
/// assert!(error.is_foreign());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {reason}")]
pub struct MemoryError {
    pub(crate) operation: &'static str,
    pub(crate) reason: Reason,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("it is {0}")]
    Foreign(String),
    #[error("the length overflows")]
    TooLong,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl MemoryError {
    /// Tells whether a descriptor does not refer to memory of this kind, version and machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::OwnedFd;
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let (pipe, _writer) = std::io::pipe()?;
    /// let error = Region::<RawLock>::from_fd(OwnedFd::from(pipe)).unwrap_err();
    /// assert!(error.is_foreign());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_foreign(&self) -> bool {
        matches!(self.reason, Reason::Foreign(_))
    }

    /// Tells whether more was asked for than an address space can hold.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let error = Region::<RawLock>::create("example", usize::MAX).unwrap_err();
    /// assert!(error.is_too_long());
    /// ```
    pub fn is_too_long(&self) -> bool {
        matches!(self.reason, Reason::TooLong)
    }

    pub(crate) fn unusable(reason: Reason) -> Self {
        MemoryError { operation: "cannot use the shared memory", reason }
    }
}

impl From<MemoryError> for io::Error {
    fn from(error: MemoryError) -> Self {
        let kind = match &error.reason {
            Reason::Foreign(_) => io::ErrorKind::InvalidData,
            Reason::TooLong => io::ErrorKind::OutOfMemory,
            Reason::System(source) => source.kind(),
        };
        io::Error::new(kind, error)
    }
}
