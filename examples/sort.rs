//! Exercise: sorts ten million numbers in shared memory; compares with std's and rayon's sort.

use multiproc::{Pool, ShmBox};
use multiproc_examples::{print_speedup, progress_bar, say, timed};
use rayon::slice::ParallelSliceMut;

const COUNT: u64 = 10_000_000;

type Sort = fn(&mut [u64]);

/// Sorts with all workers: each gets its part moved to it and back; the numbers stay where they are.
fn sort(pool: &Pool, data: ShmBox<[u64]>) -> anyhow::Result<ShmBox<[u64]>> {
    let sort = |mut part: ShmBox<[u64]>| {
        part.sort_unstable();
        part
    };
    Ok(ShmBox::join(pool.map(sort, divide(data, pool.workers()))?)?)
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

fn main() -> anyhow::Result<()> {
    multiproc::init();
    // Numbers without order, the same in each run.
    let data: Vec<u64> = (1..=COUNT).map(|i| (i * i).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let pool = Pool::new()?;
    println!("Sorting {COUNT} numbers, {} workers", pool.workers());

    let rivals: [(&str, Sort); 3] = [
        ("std's sort", <[u64]>::sort),
        ("rayon's par_sort_unstable, threads", <[u64]>::par_sort_unstable),
        ("std's sort_unstable", <[u64]>::sort_unstable),
    ];
    let (mut expected, mut sequential) = (Vec::new(), 0.0);
    for (name, sort) in progress_bar(rivals.len()).wrap_iter(rivals.into_iter()) {
        expected.clone_from(&data);
        ((), sequential) = timed(|| sort(&mut expected));
        say!("{name}: {sequential:.3} seconds");
    }

    let (shared, moving) = timed(|| ShmBox::<[u64]>::from_slice(&data));
    let shared = shared?;
    let (sorted, parallel) = timed(|| sort(&pool, shared));
    println!("Pool, in shared memory: {parallel:.3} seconds");
    print_speedup(sequential, parallel);
    println!("Copying numbers into shared memory first, where needed: {moving:.3} seconds more");
    assert!(sorted?[..] == expected[..], "the parallel sort is wrong");
    Ok(())
}
