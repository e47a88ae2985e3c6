//! What tests of several crates share: a harness with one thread, a watchdog, children, and a child
//! that runs instruction by instruction.
#![allow(unsafe_code)] // alarm(2), prctl(2).
#![allow(clippy::unwrap_used)] // What fails here fails a test.

pub mod calls;
pub mod trace;

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::panic;
use std::time::Instant;

use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, fork};

/// A test, or a child of one, that takes longer hangs.
const WATCHDOG_SECONDS: u32 = 60;

/// Runs the tests one after the other in the one thread that there is. Takes the part of libtest's
/// command line that people use.
pub fn run(tests: &[(&str, fn())]) {
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
pub fn watchdog() {
    // SAFETY: starts a timer of this process.
    unsafe { libc::alarm(WATCHDOG_SECONDS) };
}

/// Waits for something that has no event. The watchdog sees to it that this ends.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 20, "{what} does not come about");
        std::thread::yield_now();
    }
}

/// Has this process, which was forked off by one with one thread, end when that does.
pub fn end_with_parent() {
    // SAFETY: sets a signal of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// A forked copy of the test, killed when it is dropped.
pub struct Child {
    forked: Forked,
    ended: bool,
}

impl Child {
    /// Forks a child that does something and ends.
    pub fn fork(run: impl FnOnce()) -> Self {
        let child = || {
            end_with_parent();
            watchdog();
            run();
            0
        };
        Child { forked: fork(child).unwrap(), ended: false }
    }

    /// Forks a child that does something and then waits to be killed. Returns when it waits.
    pub fn fork_and_stay<T>(run: impl FnOnce() -> T) -> Self {
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

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.forked.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.forked.pidfd.send_signal(signal).unwrap();
    }

    /// Kills it, and returns when the kernel is done with it.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.signal(libc::SIGKILL);
        assert!(self.forked.pidfd.wait_end(Deadline::NEVER).unwrap());
        self.forked.pidfd.reap().unwrap().unwrap();
        self.ended = true;
    }

    /// Waits until it has run to its end.
    pub fn join(mut self) {
        assert!(self.forked.pidfd.wait_end(Deadline::NEVER).unwrap());
        let status = self.forked.pidfd.reap().unwrap().unwrap();
        self.ended = true;
        assert!(status.success(), "a child has ended with {status}");
    }

    /// Waits until it sleeps on a futex, or on several.
    pub fn wait_asleep(&self) {
        eventually("sleep", || is_asleep(self.pid()));
    }

    /// Tells whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.forked.pidfd.wait_end(Deadline::now()).unwrap()
    }
}

/// Tells whether the process sleeps on a futex, or on several.
pub fn is_asleep(pid: u32) -> bool {
    const CALLS: [libc::c_long; 2] = [libc::SYS_futex, libc::SYS_futex_waitv];
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let sleeps = |line: String| CALLS.iter().any(|call| line.starts_with(&format!("{call} ")));
    // A traced process that has stopped just behind the call is still said to be in it.
    read("stat").is_ok_and(|stat| stat.contains(") S ")) && read("syscall").is_ok_and(sleeps)
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

/// Waits to be killed.
pub fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// What one process says once to another.
pub fn flag() -> (Flag, Raiser) {
    let (reader, writer) = pipe().unwrap();
    (Flag(reader), Raiser(writer))
}

/// The end that waits.
pub struct Flag(PipeReader);

/// The end that tells.
pub struct Raiser(PipeWriter);

impl Flag {
    /// Waits until it is raised.
    pub fn wait(mut self) {
        self.0.read_exact(&mut [0]).unwrap();
    }
}

impl Raiser {
    /// Raises it.
    pub fn raise(&mut self) {
        self.0.write_all(&[1]).unwrap();
    }
}
