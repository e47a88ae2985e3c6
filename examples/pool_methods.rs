//! Calls the methods of a pool: in order, later, one by one.

use std::thread;
use std::time::Duration;

use multiproc::Pool;

fn process_item(item: i32) -> i32 {
    thread::sleep(Duration::from_secs(1)); // simulates the work
    item * 2
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let pool = Pool::builder().workers(4).build()?;

    // map: all items, results in order
    let results = pool.map(process_item, [1, 2, 3, 4])?;
    println!("map results: {results:?}");
    assert_eq!(results, [2, 4, 6, 8]);

    // apply_async: a single item, while we go on
    let result = pool.apply_async(process_item, 10)?;
    println!("apply_async result: {}", result.get()?);

    // map_async: all items, while we go on
    let result = pool.map_async(process_item, [5, 6, 7, 8])?;
    println!("map_async results: {:?}", result.get()?);

    // imap: an iterator, in order
    for result in pool.imap(process_item, [9, 10, 11]) {
        println!("imap result: {}", result?);
    }

    // imap_unordered: an iterator, whatever is ready first
    for result in pool.imap_unordered(process_item, [12, 13, 14]) {
        println!("imap_unordered result: {}", result?);
    }

    pool.close();
    pool.join()?;
    Ok(())
}
