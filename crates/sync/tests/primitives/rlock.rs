use std::time::Duration;

use multiproc_harness::Child;
use multiproc_sync::RLock;

use crate::{Tests, asleep, in_vain, join_all, panic_with};

pub(crate) const TESTS: Tests = &[
    ("rlock_is_held_until_the_last_guard_is_dropped", is_held_until_the_last_guard_is_dropped),
    ("rlock_all_forms", all_forms),
    ("rlock_death_and_panic_poison", death_and_panic_poison),
    ("rlock_depth_of_the_dead_is_forgotten", depth_of_the_dead_is_forgotten),
    ("rlock_waiters_take_their_turns", waiters_take_their_turns),
];

/// Whether another process finds it free.
fn is_free(lock: &RLock) -> bool {
    let free = std::io::pipe().unwrap();
    Child::fork(|| {
        if lock.try_lock().unwrap().is_some() {
            std::io::Write::write_all(&mut &free.1, &[1]).unwrap();
        }
    })
    .join();
    let (mut reader, writer) = free;
    drop(writer);
    std::io::Read::read(&mut reader, &mut [0]).unwrap() == 1
}

fn is_held_until_the_last_guard_is_dropped() {
    let lock = RLock::new().unwrap();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut guards: [_; 3] = [
            Some(lock.lock().unwrap()),
            lock.try_lock().unwrap(),
            Some(lock.lock_timeout(Duration::ZERO).unwrap()),
        ];
        for index in order {
            assert!(!is_free(&lock));
            assert!(guards[index].take().is_some());
        }
        assert!(is_free(&lock));
    }
}

fn all_forms() {
    let lock = RLock::new().unwrap();
    let outer = lock.lock().unwrap();
    let inner = lock.lock().unwrap();
    Child::fork(|| {
        assert!(lock.try_lock().unwrap().is_none());
        in_vain(|time| match lock.lock_timeout(time) {
            Err(error) if error.is_timeout() => false,
            result => result.is_ok(),
        });
    })
    .join();
    let mut waiters = asleep(1, || drop(lock.lock().unwrap()));
    waiters.extend(asleep(1, || drop(lock.lock_timeout(Duration::MAX).unwrap())));
    waiters.extend(asleep(1, || drop(lock.lock_anyway().unwrap())));
    drop(inner);
    assert!(waiters.iter().all(|waiter| !waiter.has_ended()));
    drop(outer);
    join_all(waiters);
    drop(lock.lock_timeout(Duration::ZERO).unwrap());
}

fn death_and_panic_poison() {
    let lock = RLock::new().unwrap();
    let holder = Child::fork_and_stay(|| [lock.lock().unwrap(), lock.lock().unwrap()]);
    let waiters = asleep(2, || assert!(lock.lock().unwrap_err().is_poisoned()));
    holder.kill();
    join_all(waiters);
    assert!(lock.is_poisoned());
    assert!(lock.try_lock().unwrap_err().is_poisoned());
    drop(lock.lock_anyway().unwrap());
    lock.clear_poison();
    drop(lock.lock().unwrap());

    // An inner guard that a panic drops poisons too, and releases nothing.
    let outer = lock.lock().unwrap();
    panic_with(lock.lock().unwrap());
    assert!(lock.is_poisoned());
    assert!(!is_free_anyway(&lock));
    drop(outer);
    assert!(is_free_anyway(&lock));
    lock.clear_poison();
    drop(lock.lock().unwrap());
}

fn is_free_anyway(lock: &RLock) -> bool {
    let child = Child::fork(|| drop(lock.lock_anyway().unwrap()));
    multiproc_harness::eventually("an answer", || {
        child.has_ended() || multiproc_harness::is_asleep(child.pid())
    });
    let free = child.has_ended();
    if free {
        child.join();
    }
    free
}

fn depth_of_the_dead_is_forgotten() {
    let lock = RLock::new().unwrap();
    Child::fork_and_stay(|| [(); 5].map(|()| lock.lock().unwrap())).kill();
    let held = lock.lock_anyway().unwrap();
    lock.clear_poison();
    assert!(!is_free(&lock));
    drop(held);
    assert!(is_free(&lock));
}

fn waiters_take_their_turns() {
    let (lock, board) = (RLock::new().unwrap(), crate::Board::new());
    let held = lock.lock().unwrap();
    let waiters = asleep(4, || {
        for _ in 0..2_000 {
            let _outer = lock.lock().unwrap();
            assert_eq!(board.count(0), 0, "two hold the lock");
            let inner = lock.lock().unwrap();
            board.uncount(0);
            drop(inner);
            board.count(1);
        }
    });
    drop(held);
    join_all(waiters);
    assert_eq!(board.get(1), 8_000);
}
