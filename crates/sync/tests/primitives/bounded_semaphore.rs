use std::time::Duration;

use multiproc_harness::Child;
use multiproc_sync::BoundedSemaphore;

use crate::{Board, Tests, asleep, ended, in_vain, join_all};

pub(crate) const TESTS: Tests = &[
    ("bounded_semaphore_all_forms", all_forms),
    ("bounded_semaphore_never_more_than_the_bound", never_more_than_the_bound),
    ("bounded_semaphore_the_most_permits", the_most_permits),
    ("bounded_semaphore_permits_of_the_dead_come_back", permits_of_the_dead_come_back),
    ("bounded_semaphore_killed_waiters_hinder_nobody", killed_waiters_hinder_nobody),
    ("bounded_semaphore_any_permit_lets_the_waiter_in", any_permit_lets_the_waiter_in),
];

fn all_forms() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let one = semaphore.acquire().unwrap();
    // A thread may have several.
    let two = semaphore.acquire_timeout(Duration::ZERO).unwrap();
    assert_eq!(semaphore.value(), 0);
    assert!(semaphore.try_acquire().unwrap().is_none());
    let timed = |time| match semaphore.acquire_timeout(time) {
        Err(error) if error.is_timeout() => false,
        result => result.is_ok(),
    };
    in_vain(timed);
    Child::fork(|| in_vain(timed)).join();
    let mut waiters = asleep(1, || drop(semaphore.acquire().unwrap()));
    waiters.extend(asleep(1, || assert!(timed(Duration::MAX))));
    drop(one);
    join_all(waiters);
    assert_eq!(semaphore.value(), 1);
    assert!(semaphore.try_acquire().unwrap().is_some());
    drop(two);
    assert_eq!(semaphore.value(), 2);
}

fn never_more_than_the_bound() {
    const BOUND: u32 = 3;
    let (semaphore, board) = (BoundedSemaphore::new(BOUND).unwrap(), Board::new());
    let children: Vec<Child> = (0..6)
        .map(|place| {
            let (semaphore, board) = (&semaphore, &board);
            Child::fork(move || {
                for i in 0..1_000 {
                    let permit = match (place + i) % 3 {
                        0 => semaphore.try_acquire().unwrap(),
                        1 => semaphore.acquire_timeout(Duration::from_micros(50)).ok(),
                        _ => Some(semaphore.acquire().unwrap()),
                    };
                    if let Some(_permit) = permit {
                        assert!(board.count(0) < BOUND.into(), "more than the bound");
                        std::thread::yield_now();
                        board.uncount(0);
                        board.count(1);
                    }
                }
            })
        })
        .collect();
    join_all(children);
    assert!(board.get(1) >= 2_000);
    assert_eq!(semaphore.value(), BOUND);
}

fn the_most_permits() {
    let semaphore = BoundedSemaphore::new(BoundedSemaphore::MAX_PERMITS).unwrap();
    let permits: Vec<_> =
        (0..BoundedSemaphore::MAX_PERMITS).map(|_| semaphore.acquire().unwrap()).collect();
    assert_eq!(semaphore.value(), 0);
    let waiters = asleep(2, || drop(semaphore.acquire().unwrap()));
    drop(permits);
    join_all(waiters);
    assert_eq!(semaphore.value(), BoundedSemaphore::MAX_PERMITS);
}

fn permits_of_the_dead_come_back() {
    let semaphore = BoundedSemaphore::new(3).unwrap();
    let kept = semaphore.acquire().unwrap();
    let holder =
        Child::fork_and_stay(|| [semaphore.acquire().unwrap(), semaphore.acquire().unwrap()]);
    assert_eq!(semaphore.value(), 0);
    let waiters = asleep(3, || {
        std::mem::forget(semaphore.acquire().unwrap());
        multiproc_harness::stay();
    });
    holder.kill();
    // Two of them have one now, and the third waits until one of these dies.
    multiproc_harness::eventually("two permits", || semaphore.value() == 0);
    assert!(semaphore.try_acquire().unwrap().is_none());
    drop(waiters);
    assert_eq!(semaphore.value(), 2);
    drop(kept);
    assert_eq!(semaphore.value(), 3);
}

fn killed_waiters_hinder_nobody() {
    for victim in 0..3 {
        let semaphore = BoundedSemaphore::new(1).unwrap();
        let permit = semaphore.acquire().unwrap();
        let mut waiters = asleep(3, || drop(semaphore.acquire().unwrap()));
        waiters.remove(victim).kill();
        drop(permit);
        join_all(waiters);
        assert_eq!(semaphore.value(), 1);
    }
}

fn any_permit_lets_the_waiter_in() {
    const BOUND: usize = 5;
    for which in 0..BOUND {
        let semaphore = BoundedSemaphore::new(BOUND as u32).unwrap();
        let mut holders: Vec<Child> =
            (0..BOUND).map(|_| Child::fork_and_stay(|| semaphore.acquire().unwrap())).collect();
        let waiters = asleep(2, || drop(semaphore.acquire().unwrap()));
        holders.remove(which).kill();
        assert!(ended(waiters, 2).is_empty());
    }
}
