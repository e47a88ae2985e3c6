use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use multiproc_harness::Child;
use multiproc_sync::Semaphore;

use crate::{Board, Tests, asleep, ended, in_vain, join_all};

pub(crate) const TESTS: Tests = &[
    ("semaphore_all_forms", all_forms),
    ("semaphore_counts", counts),
    ("semaphore_has_so_many_units_and_no_more", has_so_many_units_and_no_more),
    ("semaphore_release_many_wakes_as_many", release_many_wakes_as_many),
    ("semaphore_killed_waiters_lose_no_unit", killed_waiters_lose_no_unit),
    ("semaphore_waiters_whose_time_is_over_lose_no_unit", waiters_whose_time_is_over_lose_no_unit),
    ("semaphore_keeps_its_units", keeps_its_units),
    ("semaphore_hands_over", hands_over),
];

fn all_forms() {
    let semaphore = Semaphore::new(0).unwrap();
    assert!(!semaphore.try_acquire());
    in_vain(|time| match semaphore.acquire_timeout(time) {
        Err(error) if error.is_timeout() => false,
        result => result.is_ok(),
    });
    let mut waiters = asleep(1, || semaphore.acquire().unwrap());
    waiters.extend(asleep(1, || semaphore.acquire_timeout(Duration::MAX).unwrap()));
    waiters.extend(asleep(1, || semaphore.acquire_timeout(Duration::from_secs(1 << 40)).unwrap()));
    Child::fork(|| (0..3).for_each(|_| semaphore.release())).join();
    join_all(waiters);
    assert_eq!(semaphore.value(), 0);
    semaphore.release_many(2);
    semaphore.acquire_timeout(Duration::ZERO).unwrap();
    assert!(semaphore.try_acquire());
    assert_eq!(semaphore.value(), 0);
}

fn counts() {
    let semaphore = Semaphore::new(3).unwrap();
    Child::fork(|| semaphore.acquire().unwrap()).join();
    assert_eq!(semaphore.value(), 2, "units have no owner");
    semaphore.release_many(0);
    assert_eq!(semaphore.value(), 2);
    semaphore.release_many(5_000);
    assert_eq!(semaphore.value(), 5_002);
    Child::fork_and_stay(|| semaphore.acquire().unwrap()).kill();
    assert_eq!(semaphore.value(), 5_001, "what the dead have taken stays taken");
}

fn has_so_many_units_and_no_more() {
    const MOST: u32 = Semaphore::MAX_UNITS;
    let semaphore = Semaphore::new(MOST - 1).unwrap();
    semaphore.release();
    assert_eq!(semaphore.value(), MOST);
    for too_many in [1, MOST, u32::MAX] {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let panic = catch_unwind(AssertUnwindSafe(|| semaphore.release_many(too_many)));
        std::panic::set_hook(hook);
        assert!(panic.is_err());
        assert_eq!(semaphore.value(), MOST);
    }
    semaphore.acquire().unwrap();
    assert_eq!(semaphore.value(), MOST - 1);
}

fn release_many_wakes_as_many() {
    let semaphore = Semaphore::new(0).unwrap();
    let waiters = asleep(5, || semaphore.acquire().unwrap());
    semaphore.release_many(3);
    let waiters = ended(waiters, 3);
    assert_eq!(semaphore.value(), 0);
    // More than one system call gives, and more than there are sleepers.
    semaphore.release_many(5_000);
    join_all(waiters);
    assert_eq!(semaphore.value(), 4_998);
}

fn killed_waiters_lose_no_unit() {
    for victim in 0..3 {
        let semaphore = Semaphore::new(0).unwrap();
        let mut waiters = asleep(3, || semaphore.acquire().unwrap());
        waiters.remove(victim).kill();
        semaphore.release();
        let waiters = ended(waiters, 1);
        semaphore.release();
        join_all(waiters);
        assert_eq!(semaphore.value(), 0);
        // Nobody is in line, though it may look so to who releases.
        let last = asleep(1, || semaphore.acquire().unwrap());
        drop(last);
        semaphore.release_many(2);
        semaphore.acquire().unwrap();
        assert!(semaphore.try_acquire());
        assert_eq!(semaphore.value(), 0);
    }
}

fn waiters_whose_time_is_over_lose_no_unit() {
    let semaphore = Semaphore::new(0).unwrap();
    let sleeper = asleep(1, || semaphore.acquire().unwrap());
    Child::fork(|| {
        for _ in 0..20 {
            assert!(semaphore.acquire_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
        }
    })
    .join();
    semaphore.release();
    join_all(sleeper);
    assert_eq!(semaphore.value(), 0);
}

fn keeps_its_units() {
    const UNITS: u32 = 2;
    let (semaphore, board) = (Semaphore::new(UNITS).unwrap(), Board::new());
    let children: Vec<Child> = (0..4)
        .map(|place| {
            let (semaphore, board) = (&semaphore, &board);
            Child::fork(move || {
                for i in 0..5_000 {
                    match (place + i) % 4 {
                        0 => semaphore.acquire_timeout(Duration::MAX).unwrap(),
                        1 if !semaphore.try_acquire() => continue,
                        2 if semaphore.acquire_timeout(Duration::from_micros(50)).is_err() => {
                            continue;
                        }
                        1 | 2 => {}
                        _ => semaphore.acquire().unwrap(),
                    }
                    assert!(board.count(0) < UNITS.into(), "more units than there are");
                    board.uncount(0);
                    semaphore.release();
                }
            })
        })
        .collect();
    join_all(children);
    assert_eq!(semaphore.value(), UNITS);
}

/// One gives, another takes: none is lost on the way.
fn hands_over() {
    const UNITS: u32 = 20_000;
    let semaphore = Semaphore::new(0).unwrap();
    let takers: Vec<Child> = (0..2)
        .map(|_| Child::fork(|| (0..UNITS).for_each(|_| semaphore.acquire().unwrap())))
        .collect();
    let givers: Vec<Child> = (0..2)
        .map(|_| {
            Child::fork(|| {
                (0..UNITS / 4).for_each(|_| {
                    semaphore.release();
                    semaphore.release_many(3);
                })
            })
        })
        .collect();
    join_all(givers);
    join_all(takers);
    assert_eq!(semaphore.value(), 0);
}
