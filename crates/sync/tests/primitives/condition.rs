use std::time::Duration;

use multiproc_harness::{Child, eventually};
use multiproc_sync::{Condition, Lock, RLock};

use crate::{Board, Tests, asleep, ended, in_vain, join_all};

pub(crate) const TESTS: Tests = &[
    ("condition_all_forms", all_forms),
    ("condition_notify_lets_so_many_go_on", notify_lets_so_many_go_on),
    ("condition_notify_before_a_wait_is_none", notify_before_a_wait_is_none),
    ("condition_wait_while", wait_while),
    ("condition_goes_with_a_reentrant_lock", goes_with_a_reentrant_lock),
    ("condition_killed_waiters_take_no_notification", killed_waiters_take_no_notification),
    ("condition_waiter_learns_of_the_poison", waiter_learns_of_the_poison),
    ("condition_no_notification_is_lost", no_notification_is_lost),
];

fn all_forms() {
    let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
    in_vain(|time| {
        let (_held, notified) = changed.wait_timeout(lock.lock().unwrap(), time).unwrap();
        assert!(lock.lock().unwrap_err().is_deadlock(), "the lock is not held after the wait");
        notified
    });
    in_vain(|time| {
        let held = lock.lock().unwrap();
        changed.wait_timeout_while(held, time, |_| true).unwrap().1
    });
    let held = lock.lock().unwrap();
    let (held, done) = changed.wait_timeout_while(held, Duration::ZERO, |_| false).unwrap();
    assert!(done);
    drop(held);
    let mut waiters = asleep(1, || drop(changed.wait(lock.lock().unwrap()).unwrap()));
    waiters.extend(asleep(1, || {
        let (_held, notified) = changed.wait_timeout(lock.lock().unwrap(), Duration::MAX).unwrap();
        assert!(notified);
    }));
    // The lock is free while they wait.
    let held = lock.try_lock().unwrap().unwrap();
    changed.notify_all();
    drop(held);
    join_all(waiters);
}

fn notify_lets_so_many_go_on() {
    let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
    let waiters = asleep(6, || drop(changed.wait(lock.lock().unwrap()).unwrap()));
    changed.notify(0);
    let waiters = ended(waiters, 0);
    changed.notify(1);
    let waiters = ended(waiters, 1);
    // With the lock held, as most do.
    let held = lock.lock().unwrap();
    changed.notify(2);
    drop(held);
    let waiters = ended(waiters, 2);
    Child::fork(|| changed.notify_all()).join();
    join_all(waiters);
    let waiters = asleep(2, || drop(changed.wait(lock.lock().unwrap()).unwrap()));
    changed.notify(100);
    join_all(waiters);
}

fn notify_before_a_wait_is_none() {
    let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
    changed.notify(5);
    changed.notify_all();
    in_vain(|time| changed.wait_timeout(lock.lock().unwrap(), time).unwrap().1);
}

fn wait_while() {
    let (lock, changed, board) = (Lock::new().unwrap(), Condition::new().unwrap(), Board::new());
    let mut waiters = asleep(2, || {
        let _held = changed.wait_while(lock.lock().unwrap(), |_| board.get(0) < 3).unwrap();
        assert_eq!(board.get(0), 3);
    });
    waiters.extend(asleep(1, || {
        let held = lock.lock().unwrap();
        let (_held, done) =
            changed.wait_timeout_while(held, Duration::MAX, |_| board.get(0) < 3).unwrap();
        assert!(done);
    }));
    for _ in 0..3 {
        waiters.iter().for_each(|waiter| assert!(!waiter.has_ended()));
        let held = lock.lock().unwrap();
        board.count(0);
        changed.notify_all();
        drop(held);
    }
    join_all(waiters);
}

fn goes_with_a_reentrant_lock() {
    let (lock, changed) = (RLock::new().unwrap(), Condition::new().unwrap());
    let is_held_elsewhere = || Child::fork(|| assert!(lock.try_lock().unwrap().is_none())).join();
    let waiter = asleep(1, || {
        let outer = lock.lock().unwrap();
        let inner = changed.wait(lock.lock().unwrap()).unwrap();
        is_held_elsewhere();
        drop(outer);
        is_held_elsewhere();
        drop(inner);
        Child::fork(|| assert!(lock.try_lock().unwrap().is_some())).join();
    });
    // Released at any depth.
    let held = lock.try_lock().unwrap().unwrap();
    changed.notify(1);
    drop(held);
    join_all(waiter);

    let outer = lock.lock().unwrap();
    let soon = Duration::from_millis(1);
    let (inner, notified) = changed.wait_timeout(lock.lock().unwrap(), soon).unwrap();
    assert!(!notified);
    drop(inner);
    is_held_elsewhere();
    drop(outer);
    Child::fork(|| assert!(lock.try_lock().unwrap().is_some())).join();
}

fn killed_waiters_take_no_notification() {
    let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
    let mut waiters = asleep(4, || drop(changed.wait(lock.lock().unwrap()).unwrap()));
    waiters.drain(..2).for_each(Child::kill);
    changed.notify(1);
    let waiters = ended(waiters, 1);
    changed.notify(1);
    join_all(waiters);
    in_vain(|time| changed.wait_timeout(lock.lock().unwrap(), time).unwrap().1);
}

fn waiter_learns_of_the_poison() {
    let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
    let waiters = asleep(2, || {
        assert!(changed.wait(lock.lock().unwrap()).unwrap_err().is_poisoned());
    });
    Child::fork_and_stay(|| {
        let held = lock.lock().unwrap();
        changed.notify_all();
        held
    })
    .kill();
    join_all(waiters);
}

/// A box with room for one item, several who fill it and several who empty it.
fn no_notification_is_lost() {
    const ITEMS: u64 = 2_000;
    const FULL: usize = 0;
    let (lock, board) = (Lock::new().unwrap(), Board::new());
    let [filled, emptied] = [(); 2].map(|()| Condition::new().unwrap());
    let full = || board.get(FULL) == 1;
    let mut children: Vec<Child> = (0..2)
        .map(|_| {
            Child::fork(|| {
                for _ in 0..ITEMS {
                    let _held = emptied.wait_while(lock.lock().unwrap(), |_| full()).unwrap();
                    board.count(FULL);
                    filled.notify(1);
                }
            })
        })
        .collect();
    children.extend((0..2).map(|_| {
        Child::fork(|| {
            for _ in 0..ITEMS {
                let _held = filled.wait_while(lock.lock().unwrap(), |_| !full()).unwrap();
                board.uncount(FULL);
                emptied.notify(1);
            }
        })
    }));
    eventually("an end", || children.iter().all(Child::has_ended));
    join_all(children);
    assert!(!full());
}
