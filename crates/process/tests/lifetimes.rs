//! Proves what becomes of a child's own children, threads, exit handlers and output at its end, under
//! each start method.
#![allow(unsafe_code)] // atexit(3) and C's streams.

mod common;

use std::fs::File;
use std::io::{PipeWriter, Write, pipe, read_to_string};
use std::sync::OnceLock;

use common::{METHODS, hang};
use multiproc_process::{Builder, Process, StartMethod, active_children};
use multiproc_wire::Fd;

fn main() {
    common::init();
    common::run(&[
        ("three_levels_have_children_each", three_levels_have_children),
        ("output_that_nobody_reads_harms_nobody", output_that_nobody_reads),
        ("output_that_was_closed_harms_nobody", closed_output),
        ("a_line_that_nobody_reads_is_a_panic", a_line_that_nobody_reads),
        ("threads_end_with_their_process", threads_end_with_their_process),
        ("exit_handlers_run_where_they_are_the_childs", exit_handlers),
        ("buffered_output_is_written_at_the_end", buffered_output),
    ]);
}

fn builder(method: StartMethod) -> Builder {
    Process::builder().name("tester").daemon(true).start_method(method)
}

/// Starts two of its kind, unless it is at the bottom, and gives the numbers of all below and itself.
fn tree((depth, method): (u32, usize)) -> Vec<u32> {
    let mut pids = vec![std::process::id()];
    if depth > 0 {
        let start = |_| builder(METHODS[method]).spawn(tree, (depth - 1, method)).unwrap();
        let all: Vec<Process<Vec<u32>>> = (0..2).map(start).collect();
        assert!(active_children().unwrap().len() <= 2, "its own alone");
        for process in all {
            pids.extend(process.join().unwrap());
        }
        assert!(active_children().unwrap().is_empty());
    }
    pids
}

fn three_levels_have_children() {
    for (index, method) in METHODS.iter().enumerate() {
        let mut pids = tree((3, index));
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 1 + 2 + 4 + 8, "{method:?}");
    }
}

/// A pipe's end that nobody reads from.
fn unread() -> PipeWriter {
    let (_, writer) = pipe().unwrap();
    writer
}

fn output_that_nobody_reads() {
    for method in METHODS {
        let writes = |()| {
            // It stays in the buffer until the end.
            print!("unseen");
            assert!(writeln!(std::io::stderr(), "unseen").is_err(), "no signal");
        };
        let builder = builder(method).stdout(unread()).stderr(unread());
        let mut process = builder.spawn(writes, ()).unwrap();
        process.join_timeout(std::time::Duration::MAX).unwrap();
        assert_eq!(process.exit_status().unwrap().unwrap().code(), Some(0), "{method:?}");
    }
}

fn closed_output() {
    for method in METHODS {
        let closes = |()| {
            print!("unseen");
            for stream in [1, 2] {
                // SAFETY: a standard stream, which nobody owns.
                assert_eq!(unsafe { libc::close(stream) }, 0);
            }
            eprintln!("unseen");
        };
        let mut process = builder(method).spawn(closes, ()).unwrap();
        process.join_timeout(std::time::Duration::MAX).unwrap();
        assert_eq!(process.exit_status().unwrap().unwrap().code(), Some(0), "{method:?}");
    }
}

fn a_line_that_nobody_reads() {
    for method in METHODS {
        let process = builder(method).stdout(unread()).spawn(|()| println!("unseen"), ()).unwrap();
        let error = process.join().unwrap_err();
        let message = error.panic().unwrap().message();
        assert!(message.starts_with("failed printing to stdout: Broken pipe"), "{message}");
    }
}

fn threads_end_with_their_process() {
    for method in METHODS {
        let leaves_one = |()| {
            let (started, wait) = std::sync::mpsc::channel();
            std::thread::spawn(move || -> () {
                started.send(()).unwrap();
                hang()
            });
            wait.recv().unwrap();
            7
        };
        assert_eq!(builder(method).spawn(leaves_one, ()).unwrap().join().unwrap(), 7);
    }
}

static AT_EXIT: OnceLock<File> = OnceLock::new();

extern "C" fn at_exit() {
    let _gone = AT_EXIT.get().map(|mut file| file.write_all(b"exit handler"));
}

fn exit_handlers() {
    for method in METHODS {
        let (reader, writer) = pipe().unwrap();
        let registers = |writer: Fd<PipeWriter>| {
            let file = File::from(std::os::fd::OwnedFd::from(writer.try_clone().unwrap()));
            AT_EXIT.set(file).unwrap();
            // SAFETY: the handler writes to a file.
            assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
        };
        builder(method).spawn(registers, writer.into()).unwrap().join().unwrap();
        let expected = if method == StartMethod::Spawn { "exit handler" } else { "" };
        assert_eq!(read_to_string(reader).unwrap(), expected, "{method:?}");
    }
}

fn buffered_output() {
    for method in METHODS {
        let prints = |()| {
            print!("of Rust, ");
            // SAFETY: a format without arguments.
            unsafe { libc::printf(c"of C".as_ptr()) };
        };
        let mut process = builder(method).stdout_piped().spawn(prints, ()).unwrap();
        let output = read_to_string(process.stdout.take().unwrap()).unwrap();
        assert_eq!(output, "of Rust, of C", "{method:?}");
        process.join().unwrap();
    }
}
