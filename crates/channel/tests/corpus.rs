//! Replays what the fuzzers have found interesting: no decoder panics, overflows the stack of a thread,
//! or takes memory that no bytes stand for. The fuzzers themselves are in `fuzz/`.
#![allow(dead_code, unreachable_pub, unused_imports, missing_docs)] // Files of the crate, by parts.

#[path = "../src/socket/codec.rs"]
mod codec;
mod common;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/socket/frame.rs"]
mod frame;
#[path = "../src/socket/handshake.rs"]
mod handshake;
#[path = "../src/socket/pickle.rs"]
mod pickle;
#[path = "../fuzz/src/targets.rs"]
mod targets;

multiproc_process::init_before_main!();

fn replay(name: &str, target: fn(&[u8])) {
    common::watchdog();
    let directory = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut inputs = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        target(&std::fs::read(file.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 10, "{inputs} inputs prove little");
}

#[test]
fn frames() {
    replay("frame", targets::frame);
}

#[test]
fn handshakes() {
    replay("handshake", targets::handshake);
}

#[test]
fn pickles() {
    replay("pickle", targets::pickle);
}

#[test]
fn packets_leave_no_descriptor_open() {
    replay("wire", targets::wire);
}
