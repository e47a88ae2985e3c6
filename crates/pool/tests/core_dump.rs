//! A worker's core dump is told with its death, and none is where none was left.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use common::watchdog;
use multiproc_pool::{Pool, TaskError};
use multiproc_process::init_before_main;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

init_before_main!();

const SIGABRT: i32 = 6;

/// Aborts in this directory, with so many bytes for its dump.
fn abort((directory, most): (PathBuf, Option<u64>)) {
    std::env::set_current_dir(directory).unwrap();
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: most, maximum }).unwrap();
    std::process::abort()
}

/// How the task ends, and how many files there are then.
fn end_of(pool: &Pool, most: Option<u64>) -> (TaskError, usize) {
    let directory = tempfile::tempdir().unwrap();
    let error = pool.apply(abort, (directory.path().to_owned(), most)).unwrap_err();
    assert_eq!(error.signal(), Some(SIGABRT), "{error}");
    (error, std::fs::read_dir(directory.path()).unwrap().count())
}

#[test]
fn a_dump_that_is_left_is_told() {
    watchdog();
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.contains('/') || pattern.starts_with('|') {
        return common::skipped(format_args!("dumps go elsewhere, by {}", pattern.trim_end()));
    }
    let most = getrlimit(Resource::Core).maximum;
    if most.is_some_and(|most| most < 1 << 30) {
        return common::skipped(format_args!("a dump may have {most:?} bytes only"));
    }
    let pool = Pool::builder().workers(1).build().unwrap();
    let (error, files) = end_of(&pool, most);
    assert!(error.exit_status().unwrap().core_dumped(), "{error}");
    assert!(error.to_string().contains("(core dumped)"), "{error}");
    assert_eq!(files, 1, "the dump");
    assert_eq!(pool.apply(|x: u32| x, 1).unwrap(), 1);
}

#[test]
fn none_is_told_where_none_is_left() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let (error, files) = end_of(&pool, Some(0));
    assert!(!error.exit_status().unwrap().core_dumped(), "{error}");
    assert!(!error.to_string().contains("core"), "{error}");
    assert_eq!(files, 0);
    assert_eq!(pool.apply(|x: u32| x, 1).unwrap(), 1);
}
