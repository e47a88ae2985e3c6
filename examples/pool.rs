//! Processes eight items one after another, then with a pool.

use std::thread;
use std::time::Duration;

use multiproc::Pool;
use multiproc_examples::{print_speedup, progress_bar, say, timed};

fn process_item(item: i32) -> i32 {
    say!("Processing {item} in process {}", multiproc::current_process().pid());
    thread::sleep(Duration::from_secs(1)); // simulates the work
    item * 2
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let items = [1, 2, 3, 4, 5, 6, 7, 8];

    let bar = progress_bar(items.len());
    let (sequential_result, sequential_time) =
        timed(|| bar.wrap_iter(items.into_iter()).map(process_item).collect::<Vec<_>>());

    let bar = progress_bar(items.len());
    let (parallel_result, parallel_time) = timed(|| -> anyhow::Result<Vec<_>> {
        let pool = Pool::new()?;
        // As `pool.map(process_item, items)`, but result by result, as a bar wants them.
        Ok(bar.wrap_iter(pool.imap(process_item, items)).collect::<Result<_, _>>()?)
    });
    let parallel_result = parallel_result?;

    println!("Sequential result: {sequential_result:?}");
    println!("Parallel result: {parallel_result:?}");
    println!("Sequential execution time: {sequential_time:.2} seconds");
    println!("Parallel execution time: {parallel_time:.2} seconds");
    print_speedup(sequential_time, parallel_time);
    assert_eq!(sequential_result, parallel_result);
    Ok(())
}
