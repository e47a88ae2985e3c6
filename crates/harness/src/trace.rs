//! A process that runs instruction by instruction.
#![allow(unsafe_code)] // ptrace(2), waitpid(2), kill(2)

mod way;

use std::mem::MaybeUninit;
#[cfg(target_arch = "x86_64")]
use std::mem::offset_of;
use std::ops::Range;
use std::ptr;
use std::time::Instant;

use multiproc_os::fork::fork;

use crate::{end_with_parent, is_asleep};
use way::Stop;

pub use way::{Moment, Way};

/// A forked process that has stopped itself just before what it is to do.
pub struct Traced {
    pid: libc::pid_t,
    sleeps: fn(u32) -> bool,
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
        let traced = Traced { pid: forked.unwrap().pid.cast_signed(), sleeps: is_asleep };
        while traced.wait() != Some(libc::SIGSTOP) {}
        traced
    }

    /// Says how to tell that it sleeps, where it does so in another way than on a futex.
    #[must_use]
    pub fn sleeping_as(self, sleeps: fn(u32) -> bool) -> Self {
        Traced { sleeps, ..self }
    }

    /// Has it run to its end. Gives the numbers of its system calls, those by which it stops itself
    /// included.
    pub fn system_calls(self) -> Vec<u64> {
        const CALL: libc::c_int = libc::SIGTRAP | 0x80;
        // SAFETY: it is stopped, and a child of this thread.
        let set = unsafe {
            let options = libc::PTRACE_O_TRACESYSGOOD;
            libc::ptrace(libc::PTRACE_SETOPTIONS, self.pid, ptr::null_mut::<()>(), options)
        };
        assert_eq!(set, 0);
        let mut calls = Vec::new();
        loop {
            self.resume(libc::PTRACE_SYSCALL);
            match self.wait_or(&mut || ()) {
                libc::SIGSTOP => break,
                CALL => calls.extend(self.call_begun()),
                other => panic!("it was stopped by signal {other}"),
            }
        }
        self.kill();
        calls
    }

    /// The number of the system call at whose beginning it is; `None` at the end of one.
    fn call_begun(&self) -> Option<u64> {
        let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
        // SAFETY: it is stopped, and a child of this thread; the structure may be zeros, and of its
        // variants the one that the kernel names is read.
        unsafe {
            let room = size_of_val(&info);
            let request = libc::PTRACE_GET_SYSCALL_INFO;
            assert!(libc::ptrace(request, self.pid, room, info.as_mut_ptr()) > 0);
            let info = info.assume_init();
            if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY { Some(info.u.entry.nr) } else { None }
        }
    }

    /// Has it run until this moment, and kills it. Tells how many instructions there were if it came to
    /// the end. Calls `help` whenever it sleeps.
    pub fn run<'a>(self, until: impl Into<Moment<'a>>, help: impl FnMut()) -> Option<u64> {
        let length = self.go(until.into(), help);
        self.kill();
        length
    }

    /// Has it run until this moment and then, when something has happened meanwhile, on at full speed.
    /// Tells how many instructions there were if it came to the end before.
    ///
    /// If it sleeps before, the thing happens then. `meanwhile` tells whether it has happened; if not,
    /// it is called again when the process sleeps.
    pub fn run_on<'a>(
        self,
        until: impl Into<Moment<'a>>,
        mut meanwhile: impl FnMut() -> bool,
    ) -> Option<u64> {
        let mut happened = false;
        let length = self.go(until.into(), || happened = happened || meanwhile());
        if length.is_none() {
            happened = happened || meanwhile();
            let start = Instant::now();
            self.resume(libc::PTRACE_CONT);
            loop {
                match self.wait() {
                    Some(signal) => break assert_eq!(signal, libc::SIGSTOP),
                    None if !happened && (self.sleeps)(self.pid.cast_unsigned()) => {
                        happened = meanwhile();
                    }
                    None => assert!(start.elapsed().as_secs() < 20, "it does not come to the end"),
                }
            }
        }
        self.kill();
        length
    }

    /// Has it run until this moment, and leaves it stopped there. Tells how many instructions there were if
    /// it came to the end.
    pub fn advance<'a>(&self, until: impl Into<Moment<'a>>) -> Option<u64> {
        self.go(until.into(), || ())
    }

    /// Has it run on at full speed from where it was left, if that is not the end already, and ends it.
    pub fn finish(self, at_end: bool) {
        let start = Instant::now();
        if !at_end {
            self.resume(libc::PTRACE_CONT);
            while self.wait() != Some(libc::SIGSTOP) {
                assert!(start.elapsed().as_secs() < 20, "it does not come to the end");
            }
        }
        self.kill();
    }

    /// Has it run until this moment. Tells how many instructions there were if it came to the end.
    fn go(&self, until: Moment<'_>, mut help: impl FnMut()) -> Option<u64> {
        let Moment { instructions, way } = until;
        let Some(way) = way.filter(|_| HAS_BREAKPOINTS) else {
            return self.step(0..instructions, help, || ());
        };
        if !way.is_known() {
            let mut addresses = Vec::new();
            let length = self.step(0..instructions, help, || addresses.push(self.address()));
            way.remember(&addresses);
            return length;
        }
        let skipped = match way.stop_before(instructions) {
            Some(stop) => self.skip_to(stop, &mut help).then_some(stop.done),
            None => Some(0),
        };
        let length = match skipped {
            Some(done) => self.step(done..instructions, help, || ()),
            None => Some(instructions),
        };
        way.compare(instructions, length.is_none().then(|| self.address()));
        length
    }

    /// Has it do these instructions, and calls `before` ahead of each. Tells how many there
    /// were if it came to the end.
    fn step(
        &self,
        instructions: Range<u64>,
        mut help: impl FnMut(),
        mut before: impl FnMut(),
    ) -> Option<u64> {
        for done in instructions {
            before();
            self.resume(libc::PTRACE_SINGLESTEP);
            let signal = self.wait_or(&mut help);
            if signal == libc::SIGSTOP {
                return Some(done + 1);
            }
            assert_eq!(signal, libc::SIGTRAP);
        }
        None
    }

    /// Has it run at full speed until it comes to a place. `false` if it came to the end before.
    fn skip_to(&self, stop: Stop, help: &mut impl FnMut()) -> bool {
        for time in 1..=stop.times {
            let code = self.break_at(stop.address);
            self.resume(libc::PTRACE_CONT);
            let signal = self.wait_or(help);
            self.write(stop.address, code);
            if signal == libc::SIGSTOP {
                return false;
            }
            assert_eq!(signal, libc::SIGTRAP);
            self.go_back_to(stop.address);
            if time < stop.times {
                self.resume(libc::PTRACE_SINGLESTEP);
                if self.wait_or(help) == libc::SIGSTOP {
                    return false;
                }
            }
        }
        true
    }

    /// Waits for it to stop, and calls `help` whenever it sleeps. Tells by which signal it did.
    fn wait_or(&self, help: &mut impl FnMut()) -> libc::c_int {
        loop {
            match self.wait() {
                Some(signal) => return signal,
                None if (self.sleeps)(self.pid.cast_unsigned()) => help(),
                None => {}
            }
        }
    }

    fn resume(&self, how: libc::c_uint) {
        // SAFETY: it is stopped, and a child of this thread.
        let resumed = unsafe { libc::ptrace(how, self.pid, ptr::null_mut::<()>(), 0) };
        assert_eq!(resumed, 0);
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

#[cfg(target_arch = "x86_64")]
const HAS_BREAKPOINTS: bool = true;

/// What depends on the machine.
#[cfg(target_arch = "x86_64")]
impl Traced {
    const ADDRESS: usize = offset_of!(libc::user_regs_struct, rip);
    /// The instruction that traps.
    const INT3: i64 = 0xcc;

    /// Of the instruction that comes next.
    fn address(&self) -> usize {
        // SAFETY: it is stopped, and a child of this thread; the registers come first in its `user`.
        unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, self.pid, Self::ADDRESS, 0) as usize }
    }

    /// After it has run into a breakpoint there.
    fn go_back_to(&self, address: usize) {
        assert_eq!(self.address(), address + 1, "it has trapped elsewhere");
        // SAFETY: as in `address`.
        let set = unsafe { libc::ptrace(libc::PTRACE_POKEUSER, self.pid, Self::ADDRESS, address) };
        assert_eq!(set, 0);
    }

    /// Sets a breakpoint in its own copy of the code. Gives what to [`write`](Self::write) there afterwards.
    fn break_at(&self, address: usize) -> i64 {
        // SAFETY: it is stopped, and a child of this thread, in which an instruction is there.
        let code = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, self.pid, address, 0) };
        self.write(address, code & !0xff | Self::INT3);
        code
    }

    fn write(&self, address: usize, code: i64) {
        // SAFETY: as in `break_at`; the code is what was there, but for an instruction that traps.
        let written = unsafe { libc::ptrace(libc::PTRACE_POKETEXT, self.pid, address, code) };
        assert_eq!(written, 0);
    }
}

/// Elsewhere, it goes by single steps.
#[cfg(not(target_arch = "x86_64"))]
const HAS_BREAKPOINTS: bool = false;

#[cfg(not(target_arch = "x86_64"))]
impl Traced {
    fn address(&self) -> usize {
        0
    }

    fn go_back_to(&self, _address: usize) {}

    fn break_at(&self, _address: usize) -> i64 {
        0
    }

    fn write(&self, _address: usize, _code: i64) {}
}
