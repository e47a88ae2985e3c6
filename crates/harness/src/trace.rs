//! A process that runs instruction by instruction.
#![allow(unsafe_code)] // ptrace(2), waitpid(2), kill(2)

use std::ptr;
use std::time::Instant;

use multiproc_os::fork::fork;

use crate::{end_with_parent, is_asleep};

/// A forked process that has stopped itself just before what it is to do.
pub struct Traced {
    pid: libc::pid_t,
}

impl Traced {
    /// Forks it off. The caller has one thread. What is to be done once before, at full speed, is the
    /// first act: what a thread finds out about itself the first time, say.
    pub fn start(before: impl FnOnce(), act: impl FnOnce()) -> Self {
        let forked = fork(|| {
            end_with_parent();
            before();
            // SAFETY: both calls have no requirements.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME);
                libc::raise(libc::SIGSTOP);
            }
            act();
            // SAFETY: as above.
            unsafe { libc::raise(libc::SIGSTOP) };
            0
        });
        let traced = Traced { pid: forked.unwrap().pid.cast_signed() };
        while traced.wait() != Some(libc::SIGSTOP) {}
        traced
    }

    /// Has it do so many instructions, and kills it. Tells how many there were if it came to the end.
    /// Calls `help` whenever it sleeps.
    pub fn run(self, instructions: u64, help: impl FnMut()) -> Option<u64> {
        let length = self.step(instructions, help);
        self.kill();
        length
    }

    /// Has it do so many instructions and then, when something has happened meanwhile, all others at full
    /// speed. Tells how many there were if it came to the end before.
    ///
    /// If it sleeps before, the thing happens then. `meanwhile` tells whether it has happened; if not,
    /// it is called again when the process sleeps.
    pub fn run_on(self, instructions: u64, mut meanwhile: impl FnMut() -> bool) -> Option<u64> {
        let mut happened = false;
        let length = self.step(instructions, || happened = happened || meanwhile());
        if length.is_none() {
            happened = happened || meanwhile();
            let start = Instant::now();
            // SAFETY: it is stopped, and a child of this thread.
            let resumed = unsafe { libc::ptrace(libc::PTRACE_CONT, self.pid, 0, 0) };
            assert_eq!(resumed, 0);
            loop {
                match self.wait() {
                    Some(signal) => break assert_eq!(signal, libc::SIGSTOP),
                    None if !happened && is_asleep(self.pid.cast_unsigned()) => {
                        happened = meanwhile();
                    }
                    None => assert!(start.elapsed().as_secs() < 20, "it does not come to the end"),
                }
            }
        }
        self.kill();
        length
    }

    /// Has it do so many instructions. Tells how many there were if it came to the end.
    fn step(&self, instructions: u64, mut help: impl FnMut()) -> Option<u64> {
        let mut done = 0;
        while done < instructions {
            // SAFETY: it is stopped, and a child of this thread.
            let stepped = unsafe {
                libc::ptrace(libc::PTRACE_SINGLESTEP, self.pid, ptr::null_mut::<()>(), 0)
            };
            assert_eq!(stepped, 0);
            done += 1;
            let signal = loop {
                match self.wait() {
                    Some(signal) => break signal,
                    None if is_asleep(self.pid.cast_unsigned()) => help(),
                    None => {}
                }
            };
            if signal == libc::SIGSTOP {
                return Some(done);
            }
            assert_eq!(signal, libc::SIGTRAP);
        }
        None
    }

    fn kill(self) {
        // SAFETY: it is a child that was not reaped.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: as above.
        assert_eq!(unsafe { libc::waitpid(self.pid, &mut status, 0) }, self.pid);
        assert!(libc::WIFSIGNALED(status));
    }

    /// Waits for it to stop, though not long. Tells by which signal it did.
    fn wait(&self) -> Option<libc::c_int> {
        const POLLS: u32 = 20;
        const LONGEST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let mut status = 0;
        // SAFETY: it is a child that was not reaped; the set is initialised before it is used.
        let stopped = unsafe {
            // As a rule it has stopped before it would be worth while to sleep.
            let mut stopped = 0;
            for _ in 0..POLLS {
                stopped = libc::waitpid(self.pid, &mut status, libc::WNOHANG);
                if stopped != 0 {
                    break;
                }
                libc::sched_yield();
            }
            if stopped != 0 {
                stopped
            } else {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, libc::SIGCHLD);
                libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut());
                libc::sigtimedwait(&set, ptr::null_mut(), &LONGEST);
                libc::waitpid(self.pid, &mut status, libc::WNOHANG)
            }
        };
        if stopped == 0 {
            return None;
        }
        assert!(libc::WIFSTOPPED(status), "it ended with status {status:#x}");
        Some(libc::WSTOPSIG(status))
    }
}
