//! What these tests share: a harness with one thread, a watchdog, children.
#![allow(dead_code)] // Each test takes what it needs.
#![allow(unsafe_code)] // alarm(2).

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::panic;
use std::time::Instant;

use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, fork};

/// A test, or a child of one, that takes longer hangs.
const WATCHDOG_SECONDS: u32 = 60;

/// Runs the tests one after the other in the one thread that there is. Takes the part of libtest's
/// command line that people use.
pub(crate) fn run(tests: &[(&str, fn())]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let chosen = tests
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|word| name.contains(word)));
    if arguments.iter().any(|word| word == "--list") {
        chosen.for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let start = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in chosen {
        watchdog();
        // Nothing is left in the buffer for a forked copy to write again.
        println!("test {name} ...");
        match panic::catch_unwind(test) {
            Ok(()) => passed += 1,
            Err(_) => {
                println!("test {name} ... FAILED");
                failed += 1;
            }
        }
    }
    let (result, rest) = (if failed == 0 { "ok" } else { "FAILED" }, tests.len() - passed - failed);
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {rest} \
         filtered out; finished in {:.2}s\n",
        start.elapsed().as_secs_f64()
    );
    if failed > 0 {
        std::process::exit(101);
    }
}

/// Has the kernel end this process by `SIGALRM` if it hangs.
pub(crate) fn watchdog() {
    // SAFETY: starts a timer of this process.
    unsafe { libc::alarm(WATCHDOG_SECONDS) };
}

/// Waits for something that has no event. The watchdog sees to it that this ends.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 20, "{what} does not come about");
        std::thread::yield_now();
    }
}

/// A forked copy of the test, killed when it is dropped.
pub(crate) struct Child {
    forked: Forked,
    ended: bool,
}

impl Child {
    pub(crate) fn fork(run: impl FnOnce()) -> Self {
        let child = || {
            watchdog();
            run();
            0
        };
        Child { forked: fork(child).unwrap(), ended: false }
    }

    /// Forks a child that does something and then waits to be killed. Returns when it waits.
    pub(crate) fn fork_and_stay<T>(run: impl FnOnce() -> T) -> Self {
        let (done, mut report) = flag();
        let child = Self::fork(|| {
            let _kept = run();
            report.raise();
            stay()
        });
        drop(report);
        done.wait();
        child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.forked.pid
    }

    pub(crate) fn signal(&self, signal: i32) {
        self.forked.pidfd.send_signal(signal).unwrap();
    }

    /// Kills it, and returns when the kernel is done with it.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.signal(libc::SIGKILL);
        assert!(self.forked.pidfd.wait_end(Deadline::NEVER).unwrap());
        self.forked.pidfd.reap().unwrap().unwrap();
        self.ended = true;
    }

    /// Waits until it has run to its end.
    pub(crate) fn join(mut self) {
        assert!(self.forked.pidfd.wait_end(Deadline::NEVER).unwrap());
        let status = self.forked.pidfd.reap().unwrap().unwrap();
        self.ended = true;
        assert!(status.success(), "a child has ended with {status}");
    }

    /// Waits until it sleeps on a futex.
    pub(crate) fn wait_asleep(&self) {
        let path = format!("/proc/{}/syscall", self.pid());
        let call = format!("{} ", libc::SYS_futex);
        eventually("sleep", || std::fs::read_to_string(&path).unwrap().starts_with(&call));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

/// Waits to be killed.
pub(crate) fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// What one process says once to another.
pub(crate) fn flag() -> (Flag, Raiser) {
    let (reader, writer) = pipe().unwrap();
    (Flag(reader), Raiser(writer))
}

pub(crate) struct Flag(PipeReader);

pub(crate) struct Raiser(PipeWriter);

impl Flag {
    pub(crate) fn wait(mut self) {
        self.0.read_exact(&mut [0]).unwrap();
    }
}

impl Raiser {
    pub(crate) fn raise(&mut self) {
        self.0.write_all(&[1]).unwrap();
    }
}
