//! A slice in many chunks takes few descriptors, here and in the workers, and keeps none.

mod common;

use common::{eventually, watchdog};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;
use multiproc_shm::ShmBox;

init_before_main!();

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn many_chunks_take_few_descriptors() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let mut slice = ShmBox::<[u64]>::zeroed(20_000).unwrap();
    pool.map(|x: u32| x, 0..100).unwrap();
    let before = descriptors();
    let most = pool.map_chunks_mut(&mut slice, 5, |chunk, _| {
        chunk[0] += 1;
        descriptors()
    });
    assert!(most.unwrap().into_iter().max().unwrap() < 60);
    // The pool's own thread may hold the last message for a moment longer.
    eventually(|| descriptors() == before);
    assert!(slice.iter().zip(0..).all(|(x, i)| *x == u64::from(i % 5 == 0)));
}
