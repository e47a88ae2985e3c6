use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

/// A number that no other memory has: random, and of this process and moment.
pub(crate) fn new_id() -> u128 {
    static MADE: AtomicU64 = AtomicU64::new(0);

    let half = || {
        // A fork copies the random state.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.write_u64(MADE.fetch_add(1, Relaxed));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        hasher.write_u128(now.as_nanos());
        u128::from(hasher.finish())
    };
    half() << 64 | half()
}
