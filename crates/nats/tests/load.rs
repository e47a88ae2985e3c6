//! Under load no pull stands still. Pulled by `messages()`, results were seen to be late by 35 s, in some
//! of the processes that took them.

mod common;

use std::time::{Duration, Instant};

use common::{Server, options, run};
use multiproc_nats::Pool;

fn main() {
    run(&[("many_drivers_at_once", many_drivers_at_once)], driver);
}

const DRIVERS: usize = 12;
const TASKS: u64 = 400;

/// Longer than anything takes here but a pull that stands still, which is made anew after seven seconds.
const STILL: Duration = Duration::from_secs(6);

fn many_drivers_at_once() {
    let server = Server::start();
    let _agents = [server.agent(), server.agent()];
    let mut drivers: Vec<_> = (0..DRIVERS).map(|_| server.driver(&[])).collect();
    for driver in &mut drivers {
        assert!(driver.wait().success());
    }
}

fn driver(arguments: &[String]) {
    let pool = Pool::connect(&arguments[0], options("test")).unwrap();
    let mut last = Instant::now();
    for (x, result) in (0..).zip(pool.with_chunk_size(1).imap(|x: u64| x + 1, 0..TASKS)) {
        assert_eq!(result.unwrap(), x + 1);
        assert!(last.elapsed() < STILL, "result {x} was late by {:?}", last.elapsed());
        last = Instant::now();
    }
}
