//! Counts system calls: none for what takes a primitive that nobody else wants, and gives it back.

use multiproc_harness::trace::Traced;
use multiproc_sync::{BoundedSemaphore, Condition, Event, Lock, RLock, RwLock, Semaphore};

const MANY: usize = 100;

fn main() {
    multiproc_harness::run(&[
        ("a_lock_needs_none", a_lock_needs_none),
        ("a_lock_to_be_taken_again_needs_none", a_lock_to_be_taken_again_needs_none),
        ("a_lock_of_readers_and_writers_needs_none", a_lock_of_readers_and_writers_needs_none),
        ("semaphores_need_none", semaphores_need_none),
        ("an_event_that_is_set_needs_none", an_event_that_is_set_needs_none),
        ("a_condition_without_waiters_needs_none", a_condition_without_waiters_needs_none),
    ]);
}

/// How many system calls it takes to do this so many times, when it was done once before.
fn count(act: impl Fn()) -> usize {
    let calls = |times: usize| {
        let many = || (0..times).for_each(|_| act());
        Traced::start(&act, many).system_calls().len()
    };
    calls(MANY) - calls(0)
}

fn a_lock_needs_none() {
    let lock = Lock::new().unwrap();
    assert_eq!(count(|| drop(lock.lock().unwrap())), 0);
    assert_eq!(count(|| drop(lock.try_lock().unwrap())), 0);
}

fn a_lock_to_be_taken_again_needs_none() {
    let lock = RLock::new().unwrap();
    let twice = || {
        let _held = lock.lock().unwrap();
        let _again = lock.lock().unwrap();
    };
    assert_eq!(count(twice), 0);
}

fn a_lock_of_readers_and_writers_needs_none() {
    let lock = RwLock::new().unwrap();
    assert_eq!(count(|| drop(lock.read().unwrap())), 0);
    assert_eq!(count(|| drop(lock.write().unwrap())), 0);
}

fn semaphores_need_none() {
    let semaphore = Semaphore::new(1).unwrap();
    let acquire_and_release = || {
        semaphore.acquire().unwrap();
        semaphore.release();
    };
    assert_eq!(count(acquire_and_release), 0);
    let semaphore = BoundedSemaphore::new(2).unwrap();
    assert_eq!(count(|| drop(semaphore.acquire().unwrap())), 0);
}

fn an_event_that_is_set_needs_none() {
    let event = Event::new().unwrap();
    let set_wait_and_clear = || {
        event.set();
        event.wait();
        event.clear();
    };
    assert_eq!(count(set_wait_and_clear), 0);
}

fn a_condition_without_waiters_needs_none() {
    let condition = Condition::new().unwrap();
    assert_eq!(count(|| condition.notify(1)), 0);
}
