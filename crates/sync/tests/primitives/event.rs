use std::time::Duration;

use multiproc_harness::Child;
use multiproc_sync::Event;

use crate::{Board, Tests, asleep, in_vain, join_all};

pub(crate) const TESTS: Tests = &[
    ("event_all_forms", all_forms),
    ("event_set_lets_all_go_on", set_lets_all_go_on),
    ("event_pulse_lets_all_go_on", pulse_lets_all_go_on),
    ("event_sleepers_that_are_killed_hinder_nobody", sleepers_that_are_killed_hinder_nobody),
    ("event_pulses_and_waits_at_random", pulses_and_waits_at_random),
];

fn all_forms() {
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    in_vain(|time| event.wait_timeout(time));
    for _ in 0..2 {
        event.set();
        assert!(event.is_set());
        event.wait();
        for time in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
            assert!(event.wait_timeout(time));
        }
    }
    for _ in 0..2 {
        event.clear();
        assert!(!event.is_set());
        in_vain(|time| event.wait_timeout(time));
    }
    let mut waiters = asleep(1, || event.wait());
    waiters.extend(asleep(1, || assert!(event.wait_timeout(Duration::MAX))));
    event.set();
    join_all(waiters);
}

fn set_lets_all_go_on() {
    let event = Event::new().unwrap();
    let waiters = asleep(6, || {
        event.wait();
        assert!(event.is_set());
    });
    Child::fork(|| event.set()).join();
    join_all(waiters);
    assert!(event.is_set());
}

fn pulse_lets_all_go_on() {
    let event = Event::new().unwrap();
    for _ in 0..50 {
        let waiters = asleep(3, || event.wait());
        event.set();
        event.clear();
        join_all(waiters);
        assert!(!event.is_set());
        in_vain(|time| event.wait_timeout(time));
    }
}

fn sleepers_that_are_killed_hinder_nobody() {
    let event = Event::new().unwrap();
    for _ in 0..10 {
        let mut waiters = asleep(4, || event.wait());
        waiters.drain(1..3).for_each(Child::kill);
        event.set();
        join_all(waiters);
        event.clear();
    }
}

/// Pulses that come at any moment of a wait: while there are more, every wait ends.
fn pulses_and_waits_at_random() {
    const WAITS: u64 = 500;
    let (event, board) = (Event::new().unwrap(), Board::new());
    let waiters: Vec<Child> = (0..2)
        .map(|_| {
            Child::fork(|| {
                for _ in 0..WAITS {
                    event.wait();
                    board.count(0);
                }
            })
        })
        .collect();
    while waiters.iter().any(|waiter| !waiter.has_ended()) {
        event.set();
        event.clear();
    }
    join_all(waiters);
    assert_eq!(board.get(0), 2 * WAITS);
}
