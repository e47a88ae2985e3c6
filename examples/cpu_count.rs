//! Makes a pool with one process for each CPU that this program may use.

use multiproc::Pool;

fn main() -> anyhow::Result<()> {
    multiproc::init();

    // What affinity and control groups leave us, not what the machine has.
    let num_cores = multiproc::cpu_count();
    println!("Number of CPU cores: {num_cores}");

    // `Pool::new()` does the same.
    let pool = Pool::builder().workers(num_cores).build()?;
    let sum: u64 = pool.map(|x: u64| x * x, 1..=100)?.iter().sum();
    println!("Sum of the squares of 1 to 100: {sum}");
    assert_eq!(sum, 338_350);
    Ok(())
}
