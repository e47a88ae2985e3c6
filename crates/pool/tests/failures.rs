//! Whatever goes wrong in a task, or around it, is the error of that task, and all others come right.
#![allow(unsafe_code)] // Tasks that break the worker's own descriptors.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{kill, log, note, watchdog};
use multiproc_pool::{Builder, Pool, TaskError};
use multiproc_process::{Limit, init_before_main};
use multiproc_wire::Fd;
use serde::{Deserialize, Serialize};

init_before_main!();

const SIGKILL: i32 = 9;

/// Without backtraces, which take their time.
fn quiet() -> Builder {
    Pool::builder().env("RUST_BACKTRACE", "0")
}

fn pool(workers: usize) -> Pool {
    quiet().workers(workers).build().unwrap()
}

/// Checks that task 7 of each ten failed, as is told, and the others gave their numbers.
fn check(outcomes: Vec<Result<u32, TaskError>>, is_right: impl Fn(&TaskError) -> bool) {
    assert_eq!(outcomes.len(), 100);
    for (x, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(value) => assert!(value == x as u32 && x % 10 != 7, "{x}: {value}"),
            Err(error) => assert!(x % 10 == 7 && is_right(&error), "{x}: {error}"),
        }
    }
}

fn is_killed(error: &TaskError) -> bool {
    error.is_death() && error.signal() == Some(SIGKILL)
}

/// Runs a hundred tasks in chunks of several sizes.
fn each_way(task: fn(u32) -> u32, is_right: impl Fn(&TaskError) -> bool) {
    watchdog();
    let pool = pool(2);
    for chunk in [1, 10, 100] {
        check(pool.with_chunk_size(chunk).try_map(task, 0..100).unwrap(), &is_right);
    }
    check(pool.try_map(task, 0..100).unwrap(), &is_right);
}

#[derive(Serialize)]
struct DiesWhenRead(u32);

impl<'de> Deserialize<'de> for DiesWhenRead {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u32::deserialize(deserializer)?;
        if value % 10 == 7 {
            kill(std::process::id());
        }
        Ok(DiesWhenRead(value))
    }
}

#[test]
fn a_worker_that_dies_while_it_reads_an_argument() {
    watchdog();
    let pool = pool(2);
    for chunk in [1, 10, 100] {
        let pool = pool.with_chunk_size(chunk);
        check(pool.try_map(|x: DiesWhenRead| x.0, (0..100).map(DiesWhenRead)).unwrap(), is_killed);
    }
}

#[derive(Deserialize)]
struct DiesWhenWritten(u32);

impl Serialize for DiesWhenWritten {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 10 == 7 {
            kill(std::process::id());
        }
        self.0.serialize(serializer)
    }
}

#[test]
fn a_worker_that_dies_while_it_writes_a_value() {
    watchdog();
    let pool = pool(2);
    for chunk in [1, 10, 100] {
        let outcomes = pool.with_chunk_size(chunk).try_map(DiesWhenWritten, 0..100).unwrap();
        let values = outcomes.into_iter().map(|outcome| outcome.map(|value| value.0)).collect();
        check(values, is_killed);
    }
}

#[test]
fn a_task_that_exits_as_if_all_were_well() {
    let task = |x| if x % 10 == 7 { std::process::exit(0) } else { x };
    each_way(task, |error| error.exit_status().is_some_and(|status| status.success()));
}

#[test]
fn a_task_that_aborts() {
    let task = |x| if x % 10 == 7 { std::process::abort() } else { x };
    each_way(task, |error| error.signal() == Some(6));
}

#[test]
fn a_task_that_panics_with_something_that_is_no_text() {
    let task = |x| if x % 10 == 7 { std::panic::panic_any(x) } else { x };
    each_way(task, |error| error.panic().is_some() && !error.is_death());
}

#[test]
fn a_task_that_closes_all_descriptors() {
    let task = |x| {
        if x % 10 == 7 {
            for fd in 3..256 {
                // SAFETY: what uses it is to fail.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        x
    };
    watchdog();
    let pool = pool(2);
    for chunk in [1, 10, 100] {
        // It may be finished, where its result is kept in memory.
        let outcomes = pool.with_chunk_size(chunk).try_map(task, 0..100).unwrap();
        for (x, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!(value, x as u32),
                Err(error) => assert!(x % 10 == 7 && error.is_death(), "{x}: {error}"),
            }
        }
    }
}

/// Regression: a worker that could not send went on, and the pool waited for ever.
#[test]
fn a_task_that_leaves_no_descriptor_to_send_its_value_with() {
    watchdog();
    let pool = Pool::builder().workers(2).limit(Limit::OpenFiles, 64).build().unwrap();
    let task = |x: u32| {
        if x % 10 != 7 {
            return vec![0; x as usize];
        }
        while let Ok(file) = File::open("/dev/null") {
            std::mem::forget(file);
        }
        vec![0u8; 1 << 20]
    };
    for chunk in [1, 10, 100] {
        let outcomes = pool.with_chunk_size(chunk).try_map(task, 0..100).unwrap();
        let lengths = outcomes.into_iter().map(|o| o.map(|bytes| bytes.len() as u32)).collect();
        check(lengths, |error| error.is_death() && error.to_string().contains("cannot send"));
    }
}

#[test]
fn a_task_that_writes_nonsense_to_the_workers_socket() {
    let task = |x| {
        if x % 10 == 7 {
            for fd in 3..64 {
                // SAFETY: it is not closed below, and what else uses it is to fail.
                let socket = unsafe { UnixDatagram::from_raw_fd(fd) };
                let _refused = socket.send(b"\x7fnonsense");
                std::mem::forget(socket);
            }
            common::hang()
        }
        x
    };
    each_way(task, TaskError::is_death);
}

#[test]
fn a_task_that_needs_more_memory_than_there_is() {
    watchdog();
    let pool = Pool::builder().workers(2).memory_limit(1 << 30).build().unwrap();
    let task = |x: u32| {
        let len = if x % 10 == 7 { 2 << 30 } else { 1 << 10 };
        std::hint::black_box(vec![1u8; len]);
        x
    };
    check(pool.try_map(task, 0..100).unwrap(), TaskError::is_out_of_memory);
}

/// Panics when it is dropped in a worker.
#[derive(Serialize, Deserialize)]
struct PanicsWhenDropped {
    x: u32,
    parent: u32,
}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(self.x % 10 != 7 || std::process::id() == self.parent, "dropped");
    }
}

#[test]
fn a_drop_that_panics() {
    watchdog();
    let pool = pool(2);
    let parent = std::process::id();
    let items = || (0..100).map(|x| PanicsWhenDropped { x, parent });
    let is_right = |error: &TaskError| error.panic().is_some_and(|p| p.message() == "dropped");
    check(pool.try_map(|item: PanicsWhenDropped| item.x, items()).unwrap(), is_right);
    // The same of a value, after it was written.
    let outcomes = pool.try_map(|item: PanicsWhenDropped| item, items()).unwrap();
    check(outcomes.into_iter().map(|o| o.map(|value| value.x)).collect(), is_right);
}

#[derive(Debug, Serialize)]
struct PanicsWhenRead(u32);

impl<'de> Deserialize<'de> for PanicsWhenRead {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = u32::deserialize(deserializer)?;
        assert!(value % 10 != 7, "not readable");
        Ok(PanicsWhenRead(value))
    }
}

/// Regression: a value whose reading panics here took those beside it along, and who asked again
/// waited for ever.
#[test]
fn a_value_whose_reading_panics() {
    watchdog();
    let pool = pool(2);
    for chunk in [1, 10, 100] {
        let outcomes = pool.with_chunk_size(chunk).try_map(PanicsWhenRead, 0..100).unwrap();
        let values = outcomes.into_iter().map(|outcome| outcome.map(|value| value.0)).collect();
        check(values, |error| error.to_string().contains("not readable"));
    }
    let results = pool.with_chunk_size(5).imap(PanicsWhenRead, 0..100);
    check(results.map(|outcome| outcome.map(|value| value.0)).collect(), |_| true);
}

#[test]
fn items_that_panic_half_way() {
    watchdog();
    let pool = pool(2);
    let items = || (0..100u32).inspect(|x| assert!(*x != 57, "no more items"));
    assert!(catch_unwind(AssertUnwindSafe(|| pool.try_map(|x: u32| x, items()))).is_err());
    for chunk in [1, 10] {
        let pool = pool.with_chunk_size(chunk);
        let mut results = pool.imap(|x: u32| x, items());
        let mut values = Vec::new();
        let mut panics = 0;
        loop {
            match catch_unwind(AssertUnwindSafe(|| results.next())) {
                Ok(Some(value)) => values.push(value.unwrap()),
                Ok(None) => break,
                Err(_) => panics += 1,
            }
        }
        assert_eq!(panics, 1);
        assert!(values.into_iter().eq((0..57).chain(58..100)));
    }
    assert_eq!(pool.map(|x: u32| x, 0..10).unwrap().len(), 10);
}

#[test]
fn an_initializer_that_always_fails_is_told_and_not_tried_for_ever() {
    watchdog();
    let (writer, log) = log();
    let start = |log: Fd<File>| {
        note(&log, "start");
        panic!("no licence");
    };
    let pool = quiet().workers(2).initializer(start, writer).build().unwrap();
    for round in 1..=5 {
        let outcomes = pool.try_map(|x: u32| x, 0..50).unwrap();
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert!(error.is_not_run() && error.to_string().contains("no licence"), "{error}");
        }
        // Ten in a row, and one more for each call, but for the first if it came before they had ended.
        let starts = log.lines().len();
        assert!(starts == 9 + round || starts == 10 + round, "{starts} starts");
    }
    pool.join().unwrap();
}

#[test]
fn an_initializer_that_always_fails_ends_in_the_same_way_where_workers_come_on_demand() {
    watchdog();
    for least in [0, 1] {
        let builder = quiet().workers(3).shrink(Duration::from_millis(1), least);
        let pool = builder.initializer(|()| panic!("no licence"), ()).build().unwrap();
        for _ in 0..3 {
            let error = pool.apply(|x: u32| x, 1).unwrap_err();
            assert!(error.is_not_run() && error.to_string().contains("no licence"), "{error}");
        }
        let waits = pool.map_async(|x: u32| x, 0..10).unwrap();
        pool.join().unwrap();
        assert!(waits.outcomes().iter().all(Result::is_err));
    }
}

#[test]
fn an_initializer_that_fails_now_and_then_is_tried_again() {
    watchdog();
    let (mut tickets, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&b"no, no, yes!".repeat(40)).unwrap();
    let start = |tickets: Fd<File>| {
        let mut ticket = [0; 4];
        (&*tickets).read_exact(&mut ticket).unwrap();
        assert!(ticket == *b"yes!", "try another");
    };
    let reader = Fd::from(File::from(OwnedFd::from(tickets.try_clone().unwrap())));
    let pool = quiet().workers(2).initializer(start, reader).max_tasks_per_child(2);
    let pool = pool.build().unwrap();
    let outcomes = pool.try_map(|x: u32| x, 0..60).unwrap();
    for (x, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(value) => assert_eq!(value, x as u32),
            Err(error) => panic!("{x}: {error}"),
        }
    }
    drop(writer);
    let mut left = Vec::new();
    tickets.read_to_end(&mut left).unwrap();
    assert!(left.len() <= 10 * 12, "thirty workers were needed, each at the third try");
}

/// Regression: after ten failed starts the pool stayed as small as it was then.
#[test]
fn a_pool_is_full_again_after_starts_that_failed_in_a_row() {
    watchdog();
    let (tickets, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"yes!").unwrap();
    writer.write_all(&b"no, ".repeat(12)).unwrap();
    writer.write_all(b"yes!").unwrap();
    let start = |tickets: Fd<File>| {
        let mut ticket = [0; 4];
        (&*tickets).read_exact(&mut ticket).unwrap();
        assert!(ticket == *b"yes!", "try another");
    };
    let tickets = Fd::from(File::from(OwnedFd::from(tickets)));
    let pool = quiet().workers(1).initializer(start, tickets).build().unwrap();
    assert!(pool.map(|x: u32| x, 0..10).unwrap().into_iter().eq(0..10));
    pool.resize(2).unwrap();
    // Both run at once: there have to be two workers.
    let (first, first_runs) = common::task_that_waits();
    let (second, second_runs) = common::task_that_waits();
    let _first = pool.apply_async(|says| common::wait_for_ever::<()>(&says), first).unwrap();
    let _second = pool.apply_async(|says| common::wait_for_ever::<()>(&says), second).unwrap();
    first_runs.wait();
    second_runs.wait();
}

#[test]
fn an_idle_worker_that_is_killed_costs_no_task() {
    watchdog();
    let pool = pool(2).with_retries(5);
    for round in 0..50 {
        for pid in pool.worker_pids() {
            kill(pid);
        }
        assert!(pool.map(|x: u32| x, 0..20).unwrap().into_iter().eq(0..20), "round {round}");
    }
}

/// Regression: the outbox left out a value for which it had no room, and put the next in its place.
#[test]
fn values_of_all_sizes_that_were_finished_before_a_death_are_told_apart() {
    watchdog();
    let pool = pool(1).with_chunk_size(6_000);
    let task = |x: usize| {
        if x == 5_999 {
            kill(std::process::id());
        }
        "x".repeat(x * 7 % 23) + &x.to_string()
    };
    for _ in 0..5 {
        let outcomes = pool.try_map(task, 0..6_000).unwrap();
        for (x, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!(value, "x".repeat(x * 7 % 23) + &x.to_string()),
                Err(error) => assert!(x == 5_999 && is_killed(&error), "{x}: {error}"),
            }
        }
    }
}

fn fill(len: usize) -> Vec<u8> {
    vec![7; len]
}

#[test]
fn a_large_value_among_small_ones() {
    watchdog();
    let pool = pool(2);
    let values = pool.map(fill, [1, 64 << 20, 2, 3]).unwrap();
    assert!(values.iter().map(Vec::len).eq([1, 64 << 20, 2, 3]));
}

#[test]
#[ignore = "takes three gigabytes of memory"]
fn a_value_of_a_gigabyte() {
    watchdog();
    let pool = pool(1);
    let value = pool.apply(fill, 1 << 30).unwrap();
    assert!(value.len() == 1 << 30 && value[(1 << 30) - 1] == 7);
}

/// Cannot be written if it is 7.
#[derive(serde::Deserialize)]
struct PanicsWhenWritten(u32);

impl serde::Serialize for PanicsWhenWritten {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != 7, "not writable");
        serializer.serialize_u32(self.0)
    }
}

#[test]
fn an_item_that_panics_when_it_is_written() {
    watchdog();
    let pool = pool(2);
    let mut results = pool.imap(|x: PanicsWhenWritten| x.0, (0..20).map(PanicsWhenWritten));
    let mut values = Vec::new();
    let mut panics = 0;
    loop {
        match catch_unwind(AssertUnwindSafe(|| results.next())) {
            Ok(Some(outcome)) => values.push(outcome.ok()),
            Ok(None) => break,
            Err(_) => panics += 1,
        }
    }
    assert_eq!(panics, 1);
    assert!(values.into_iter().eq((0..20).map(|x| (x != 7).then_some(x))));
}
