//! What is fuzzed, in files of the crate that it hides from its users.
#![allow(dead_code, missing_docs)]

#[path = "../../src/socket/codec.rs"]
mod codec;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/socket/frame.rs"]
mod frame;
#[path = "../../src/socket/handshake.rs"]
mod handshake;
#[path = "../../src/socket/pickle.rs"]
mod pickle;
pub mod targets;
