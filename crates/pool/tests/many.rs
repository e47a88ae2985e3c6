//! A million tasks wait at once in a process that may open 256 files. Alone in its binary: it takes
//! its time.

mod common;

use std::fs::File;
use std::time::Duration;

use common::watchdog_of;
use multiproc_pool::Pool;
use multiproc_process::{Limit, Process, init_before_main};

init_before_main!();

const FILES: u64 = 256;

/// Gives how many files could be opened.
fn queue(tasks: u64) -> usize {
    let mut opened = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        opened.push(file);
        assert!(opened.len() as u64 <= FILES, "the limit does not hold");
    }
    let most = opened.len();
    drop(opened);
    let pool = Pool::builder().workers(2).build().unwrap();
    let later: Vec<_> = (0..tasks).map(|x| pool.apply_async(|x: u64| x + 1, x).unwrap()).collect();
    for (x, handle) in later.into_iter().enumerate() {
        assert_eq!(handle.get().unwrap(), x as u64 + 1);
    }
    let values = pool.map(|x: u64| x * 2, 0..tasks).unwrap();
    assert!(values.into_iter().eq((0..tasks).map(|x| x * 2)));
    pool.join().unwrap();
    most
}

fn queue_in_a_child(tasks: u64) {
    watchdog_of(Duration::from_secs(1_200));
    let child = Process::builder().limit(Limit::OpenFiles, FILES).spawn(queue, tasks).unwrap();
    let most = child.join().unwrap();
    assert!((100..FILES as usize).contains(&most), "{most} files could be opened");
}

#[test]
fn many_tasks_wait_with_few_descriptors() {
    queue_in_a_child(50_000);
}

#[test]
#[ignore = "takes a minute"]
fn a_million_tasks_wait_with_few_descriptors() {
    queue_in_a_child(1_000_000);
}
