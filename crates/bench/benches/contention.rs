//! Locks that several processes want at once, and wake-ups between two processes, beside their peers.
//!
//! Each row is measured in rounds, one contender after the other in each (A B C A B C), after a round
//! that does not count. The median of the rounds stands for the contender.
#![allow(missing_docs)]

#[path = "support/pthread.rs"]
mod pthread;

use std::hint::spin_loop;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use multiproc::{Condition, Event, Lock, RLock, RwLock, Semaphore, Value};
use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, fork};
use multiproc_os::futex;
use pthread::Page;
use rustix::thread::{CpuSet, sched_setaffinity};

const ROUNDS: usize = 7;

fn main() {
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    for parties in [2, 4] {
        contended(parties);
    }
    for cores in [[0, 0], [0, 1]] {
        handoff(cores);
    }
}

/// So many processes (or threads, for those that are for threads) take a lock for a short section.
fn contended(parties: usize) {
    const TURNS: u64 = 1_000_000;
    let page = Page::new();
    let lock = Lock::new().unwrap();
    let rlock = RLock::new().unwrap();
    let rwlock = RwLock::new().unwrap();
    let value = Value::new(0u64).unwrap();
    let mutex = std::sync::Mutex::new(());
    let parking_lot = parking_lot::Mutex::new(());
    let robust = pthread::Mutex::new(&page, 512, true);
    let pthread = pthread::Mutex::new(&page, 1024, false);
    let raw_sync = pthread::raw_sync(&page, 1536);

    let count = || page.word64(0).store(page.word64(0).load(Relaxed) + 1, Relaxed);
    let processes = |turn: &dyn Fn()| in_processes(parties, TURNS, &page, turn);
    let threads = |turn: &(dyn Fn() + Sync)| in_threads(parties, TURNS, turn);
    let counter = page.word64(0);
    let count_in_thread = || counter.store(counter.load(Relaxed) + 1, Relaxed);
    table(
        &format!("one short section under a lock, {parties} at once, ns"),
        "pthread robust mutex",
        &mut [
            ("pthread robust mutex", &mut || processes(&|| robust.with(count))),
            ("pthread mutex", &mut || processes(&|| pthread.with(count))),
            ("raw_sync Mutex", &mut || {
                processes(&|| {
                    let _held = raw_sync.lock().unwrap();
                    count();
                })
            }),
            ("std Mutex (threads)", &mut || {
                threads(&|| {
                    let _held = mutex.lock().unwrap();
                    count_in_thread();
                })
            }),
            ("parking_lot Mutex (threads)", &mut || {
                threads(&|| {
                    let _held = parking_lot.lock();
                    count_in_thread();
                })
            }),
            ("Lock", &mut || {
                processes(&|| {
                    let _held = lock.lock().unwrap();
                    count();
                })
            }),
            ("RLock", &mut || {
                processes(&|| {
                    let _held = rlock.lock().unwrap();
                    count();
                })
            }),
            ("RwLock, write", &mut || {
                processes(&|| {
                    let _held = rwlock.write().unwrap();
                    count();
                })
            }),
            ("RwLock, read", &mut || {
                processes(&|| {
                    let _held = rwlock.read().unwrap();
                })
            }),
            ("Value increment", &mut || processes(&|| *value.lock().unwrap() += 1)),
        ],
    );
}

/// A turn goes to and fro between two processes on these cores.
fn handoff(cores: [usize; 2]) {
    const TURNS: u64 = 5_000;
    let page = Page::new();
    let semaphores = [Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap()];
    let events = [Event::new().unwrap(), Event::new().unwrap()];
    let (turn, changed) = (Value::new(0u64).unwrap(), Condition::new().unwrap());
    let futexes = [page.word32(64), page.word32(128)];

    let between = |turn: &dyn Fn(usize)| between_two(cores, TURNS, &page, turn);
    let name = if cores[0] == cores[1] { "one core" } else { "two cores" };
    table(
        &format!("a turn to another process and back, {name}, ns"),
        "raw futex",
        &mut [
            ("raw futex", &mut || {
                between(&|own| {
                    if own == 0 {
                        raw_set(futexes[0]);
                        raw_wait(futexes[1]);
                    } else {
                        raw_wait(futexes[0]);
                        raw_set(futexes[1]);
                    }
                })
            }),
            ("Semaphore", &mut || {
                between(&|own| {
                    if own == 0 {
                        semaphores[0].release();
                        semaphores[1].acquire().unwrap();
                    } else {
                        semaphores[0].acquire().unwrap();
                        semaphores[1].release();
                    }
                })
            }),
            ("Event", &mut || {
                between(&|own| {
                    if own == 0 {
                        events[0].set();
                        events[1].wait();
                        events[1].clear();
                    } else {
                        events[0].wait();
                        events[0].clear();
                        events[1].set();
                    }
                })
            }),
            ("Condition and Value", &mut || {
                between(&|own| {
                    let own = own as u64;
                    let mut guard =
                        changed.wait_while(turn.lock().unwrap(), |turn| **turn % 2 != own).unwrap();
                    *guard += 1;
                    drop(guard);
                    changed.notify(1);
                })
            }),
        ],
    );
}

fn raw_set(word: &AtomicU32) {
    word.store(1, Release);
    futex::wake(word, 1);
}

fn raw_wait(word: &AtomicU32) {
    while word.swap(0, Acquire) == 0 {
        futex::wait(word, 0, Deadline::NEVER);
    }
}

type Contender<'a> = (&'a str, &'a mut dyn FnMut() -> Duration);

/// Measures and prints.
fn table(title: &str, reference: &str, contenders: &mut [Contender<'_>]) {
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for ((_, run), times) in contenders.iter_mut().zip(&mut times) {
            let time = run();
            if round > 0 {
                times.push(time.as_nanos() as f64);
            }
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let median = |times: &Vec<f64>| times[times.len() / 2];
    let position = contenders.iter().position(|(name, _)| *name == reference);
    let unit = position.map_or(f64::NAN, |position| median(&times[position]));
    println!("\n{title}\n  {:<28} {:>10} {:>8}   spread", "", "median", "ratio");
    for ((name, _), times) in contenders.iter().zip(&times) {
        println!(
            "  {name:<28} {:>10.0} {:>8.2}   {:.0} to {:.0}",
            median(times),
            median(times) / unit,
            times[0],
            times[times.len() - 1]
        );
    }
}

/// Runs the turns in so many processes at once. Gives the time of one turn.
fn in_processes(parties: usize, turns: u64, page: &Page, turn: &dyn Fn()) -> Duration {
    let (ready, go) = (page.word32(8), page.word32(16));
    ready.store(0, SeqCst);
    go.store(0, SeqCst);
    let children: Vec<Forked> = (0..parties)
        .map(|_| {
            fork(|| {
                ready.fetch_add(1, SeqCst);
                while go.load(Acquire) == 0 {
                    std::thread::yield_now();
                }
                (0..turns).for_each(|_| turn());
                0
            })
            .unwrap()
        })
        .collect();
    while ready.load(SeqCst) < parties as u32 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    go.store(1, Release);
    children.into_iter().for_each(finish);
    start.elapsed() / (parties as u64 * turns) as u32
}

fn in_threads(parties: usize, turns: u64, turn: &(dyn Fn() + Sync)) -> Duration {
    let go = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..parties)
            .map(|_| {
                scope.spawn(|| {
                    while go.load(Acquire) == 0 {
                        std::thread::yield_now();
                    }
                    (0..turns).for_each(|_| turn());
                })
            })
            .collect();
        let start = Instant::now();
        go.store(1, Release);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        start.elapsed() / (parties as u64 * turns) as u32
    })
}

/// Runs the turns in two processes. Gives the time of one.
fn between_two(cores: [usize; 2], turns: u64, page: &Page, turn: &dyn Fn(usize)) -> Duration {
    let taken = page.word64(24);
    let child = fork(|| {
        pin(cores[1]);
        (0..turns).for_each(|_| turn(1));
        0
    });
    let parent = fork(|| {
        pin(cores[0]);
        let start = Instant::now();
        (0..turns).for_each(|_| turn(0));
        taken.store(start.elapsed().as_nanos() as u64, SeqCst);
        0
    });
    finish(parent.unwrap());
    finish(child.unwrap());
    Duration::from_nanos(taken.load(SeqCst) / turns)
}

fn finish(child: Forked) {
    child.pidfd.wait_end(Deadline::NEVER).unwrap();
    let status = child.pidfd.reap().unwrap();
    assert!(status.is_some_and(|status| status.success()));
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).unwrap();
    spin_loop();
}
