#![doc = include_str!("../README.md")]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod value;

mod array;

mod shared;

mod shm_box;

mod shm_arc;

mod shared_memory;

mod shareable_list;

#[cfg(feature = "bytemuck")]
mod pod;

mod elements;
mod error;
mod unique;

pub use array::{Array, ArrayGuard};
pub use error::Error;
pub use multiproc_sync::LockError;
pub use shareable_list::{Item, Items, ShareableList};
pub use shared::Shared;
pub use shared_memory::SharedMemory;
pub use shm_arc::ShmArc;
pub use shm_box::{FreezeError, JoinError, Recall, RecallError, ShmBox};
pub use value::{Value, ValueGuard};
