//! The results that a worker has finished and not sent yet, where its death does not reach them.
//!
//! Layout: the index of the first result, the count and the length of all, then the framed results.
//! A result is written first and counted afterwards, in one store, so that a worker that is killed in
//! between has not finished it.

use std::sync::atomic::{Ordering, compiler_fence};

use multiproc_shm::Array;
use multiproc_wire::Message;

/// Results are sent before they grow beyond this, so they always fit.
pub(crate) const CAPACITY: usize = 32 << 10;

const FIRST: usize = 0;
const STATE: usize = 8;
const HEADER: usize = 16;

/// Makes the memory for one worker.
pub(crate) fn new() -> Result<Array<u8>, multiproc_shm::Error> {
    Array::zeroed(HEADER + CAPACITY)
}

/// Empties it; the next result is that of task `first` of the chunk.
pub(crate) fn reset(outbox: &Array<u8>, first: u32) {
    let Ok(mut bytes) = outbox.lock_anyway() else { return };
    put(&mut bytes, STATE, 0);
    compiler_fence(Ordering::SeqCst);
    put(&mut bytes, FIRST, first.into());
}

/// Adds a result.
pub(crate) fn append(outbox: &Array<u8>, result: &[u8]) {
    let Ok(mut bytes) = outbox.lock_anyway() else { return };
    let (count, len) = state(&bytes);
    let start = HEADER + len;
    let Some(place) = bytes.get_mut(start..start + result.len()) else { return };
    place.copy_from_slice(result);
    compiler_fence(Ordering::SeqCst);
    let state = (u64::from(count + 1) << 32) | (len + result.len()) as u64;
    put(&mut bytes, STATE, state);
}

/// Takes what a worker that has died had finished: the index of the first result, how many there
/// are, and the framed results.
pub(crate) fn take(outbox: &Array<u8>) -> Option<(u32, u32, Message)> {
    let bytes = outbox.lock_anyway().ok()?;
    let (count, len) = state(&bytes);
    let first = u32::try_from(get(&bytes, FIRST)).ok()?;
    let results = bytes.get(HEADER..HEADER + len)?;
    Some((first, count, Message::from_bytes(results.to_vec())))
}

fn state(bytes: &[u8]) -> (u32, usize) {
    let state = get(bytes, STATE);
    ((state >> 32) as u32, state as u32 as usize)
}

fn get(bytes: &[u8], offset: usize) -> u64 {
    let word = bytes[offset..].first_chunk().copied().unwrap_or_default();
    u64::from_ne_bytes(word)
}

fn put(bytes: &mut [u8], offset: usize, word: u64) {
    bytes[offset..offset + 8].copy_from_slice(&word.to_ne_bytes());
}
