//! `Pool::map` of a trivial function over a million integers, beside the same in this process, and
//! the latency of one task.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group};
use multiproc::Pool;

const COUNT: u64 = 1_000_000;

fn map(c: &mut Criterion) {
    let pool = Pool::new().unwrap();
    let mut group = c.benchmark_group("square of 1,000,000 integers");
    group.sample_size(10);
    group.bench_function("in this process", |b| {
        b.iter(|| (1..=COUNT).map(|x| black_box(x) * x).collect::<Vec<u64>>());
    });
    group.bench_function("Pool::map", |b| {
        b.iter(|| {
            let squares = pool.map(|x: u64| x * x, 1..=COUNT).unwrap();
            assert_eq!(squares.last(), Some(&(COUNT * COUNT)));
        });
    });
    group.finish();
    c.bench_function("Pool::apply of a trivial task", |b| {
        b.iter(|| assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2));
    });
}

criterion_group!(benches, map);

fn main() {
    multiproc::init();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
