//! multiproc's only seam to Linux: the only system calls, the only `fork`.
//!
//! The crates above it name neither libc nor rustix. What is here has the shape that they need and
//! no more; it is not meant for use by others.

#![warn(clippy::unwrap_used, clippy::expect_used)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("multiproc runs on 64-bit Linux");

pub mod deadline;
pub mod patience;

pub mod futex;
pub mod memory;
pub mod octets;
pub mod robust;

pub mod handoff;
pub mod poll;
pub mod reactor;
pub mod socket;

pub mod constructors;
pub mod context;
pub mod exec;
pub mod fork;
pub mod image;
pub mod lifeline;
pub mod peer;
pub mod pidfd;
mod pidfd_info;
