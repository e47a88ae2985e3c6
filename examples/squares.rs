//! Exercise: the squares of 1 to 1,000,000. Is a pool faster than a loop?

use multiproc::Pool;
use multiproc_examples::timed;

const COUNT: u64 = 1_000_000;

fn square(x: u64) -> u64 {
    x * x
}

fn main() -> anyhow::Result<()> {
    multiproc::init();

    let (expected, sequential) = timed(|| (1..=COUNT).map(square).collect::<Vec<_>>());
    let (pool, start_time) = timed(Pool::new);
    let pool = pool?;
    let (squares, parallel) = timed(|| pool.map(square, 1..=COUNT));
    assert_eq!(squares?, expected);

    println!("Sequential execution time: {:.2} ms", sequential * 1e3);
    println!("Starting the pool: {:.2} ms", start_time * 1e3);
    println!("Parallel execution time: {:.2} ms", parallel * 1e3);
    println!("Speedup: {:.2}x", sequential / parallel);
    if parallel > sequential {
        let (loop_ns, pool_ns) = (sequential * 1e9 / COUNT as f64, parallel * 1e9 / COUNT as f64);
        println!(
            "The pool is slower: to square a number costs the loop {loop_ns:.1} ns; to bring it to another\n\
             process and its square back costs {pool_ns:.1} ns. A pool pays when an item is far more\n\
             work than that, as in the demos image_filters and sort."
        );
    }
    Ok(())
}
