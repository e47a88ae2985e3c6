//! An argument that tasks share goes to each worker once, however many tasks and workers there are.

mod common;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use common::{kill, watchdog};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;
use serde::{Deserialize, Serialize};

init_before_main!();

static DECODED: AtomicU32 = AtomicU32::new(0);

/// Counts in the worker how often it was read there.
#[derive(Serialize)]
struct Counted(u64);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Relaxed);
        u64::deserialize(deserializer).map(Counted)
    }
}

fn multiply(by: &Counted, x: u64) -> (u64, u32) {
    (by.0 * x, DECODED.load(Relaxed))
}

#[test]
fn a_context_is_read_once_in_each_worker() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    for round in 1..=20 {
        let products = pool.with_chunk_size(3).map_with(&Counted(7), multiply, 0..500).unwrap();
        for (x, (product, decoded)) in products.into_iter().enumerate() {
            assert_eq!(product, x as u64 * 7);
            assert!(decoded <= round, "read {decoded} times by round {round}");
        }
    }
}

#[test]
fn more_contexts_than_are_kept_take_turns() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let mut lanes: Vec<_> = (0..7u64)
        .map(|by| pool.with_chunk_size(1).imap_with(&Counted(by), multiply, 0..200u64))
        .collect();
    for x in 0..200 {
        for (by, lane) in lanes.iter_mut().enumerate() {
            assert_eq!(lane.next().unwrap().unwrap().0, by as u64 * x);
        }
    }
    assert!(lanes.iter_mut().all(|lane| lane.next().is_none()));
}

#[derive(Debug, Serialize)]
struct Unreadable(bool);

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            panic!("no context of mine");
        }
        Err(multiproc_wire::fail("no context for you"))
    }
}

#[test]
fn a_context_that_cannot_be_read_fails_each_task_with_the_reason() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    for (panics, reason) in [(false, "no context for you"), (true, "no context of mine")] {
        let pool = pool.with_chunk_size(4);
        let outcomes = pool.try_map_with(&Unreadable(panics), |_, x: u32| x, 0..40).unwrap();
        assert_eq!(outcomes.len(), 40);
        for outcome in outcomes {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
    assert_eq!(pool.map_with(&5, |by, x: u32| by * x, 0..3).unwrap(), [0, 5, 10]);
}

#[test]
fn a_context_that_cannot_be_written_is_the_error_of_the_call() {
    struct Unwritable;
    impl Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    impl<'de> Deserialize<'de> for Unwritable {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Unwritable)
        }
    }
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let error = pool.map_with(&Unwritable, |_, x: u32| x, 0..3).unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    let mut results = pool.imap_with(&Unwritable, |_, x: u32| x, 0..3);
    assert!(results.next().unwrap().unwrap_err().to_string().contains("not today"));
}

#[test]
fn workers_that_take_the_place_of_others_get_the_context() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let task = |base: &u32, x: u32| {
        if x % 10 == 3 {
            kill(std::process::id());
        }
        base + x
    };
    let outcomes = pool.try_map_with(&1_000, task, 0..100).unwrap();
    for (x, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.ok(), (x % 10 != 3).then_some(1_000 + x as u32));
    }
    let few = Pool::builder().workers(2).max_tasks_per_child(3).build().unwrap();
    let sums = few.map_with(&50, |base, x: u32| base + x, 0..60).unwrap();
    assert!(sums.into_iter().eq(50..110));
}
