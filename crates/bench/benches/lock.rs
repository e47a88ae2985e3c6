//! Lock and unlock without contention, beside `std::sync::Mutex`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Mutex;

use criterion::{Criterion, criterion_group, criterion_main};
use multiproc::{Lock, Value};

fn uncontended(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock+unlock");
    let mutex = Mutex::new(());
    group.bench_function("std::sync::Mutex", |b| {
        b.iter(|| drop(black_box(&mutex).lock().unwrap()));
    });
    let lock = Lock::new().unwrap();
    group.bench_function("Lock", |b| b.iter(|| drop(black_box(&lock).lock().unwrap())));
    group.finish();

    let mut group = c.benchmark_group("increment under a lock");
    let mutex = Mutex::new(0u64);
    group.bench_function("std::sync::Mutex", |b| {
        b.iter(|| *black_box(&mutex).lock().unwrap() += 1);
    });
    let value = Value::new(0u64).unwrap();
    group.bench_function("Value", |b| b.iter(|| *black_box(&value).lock().unwrap() += 1));
    group.finish();
}

criterion_group!(benches, uncontended);
criterion_main!(benches);
