//! Proves that processes can be started from many threads at once, from a program without a `main`
//! of its own, and that `Fork` is refused there.

use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;

use multiproc_os::deadline::Deadline;
use multiproc_os::poll;
use multiproc_process::{Process, StartMethod, current_process};

multiproc_process::init_before_main!();

/// Ends the process if a test hangs.
fn watchdog() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        thread::spawn(|| {
            let never = std::io::pipe().unwrap();
            let minute = Deadline::after(std::time::Duration::from_secs(60));
            poll::readable([never.0.as_fd()], minute).unwrap();
            eprintln!("a test hangs");
            std::process::abort();
        });
    });
}

#[test]
fn eight_threads_spawn_at_once() {
    watchdog();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for number in 0..8u64 {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for round in 0..10 {
                        let builder = Process::builder().start_method(method);
                        let process = builder.spawn(|(a, b)| a * 100 + b, (number, round)).unwrap();
                        if round % 3 == 0 {
                            continue;
                        }
                        assert_eq!(process.join().unwrap(), number * 100 + round, "{method:?}");
                    }
                });
            }
        });
    }
}

#[test]
fn fork_is_refused_with_threads() {
    watchdog();
    let builder = Process::builder().name("tester").start_method(StartMethod::Fork);
    for error in [
        builder.spawn(|()| (), ()).unwrap_err().to_string(),
        Process::fork(|| ()).unwrap_err().to_string(),
    ] {
        assert!(error.starts_with("cannot start process "), "{error}");
        assert!(error.contains("threads") && error.contains("ForkServer or Spawn"), "{error}");
    }
}

#[test]
fn a_panic_before_main_comes_home() {
    watchdog();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let builder = Process::builder().start_method(method);
        let process = builder.spawn(|()| -> () { panic!("before main") }, ()).unwrap();
        let error = process.join().unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "before main");
    }
}

#[test]
fn a_closed_pipe_is_an_error_before_main() {
    watchdog();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let write = |()| {
            use std::io::Write;
            let (reader, mut writer) = std::io::pipe().unwrap();
            drop(reader);
            writer.write_all(&[1]).unwrap_err().kind() == std::io::ErrorKind::BrokenPipe
        };
        let builder = Process::builder().start_method(method);
        assert!(builder.spawn(write, ()).unwrap().join().unwrap());
    }
}

#[test]
fn children_start_threads_and_children() {
    watchdog();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let nest = |method: u8| {
            let method = [StartMethod::ForkServer, StartMethod::Spawn][usize::from(method)];
            let start = move || {
                let builder = Process::builder().start_method(method);
                builder.spawn(|()| current_process().parent_pid(), ()).unwrap().join().unwrap()
            };
            let parents: Vec<_> = (0..4).map(|_| thread::spawn(start)).collect();
            let parents: Vec<_> =
                parents.into_iter().map(|thread| thread.join().unwrap()).collect();
            (std::process::id(), parents)
        };
        let builder = Process::builder().start_method(method);
        let inner = u8::from(method == StartMethod::Spawn);
        let (pid, parents) = builder.spawn(nest, inner).unwrap().join().unwrap();
        assert_eq!(parents, [Some(pid); 4]);
    }
}

#[test]
fn a_thread_that_holds_the_output_for_ever_does_not_hold_up_the_end() {
    watchdog();
    let returns = |()| {
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let _held = std::io::stdout().lock();
            sender.send(()).unwrap();
            loop {
                thread::park();
            }
        });
        receiver.recv().unwrap();
        "returned".to_owned()
    };
    let processes = [StartMethod::ForkServer, StartMethod::Spawn]
        .map(|method| Process::builder().start_method(method).spawn(returns, ()).unwrap());
    for process in processes {
        assert_eq!(process.join().unwrap(), "returned");
    }
}
