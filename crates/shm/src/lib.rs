#![doc = include_str!("../README.md")]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod value;

mod array;

mod elements;
mod error;

pub use array::{Array, ArrayGuard};
pub use error::Error;
pub use multiproc_sync::LockError;
pub use value::{Value, ValueGuard};
