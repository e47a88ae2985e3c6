//! Memory that processes share: a header of atomics, and bytes behind a lock.
//!
//! This is what the handles of the crates above are made of. A region is a memfd:
//!
//! | from | what |
//! | --- | --- |
//! | 0 | the preamble: format, version, C library, pid namespace, length, and the lock of the bytes |
//! | 128 | the header `H`: atomics, and locks that guard no bytes (*gates*) |
//! | after it, aligned | the bytes |
//!
//! The preamble and the header stay mapped at one address as long as the region is used, since held
//! locks are linked by address. The bytes of a region that grows are mapped apart, and only whoever
//! holds their lock follows a growth.
#![allow(unsafe_code)] // Makes references into shared memory: to atomics, and to bytes under a lock.

mod guard;
mod place;
mod preamble;

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use multiproc_os::deadline::Deadline;
use multiproc_os::memory::{Mapping, Memory};
use multiproc_wire::SharedFd;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{LockError, MemoryError, Reason};
use crate::raw_lock::{Guess, RawLock, Wait};

pub use guard::{GateGuard, RegionGuard};
pub(crate) use place::{Hold, sealed};
pub use place::{Place, Words};
use preamble::{Extent, HEADER_AT, LONGEST_HEADER, PAGE, Preamble};

/// What stands in front of a region's bytes and is used without their lock.
///
/// It starts as zeros. What changes in it is atomic: the bounds rule out anything else that could be
/// changed through a shared reference. The kind must say what the type is, since memory that comes from
/// elsewhere is taken for the header that its kind and length name.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::AtomicU32;
/// use multiproc_sync::RawLock;
/// use multiproc_sync::region::Header;
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Turnstile {
///     gate: RawLock,
///     passed: AtomicU32,
///     waiting: AtomicU32,
/// }
///
/// impl Header for Turnstile {
///     const KIND: [u8; 8] = *b"turnstil";
/// }
/// ```
pub trait Header: FromBytes + IntoBytes + KnownLayout + Sync + 'static {
    /// Eight letters that tell this kind of region from others, in error messages too.
    const KIND: [u8; 8];
}

/// The kind of headers that are made of words of several primitives, in any order: what a message
/// says to be at an offset of such a header is taken for that.
pub const SHARED: [u8; 8] = *b"shared\0\0";

/// Shared memory with a header `H` and bytes that one thread of one process at a time may use.
///
/// Clones, and what is read from messages, refer to the same memory. It is gone with the last of them.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use multiproc_sync::region::{Header, Region};
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Visits(AtomicU64);
///
/// impl Header for Visits {
///     const KIND: [u8; 8] = *b"visits\0\0";
/// }
///
/// let region = Region::<Visits>::create_growable("guest-book", 16)?;
/// region.header().0.fetch_add(1, Ordering::Relaxed);
///
/// let mut guard = region.lock()?;
/// guard.bytes_mut()[..4].copy_from_slice(b"anna");
/// guard.grow(1 << 20)?;
/// assert_eq!(guard.bytes().len(), 1 << 20);
/// assert_eq!(&guard.bytes()[..4], b"anna");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Region<H> {
    inner: Arc<Inner>,
    /// Where the head is.
    preamble: NonNull<Preamble>,
    /// Of the lock of the bytes.
    guess: Guess,
    growable: bool,
    _header: PhantomData<fn() -> H>,
}

// SAFETY: the mapping is of the process, not of a thread, and has a preamble of atomics and an `H`,
// which is `Sync`.
unsafe impl<H> Send for Region<H> {}
// SAFETY: as above.
unsafe impl<H> Sync for Region<H> {}

struct Inner {
    memory: Memory<SharedFd>,
    /// The preamble and the header; of a region that cannot grow, the bytes too.
    head: ManuallyDrop<Mapping>,
    /// For whoever holds the lock of the preamble, and for nobody else.
    bytes: UnsafeCell<Bytes>,
    extent: Extent,
    /// How many guards of gates there are, forgotten ones included.
    gates: AtomicUsize,
    /// The locks that are used through places.
    places: Mutex<Vec<Locks>>,
}

/// Locks in the header.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Locks(NonNull<[RawLock]>);

// SAFETY: they are in a mapping of the process, not of a thread, and `Sync`.
unsafe impl Send for Locks {}

struct Bytes {
    start: NonNull<u8>,
    len: usize,
    /// Of a region that can grow.
    _mapping: Option<Mapping>,
}

// SAFETY: the mappings are of the process, not of a thread. The head is only read or holds atomics;
// the bytes are reached by whoever holds the region's lock, which one thread of all processes does.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

// What a panic has left half done is poisoned.
impl UnwindSafe for Inner {}
impl RefUnwindSafe for Inner {}

impl<H: Header> Region<H> {
    /// Makes a region with `len` zero bytes, which stay that many. They are aligned to the greatest
    /// power of two that divides `len`, up to 4096. The name shows in `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// The length overflows, or the system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 16)?;
    /// assert_eq!(region.len(), 16);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn create(name: &str, len: usize) -> Result<Self, MemoryError> {
        Self::with_extent(name, Extent::fixed(size_of::<H>(), len))
    }

    /// Makes a region with `len` zero bytes, which [`RegionGuard::grow`] can make more. They are
    /// aligned to 4096.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create_growable("example", 0)?;
    /// region.lock()?.grow(100)?;
    /// assert_eq!(region.len(), 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_growable(name: &str, len: usize) -> Result<Self, MemoryError> {
        Self::with_extent(name, Extent::growable(size_of::<H>(), len))
    }

    /// Makes a region with `len` zero bytes behind a header that is not zero.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::create_with("example", RawLock::new(), 16)?;
    /// assert_eq!(*region.lock()?.bytes(), [0; 16]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_with(name: &str, mut header: H, len: usize) -> Result<Self, MemoryError> {
        let region = Self::create(name, len)?;
        let from = header.as_mut_bytes();
        // SAFETY: the mapping covers the header, which nobody knows of yet.
        unsafe {
            let to = region.preamble.byte_add(HEADER_AT).cast::<u8>().as_ptr();
            to.copy_from_nonoverlapping(from.as_ptr(), from.len());
        }
        Ok(region)
    }

    fn with_extent(name: &str, extent: Extent) -> Result<Self, MemoryError> {
        const { assert!(align_of::<H>() <= HEADER_AT && size_of::<H>() <= LONGEST_HEADER) };
        let error = |reason| MemoryError { operation: "cannot make shared memory", reason };
        let make = || -> Result<_, Reason> {
            let memory = if extent.growable {
                Memory::create_growable(name, extent.end()?)?
            } else {
                Memory::create(name, extent.end()?)?
            };
            let memory = Memory::from_fd(SharedFd::from(memory.into_fd()))?;
            let head = memory.map(0, extent.head())?;
            // SAFETY: the mapping is at least as long as the preamble, which is all atomics.
            let preamble = unsafe { &*head.as_ptr().cast::<Preamble>() };
            preamble.write::<H>(extent)?;
            Ok(Self::of(Arc::new(Inner::assemble(memory, head, extent)?)))
        };
        make().map_err(error)
    }

    /// Takes memory that came from elsewhere, as a rule from another process.
    ///
    /// # Errors
    ///
    /// It is not a region with such a header, made by this version, for this C library, in this pid
    /// namespace.
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
    /// assert!(error.to_string().contains("shared memory"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(fd: impl Into<SharedFd>) -> Result<Self, MemoryError> {
        let open = || -> Result<_, Reason> {
            let inner = Inner::open(fd.into())?;
            inner.preamble().check_kind::<H>()?;
            Ok(Self::of(Arc::new(inner)))
        };
        open().map_err(MemoryError::unusable)
    }

    /// Of memory whose header is an `H`.
    fn of(inner: Arc<Inner>) -> Self {
        // SAFETY: no mapping is at address zero.
        let preamble = unsafe { NonNull::new_unchecked(inner.head.as_ptr().cast()) };
        Region {
            preamble,
            guess: Guess::default(),
            growable: inner.extent.growable,
            inner,
            _header: PhantomData,
        }
    }

    /// What stands in front of the bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawEvent;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawEvent>::create("example", 16)?;
    /// let _event: &RawEvent = region.header();
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[inline]
    pub fn header(&self) -> &H {
        // SAFETY: it is mapped and aligned: see `Extent` and `assemble`. Any bits are an `H`, and
        // nobody makes a `&mut H` or writes other than through a `&H`. The mapping stays.
        unsafe { self.preamble.byte_add(HEADER_AT).cast().as_ref() }
    }

    /// How many bytes there are. They may be more by now, if the region grows.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// assert_eq!(region.len(), 3);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn len(&self) -> usize {
        self.preamble().len() as usize
    }

    /// Tells whether there are no bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// assert!(Region::<RawLock>::create("example", 0)?.is_empty());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the lock of the bytes and takes it.
    ///
    /// # Errors
    ///
    /// The lock is poisoned, or this thread holds it already, or one of the rarer reasons that
    /// [`LockError`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// region.lock()?.bytes_mut().copy_from_slice(b"abc");
    /// assert_eq!(region.lock()?.bytes(), b"abc");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn lock(&self) -> Result<RegionGuard<'_, H>, LockError> {
        RegionGuard::take(self, Wait::Until(Deadline::NEVER), false)
    }

    /// Takes the lock of the bytes even if it is poisoned.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock), but for the poison.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// # let hook = std::panic::take_hook();
    /// # std::panic::set_hook(Box::new(|_| ()));
    /// let _panic = std::panic::catch_unwind(|| {
    ///     let _guard = region.lock().unwrap();
    ///     panic!("halfway through");
    /// });
    /// # std::panic::set_hook(hook);
    /// assert!(region.lock().unwrap_err().is_poisoned());
    /// region.lock_anyway()?.bytes_mut().fill(0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn lock_anyway(&self) -> Result<RegionGuard<'_, H>, LockError> {
        RegionGuard::take(self, Wait::Until(Deadline::NEVER), true)
    }

    /// Takes the lock of the bytes if it is free. `None` if another thread holds it.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// let guard = region.lock()?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(region.try_lock().unwrap().is_none()));
    /// });
    /// # drop(guard);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<Option<RegionGuard<'_, H>>, LockError> {
        match RegionGuard::take(self, Wait::Try, false) {
            Err(error) if error.is_timeout() => Ok(None),
            result => result.map(Some),
        }
    }

    /// Waits for the lock of the bytes until the deadline.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock), or the time was over before the lock was free.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// let guard = region.lock_until(Deadline::after(Duration::from_secs(1)))?;
    /// assert_eq!(guard.bytes(), [0; 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_until(&self, deadline: Deadline) -> Result<RegionGuard<'_, H>, LockError> {
        RegionGuard::take(self, Wait::Until(deadline), false)
    }

    /// Tells whether a holder of the lock has died or panicked, and nobody has declared the bytes
    /// repaired since.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// assert!(!region.is_poisoned());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        self.preamble().lock.is_poisoned()
    }

    /// Declares the bytes repaired.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// # let hook = std::panic::take_hook();
    /// # std::panic::set_hook(Box::new(|_| ()));
    /// let _panic = std::panic::catch_unwind(|| {
    ///     let _guard = region.lock().unwrap();
    ///     panic!("halfway through");
    /// });
    /// # std::panic::set_hook(hook);
    /// region.lock_anyway()?.bytes_mut().fill(0);
    /// region.clear_poison();
    /// assert!(region.lock().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clear_poison(&self) {
        self.preamble().lock.clear_poison();
    }

    /// Waits for a lock in the header until the deadline. Such a *gate* guards no bytes; the death of
    /// its holder opens it and poisons nothing.
    ///
    /// # Errors
    ///
    /// As for [`lock_until`](Self::lock_until), but for the poison.
    ///
    /// # Panics
    ///
    /// If the lock that `pick` gives is not in the header.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc_sync::RawLock;
    /// # use multiproc_sync::region::{Header, Region};
    /// # use zerocopy::{FromBytes, IntoBytes, KnownLayout};
    /// use multiproc_os::deadline::Deadline;
    ///
    /// # #[derive(FromBytes, IntoBytes, KnownLayout)]
    /// # #[repr(C)]
    /// # struct Turnstile { gate: RawLock }
    /// # impl Header for Turnstile { const KIND: [u8; 8] = *b"turnstil"; }
    /// let region = Region::<Turnstile>::create("example", 0)?;
    /// let gate = region.lock_gate(|turnstile| &turnstile.gate, Deadline::NEVER)?;
    /// assert!(!gate.holder_died());
    /// drop(gate);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_gate(
        &self,
        pick: impl FnOnce(&H) -> &RawLock,
        deadline: Deadline,
    ) -> Result<GateGuard<'_>, LockError> {
        GateGuard::take(self, pick, Wait::Until(deadline))
    }

    /// Takes a lock in the header if it is free. `None` if another thread holds it.
    ///
    /// # Errors
    ///
    /// As for [`lock_gate`](Self::lock_gate).
    ///
    /// # Panics
    ///
    /// If the lock that `pick` gives is not in the header.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 0)?;
    /// let gate = region.try_lock_gate(|gate| gate)?;
    /// assert!(gate.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_lock_gate(
        &self,
        pick: impl FnOnce(&H) -> &RawLock,
    ) -> Result<Option<GateGuard<'_>>, LockError> {
        match GateGuard::take(self, pick, Wait::Try) {
            Err(error) if error.is_timeout() => Ok(None),
            result => result.map(Some),
        }
    }

    /// The words of a lock or of another primitive in the header. The primitive is used through what
    /// is made of that, and keeps the region mapped.
    ///
    /// # Panics
    ///
    /// If what `pick` gives is not in the header.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::region::Region;
    /// use multiproc_sync::{Event, RawEvent};
    ///
    /// let region = Region::<RawEvent>::create("example", 16)?;
    /// let event = Event::from(region.place(|event| event));
    /// event.set();
    /// assert!(event.is_set());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn place<X: Words>(&self, pick: impl FnOnce(&H) -> &X) -> Place<X> {
        Place::of(&self.inner, pick(self.header()))
    }

    /// Tells whether both refer to the same memory through the same handle in this process.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_sync::RawLock;
    /// use multiproc_sync::region::Region;
    ///
    /// let region = Region::<RawLock>::create("example", 3)?;
    /// assert!(region.same(&region.clone()));
    /// assert!(!region.same(&Region::create("another", 3)?));
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl<H> Region<H> {
    #[inline]
    fn preamble(&self) -> &Preamble {
        // SAFETY: as in `header`.
        unsafe { self.preamble.as_ref() }
    }
}

impl Inner {
    /// Checks and maps memory that came from elsewhere.
    fn open(fd: SharedFd) -> Result<Self, Reason> {
        let memory = match Memory::from_fd(fd) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Reason::Foreign(format!("no shared memory of ours: {error}")));
            }
            memory => memory?,
        };
        let too_short = || Err(Reason::Foreign("too short".to_owned()));
        if memory.len()? < HEADER_AT as u64 {
            return too_short();
        }
        let head = memory.map(0, HEADER_AT)?;
        // SAFETY: the mapping is as long as the preamble, which is all atomics.
        let preamble = unsafe { &*head.as_ptr().cast::<Preamble>() };
        let extent = preamble.check()?;
        if memory.len()? < extent.end()? {
            return too_short();
        }
        let head = memory.map(0, extent.head())?;
        Self::assemble(memory, head, extent)
    }

    fn assemble(memory: Memory<SharedFd>, head: Mapping, extent: Extent) -> Result<Self, Reason> {
        let bytes = if extent.growable {
            Bytes::map(&memory, extent.at, extent.len)?
        } else if extent.len == 0 {
            Bytes::empty()
        } else {
            // SAFETY: the mapping covers the bytes: see `Extent::head`.
            let start = unsafe { NonNull::new_unchecked(head.as_ptr().add(extent.at as usize)) };
            Bytes { start, len: extent.len as usize, _mapping: None }
        };
        Ok(Inner {
            memory,
            head: ManuallyDrop::new(head),
            bytes: UnsafeCell::new(bytes),
            extent,
            gates: AtomicUsize::new(0),
            places: Mutex::new(Vec::new()),
        })
    }

    fn preamble(&self) -> &Preamble {
        // SAFETY: as in `Region::header`.
        unsafe { &*self.head.as_ptr().cast() }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A guard that was forgotten has left its lock in the list of its thread, which will write
        // there again.
        let places = mem::take(self.places.get_mut().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: they are in the header, which is mapped.
        let mut places = places.iter().flat_map(|locks| unsafe { locks.0.as_ref() });
        if *self.gates.get_mut() == 0
            && !self.preamble().lock.is_held_in_this_process()
            && !places.any(RawLock::is_held_in_this_process)
        {
            // SAFETY: it is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.head) };
        }
    }
}

impl Bytes {
    fn empty() -> Self {
        let start = NonNull::new(ptr::without_provenance_mut(PAGE as usize));
        Bytes { start: start.unwrap_or(NonNull::dangling()), len: 0, _mapping: None }
    }

    /// Maps the bytes of a region that can grow.
    fn map<F: AsFd>(memory: &Memory<F>, at: u64, len: u64) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self::empty());
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mapping = memory.map(at, len)?;
        // SAFETY: no mapping is at address zero.
        let start = unsafe { NonNull::new_unchecked(mapping.as_ptr()) };
        Ok(Bytes { start, len, _mapping: Some(mapping) })
    }
}

impl<H> Clone for Region<H> {
    fn clone(&self) -> Self {
        Region {
            inner: Arc::clone(&self.inner),
            preamble: self.preamble,
            guess: self.guess.clone(),
            growable: self.growable,
            _header: PhantomData,
        }
    }
}

impl<H> AsFd for Region<H> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.memory.as_fd()
    }
}

impl<H> Serialize for Region<H> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.memory.fd().serialize(serializer)
    }
}

impl<'de, H: Header> Deserialize<'de> for Region<H> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Region::from_fd(SharedFd::deserialize(deserializer)?).map_err(multiproc_wire::fail)
    }
}

impl<H> fmt::Debug for Region<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preamble = self.preamble();
        f.debug_struct("Region")
            .field("len", &preamble.len())
            .field("poisoned", &preamble.lock.is_poisoned())
            .finish_non_exhaustive()
    }
}
