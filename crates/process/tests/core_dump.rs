//! Proves that a core dump is told, and that none is where none was left, under each start method.

mod common;

use std::path::Path;

use common::METHODS;
use multiproc_process::{Error, Limit, Process, StartMethod};
use rustix::process::{Resource, getrlimit};

fn main() {
    common::init();
    common::run(&[("a_dump_that_is_left", a_dump_that_is_left), ("no_dump", no_dump)]);
}

/// Has a child abort in this directory, with so many bytes for its dump.
fn abort(method: StartMethod, directory: &Path, most: u64) -> Error {
    let builder = Process::builder().name("tester").daemon(true).start_method(method);
    let builder = builder.current_dir(directory).limit(Limit::CoreDump, most);
    let process = builder.spawn(|()| -> () { std::process::abort() }, ()).unwrap();
    process.join().unwrap_err()
}

fn a_dump_that_is_left() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.contains('/') || pattern.starts_with('|') {
        println!("    skipped: dumps go elsewhere, by the pattern {}", pattern.trim_end());
        return;
    }
    let most = getrlimit(Resource::Core).maximum.unwrap_or(u64::MAX);
    if most < 1 << 30 {
        println!("    skipped: a dump may have {most} bytes only");
        return;
    }
    for method in METHODS {
        let directory = tempfile::tempdir().unwrap();
        let error = abort(method, directory.path(), most);
        assert!(error.core_dumped(), "{method:?}: {error}");
        assert_eq!(error.signal(), Some(6));
        let text = "process tester was killed by SIGABRT (core dumped) before it returned a value";
        assert_eq!(error.to_string(), text);
        let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{method:?}: the dump");
    }
}

fn no_dump() {
    for method in METHODS {
        let directory = tempfile::tempdir().unwrap();
        let error = abort(method, directory.path(), 0);
        assert!(!error.core_dumped(), "{method:?}: {error}");
        assert_eq!((error.signal(), error.exit_code()), (Some(6), None));
        let text = "process tester was killed by SIGABRT before it returned a value";
        assert_eq!(error.to_string(), text);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
