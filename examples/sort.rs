//! Exercise: sorts ten million numbers in shared memory; compares with std's and rayon's sort.

use std::iter;

use multiproc::{Pool, ShmBox};
use multiproc_examples::{print_speedup, timed};
use rayon::slice::ParallelSliceMut;

const COUNT: usize = 10_000_000;

/// Numbers without order (xorshift), the same in each run.
fn numbers() -> impl Iterator<Item = u64> {
    iter::successors(Some(0x9e37_79b9_7f4a_7c15), |&x: &u64| {
        let x = x ^ (x << 13);
        let x = x ^ (x >> 7);
        Some(x ^ (x << 17))
    })
}

/// Divides `data` so that no number of a part is greater than any of the next part.
fn divide(mut data: ShmBox<[u64]>, parts: usize) -> Vec<ShmBox<[u64]>> {
    let mut divided = Vec::new();
    for left in (2..=parts).rev() {
        let len = data.len() / left;
        data.select_nth_unstable(len);
        let (part, rest) = data.split_at(len);
        divided.push(part);
        data = rest;
    }
    divided.push(data);
    divided
}

fn parallel_sort(pool: &Pool, data: ShmBox<[u64]>) -> anyhow::Result<ShmBox<[u64]>> {
    // Each part moves to a worker and back; the numbers stay where they are.
    let sort = |mut part: ShmBox<[u64]>| {
        part.sort_unstable();
        part
    };
    let sorted = pool.map(sort, divide(data, multiproc::cpu_count()))?;
    Ok(ShmBox::join(sorted)?)
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let data: Vec<u64> = numbers().take(COUNT).collect();
    let pool = Pool::new()?;

    let mut expected = data.clone();
    let ((), unstable) = timed(|| expected.sort_unstable());
    let mut copy = data.clone();
    let ((), stable) = timed(|| copy.sort());
    copy.copy_from_slice(&data);
    let ((), threads) = timed(|| copy.par_sort_unstable());
    let (shared, moving) = timed(|| ShmBox::<[u64]>::from_slice(&data));
    let shared = shared?;
    let (sorted, parallel) = timed(|| parallel_sort(&pool, shared));
    assert!(sorted?[..] == expected[..], "the parallel sort is wrong");

    println!("Sorted {COUNT} numbers, {} workers", multiproc::cpu_count());
    println!("std's sort_unstable: {unstable:.3} seconds");
    println!("std's sort: {stable:.3} seconds");
    println!("rayon's par_sort_unstable, threads: {threads:.3} seconds");
    println!("Pool, in shared memory: {parallel:.3} seconds");
    print_speedup(unstable, parallel);
    println!("Copying numbers into shared memory first, where needed: {moving:.3} seconds more");
    Ok(())
}
