//! A result for which the parent has no descriptor left is told as that.

mod common;

use std::fs::File;

use common::watchdog;
use multiproc_pool::Pool;
use multiproc_process::{Limit, Process, init_before_main};

init_before_main!();

/// Opens files until no descriptor is left.
fn leave_none() -> Vec<File> {
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!files.is_empty() && files.len() < 128, "the limit does not bite");
    files
}

/// Regression: the task was said to have died by `SIGKILL`, and no more.
#[test]
fn a_result_that_cannot_be_received_is_told_and_costs_what_was_sent_with_it() {
    watchdog();
    let child = |()| {
        let pool = Pool::builder().workers(1).build().unwrap().with_chunk_size(100);
        pool.map(|x: u32| x, 0..10).unwrap();
        for round in 0..3 {
            let files = leave_none();
            let large = |x: usize| vec![x as u8; if x == 4 { 1 << 20 } else { x }];
            let later = pool.with_retries(3).map_async(large, 0..20).unwrap();
            let outcomes = later.outcomes();
            drop(files);
            for (x, outcome) in outcomes.into_iter().enumerate() {
                match outcome {
                    Ok(value) => assert!(value == vec![x as u8; x] && x != 4, "{round}: {x}"),
                    Err(error) => {
                        // Those behind it may not have been begun, nor can be here any more.
                        let told =
                            error.is_death() && error.to_string().contains("not be received");
                        assert!(told || x > 4 && error.is_not_run(), "{round}: {x}: {error}");
                    }
                }
            }
            assert!(pool.map(large, 0..10).unwrap()[4].len() == 1 << 20);
        }
    };
    let process = Process::builder().limit(Limit::OpenFiles, 128);
    process.spawn(child, ()).unwrap().join().unwrap();
}
