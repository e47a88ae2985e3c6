//! The system calls of whole processes.

use std::fs::read_dir;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::mem::MaybeUninit;
use std::ptr;

use multiproc_os::fork::fork;

use crate::{end_with_parent, watchdog};

/// Counts the system calls that processes make while an act runs: those of all their threads, without
/// `sched_yield`. The caller has one thread, and no other child.
///
/// A forked child prepares the act. It says which processes count besides itself; none of them starts
/// a thread during the act.
pub fn count<Act: FnOnce()>(prepare: impl FnOnce() -> (Vec<u32>, Act)) -> usize {
    let (mut said, mut say): (PipeReader, PipeWriter) = pipe().unwrap();
    let (mut start, mut begin) = pipe().unwrap();
    let child = fork(|| {
        end_with_parent();
        watchdog();
        let (others, act) = prepare();
        others.iter().for_each(|pid| say.write_all(&pid.to_ne_bytes()).unwrap());
        say.write_all(&0u32.to_ne_bytes()).unwrap();
        start.read_exact(&mut [0]).unwrap();
        act();
        // SAFETY: stops this process, which its tracer sees.
        unsafe { libc::raise(libc::SIGSTOP) };
        0
    });
    let child = child.unwrap().pid;
    let mut processes = vec![child];
    loop {
        let mut pid = [0; 4];
        said.read_exact(&mut pid).unwrap();
        match u32::from_ne_bytes(pid) {
            0 => break,
            pid => processes.push(pid),
        }
    }
    for pid in processes {
        for thread in read_dir(format!("/proc/{pid}/task")).unwrap() {
            seize(thread.unwrap().file_name().to_str().unwrap().parse().unwrap());
        }
    }
    begin.write_all(&[0]).unwrap();
    let calls = count_until_stopped(child.cast_signed());
    // SAFETY: it is a child of this process that was not waited for, and so are those that end with it
    // as long as they are traced.
    unsafe {
        libc::kill(child.cast_signed(), libc::SIGKILL);
        while libc::waitpid(-1, ptr::null_mut(), libc::__WALL) > 0 {}
    }
    calls
}

fn seize(thread: libc::pid_t) {
    let none = ptr::null_mut::<()>();
    // SAFETY: the thread is there, and becomes one that this thread traces.
    unsafe {
        let options = libc::PTRACE_O_TRACESYSGOOD;
        assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, none, options), 0, "{thread}");
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none), 0, "{thread}");
    }
}

fn count_until_stopped(child: libc::pid_t) -> usize {
    const CALL: libc::c_int = libc::SIGTRAP | 0x80;
    let mut calls = 0;
    loop {
        let mut status = 0;
        // SAFETY: it fills the status.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        assert!(thread > 0, "nothing is left to be traced");
        if !libc::WIFSTOPPED(status) {
            assert!(thread != child, "the child has ended");
            continue;
        }
        let signal = match (libc::WSTOPSIG(status), status >> 16) {
            (CALL, _) => {
                let call = call_begun(thread);
                calls += usize::from(call.is_some_and(|call| call != libc::SYS_sched_yield));
                0
            }
            (libc::SIGSTOP, 0) if thread == child => return calls,
            (_, libc::PTRACE_EVENT_STOP) => 0,
            (signal, _) => signal,
        };
        // SAFETY: it is stopped, or was killed meanwhile, which is an error without consequence.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, ptr::null_mut::<()>(), signal) };
    }
}

/// The number of the system call at whose beginning a thread is; `None` at the end of one.
fn call_begun(thread: libc::pid_t) -> Option<libc::c_long> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    // SAFETY: it is stopped, and traced by this thread; the structure may be zeros, and of its variants
    // the one that the kernel names is read.
    unsafe {
        let request = libc::PTRACE_GET_SYSCALL_INFO;
        if libc::ptrace(request, thread, size_of_val(&info), info.as_mut_ptr()) <= 0 {
            return None;
        }
        let info = info.assume_init();
        let begun = info.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
        begun.then(|| info.u.entry.nr.cast_signed())
    }
}
