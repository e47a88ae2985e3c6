//! What the tests of this crate share: children that do not outlive a test, a watchdog, files that
//! say who they are.
#![allow(dead_code)] // Each test takes what it needs.

pub(crate) mod tasks;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Once;
use std::sync::mpsc;
use std::time::Duration;

use multiproc_channel::Queue;
use multiproc_harness::trace::Traced;
#[allow(unused_imports)] // As above.
pub(crate) use multiproc_harness::{end_with_parent, is_asleep};
use multiproc_process::{Process, StartMethod};
use multiproc_wire::Fd;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const METHODS: [StartMethod; 2] = [StartMethod::ForkServer, StartMethod::Spawn];

/// Ends the process, and so its daemon children, if it takes so long that it must hang.
pub(crate) fn watchdog() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let (_kept, never) = mpsc::channel::<()>();
            let _timed_out = never.recv_timeout(Duration::from_secs(300));
            eprintln!("a test hangs: see those that were started and have not ended");
            std::process::abort();
        });
    });
}

/// Starts a child that ends with this process.
pub(crate) fn spawn<A, R>(function: fn(A) -> R, argument: A) -> Process<R>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    spawn_by(StartMethod::ForkServer, function, argument)
}

/// The same, by a start method.
pub(crate) fn spawn_by<A, R>(method: StartMethod, function: fn(A) -> R, argument: A) -> Process<R>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    watchdog();
    Process::builder().daemon(true).start_method(method).spawn(function, argument).unwrap()
}

/// A process that is about to act, instruction by instruction. The caller has one thread.
pub(crate) fn traced(act: impl FnOnce()) -> Traced {
    // What a thread finds out about itself the first time is no part of the act.
    let before = || {
        let first = Queue::new().unwrap();
        first.put(1).unwrap();
        first.get().unwrap();
    };
    Traced::start(before, act)
}

/// A file that tells a number.
pub(crate) fn file(number: u64) -> Fd<File> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
    Fd::from(file)
}

/// The number that it tells.
pub(crate) fn number(file: &Fd<File>) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).unwrap();
    u64::from_le_bytes(bytes)
}

/// Numbers that look random, the same each time.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn from(seed: u64) -> Self {
        Numbers(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}

/// Waits until the process sleeps on a futex.
pub(crate) fn wait_asleep(pid: u32) {
    while !is_asleep(pid) {
        std::thread::yield_now();
    }
}

/// Tells whether the process sleeps in `poll` or `ppoll`.
pub(crate) fn is_in_poll(pid: u32) -> bool {
    sleeps_in(pid, if cfg!(target_arch = "x86_64") { ["7 ", "271 "] } else { ["73 ", "73 "] })
}

/// Tells whether the process sleeps in `epoll_wait` or `epoll_pwait`.
pub(crate) fn is_in_epoll(pid: u32) -> bool {
    sleeps_in(pid, if cfg!(target_arch = "x86_64") { ["232 ", "281 "] } else { ["22 ", "22 "] })
}

fn sleeps_in(pid: u32, calls: [&str; 2]) -> bool {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    // A traced process that has stopped just behind the call is still said to be in it.
    read("stat").is_ok_and(|stat| stat.contains(") S "))
        && read("syscall").is_ok_and(|now| calls.iter().any(|call| now.starts_with(call)))
}
