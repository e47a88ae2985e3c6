//! A fork server that is killed takes the workers along, and the pool goes on with another. Alone in
//! its binary: the server belongs to the whole process.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::{children, kill, watchdog};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;

init_before_main!();

#[test]
fn a_pool_outlives_the_server_that_its_workers_come_from() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap().with_retries(1_000);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let maps = scope.spawn(|| {
            for _ in 0..30 {
                let task = |x: u64| (0..2_000).fold(x, |a, b| std::hint::black_box(a ^ b ^ b));
                assert!(pool.map(task, 0..500).unwrap().into_iter().eq(0..500));
            }
            done.store(true, SeqCst);
        });
        for _ in 0..5 {
            // The first child is the server; then there is another.
            let servers = children(std::process::id());
            servers.iter().for_each(|pid| kill(*pid));
            common::eventually(|| {
                let now = children(std::process::id());
                done.load(SeqCst) || now.iter().any(|pid| !servers.contains(pid))
            });
        }
        maps.join().unwrap();
    });
    pool.join().unwrap();
}
