//! What it costs to start a process and to join it.
//!
//! The raw fork is the limit: `fork`, `_exit` and `waitpid` in this very process.
#![allow(missing_docs, unsafe_code)]

use std::process::{Command, Stdio};

use criterion::{Criterion, criterion_group};
use multiproc::{Process, StartMethod};

fn spawn(c: &mut Criterion) {
    let mut group = c.benchmark_group("spawn+join");
    group.bench_function("raw fork+exit+wait", |b| b.iter(raw_fork));
    for method in [StartMethod::Fork, StartMethod::ForkServer, StartMethod::Spawn] {
        group.bench_function(format!("{method:?}"), |b| {
            b.iter(|| {
                let process = Process::builder().start_method(method).spawn(|x: u64| x + 1, 1);
                assert_eq!(process.and_then(Process::join).ok(), Some(2));
            });
        });
    }
    group.bench_function("std::process::Command of this program", |b| {
        b.iter(|| {
            let status = Command::new("/proc/self/exe").arg(EXIT).stdin(Stdio::null()).status();
            assert!(status.is_ok_and(|status| status.success()));
        });
    });
    group.finish();
}

fn raw_fork() {
    #[allow(clippy::disallowed_methods)] // The limit that all else is measured against.
    // SAFETY: the process has one thread, and the copy ends at once.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            pid => assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), 0), pid),
        }
    }
}

const EXIT: &str = "--exit-at-once";

criterion_group!(benches, spawn);

fn main() {
    multiproc::init();
    if std::env::args().nth(1).as_deref() != Some(EXIT) {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
