#![doc = include_str!("../README.md")]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod lock;

mod rlock;

mod rw_lock;

mod semaphore;

mod bounded_semaphore;

pub mod condition;

mod event;

mod barrier;

#[cfg(feature = "posix")]
pub mod posix;

pub mod region;

mod error;
mod raw_lock;
mod slots;

pub use barrier::{Barrier, BarrierError, RawBarrier};
pub use bounded_semaphore::{BoundedSemaphore, Permit, RawBoundedSemaphore};
pub use condition::{Condition, RawCondition};
pub use error::{LockError, MemoryError};
pub use event::{Event, RawEvent};
pub use lock::{Lock, LockGuard};
pub use raw_lock::RawLock;
pub use rlock::{RLock, RLockGuard, RawRLock};
pub use rw_lock::{RawRwLock, ReadGuard, RwLock, WriteGuard};
pub use semaphore::{RawSemaphore, Semaphore};
