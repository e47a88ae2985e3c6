//! Pools leave no process, descriptor, thread or mapping behind. Alone in its binary: it counts what
//! the whole process has.

mod common;

use std::fs::read_dir;

use common::{eventually, kill, watchdog};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;

init_before_main!();

fn count(what: &str) -> usize {
    read_dir(format!("/proc/self/{what}")).unwrap().count()
}

fn memfds() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:").count()
}

#[test]
fn pools_leave_nothing_behind() {
    watchdog();
    let round = |deaths: bool| {
        let pool = Pool::builder().workers(3).build().unwrap();
        assert_eq!(pool.map(|x: u32| x, 0..1_000).unwrap().len(), 1_000);
        if deaths {
            let task = |x: u32| {
                if x.is_multiple_of(10) {
                    kill(std::process::id())
                }
            };
            assert_eq!(
                pool.try_map(task, 0..100).unwrap().iter().filter(|o| o.is_err()).count(),
                10
            );
        }
        let pids = pool.worker_pids();
        if deaths {
            drop(pool)
        } else {
            pool.join().unwrap()
        }
        for pid in pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
        }
    };
    // The first starts the fork server, which stays.
    round(false);
    let before = (count("fd"), count("task"), memfds());
    for deaths in [false, true, false, true] {
        round(deaths);
        // A thread that was joined is listed a moment longer.
        eventually(|| (count("fd"), count("task"), memfds()) == before);
    }
}
