#![doc = include_str!("../README.md")]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod lock;

pub mod region;

mod error;
mod raw_lock;

pub use error::{LockError, MemoryError};
pub use lock::{Lock, LockGuard};
pub use raw_lock::RawLock;
