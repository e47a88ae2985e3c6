//! Locks, values and atomics that nobody else wants, beside their peers, in plain loops.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use multiproc::{Lock, RLock, RwLock, Semaphore, Shared, Value};
use multiproc_bench::pthread::{self, Page};
use multiproc_bench::python;
use multiproc_bench::rounds::{Cost, Measure, here, is_test, pin, placements};

const AREA: &str = "lock";
const TURNS: u64 = 50_000;

fn main() {
    if is_test() {
        return;
    }
    let (_, [core, _]) = placements()[0];
    pin(core);
    locks();
    others();
    increments();
}

/// Inlined where it is called, with what it calls: a plain loop.
#[inline(always)]
fn repeat(act: impl Fn()) -> Cost {
    let many = || {
        for _ in 0..TURNS {
            act();
        }
    };
    timed(&many)
}

#[inline(never)]
fn timed(act: &dyn Fn()) -> Cost {
    here(TURNS, act)
}

fn locks() {
    let page = Page::new();
    let (mutex, parking_lot) = (Mutex::new(()), parking_lot::Mutex::new(()));
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let robust = pthread::Mutex::new(&page, 0, true);
    let shared = pthread::Mutex::new(&page, 1024, false);
    let raw_sync = pthread::raw_sync(&page, 512);
    Measure::of(AREA, "lock and unlock, nobody else", "turn")
        .headline()
        .short_rounds(20)
        .ours("Lock", || repeat(|| drop(black_box(&lock).lock().unwrap())))
        .peer("pthread mutex", || repeat(|| black_box(&shared).with(|| ())))
        .peer("pthread robust mutex", || repeat(|| black_box(&robust).with(|| ())))
        .peer("raw_sync Mutex", || repeat(|| drop(black_box(&raw_sync).lock().unwrap())))
        .threads("std Mutex", || repeat(|| drop(black_box(&mutex).lock().unwrap())))
        .threads("parking_lot Mutex", || repeat(|| drop(black_box(&parking_lot).lock())))
        .ours("RLock", || repeat(|| drop(black_box(&rlock).lock().unwrap())))
        .run();
    Measure::of(AREA, "lock and unlock, beside Python", "turn")
        .ours("Lock", || repeat(|| drop(black_box(&lock).lock().unwrap())))
        .python("Python's Lock", python::standard("bench_lock"), &["Lock"], TURNS)
        .run();
}

fn others() {
    let (std, ours) = (std::sync::RwLock::new(()), RwLock::new().unwrap());
    Measure::of(AREA, "read lock, nobody else", "turn")
        .short_rounds(20)
        .ours("RwLock", || repeat(|| drop(black_box(&ours).read().unwrap())))
        .threads("std RwLock", || repeat(|| drop(black_box(&std).read().unwrap())))
        .run();
    Measure::of(AREA, "write lock, nobody else", "turn")
        .short_rounds(20)
        .ours("RwLock", || repeat(|| drop(black_box(&ours).write().unwrap())))
        .threads("std RwLock", || repeat(|| drop(black_box(&std).write().unwrap())))
        .run();
    let semaphore = Semaphore::new(1).unwrap();
    let acquire_and_release = || {
        repeat(|| {
            black_box(&semaphore).acquire().unwrap();
            black_box(&semaphore).release();
        })
    };
    Measure::of(AREA, "acquire and release, nobody else", "turn")
        .short_rounds(20)
        .ours("Semaphore", acquire_and_release)
        .run();
}

fn increments() {
    let (mutex, value) = (Mutex::new(0u64), Value::new(0u64).unwrap());
    let ours = || repeat(|| *black_box(&value).lock().unwrap() += 1);
    Measure::of(AREA, "add to a number under its lock", "addition")
        .headline()
        .short_rounds(20)
        .ours("Value", ours)
        .threads("std Mutex", || repeat(|| *black_box(&mutex).lock().unwrap() += 1))
        .run();
    Measure::of(AREA, "add to a number under its lock, beside Python", "addition")
        .ours("Value", ours)
        .python("Python's Value", python::standard("bench_lock"), &["Value"], TURNS)
        .run();
    let (atomic, shared) = (AtomicU64::new(0), Shared::new(AtomicU64::new(0)).unwrap());
    Measure::of(AREA, "add to an atomic number", "addition")
        .short_rounds(20)
        .ours("Shared<AtomicU64>", || repeat(|| _ = black_box(&shared).fetch_add(1, Relaxed)))
        .threads("AtomicU64", || repeat(|| _ = black_box(&atomic).fetch_add(1, Relaxed)))
        .run();
}
