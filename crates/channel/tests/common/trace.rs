//! A process that runs instruction by instruction.
#![allow(unsafe_code)] // ptrace(2), waitpid(2), kill(2)

use std::ptr;

use multiproc_channel::Queue;
use multiproc_os::fork::fork;

use super::{end_with_parent, is_asleep};

/// A forked process that has stopped itself just before what it is to do.
pub(crate) struct Traced {
    pid: libc::pid_t,
}

impl Traced {
    /// Forks it off. The caller has one thread.
    pub(crate) fn start(act: impl FnOnce()) -> Self {
        let forked = fork(|| {
            end_with_parent();
            // What a thread finds out about itself the first time is no part of the act.
            let first = Queue::new().unwrap();
            first.put(1).unwrap();
            first.get().unwrap();
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
    pub(crate) fn run(self, instructions: u64, help: impl FnMut()) -> Option<u64> {
        self.run_helped(instructions, is_asleep, help)
    }

    /// The same where it sleeps in another way than on a futex.
    pub(crate) fn run_helped(
        self,
        instructions: u64,
        sleeps: fn(u32) -> bool,
        mut help: impl FnMut(),
    ) -> Option<u64> {
        let mut done = 0;
        let mut ended = false;
        while done < instructions && !ended {
            // SAFETY: it is stopped, and a child of this thread.
            let stepped = unsafe {
                libc::ptrace(libc::PTRACE_SINGLESTEP, self.pid, ptr::null_mut::<()>(), 0)
            };
            assert_eq!(stepped, 0);
            done += 1;
            let signal = loop {
                match self.wait() {
                    Some(signal) => break signal,
                    None if sleeps(self.pid.cast_unsigned()) => help(),
                    None => {}
                }
            };
            assert!(signal == libc::SIGTRAP || signal == libc::SIGSTOP, "signal {signal}");
            ended = signal == libc::SIGSTOP;
        }
        // SAFETY: it is a child that was not reaped.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let mut status = 0;
        // SAFETY: as above.
        assert_eq!(unsafe { libc::waitpid(self.pid, &mut status, 0) }, self.pid);
        assert!(libc::WIFSIGNALED(status));
        ended.then_some(done)
    }

    /// Waits for it to stop, though not long. Tells by which signal it did.
    fn wait(&self) -> Option<libc::c_int> {
        const LONGEST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let mut status = 0;
        // SAFETY: it is a child that was not reaped; the set is initialised before it is used.
        let stopped = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut());
            let stopped = libc::waitpid(self.pid, &mut status, libc::WNOHANG);
            if stopped != 0 {
                stopped
            } else {
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
