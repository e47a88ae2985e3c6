//! A slice that is lent to workers in chunks comes home whole, whatever becomes of them.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{hang, kill, watchdog};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;
use multiproc_shm::ShmBox;
use serde::{Deserialize, Serialize, Serializer, ser};

init_before_main!();

fn pool(workers: usize) -> Pool {
    Pool::builder().workers(workers).build().unwrap()
}

fn numbers(count: u64) -> ShmBox<[u64]> {
    ShmBox::from_slice(&(0..count).collect::<Vec<_>>()).unwrap()
}

#[test]
fn every_element_is_changed_once_by_a_worker() {
    watchdog();
    let pool = pool(3);
    let mut slice = numbers(10_007);
    let here = u64::from(std::process::id());
    let pids = pool.map_chunks_mut(&mut slice, 100, |chunk, _| {
        chunk.iter_mut().for_each(|x| *x += 1);
        u64::from(std::process::id())
    });
    assert!(pids.unwrap().iter().all(|pid| *pid != here));
    assert_eq!(*slice, (1..10_008).collect::<Vec<_>>());
}

#[test]
fn a_dead_worker_costs_its_chunk_and_no_memory() {
    watchdog();
    let pool = pool(2);
    let mut slice = numbers(1000);
    for round in 0..20 {
        let error = pool.for_each_chunk_mut(&mut slice, 100, |chunk, index| {
            chunk[0] += 1;
            if index % 4 == 1 {
                kill(std::process::id());
                hang()
            }
            chunk[0] -= 1;
        });
        let error = error.unwrap_err();
        let failed: Vec<_> = error.failures().map(|(range, _)| range).collect();
        assert_eq!(failed, [100..200, 500..600, 900..1000], "round {round}");
        assert!(error.failures().all(|(_, failure)| failure.signal() == Some(9)), "{error}");
        for chunk in [100, 500, 900] {
            assert_eq!(slice[chunk], chunk as u64 + 1, "what it had written is there");
            slice[chunk] -= 1;
        }
        assert_eq!(*slice, (0..1000).collect::<Vec<_>>());
    }
}

/// Says that it cannot be sent.
#[derive(Debug, Deserialize)]
struct Secret;

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("it stays here"))
    }
}

#[test]
fn a_result_that_does_not_serialise_costs_no_memory() {
    watchdog();
    let pool = pool(2);
    let mut slice = numbers(40);
    let error = pool.map_chunks_mut(&mut slice, 10, |chunk, _| {
        chunk[9] = 7;
        Secret
    });
    let error = error.unwrap_err();
    assert_eq!(error.failures().count(), 4);
    assert!(error.to_string().contains("it stays here"), "{error}");
    assert_eq!((slice.len(), slice[9], slice[39]), (40, 7, 7));
}

#[test]
fn a_panic_is_told_and_the_chunk_comes_home() {
    watchdog();
    let pool = pool(1);
    let mut slice = numbers(4);
    let error = pool.for_each_chunk_mut(&mut slice, 2, |chunk, index| {
        chunk[0] = 9;
        assert_ne!(index, 1, "not this one");
    });
    let error = error.unwrap_err();
    let (range, failure) = error.failures().next().unwrap();
    assert_eq!(range, 2..4);
    assert!(failure.panic().unwrap().message().contains("not this one"));
    assert_eq!(*slice, [9, 1, 9, 3]);
}

#[test]
fn a_chunk_that_takes_too_long_comes_home_without_its_worker() {
    watchdog();
    let pool = pool(2);
    let mut slice = numbers(6);
    let limited = pool.with_timeout(Duration::from_millis(100));
    let error = limited.for_each_chunk_mut(&mut slice, 2, |chunk, index| {
        chunk[1] = 5;
        if index == 2 {
            hang()
        }
    });
    let error = error.unwrap_err();
    assert!(error.failures().all(|(range, failure)| range == (4..6) && failure.is_timeout()));
    assert_eq!(*slice, [0, 5, 2, 5, 4, 5]);
}

#[test]
fn a_closed_pool_leaves_the_slice_as_it_is() {
    watchdog();
    let pool = pool(1);
    pool.close();
    let mut slice = numbers(6);
    let error = pool.for_each_chunk_mut(&mut slice, 2, |_, _| ()).unwrap_err();
    assert!(error.cause().unwrap().is_closed());
    assert_eq!(*slice, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn the_slice_comes_home_when_an_observer_panics() {
    watchdog();
    let pool = pool(2);
    let observed = pool.with_progress(|_, _| panic!("seen enough"));
    let mut slice = numbers(1000);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        observed.for_each_chunk_mut(&mut slice, 10, |chunk, _| chunk[0] += 0)
    }));
    assert!(caught.is_err());
    assert_eq!(*slice, (0..1000).collect::<Vec<_>>());
    assert_eq!(pool.apply(|x: u32| x, 3).unwrap(), 3);
}

#[test]
fn an_empty_slice_has_no_chunks() {
    watchdog();
    let mut slice = numbers(0);
    assert!(pool(1).map_chunks_mut(&mut slice, 10, |_, index| index).unwrap().is_empty());
}

#[test]
fn workers_with_a_state_work_on_chunks() {
    watchdog();
    let pool = Pool::builder().workers(1).state(|start: u64| start, 100).build().unwrap();
    let mut slice = numbers(4);
    pool.for_each_chunk_mut(&mut slice, 2, |next, chunk, _| {
        for x in chunk {
            *x = *next;
            *next += 1;
        }
    })
    .unwrap();
    assert_eq!(*slice, [100, 101, 102, 103]);
}
