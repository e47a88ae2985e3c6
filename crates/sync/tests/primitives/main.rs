//! What each primitive promises, between processes: how many get in, how many go on, in all forms of
//! waiting, and what becomes of it when somebody is killed while he has it or waits for it.

mod barrier;
mod bounded_semaphore;
mod condition;
mod event;
mod handles;
mod rlock;
mod rw_lock;
mod semaphore;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use multiproc_harness::{Child, eventually};
use multiproc_sync::region::{Header, Region};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

fn main() {
    let all = [
        rlock::TESTS,
        rw_lock::TESTS,
        semaphore::TESTS,
        bounded_semaphore::TESTS,
        condition::TESTS,
        event::TESTS,
        barrier::TESTS,
        handles::TESTS,
    ];
    multiproc_harness::run(&all.concat());
}

type Tests = &'static [(&'static str, fn())];

/// Numbers that all processes see.
struct Board(Region<Numbers>);

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Numbers([AtomicU64; 256]);

impl Header for Numbers {
    const KIND: [u8; 8] = *b"numbers\0";
}

impl Board {
    fn new() -> Self {
        Board(Region::create("board", 0).unwrap())
    }

    fn number(&self, index: usize) -> &AtomicU64 {
        &self.0.header().0[index]
    }

    fn get(&self, index: usize) -> u64 {
        self.number(index).load(SeqCst)
    }

    /// Adds one, and gives what there was.
    fn count(&self, index: usize) -> u64 {
        self.number(index).fetch_add(1, SeqCst)
    }

    fn uncount(&self, index: usize) {
        self.number(index).fetch_sub(1, SeqCst);
    }
}

/// Waits, for short times, for what is not to be had. `wait` tells whether it was.
fn in_vain(wait: impl Fn(Duration) -> bool) {
    for time in [0, 1].map(Duration::from_millis) {
        let start = Instant::now();
        assert!(!wait(time), "it was had");
        assert!(start.elapsed() >= time, "the wait was too short");
    }
}

/// Processes that have fallen asleep over something.
fn asleep(count: usize, act: impl Fn()) -> Vec<Child> {
    let children: Vec<Child> = (0..count).map(|_| Child::fork(&act)).collect();
    children.iter().for_each(Child::wait_asleep);
    children
}

/// Waits until so many have run to their end, and looks whether all others sleep.
fn ended(children: Vec<Child>, count: usize) -> Vec<Child> {
    let over = |children: &[Child]| children.iter().filter(|child| child.has_ended()).count();
    eventually("their end", || over(&children) >= count);
    let (ended, left): (Vec<_>, Vec<_>) = children.into_iter().partition(Child::has_ended);
    left.iter().for_each(Child::wait_asleep);
    assert_eq!(ended.len(), count);
    assert!(!left.iter().any(Child::has_ended));
    ended.into_iter().for_each(Child::join);
    left
}

fn join_all(children: Vec<Child>) {
    children.into_iter().for_each(Child::join);
}

/// Panics while `held` unwinds, without a word about it.
fn panic_with<T>(held: T) {
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _held = held;
        resume_unwind(Box::new(()));
    }));
    assert!(panic.is_err());
}
