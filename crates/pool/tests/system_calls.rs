//! Counts system calls, those of the caller, the dispatcher and the worker together: few for one task,
//! and nearly none for one of many.
//!
//! Nobody yields before it sleeps: how often one then looks again depends on time. The bounds leave room
//! for what depends on who comes first, and for a machine that is busy: an assignment is some 2 ms of
//! work, and so has fewer tasks then.

use std::os::unix::process::CommandExt;
use std::process::Command;

use multiproc_harness::calls::count;
use multiproc_pool::Pool;
use multiproc_process::init_before_main;

init_before_main!();

const YIELD: &str = "MULTIPROC_YIELD_US";

fn main() {
    if std::env::var_os(YIELD).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        panic!("{}", again.args(std::env::args_os().skip(1)).env(YIELD, "0").exec());
    }
    multiproc_harness::run(&[
        ("a_task_there_and_back_needs_few", a_task_there_and_back_needs_few),
        ("one_of_many_tasks_needs_hardly_any", one_of_many_tasks_needs_hardly_any),
    ]);
}

/// The system calls of an act on a pool with one worker that has run tasks of the kind before.
fn calls(act: fn(&Pool)) -> usize {
    count(|| {
        let pool = Pool::builder().workers(1).build().unwrap();
        act(&pool);
        (pool.worker_pids(), move || act(&pool))
    })
}

fn square(x: u64) -> u64 {
    x * x
}

fn a_task_there_and_back_needs_few() {
    const MANY: u64 = 200;
    let act =
        |pool: &Pool| (0..MANY).for_each(|x| assert_eq!(pool.apply(square, x).unwrap(), x * x));
    let each = calls(act) as f64 / MANY as f64;
    println!("{each} system calls for a task there and back");
    assert!(each <= 20.0, "{each}");
}

fn one_of_many_tasks_needs_hardly_any() {
    const MANY: u64 = 100_000;
    let act = |pool: &Pool| assert_eq!(pool.map(square, 0..MANY).unwrap().len() as u64, MANY);
    let each = calls(act) as f64 / MANY as f64;
    println!("{each} system calls for each of {MANY} tasks");
    assert!(each <= 0.05, "{each}");
}
