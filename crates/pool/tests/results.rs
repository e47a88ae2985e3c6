//! Tasks run, and their values, errors and handles come back, in every form of call.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{task_that_waits, watchdog};
use multiproc_pool::Pool;
use multiproc_process::{StartMethod, init_before_main};
use multiproc_wire::Fd;
use serde::{Deserialize, Serialize};

init_before_main!();

#[test]
fn a_map_keeps_the_order_whatever_the_number() {
    watchdog();
    let pool = Pool::builder().workers(3).build().unwrap();
    for count in [0, 1, 2, 3, 7, 100, 10_000] {
        let squares = pool.map(|x: u64| x * x, 0..count).unwrap();
        assert_eq!(squares, (0..count).map(|x| x * x).collect::<Vec<_>>());
    }
}

#[test]
fn every_worker_gets_tasks() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let (first, first_runs) = task_that_waits();
    let (second, second_runs) = task_that_waits();
    let _one = pool.apply_async(|fd| common::wait_for_ever::<()>(&fd), first).unwrap();
    let _two = pool.apply_async(|fd| common::wait_for_ever::<()>(&fd), second).unwrap();
    first_runs.wait();
    second_runs.wait();
}

#[test]
fn workers_start_by_each_method() {
    watchdog();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
        let pids: HashSet<u32> =
            pool.map(|_: u32| std::process::id(), 0..100).unwrap().into_iter().collect();
        assert!(!pids.contains(&std::process::id()));
        pool.join().unwrap();
    }
}

#[test]
fn large_arguments_and_values_travel() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let big: Vec<u8> = (0..20 << 20).map(|i| (i % 251) as u8).collect();
    let back = pool.map(|bytes: Vec<u8>| bytes, [big.clone(), vec![], big.clone()]).unwrap();
    assert!(back == [big.clone(), vec![], big]);
    // Many results of middling size in one chunk.
    let sizes = pool.map(|x: usize| vec![x as u8; x * 10], 0..2_000).unwrap();
    assert!(sizes.iter().enumerate().all(|(x, bytes)| bytes.len() == x * 10));
}

#[test]
fn handles_travel_to_tasks_and_back() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let files: Vec<Fd<File>> = pool
        .map(
            |(index, mut file): (u32, Fd<File>)| {
                writeln!(file, "{index}").unwrap();
                file
            },
            (0..40).map(|index| (index, Fd::from(tempfile::tempfile().unwrap()))),
        )
        .unwrap();
    for (index, mut file) in files.into_iter().enumerate() {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{index}\n"));
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

#[derive(Debug, Serialize)]
struct Unreadable(u8);

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u8::deserialize(deserializer)?;
        if value == 3 {
            Err(multiproc_wire::fail("three is not allowed"))
        } else {
            Ok(Unreadable(value))
        }
    }
}

#[test]
fn what_does_not_serialise_is_told() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let error = pool.map(|_: Unwritable| (), [Unwritable]).unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    assert!(error.cause().unwrap().is_argument());
    let error = pool.apply(|()| Unwritable, ()).unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    // One that cannot be read there costs itself and none beside it.
    let outcomes = pool.try_map(|x: Unreadable| x.0, (0..6).map(Unreadable)).unwrap();
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(value) => assert_eq!(*value as usize, index),
            Err(error) => {
                assert!(index == 3 && error.to_string().contains("three is not"), "{error}")
            }
        }
    }
    // Nor does one that cannot be read here.
    let outcomes = pool.try_map(Unreadable, 0..6).unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
    assert!(outcomes[3].is_err());
}

#[test]
fn an_endless_iterator_is_taken_from_only_as_far_as_needed() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let taken = AtomicUsize::new(0);
    let numbers = (0u64..).inspect(|_| {
        taken.fetch_add(1, Relaxed);
    });
    let mut results = pool.imap(|x: u64| x + 1, numbers);
    for x in 0..1_000 {
        assert_eq!(results.next().unwrap().unwrap(), x + 1);
    }
    assert!(taken.load(Relaxed) <= 1_000 + 2 * 2 * 256, "{} were taken", taken.load(Relaxed));
    drop(results);
    let all: HashSet<u64> =
        pool.imap_unordered(|x: u64| x, 0..500).collect::<Result<_, _>>().unwrap();
    assert_eq!(all.len(), 500);
}

#[test]
fn a_closed_pool_finishes_what_it_has_and_takes_no_more() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let handle = pool.map_async(|x: u32| x + 1, 0..1_000).unwrap();
    pool.close();
    assert!(pool.apply_async(|x: u32| x, 1).unwrap_err().is_closed());
    assert!(pool.map(|x: u32| x, [1]).unwrap_err().cause().unwrap().is_closed());
    let error = pool.imap(|x: u32| x, [1]).next().unwrap().unwrap_err();
    assert!(error.is_not_run());
    pool.join().unwrap();
    assert_eq!(handle.get().unwrap().len(), 1_000);
}

#[test]
fn many_threads_use_one_pool() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let pool = &pool;
            scope.spawn(move || {
                for x in 0..200 {
                    assert_eq!(
                        pool.apply(|(a, b): (u64, u64)| a * 1000 + b, (thread, x)).unwrap(),
                        thread * 1000 + x
                    );
                }
                assert_eq!(
                    pool.map(|x: u64| x, 0..thread * 100).unwrap().len() as u64,
                    thread * 100
                );
            });
        }
    });
}

#[test]
fn handles_to_results_can_be_asked_and_dropped() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let (waits, running) = task_that_waits();
    let mut blocked = pool.apply_async(|fd| common::wait_for_ever::<u32>(&fd), waits).unwrap();
    running.wait();
    assert!(!blocked.ready());
    assert!(!blocked.wait(std::time::Duration::ZERO));
    let _dropped = pool.map_async(|x: u32| x, 0..100).unwrap();
    drop(blocked);
}
