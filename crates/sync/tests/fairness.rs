//! Proves that nobody starves: however fast others take a primitive and give it back, who waits for it
//! has it after few wakes, and of many turns each has a share. Counted, not timed: how often the others have it while a process that was
//! woken waits for a processor says more about the machine, and is printed.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use multiproc_harness::{Child, eventually, is_asleep};
use multiproc_sync::region::{Header, Region};
use multiproc_sync::{BoundedSemaphore, Lock, RLock, RwLock, Semaphore};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

const ROUNDS: usize = 60;
/// How many others there are.
const OTHERS: usize = 3;
/// How often a waiter may be woken in vain: some times what it is, and less than where waiters
/// do not let each other pass.
const MOST: u64 = 25;

fn main() {
    multiproc_harness::run(&[
        ("lock_passes_over_nobody", lock_passes_over_nobody),
        ("rlock_passes_over_nobody", rlock_passes_over_nobody),
        ("semaphore_passes_over_nobody", semaphore_passes_over_nobody),
        ("bounded_semaphore_passes_over_nobody", bounded_semaphore_passes_over_nobody),
        ("rw_lock_passes_over_no_writer", rw_lock_passes_over_no_writer),
        ("rw_lock_passes_over_no_reader", rw_lock_passes_over_no_reader),
        ("everybody_has_a_share", everybody_has_a_share),
    ]);
}

const WAITS: u64 = u64::MAX;

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Counts {
    /// How often the others had a turn.
    turns: AtomicU64,
    /// How often they had when the waiter had one, or [`WAITS`].
    passed: AtomicU64,
    /// How often the waiter has fallen asleep.
    sleeps: AtomicU64,
}

impl Header for Counts {
    const KIND: [u8; 8] = *b"counts\0\0";
}

/// Somebody has it. A waiter and some others fall asleep over it; when it gets free, the others take it
/// and give it back without a pause, until the waiter has had it once. `take` and `other` take it and
/// give it back, and call what they are given in between.
fn nobody_starves(first: impl Fn(&dyn Fn()), take: impl Fn(&dyn Fn()), other: impl Fn(&dyn Fn())) {
    let region = Region::<Counts>::create("counts", 0).unwrap();
    let counts = region.header();
    let (mut worst, mut most, mut sum) = (0, 0, 0);
    for round in 0..ROUNDS {
        counts.turns.store(0, SeqCst);
        counts.passed.store(WAITS, SeqCst);
        let children = RefCell::new(Vec::new());
        first(&|| {
            for place in 0..OTHERS + 1 {
                // First in line, or last, or between.
                let is_the_waiter = place == round % (OTHERS + 1);
                let act = || {
                    if is_the_waiter {
                        let before = sleeps();
                        take(&|| {
                            counts.sleeps.store(sleeps() - before, SeqCst);
                            counts.passed.store(counts.turns.load(SeqCst), SeqCst);
                        });
                    }
                    while !is_the_waiter && counts.passed.load(SeqCst) == WAITS {
                        other(&|| _ = counts.turns.fetch_add(1, SeqCst));
                    }
                };
                let child = Child::fork(act);
                // Some can read meanwhile.
                let reads = || !is_the_waiter && counts.turns.load(SeqCst) > 0;
                eventually("its wait", || is_asleep(child.pid()) || reads());
                if is_the_waiter {
                    counts.turns.store(0, SeqCst);
                }
                children.borrow_mut().push(child);
            }
        });
        children.take().into_iter().for_each(Child::join);
        worst = worst.max(counts.sleeps.load(SeqCst));
        most = most.max(counts.passed.load(SeqCst));
        sum += counts.passed.load(SeqCst);
    }
    println!("slept at most {worst} times; others had it {most} times at most");
    println!("and {} times on average while it waited", sum / ROUNDS as u64);
    assert!(worst <= MOST, "a waiter was woken {worst} times before it had it");
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Shares {
    /// How many turns there were.
    turns: AtomicU64,
    /// How many each party has had of them.
    each: [AtomicU64; OTHERS + 1],
}

impl Header for Shares {
    const KIND: [u8; 8] = *b"shares\0\0";
}

/// Some take it and give it back without a pause until there were many turns.
fn shares(name: &str, take: impl Fn(&dyn Fn())) {
    const TURNS: u64 = 4_000_000;
    /// Of a hundred, some being on their way to a processor while another goes on.
    const LEAST: u64 = 1;
    let region = Region::<Shares>::create("shares", 0).unwrap();
    let Shares { turns, each } = region.header();
    let gate = Lock::new().unwrap();
    let closed = gate.lock().unwrap();
    let parties: Vec<Child> = each
        .iter()
        .map(|own| {
            let party = Child::fork(|| {
                drop(gate.lock().unwrap());
                while turns.load(SeqCst) < TURNS {
                    take(&|| {
                        turns.fetch_add(1, SeqCst);
                        own.fetch_add(1, SeqCst);
                    });
                }
            });
            party.wait_asleep();
            party
        })
        .collect();
    drop(closed);
    parties.into_iter().for_each(Child::join);
    let shares: Vec<u64> = each.iter().map(|own| own.load(SeqCst) * 100 / TURNS).collect();
    println!("{name}: of 100 turns, each had {shares:?}");
    assert!(shares.iter().all(|share| *share >= LEAST), "somebody starves");
}

fn everybody_has_a_share() {
    let lock = Lock::new().unwrap();
    shares("lock", |turn| {
        let _held = lock.lock().unwrap();
        turn();
    });
    let lock = RLock::new().unwrap();
    shares("rlock", |turn| {
        let _held = lock.lock().unwrap();
        turn();
    });
    let lock = RwLock::new().unwrap();
    shares("rw lock, writing", |turn| {
        let _held = lock.write().unwrap();
        turn();
    });
    let semaphore = Semaphore::new(1).unwrap();
    shares("semaphore", |turn| {
        semaphore.acquire().unwrap();
        turn();
        semaphore.release();
    });
    let semaphore = BoundedSemaphore::new(1).unwrap();
    shares("bounded semaphore", |turn| {
        let _permit = semaphore.acquire().unwrap();
        turn();
    });
}

/// How often this process has fallen asleep.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

fn lock_passes_over_nobody() {
    let lock = Lock::new().unwrap();
    let take = |turn: &dyn Fn()| {
        let _held = lock.lock().unwrap();
        turn();
    };
    nobody_starves(take, take, take);
}

fn rlock_passes_over_nobody() {
    let lock = RLock::new().unwrap();
    let take = |turn: &dyn Fn()| {
        let _held = [lock.lock().unwrap(), lock.lock().unwrap()];
        turn();
    };
    nobody_starves(take, take, take);
}

fn semaphore_passes_over_nobody() {
    let semaphore = Semaphore::new(1).unwrap();
    let take = |turn: &dyn Fn()| {
        semaphore.acquire().unwrap();
        turn();
        semaphore.release();
    };
    nobody_starves(take, take, take);
}

fn bounded_semaphore_passes_over_nobody() {
    let semaphore = BoundedSemaphore::new(1).unwrap();
    let take = |turn: &dyn Fn()| {
        let _permit = semaphore.acquire().unwrap();
        turn();
    };
    nobody_starves(take, take, take);
}

/// One writes, and all others read without a pause.
fn rw_lock_passes_over_no_writer() {
    let lock = RwLock::new().unwrap();
    let write = |turn: &dyn Fn()| {
        let _writing = lock.write().unwrap();
        turn();
    };
    let read = |turn: &dyn Fn()| {
        let _reading = lock.read().unwrap();
        turn();
    };
    nobody_starves(read, write, read);
}

fn rw_lock_passes_over_no_reader() {
    let lock = RwLock::new().unwrap();
    let write = |turn: &dyn Fn()| {
        let _writing = lock.write().unwrap();
        turn();
    };
    let read = |turn: &dyn Fn()| {
        let _reading = lock.read().unwrap();
        turn();
    };
    nobody_starves(write, read, write);
}
