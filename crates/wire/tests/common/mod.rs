//! What the tests of this crate share.
#![allow(dead_code)] // Each test takes what it needs.

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::poll;

/// One test at a time, since they count descriptors, and none for longer than a minute.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static WATCHDOG: Once = Once::new();
    static ALONE: Mutex<()> = Mutex::new(());
    WATCHDOG.call_once(|| {
        let (never, keep) = std::io::pipe().unwrap();
        std::thread::spawn(move || {
            let _keep = keep;
            poll::readable([never.as_fd()], Deadline::after(Duration::from_secs(60))).unwrap();
            eprintln!("a test hangs");
            std::process::abort();
        });
    });
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many descriptors the process has, without those of files in `/proc`: this look needs one,
/// and the C library opens `overcommit_memory` for a moment where the memory of a thread shrinks,
/// which may be the thread of a test that has just ended.
pub(crate) fn count_open() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
        .filter(|target| !target.starts_with("/proc"))
        .count()
}
