//! Whoever dies, is cancelled, takes too long or is too many, at any moment: each result comes once,
//! and right, and nothing is left behind.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{Dice, eventually, hang, kill, watchdog_of};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;

init_before_main!();

/// What these tests count belongs to the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    watchdog_of(Duration::from_secs(1_200));
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// In bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A process that has ended and was not waited for.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.contains(") Z "))
}

fn mix(x: u64) -> u64 {
    let rounds = x.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    (0..rounds * 80).fold(x, |a, b| std::hint::black_box(a.rotate_left(7) ^ b))
}

/// Runs something while workers are killed at random. Gives the numbers of those.
fn while_workers_die(pool: &Pool, dice: &mut Dice, run: impl FnOnce()) -> HashSet<u32> {
    let done = AtomicBool::new(false);
    let mut killed = HashSet::new();
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            while !done.load(SeqCst) {
                std::thread::park_timeout(Duration::from_micros(200 + dice.roll(4_000)));
                let workers = pool.statistics().workers;
                let chosen = workers.get(dice.roll(workers.len().max(1) as u64) as usize);
                // Where nothing gets a processor in time, ten that have not begun would die in a row, which
                // the pool takes for a program that cannot start.
                let spares = dice.roll(4) != 0;
                if let Some(worker) = chosen.filter(|worker| worker.tasks > 0 || !spares) {
                    killed.insert(worker.pid);
                    kill(worker.pid);
                }
            }
        });
        let stop = Stop(&done);
        run();
        drop(stop);
        killer.join().unwrap();
    });
    killed
}

/// Says that it is done, also while unwinding.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn each_result_comes_once_and_right(tasks: u64) {
    let _alone = alone();
    let mut dice = Dice::new();
    // The first starts what stays.
    Pool::builder().workers(4).build().unwrap().map(mix, 0..1_000).unwrap();
    let before = (descriptors(), resident());
    let pool = Pool::builder().workers(4).build().unwrap();
    let patient = pool.with_retries(10_000);
    let killed = while_workers_die(&pool, &mut dice, || {
        let values = patient.map(mix, 0..tasks).unwrap();
        assert_eq!(values.len() as u64, tasks);
        assert!(values.into_iter().zip(0..).all(|(value, x)| value == mix(x)));
        let mut seen = vec![false; tasks as usize / 4];
        let task = |x: u64| (x, mix(x));
        for result in patient.with_chunk_size(16).imap_unordered(task, 0..tasks / 4) {
            let (x, value) = result.unwrap();
            assert_eq!(value, mix(x));
            assert!(!std::mem::replace(&mut seen[x as usize], true), "{x} came twice");
        }
        assert!(seen.into_iter().all(|seen| seen));
        assert!(
            patient.imap(mix, 0..tasks / 16).zip(0..).all(|(value, x)| value.unwrap() == mix(x))
        );
    });
    println!("{} workers were killed", killed.len());
    assert!(!killed.is_empty());
    pool.join().unwrap();
    drop(patient);
    assert_eq!(descriptors(), before.0);
    assert!(resident() < before.1 + (64 << 20), "{} bytes, {} before", resident(), before.1);
    eventually(|| !killed.iter().any(|pid| is_zombie(*pid)));
}

#[test]
fn killed_workers_lose_and_repeat_nothing() {
    each_result_comes_once_and_right(10_000);
}

#[test]
#[ignore = "takes a minute"]
fn killed_workers_lose_and_repeat_nothing_of_a_hundred_thousand() {
    each_result_comes_once_and_right(100_000);
}

/// Takes a while, or for ever.
fn of_random_length((x, length): (u64, u64)) -> u64 {
    match length {
        0 => hang(),
        length => (0..length * 20).fold(x, |a, b| std::hint::black_box(a ^ b ^ b)),
    }
}

fn all_at_once(rounds: u64) {
    let _alone = alone();
    let mut dice = Dice::new();
    let before = descriptors();
    let pool = Pool::builder().workers(3).build().unwrap();
    let seeds: Vec<u64> = (0..4).map(|_| dice.roll(u64::MAX) | 1).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pool = &pool;
        let done = &done;
        scope.spawn(move || {
            let mut size = 1;
            while !done.load(SeqCst) {
                std::thread::park_timeout(Duration::from_millis(5));
                pool.resize(size % 4 + 1).unwrap();
                size += 1;
            }
        });
        let callers: Vec<_> = seeds
            .into_iter()
            .map(|seed| scope.spawn(move || calls(pool, Dice::with_seed(seed), rounds)))
            .collect();
        let stop = Stop(done);
        while_workers_die(pool, &mut dice, || {
            for caller in callers {
                caller.join().unwrap();
            }
        });
        drop(stop);
    });
    // All that was to end has ended, and it works as on the first day.
    assert_eq!(pool.with_retries(100).map(mix, 0..1_000).unwrap().len(), 1_000);
    pool.join().unwrap();
    eventually(|| descriptors() <= before + 8);
}

/// Hands in maps with all that there is, and checks what comes of them.
fn calls(pool: &Pool, mut dice: Dice, rounds: u64) {
    for _ in 0..rounds {
        let count = dice.roll(120);
        let retries = dice.roll(3) as u32;
        let timeout = Duration::from_millis(20 + dice.roll(30));
        let mut with = pool.with_retries(retries).with_timeout(timeout);
        if dice.roll(2) == 0 {
            with = with.with_chunk_size(1 + dice.roll(40) as usize);
        }
        if dice.roll(8) == 0 {
            with = with.with_deadline(Duration::from_millis(dice.roll(30)));
        }
        with = with.with_priority(dice.roll(3) as i32);
        let hangs = dice.roll(10) == 0;
        let items: Vec<(u64, u64)> = (0..count)
            .map(|x| (x, if hangs && x % 50 == 7 { 0 } else { 1 + dice.roll(400) }))
            .collect();
        let mut handle = with.map_async(of_random_length, items.clone()).unwrap();
        let cancels = dice.roll(4) == 0;
        if cancels {
            handle.wait(Duration::from_micros(dice.roll(3_000)));
            handle.cancel();
        }
        let outcomes = handle.outcomes();
        assert_eq!(outcomes.len() as u64, count);
        for ((x, length), outcome) in items.into_iter().zip(outcomes) {
            match outcome {
                Ok(value) => assert!(value == x && length != 0, "{x}: {value}"),
                Err(error) => assert!(
                    error.is_timeout() || error.is_death() || cancels && error.is_cancelled(),
                    "{x}: {error}"
                ),
            }
        }
    }
}

#[test]
fn deaths_cancellations_timeouts_and_resizes_at_once() {
    all_at_once(15);
}

#[test]
#[ignore = "takes minutes"]
fn deaths_cancellations_timeouts_and_resizes_at_once_for_long() {
    all_at_once(10_000);
}
