use std::fmt;
use std::ops::Deref;

use multiproc_sync::region::{Header, Region, SHARED, Words};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::Error;

/// A structure in shared memory that is safe to use without a lock of its own: of atomics, and of the
/// words of locks and other primitives, as many as there is use for.
///
/// It derefs to a `T`. A hundred locks in one need one mapping and one descriptor, not a hundred; and
/// [`handle`](Self::handle) makes of the words of each what it is used through. A clone, and what another
/// process reads from a message, is the same structure.
///
/// Who reads it from a message checks that it is a structure of that length, and no more: processes that
/// share memory trust each other.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use multiproc_shm::Shared;
/// use multiproc_sync::{RawEvent, RawLock};
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Plant {
///     doors: [RawLock; 100],
///     started: RawEvent,
///     visitors: AtomicU64,
/// }
///
/// let plant = Shared::new(Plant {
///     doors: [const { RawLock::new() }; _],
///     started: RawEvent::new(),
///     visitors: AtomicU64::new(0),
/// })?;
/// plant.visitors.fetch_add(1, Relaxed);
/// plant.handle(|plant| &plant.started).set();
///
/// let door = plant.handle(|plant| &plant.doors[7]); // a `Lock`, as any other
/// let _held = door.lock()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What can change without being atomic does not compile:
///
/// ```compile_fail
/// let cell = multiproc_shm::Shared::new(std::cell::Cell::new(1u32));
/// ```
///
/// Nor does a pointer, which means nothing in another process:
///
/// ```compile_fail
/// let pointer = multiproc_shm::Shared::new(std::sync::atomic::AtomicPtr::<u8>::default());
/// ```
#[derive(Serialize, Deserialize)]
#[serde(
    transparent,
    bound(serialize = "", deserialize = "T: FromBytes + IntoBytes + KnownLayout + Sync + 'static")
)]
pub struct Shared<T> {
    region: Region<Structure<T>>,
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(transparent)]
struct Structure<T>(T);

impl<T: FromBytes + IntoBytes + KnownLayout + Sync + 'static> Header for Structure<T> {
    const KIND: [u8; 8] = SHARED;
}

impl<T: FromBytes + IntoBytes + KnownLayout + Sync + 'static> Shared<T> {
    /// Puts a structure into shared memory. It can have 1 GiB, and be aligned to 128 bytes.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    ///
    /// let count = multiproc_shm::Shared::new(AtomicU32::new(3))?;
    /// assert_eq!(count.fetch_add(1, Relaxed), 3);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn new(structure: T) -> Result<Self, Error> {
        Ok(Shared { region: Region::create_with("multiproc-shared", Structure(structure), 0)? })
    }

    /// Makes a structure of zeros, which need not be on the stack first.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::AtomicU64;
    ///
    /// let counts = multiproc_shm::Shared::<[AtomicU64; 1 << 20]>::zeroed()?;
    /// assert_eq!(counts.len(), 1 << 20);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn zeroed() -> Result<Self, Error> {
        Ok(Shared { region: Region::create("multiproc-shared", 0)? })
    }

    /// What a primitive in the structure is used through: of a `RawLock` a `Lock`, and so on. It keeps
    /// the memory mapped, and may travel by itself.
    ///
    /// # Panics
    ///
    /// If what `pick` gives is not in the structure.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::Shared;
    /// use multiproc_sync::{RawSemaphore, Semaphore};
    ///
    /// let tokens = Shared::new([RawSemaphore::new(1), RawSemaphore::new(2)])?;
    /// let second: Semaphore = tokens.handle(|tokens| &tokens[1]);
    /// assert_eq!(second.value(), 2);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn handle<X: Words>(&self, pick: impl FnOnce(&T) -> &X) -> X::Handle {
        self.region.place(|structure| pick(&structure.0)).into()
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Sync + 'static> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.region.header().0
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared { region: self.region.clone() }
    }
}

impl<T> fmt::Debug for Shared<T>
where
    T: fmt::Debug + FromBytes + IntoBytes + KnownLayout + Sync + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&**self).finish()
    }
}
