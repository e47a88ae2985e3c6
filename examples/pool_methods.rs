//! Calls the methods of a pool: in order, later, one by one.

use std::thread;
use std::time::Duration;

use multiproc::Pool;
use multiproc_examples::{progress_bar, say};

fn process_item(item: i32) -> i32 {
    thread::sleep(Duration::from_secs(1)); // simulates the work
    item * 2
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let pool = Pool::builder().workers(4).build()?;
    let bar = progress_bar(15);

    // map: all items, results in order
    let results = pool.map(process_item, [1, 2, 3, 4])?;
    say!("map results: {results:?}");
    assert_eq!(results, [2, 4, 6, 8]);
    bar.inc(4);

    // apply_async: a single item, while we go on
    let result = pool.apply_async(process_item, 10)?;
    say!("apply_async result: {}", result.get()?);
    bar.inc(1);

    // map_async: all items, while we go on
    let result = pool.map_async(process_item, [5, 6, 7, 8])?;
    say!("map_async results: {:?}", result.get()?);
    bar.inc(4);

    // imap: an iterator, in order
    for result in pool.imap(process_item, [9, 10, 11]) {
        say!("imap result: {}", result?);
        bar.inc(1);
    }

    // imap_unordered: an iterator, whatever is ready first
    for result in pool.imap_unordered(process_item, [12, 13, 14]) {
        say!("imap_unordered result: {}", result?);
        bar.inc(1);
    }

    pool.close();
    pool.join()?;
    Ok(())
}
