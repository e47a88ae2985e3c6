//! Workers that are killed as soon as their processes exist cost no task. Alone in its binary: it
//! kills all children that the process has.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use common::{children, kill, watchdog};
use multiproc_pool::Pool;
use multiproc_process::{StartMethod, init_before_main};

init_before_main!();

#[test]
fn workers_that_are_killed_while_they_start_are_tried_again() {
    watchdog();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let pool =
            Pool::builder().workers(2).start_method(method).build().unwrap().with_retries(50);
        let parent = match method {
            StartMethod::ForkServer => children(std::process::id())[0],
            _ => std::process::id(),
        };
        let first: HashSet<u32> = pool.worker_pids().into_iter().collect();
        let before: HashSet<u32> = children(parent).into_iter().collect();
        assert!(first.is_subset(&before));
        let (killed, done) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut seen = before.clone();
                while !done.load(SeqCst) {
                    // Nine in a row are tried again; between those, one is let live.
                    for pid in children(parent)
                        .into_iter()
                        .filter(|pid| !seen.contains(pid))
                        .collect::<Vec<_>>()
                    {
                        seen.insert(pid);
                        if !seen.len().is_multiple_of(4) {
                            kill(pid);
                            killed.fetch_add(1, SeqCst);
                        }
                    }
                }
            });
            let task = |x: u32| {
                if x.is_multiple_of(9) {
                    kill(std::process::id());
                }
                x
            };
            for _ in 0..20 {
                let outcomes = pool.with_retries(0).try_map(task, 0..90).unwrap();
                for (x, outcome) in outcomes.into_iter().enumerate() {
                    match outcome {
                        Ok(value) => assert!(value == x as u32 && x % 9 != 0),
                        Err(error) => assert!(error.is_death(), "{method:?}, {x}: {error}"),
                    }
                }
            }
            done.store(true, SeqCst);
        });
        assert!(killed.load(SeqCst) > 20, "{} killed", killed.load(SeqCst));
    }
}
