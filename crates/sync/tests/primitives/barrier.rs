use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use multiproc_harness::Child;
use multiproc_sync::{Barrier, BarrierError};

use crate::{Board, Tests, asleep, join_all};

pub(crate) const TESTS: Tests = &[
    ("barrier_nobody_goes_on_before_all_have_come", nobody_goes_on_before_all_have_come),
    ("barrier_slow_party_finds_its_round_over", slow_party_finds_its_round_over),
    ("barrier_for_one", for_one),
    ("barrier_for_the_most_parties", for_the_most_parties),
    ("barrier_timeout_breaks_it", timeout_breaks_it),
    ("barrier_abort_breaks_it", abort_breaks_it),
    ("barrier_reset_lets_who_waits_go", reset_lets_who_waits_go),
    ("barrier_action_runs_once_before_anyone_goes_on", action_runs_once_before_anyone_goes_on),
    ("barrier_panic_of_the_action_breaks_it", panic_of_the_action_breaks_it),
    ("barrier_death_while_others_wait_breaks_it", death_while_others_wait_breaks_it),
    ("barrier_death_before_others_come_breaks_it", death_before_others_come_breaks_it),
    ("barrier_death_is_seen_by_the_last_party", death_is_seen_by_the_last_party),
    ("barrier_death_in_the_action_breaks_it", death_in_the_action_breaks_it),
    ("barrier_death_after_the_round_breaks_nothing", death_after_the_round_breaks_nothing),
];

fn is_broken(result: Result<u32, BarrierError>) {
    let error = result.unwrap_err();
    assert!(error.is_broken() && !error.is_timeout(), "{error}");
}

/// Parties that wait, and are told that the barrier is broken.
fn disappointed(count: usize, barrier: &Barrier) -> Vec<Child> {
    let parties = asleep(count, || is_broken(barrier.wait()));
    multiproc_harness::eventually("arrivals", || barrier.waiting() as usize >= count);
    parties
}

/// As good as new.
fn works(barrier: &Barrier) {
    assert!(!barrier.is_broken());
    assert_eq!(barrier.waiting(), 0);
    let parties: Vec<Child> =
        (1..barrier.parties()).map(|_| Child::fork(|| assert!(barrier.wait().is_ok()))).collect();
    barrier.wait().unwrap();
    join_all(parties);
}

fn nobody_goes_on_before_all_have_come() {
    const ROUNDS: usize = 250;
    for parties in [2, 3, 7] {
        let (barrier, board) = (Barrier::new(parties).unwrap(), Board::new());
        let children: Vec<Child> = (0..parties)
            .map(|_| {
                Child::fork(|| {
                    for round in 0..ROUNDS {
                        board.count(round);
                        let index = barrier.wait().unwrap();
                        let come = board.get(round) & 0xffff;
                        assert_eq!(come, parties.into(), "one has gone on before all had come");
                        let bit = 1 << (16 + index);
                        let others =
                            board.number(round).fetch_or(bit, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(others & bit, 0, "two have the same number");
                    }
                })
            })
            .collect();
        join_all(children);
        for round in 0..ROUNDS {
            assert_eq!(board.get(round) >> 16, (1 << parties) - 1);
        }
        assert_eq!(barrier.waiting(), 0);
    }
}

/// One that sleeps through the end of its round goes on, though others wait in the next one by then.
fn slow_party_finds_its_round_over() {
    let barrier = Barrier::new(3).unwrap();
    let twice = || {
        barrier.wait().unwrap();
        barrier.wait().unwrap();
    };
    let quick = asleep(1, twice);
    let slow = asleep(1, twice);
    slow[0].signal(libc::SIGSTOP);
    barrier.wait().unwrap();
    multiproc_harness::eventually("an arrival", || barrier.waiting() == 1);
    quick.iter().for_each(Child::wait_asleep);
    slow[0].signal(libc::SIGCONT);
    barrier.wait().unwrap();
    join_all(quick);
    join_all(slow);
}

fn for_one() {
    let barrier = Barrier::new(1).unwrap();
    for _ in 0..10 {
        assert_eq!(barrier.wait().unwrap(), 0);
        assert_eq!(barrier.wait_timeout(Duration::ZERO).unwrap(), 0);
        assert_eq!(barrier.wait_timeout(Duration::MAX).unwrap(), 0);
    }
}

fn for_the_most_parties() {
    let barrier = Barrier::new(Barrier::MAX_PARTIES).unwrap();
    let parties = asleep(Barrier::MAX_PARTIES as usize - 1, || _ = barrier.wait().unwrap());
    assert_eq!(barrier.wait().unwrap(), Barrier::MAX_PARTIES - 1);
    join_all(parties);
}

fn timeout_breaks_it() {
    let barrier = Barrier::new(3).unwrap();
    for time in [Duration::ZERO, Duration::from_millis(1)] {
        let others = disappointed(1, &barrier);
        let error = barrier.wait_timeout(time).unwrap_err();
        assert!(error.is_timeout() && error.is_broken(), "{error}");
        join_all(others);
        assert!(barrier.is_broken());
        is_broken(barrier.wait());
        is_broken(barrier.wait_timeout(Duration::ZERO));
        barrier.reset().unwrap();
        works(&barrier);
    }
    // Time enough.
    let mut parties = asleep(1, || _ = barrier.wait_timeout(Duration::MAX).unwrap());
    parties.extend(asleep(1, || _ = barrier.wait_timeout(Duration::from_secs(1 << 40)).unwrap()));
    assert_eq!(barrier.wait_timeout(Duration::MAX).unwrap(), 2);
    join_all(parties);
}

fn abort_breaks_it() {
    let barrier = Barrier::new(4).unwrap();
    let parties = disappointed(3, &barrier);
    Child::fork(|| barrier.abort().unwrap()).join();
    join_all(parties);
    assert!(barrier.is_broken());
    is_broken(barrier.wait());
    barrier.abort().unwrap();
    barrier.reset().unwrap();
    works(&barrier);
}

fn reset_lets_who_waits_go() {
    let barrier = Barrier::new(4).unwrap();
    for _ in 0..5 {
        let parties = disappointed(3, &barrier);
        barrier.reset().unwrap();
        join_all(parties);
        works(&barrier);
    }
    barrier.reset().unwrap();
    works(&barrier);
}

fn action_runs_once_before_anyone_goes_on() {
    const ROUNDS: u64 = 200;
    let (barrier, board) = (Barrier::new(3).unwrap(), Board::new());
    let children: Vec<Child> = (0..3)
        .map(|_| {
            Child::fork(|| {
                for round in 0..ROUNDS {
                    barrier
                        .wait_with(|| {
                            board.count(0);
                        })
                        .unwrap();
                    assert!(board.get(0) > round, "one has gone on before the action");
                    barrier.wait().unwrap();
                    assert_eq!(board.get(0), round + 1, "the action has run twice");
                    barrier.wait().unwrap();
                }
            })
        })
        .collect();
    join_all(children);
    assert_eq!(board.get(0), ROUNDS);
}

fn panic_of_the_action_breaks_it() {
    let barrier = Barrier::new(3).unwrap();
    for _ in 0..3 {
        let parties = disappointed(2, &barrier);
        let panic =
            catch_unwind(AssertUnwindSafe(|| barrier.wait_with(|| resume_unwind(Box::new(())))));
        assert!(panic.is_err());
        join_all(parties);
        assert!(barrier.is_broken());
        is_broken(barrier.wait());
        barrier.reset().unwrap();
        works(&barrier);
    }
}

fn death_while_others_wait_breaks_it() {
    // Whoever has the watch, and those who have not.
    for victim in 0..3 {
        let barrier = Barrier::new(4).unwrap();
        let before = disappointed(victim, &barrier);
        let dead = asleep(1, || is_broken(barrier.wait()));
        let after = disappointed(2 - victim, &barrier);
        multiproc_harness::eventually("arrivals", || barrier.waiting() == 3);
        dead.into_iter().for_each(Child::kill);
        join_all(before);
        join_all(after);
        assert!(barrier.is_broken());
        is_broken(barrier.wait());
        barrier.reset().unwrap();
        works(&barrier);
    }
}

/// Nobody is there to see it, and who comes next takes the place of the dead.
fn death_before_others_come_breaks_it() {
    for first in [true, false] {
        let barrier = Barrier::new(3).unwrap();
        if !first {
            works(&barrier);
        }
        asleep(1, || drop(barrier.wait())).into_iter().for_each(Child::kill);
        is_broken(barrier.wait_timeout(Duration::from_secs(20)));
        is_broken(barrier.wait());
        barrier.reset().unwrap();
        works(&barrier);
    }
}

/// The last party comes when one of those that it would go on with is dead, and is in another place.
fn death_is_seen_by_the_last_party() {
    let barrier = Barrier::new(2).unwrap();
    // Keeps the first place: it has come, is the last and does not go on.
    let (told, mut tell) = multiproc_harness::flag();
    let (done, mut finish) = multiproc_harness::flag();
    let early = asleep(1, || _ = barrier.wait().unwrap());
    let slow = Child::fork(|| {
        barrier.wait().unwrap();
        tell.raise();
        done.wait();
    });
    told.wait();
    join_all(early);
    let in_the_first_place = asleep(1, || drop(barrier.wait()));
    in_the_first_place.into_iter().for_each(Child::kill);
    is_broken(barrier.wait_timeout(Duration::from_secs(20)));
    finish.raise();
    slow.join();
    barrier.reset().unwrap();
    works(&barrier);
}

fn death_in_the_action_breaks_it() {
    let barrier = Barrier::new(3).unwrap();
    let parties = disappointed(2, &barrier);
    let (acts, mut tell) = multiproc_harness::flag();
    let last = Child::fork(|| {
        let _never = barrier.wait_with(|| {
            tell.raise();
            multiproc_harness::stay();
        });
    });
    acts.wait();
    last.kill();
    join_all(parties);
    is_broken(barrier.wait());
    barrier.reset().unwrap();
    works(&barrier);
}

fn death_after_the_round_breaks_nothing() {
    let barrier = Barrier::new(2).unwrap();
    for _ in 0..20 {
        let other = Child::fork_and_stay(|| Child::fork(|| _ = barrier.wait().unwrap()));
        barrier.wait().unwrap();
        other.kill();
        works(&barrier);
    }
}
