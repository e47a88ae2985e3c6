//! A slice that cannot be lent for want of descriptors stays whole.

mod common;

use std::fs::File;

use common::watchdog;
use multiproc_pool::Pool;
use multiproc_process::{Limit, Process, init_before_main};
use multiproc_shm::ShmBox;

init_before_main!();

/// Opens files until no more than so many descriptors are left.
fn leave(free: usize) -> Vec<File> {
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!files.is_empty() && files.len() < 128, "the limit does not bite");
    files.truncate(files.len() - free);
    files
}

#[test]
fn a_slice_survives_a_lack_of_descriptors() {
    watchdog();
    let child = |()| {
        let pool = Pool::builder().workers(1).build().unwrap();
        pool.map(|x: u32| x, 0..10).unwrap();
        let mut slice = ShmBox::from_slice(&(0..40u64).collect::<Vec<_>>()).unwrap();
        let mut failed = 0;
        for free in 0..12 {
            let files = leave(free);
            let lent = pool.for_each_chunk_mut(&mut slice, 4, |_, _| ());
            drop(files);
            failed += u32::from(lent.is_err());
            assert!(slice.iter().copied().eq(0..40), "{free} descriptors were left");
        }
        assert!(failed > 0);
        pool.for_each_chunk_mut(&mut slice, 4, |chunk, _| chunk[0] += 1).unwrap();
        assert_eq!((slice[0], slice[36]), (1, 37));
    };
    Process::builder().limit(Limit::OpenFiles, 128).spawn(child, ()).unwrap().join().unwrap();
}
