//! Proves that a child has the niceness, the limits, the group and the pipes that its builder says,
//! under each start method, and what becomes of it when its handle is dropped.

mod common;

use std::fs::File;
use std::io::{Read, Write, read_to_string};
use std::os::fd::AsFd;

use common::{METHODS, hang};
use multiproc_os::deadline::Deadline;
use multiproc_os::{context, poll};
use multiproc_process::{Builder, Limit, Process};
use multiproc_wire::{Endpoint, encode};

fn main() {
    common::init();
    common::run(&[
        ("niceness_is_set", niceness_is_set),
        ("numbers_that_are_none_start_nothing", numbers_that_are_none),
        ("open_files_are_limited", open_files_are_limited),
        ("address_space_is_limited", address_space_is_limited),
        ("cpu_time_is_limited", cpu_time_is_limited),
        ("a_process_group_is_joined", a_process_group_is_joined),
        ("a_group_that_is_not_there_is_an_error", a_group_that_is_not_there),
        ("interrupts_are_ignored_or_not", interrupts_are_ignored_or_not),
        ("a_dropped_handle_kills_if_asked", a_dropped_handle_kills),
        ("streams_are_piped", streams_are_piped),
        ("join_closes_the_pipe_to_the_input", join_closes_the_input),
    ]);
}

/// A builder for each method.
fn builders() -> impl Iterator<Item = Builder> {
    METHODS
        .into_iter()
        .map(|method| Process::builder().name("tester").daemon(true).start_method(method))
}

fn niceness_is_set() {
    let niceness = || rustix::process::getpriority_process(None).unwrap();
    let before = niceness();
    for builder in builders() {
        let found = |()| rustix::process::getpriority_process(None).unwrap();
        assert_eq!(builder.niceness(19).spawn(found, ()).unwrap().join().unwrap(), 19);
    }
    assert_eq!(niceness(), before);
}

fn numbers_that_are_none() {
    for builder in builders() {
        for niceness in [-21, 20, i32::MAX] {
            let error = builder.clone().niceness(niceness).spawn(|()| (), ()).unwrap_err();
            assert!(error.to_string().contains("is not one from -20 to 19"), "{error}");
        }
        let error = builder.process_group(-1).spawn(|()| (), ()).unwrap_err();
        assert!(error.to_string().contains("no process group -1"), "{error}");
    }
}

fn open_files_are_limited() {
    for builder in builders() {
        let opened = |()| {
            let mut files = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                files.push(file);
            }
            let highest = files.last().map_or(0, std::os::fd::AsRawFd::as_raw_fd);
            drop(files);
            highest
        };
        let process = builder.limit(Limit::OpenFiles, 32).spawn(opened, ()).unwrap();
        assert_eq!(process.join().unwrap(), 31);
    }
}

fn address_space_is_limited() {
    for builder in builders() {
        let too_much = |()| {
            let mut bytes = Vec::<u8>::new();
            (bytes.try_reserve(2 << 30).is_err(), bytes.try_reserve(1 << 20).is_ok())
        };
        let process = builder.limit(Limit::AddressSpace, 1 << 30).spawn(too_much, ()).unwrap();
        assert_eq!(process.join().unwrap(), (true, true));
    }
}

fn cpu_time_is_limited() {
    let spin = |()| -> () {
        loop {
            std::hint::spin_loop();
        }
    };
    let start = |builder: Builder| builder.limit(Limit::CpuTime, 1).spawn(spin, ()).unwrap();
    let all: Vec<Process<()>> = builders().map(start).collect();
    for process in all {
        let error = process.join().unwrap_err();
        assert!(error.to_string().contains("SIGXCPU"), "{error}");
    }
}

fn a_process_group_is_joined() {
    let group = |()| context::process_group();
    // This process's own may have no number: who leads it may be outside the pid namespace.
    let (leader, end) = Endpoint::pair().unwrap();
    let lead = |end: Endpoint| {
        end.send(&encode(&()).unwrap(), Deadline::NEVER).unwrap();
        hang()
    };
    let builder = Process::builder().process_group(0).daemon(true);
    let first = builder.spawn::<_, ()>(lead, end).unwrap();
    leader.recv::<()>(Deadline::NEVER).unwrap();
    for builder in builders() {
        let process = builder.clone().process_group(0).spawn(group, ()).unwrap();
        let pid = process.pid();
        assert_eq!(process.join().unwrap(), pid.cast_signed());
        let joined = first.pid().cast_signed();
        assert_eq!(builder.process_group(joined).spawn(group, ()).unwrap().join().unwrap(), joined);
    }
}

fn a_group_that_is_not_there() {
    for builder in builders() {
        let process = builder.process_group(i32::MAX).spawn(|()| (), ()).unwrap();
        let error = process.join().unwrap_err();
        assert!(
            error.to_string().contains("cannot join the process group 2147483647: "),
            "{error}"
        );
    }
}

fn interrupts_are_ignored_or_not() {
    for builder in builders() {
        for ignore in [true, false] {
            let builder = builder.clone().ignore_interrupt(ignore).stdout_piped();
            let tells = |()| -> () {
                println!("ready");
                hang()
            };
            let mut process = builder.spawn(tells, ()).unwrap();
            process.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
            process.interrupt().unwrap();
            if ignore {
                assert!(process.is_alive());
                process.terminate().unwrap();
            }
            let expected = if ignore { 15 } else { 2 };
            assert_eq!(process.join().unwrap_err().signal(), Some(expected));
        }
    }
}

fn a_dropped_handle_kills() {
    for builder in builders() {
        let builder = builder.kill_on_drop(true);
        let process = builder.clone().spawn(|()| -> () { hang() }, ()).unwrap();
        let pidfd = process.as_fd().try_clone_to_owned().unwrap();
        drop(process);
        assert_eq!(poll::readable([pidfd.as_fd()], Deadline::NEVER).unwrap(), [true]);
        common::wait_reaped(&pidfd);
        common::wait_for_threads();
        // One that has ended is dropped by `join`, and nothing is killed.
        assert_eq!(builder.spawn(|x: i32| x, 1).unwrap().join().unwrap(), 1);
    }
}

fn streams_are_piped() {
    for builder in builders() {
        let mut process = builder
            .stdin_piped()
            .stdout_piped()
            .stderr_piped()
            .spawn(
                |()| {
                    let text = read_to_string(std::io::stdin()).unwrap();
                    print!("out {text}");
                    eprint!("err {text}");
                },
                (),
            )
            .unwrap();
        process.stdin.take().unwrap().write_all(b"text").unwrap();
        assert_eq!(read_to_string(process.stdout.take().unwrap()).unwrap(), "out text");
        assert_eq!(read_to_string(process.stderr.take().unwrap()).unwrap(), "err text");
        process.join().unwrap();
    }
}

fn join_closes_the_input() {
    for builder in builders() {
        let length = |()| read_to_string(std::io::stdin()).unwrap().len();
        let mut process = builder.stdin_piped().spawn(length, ()).unwrap();
        process.stdin.as_mut().unwrap().write_all(b"text").unwrap();
        assert_eq!(process.join().unwrap(), 4);
    }
}
