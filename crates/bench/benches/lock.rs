//! Locks, values and atomics that nobody else wants, beside their peers: in plain loops by turns, and
//! as criterion measures them one after the other.
#![allow(missing_docs)]

#[path = "support/pthread.rs"]
mod pthread;

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use criterion::{Criterion, criterion_group};
use multiproc::{Lock, RLock, RwLock, Semaphore, Shared, Value};
use pthread::Page;

fn locks(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock+unlock");
    let mutex = Mutex::new(());
    group.bench_function("std::sync::Mutex", |b| {
        b.iter(|| drop(black_box(&mutex).lock().unwrap()));
    });
    let lock = Lock::new().unwrap();
    group.bench_function("Lock", |b| b.iter(|| drop(black_box(&lock).lock().unwrap())));
    let parking_lot = parking_lot::Mutex::new(());
    group.bench_function("parking_lot::Mutex", |b| {
        b.iter(|| drop(black_box(&parking_lot).lock()));
    });
    let page = Page::new();
    let robust = pthread::Mutex::new(&page, 0, true);
    group.bench_function("pthread robust mutex", |b| b.iter(|| black_box(&robust).with(|| ())));
    let raw_sync = pthread::raw_sync(&page, 512);
    group.bench_function("raw_sync Mutex", |b| {
        b.iter(|| drop(black_box(&raw_sync).lock().unwrap()));
    });
    let rlock = RLock::new().unwrap();
    group.bench_function("RLock", |b| b.iter(|| drop(black_box(&rlock).lock().unwrap())));
    group.finish();

    let mut group = c.benchmark_group("reader-writer lock");
    let std = std::sync::RwLock::new(());
    group.bench_function("std, read", |b| b.iter(|| drop(black_box(&std).read().unwrap())));
    group.bench_function("std, write", |b| b.iter(|| drop(black_box(&std).write().unwrap())));
    let ours = RwLock::new().unwrap();
    group.bench_function("RwLock, read", |b| b.iter(|| drop(black_box(&ours).read().unwrap())));
    group.bench_function("RwLock, write", |b| b.iter(|| drop(black_box(&ours).write().unwrap())));
    group.finish();

    let semaphore = Semaphore::new(1).unwrap();
    c.bench_function("Semaphore acquire+release", |b| {
        b.iter(|| {
            black_box(&semaphore).acquire().unwrap();
            black_box(&semaphore).release();
        });
    });
}

fn increments(c: &mut Criterion) {
    let mut group = c.benchmark_group("increment under a lock");
    let mutex = Mutex::new(0u64);
    group.bench_function("std::sync::Mutex", |b| {
        b.iter(|| *black_box(&mutex).lock().unwrap() += 1);
    });
    let value = Value::new(0u64).unwrap();
    group.bench_function("Value", |b| b.iter(|| *black_box(&value).lock().unwrap() += 1));
    group.finish();

    let mut group = c.benchmark_group("increment of an atomic");
    let atomic = AtomicU64::new(0);
    group.bench_function("AtomicU64", |b| b.iter(|| black_box(&atomic).fetch_add(1, Relaxed)));
    let shared = Shared::new(AtomicU64::new(0)).unwrap();
    group.bench_function("Shared<AtomicU64>", |b| {
        b.iter(|| black_box(&shared).fetch_add(1, Relaxed));
    });
    group.finish();
}

/// Short rounds, one contender after the other in each. What is printed is the median of all rounds, and
/// that of the ratios to the first contender in each.
fn by_turns() {
    const ROUNDS: usize = 401;
    const TURNS: u32 = 50_000;
    let (mutex, lock) = (Mutex::new(()), Lock::new().unwrap());
    let (number, value) = (Mutex::new(0u64), Value::new(0u64).unwrap());
    let parking_lot = parking_lot::Mutex::new(());
    let contenders: [(&str, &dyn Fn()); 5] = [
        ("std::sync::Mutex", &|| repeat(TURNS, || drop(black_box(&mutex).lock().unwrap()))),
        ("parking_lot::Mutex", &|| repeat(TURNS, || drop(black_box(&parking_lot).lock()))),
        ("Lock", &|| repeat(TURNS, || drop(black_box(&lock).lock().unwrap()))),
        ("std::sync::Mutex, += 1", &|| repeat(TURNS, || *black_box(&number).lock().unwrap() += 1)),
        ("Value, += 1", &|| repeat(TURNS, || *black_box(&value).lock().unwrap() += 1)),
    ];
    let round = || {
        contenders.map(|(_, run)| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e9 / f64::from(TURNS)
        })
    };
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    println!("one lock and unlock in a plain loop (median of {ROUNDS} rounds)");
    for (index, (name, _)) in contenders.iter().enumerate() {
        let median = |figure: &dyn Fn(&[f64; 5]) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[ROUNDS / 2]
        };
        let (time, ratio) = (median(&|each| each[index]), median(&|each| each[index] / each[0]));
        println!("  {name:<24}{time:>8.2} ns{ratio:>8.2}");
    }
}

#[inline(always)]
fn repeat(turns: u32, act: impl Fn()) {
    for _ in 0..turns {
        act();
    }
}

criterion_group!(benches, locks, increments);

fn main() {
    if !std::env::args().any(|word| word == "--test") {
        by_turns();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
