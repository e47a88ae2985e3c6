//! Workers come and go as they were told: replaced after their tasks, their time or their memory,
//! more and fewer while there is work, and in pools of workers.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::time::Duration;

use common::{eventually, gate, log, note, pass, say, task_that_waits, watchdog};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;
use multiproc_wire::Fd;

init_before_main!();

fn pid(_: u32) -> u32 {
    std::process::id()
}

#[test]
fn no_worker_runs_more_tasks_than_it_may() {
    watchdog();
    for chunk in [None, Some(2), Some(100)] {
        let pool = Pool::builder().workers(3).max_tasks_per_child(5).build().unwrap();
        let pool = chunk.map_or(pool.clone(), |chunk| pool.with_chunk_size(chunk));
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for pid in pool.map(pid, 0..300).unwrap() {
            *counts.entry(pid).or_default() += 1;
        }
        assert!(counts.values().all(|count| *count <= 5), "{counts:?}");
        assert!(counts.len() >= 60);
        pool.join().unwrap();
    }
}

#[test]
fn a_worker_is_replaced_at_the_end_of_its_time() {
    watchdog();
    let pool = Pool::builder().workers(1).lifetime(Duration::from_millis(30)).build().unwrap();
    let first = pool.apply(pid, 0).unwrap();
    // No task may be lost while workers change.
    let mut pids = HashSet::from([first]);
    while pids.len() < 4 {
        pids.insert(pool.apply(pid, 0).unwrap());
    }
    // An idle one is replaced as well.
    let now = pool.worker_pids();
    eventually(|| pool.worker_pids().iter().all(|pid| !now.contains(pid)));
    assert_eq!(pool.statistics().died, 0);
    pool.join().unwrap();
}

#[test]
fn a_worker_that_grew_too_large_is_replaced_and_its_other_tasks_go_elsewhere() {
    watchdog();
    let pool = Pool::builder().workers(2).max_resident(64 << 20).build().unwrap();
    let leak = |x: usize| {
        if x.is_multiple_of(10) {
            std::mem::forget(std::hint::black_box(vec![1u8; 100 << 20]));
        }
        (x, std::process::id())
    };
    let results = pool.with_chunk_size(7).map(leak, 0..50).unwrap();
    assert!(results.iter().map(|(x, _)| *x).eq(0..50));
    for leaked in (0..50).step_by(10) {
        let (_, worker) = results[leaked];
        let after = results[leaked + 1..].iter().find(|(_, pid)| *pid == worker);
        assert!(after.is_none_or(|(x, _)| x / 7 != leaked / 7), "{results:?}");
    }
    assert_eq!(pool.statistics().died, 0);
}

#[test]
fn a_pool_grows_and_shrinks_while_it_is_busy() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let map =
        pool.map_async(|x: u64| (0..500).fold(x, |a, b| std::hint::black_box(a ^ b)), 0..60_000);
    for size in [4, 2, 5, 1, 3, 1, 2] {
        pool.resize(size).unwrap();
        assert_eq!(pool.workers(), size);
        pool.map(pid, 0..50).unwrap();
    }
    let values = map.unwrap().get().unwrap();
    assert!(
        values.into_iter().zip(0u64..).all(|(value, x)| value == (0..500).fold(x, |a, b| a ^ b))
    );
    eventually(|| pool.worker_pids().len() == 2);
    assert!(pool.resize(0).is_err());
    assert_eq!(pool.statistics().died, 0);
}

#[test]
fn more_workers_run_what_waits_behind_others() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let (says, mut running) = task_that_waits();
    let (entry, gate) = gate();
    let meet = |(says, gate): (Fd<File>, Fd<File>)| {
        say(&says);
        pass(&gate);
    };
    let copies = |file: &Fd<File>| Fd::from(file.try_clone().unwrap());
    let both = pool.map_async(meet, (0..3).map(|_| (copies(&says), copies(&entry)))).unwrap();
    running.wait_for(1);
    pool.resize(3).unwrap();
    running.wait_for(2);
    drop(gate);
    both.get().unwrap();
}

#[test]
fn idle_workers_end_and_come_back_on_demand() {
    watchdog();
    let pool = Pool::builder().workers(3).shrink(Duration::from_millis(1), 1).build().unwrap();
    for _ in 0..5 {
        eventually(|| pool.worker_pids().len() == 1);
        let (says, mut running) = task_that_waits();
        let (entry, gate) = gate();
        let meet = |(says, gate): (Fd<File>, Fd<File>)| {
            say(&says);
            pass(&gate);
        };
        let copies = |file: &Fd<File>| Fd::from(file.try_clone().unwrap());
        let all = pool.map_async(meet, (0..3).map(|_| (copies(&says), copies(&entry)))).unwrap();
        running.wait_for(3);
        assert_eq!(pool.worker_pids().len(), 3);
        drop(gate);
        all.get().unwrap();
    }
    assert_eq!(pool.statistics().died, 0);
    pool.join().unwrap();
}

#[test]
fn a_pool_that_shrinks_to_none_still_runs_what_comes() {
    watchdog();
    let pool = Pool::builder().workers(2).shrink(Duration::from_millis(1), 0).build().unwrap();
    for x in 0..20 {
        assert_eq!(pool.apply(|x: u32| x + 1, x).unwrap(), x + 1);
        eventually(|| pool.worker_pids().is_empty());
    }
    pool.join().unwrap();
}

fn sum_of_level((level, x): (u32, u64)) -> u64 {
    if level == 0 {
        return x;
    }
    let pool = Pool::builder().workers(2).build().unwrap();
    let below = pool.map(sum_of_level, [(level - 1, x), (level - 1, x + 1)]).unwrap();
    pool.join().unwrap();
    below.into_iter().sum()
}

#[test]
fn a_task_has_a_pool_of_its_own_three_levels_deep() {
    watchdog();
    assert_eq!(sum_of_level((3, 10)), 8 * 10 + 12);
}

#[test]
fn the_global_pool_is_one_for_all_threads() {
    watchdog();
    std::thread::scope(|scope| {
        let one = std::ptr::from_ref(Pool::global().unwrap()) as usize;
        for thread in 0..8u64 {
            scope.spawn(move || {
                let pool = Pool::global().unwrap();
                assert_eq!(std::ptr::from_ref(pool) as usize, one);
                for x in 0..100 {
                    assert_eq!(
                        pool.apply(|(a, b): (u64, u64)| a * b, (thread, x)).unwrap(),
                        thread * x
                    );
                }
            });
        }
    });
}

/// Regression: the dispatcher passed over a worker that a caller was still sending to, and nobody told
/// it to look again.
#[test]
fn a_pool_that_is_closed_by_one_thread_while_another_hands_in_tasks_ends() {
    watchdog();
    for _ in 0..100 {
        let pool = Pool::builder().workers(1).build().unwrap();
        let other = pool.clone();
        let calls = std::thread::spawn(move || while other.apply(|x: u32| x, 1).is_ok() {});
        pool.apply(|x: u32| x, 1).unwrap();
        pool.join().unwrap();
        calls.join().unwrap();
    }
}

/// Regression: a worker that had been given its last task did not count any more, so that as many were
/// started as there were tasks.
#[test]
fn a_pool_never_runs_more_tasks_at_once_than_it_has_workers() {
    watchdog();
    let (writer, log) = log();
    let pool =
        Pool::builder().workers(2).max_tasks_per_child(1).state(|log| log, writer).build().unwrap();
    let task = |log: &mut Fd<File>, x: u32| {
        note(log, "+");
        std::thread::yield_now();
        note(log, "-");
        x
    };
    let all = pool.map_async(task, 0..60).unwrap();
    let mut most = 0;
    let mut all = Some(all);
    while let Some(later) = all.take() {
        most = most.max(pool.worker_pids().len());
        match later.get_timeout(Duration::from_micros(300)) {
            Ok(values) => assert!(values.unwrap().into_iter().eq(0..60)),
            Err(later) => all = Some(later),
        }
    }
    // Those that run, those that will take their place, and those that end.
    assert!(most < 20, "{most} processes");
    let mut running = 0;
    for line in log.lines() {
        running = if line == "+" { running + 1 } else { running - 1 };
        assert!(running <= 2);
    }
}

#[test]
fn a_closed_pool_replaces_workers_that_die_until_all_is_done() {
    watchdog();
    for _ in 0..20 {
        let pool = Pool::builder().workers(2).build().unwrap();
        let (says, mut running) = task_that_waits();
        let (entry, gate) = gate();
        let meet = |(says, gate, x): (Fd<File>, Fd<File>, u32)| {
            say(&says);
            pass(&gate);
            x
        };
        let copies = |file: &Fd<File>| Fd::from(file.try_clone().unwrap());
        let items = (0..6).map(|x| (copies(&says), copies(&entry), x));
        let all = pool.with_retries(1).map_async(meet, items).unwrap();
        running.wait_for(2);
        pool.close();
        pool.worker_pids().into_iter().for_each(common::kill);
        running.wait_for(2);
        drop(gate);
        assert!(all.get().unwrap().into_iter().eq(0..6));
        pool.join().unwrap();
    }
}
