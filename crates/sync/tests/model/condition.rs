//! The condition: a count of notifications, and one of those that wait.

use crate::{Robust, World, explore};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// The count is looked at once the lock was released.
    LooksAfterRelease,
    /// Who waits is counted once the lock was released.
    CountsAfterRelease,
    /// The count goes up in one step, and sleepers are woken in another.
    WakesInASecondStep,
    /// Whoever notifies looks for waiters before it has the lock.
    LooksForWaitersBeforeTheLock,
}

/// What a thread does next. What it has loaded is with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    Lock,
    Count,
    Look,
    Release,
    FallAsleep,
    Asleep,
    Uncount,
    LockAgain,
    ReleaseAtLast,
    // Who notifies.
    LockToChange,
    Change,
    ReleaseChanged,
    LookForWaiters,
    Notify,
    Wake,
    ReleaseNotified,
    Done,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Thread {
    next: Next,
    /// Whether it notifies with the lock held.
    inside: bool,
    /// How many waiters it has seen.
    waiters: u8,
    /// The count that it has seen.
    seen: u8,
    /// What had come about when it had the lock.
    changes: u8,
}

const MOST: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    lock: Robust,
    notified: u8,
    waiters: u8,
    /// How often it has come about what they wait for, and those of which all were notified.
    changes: u8,
    told: u8,
    threads: [Thread; MOST],
    deaths_left: u8,
    timeouts_left: u8,
}

impl State {
    fn wake(&mut self) {
        let sleepers = self.threads.iter_mut().filter(|thread| thread.next == Next::Asleep);
        sleepers.for_each(|thread| thread.next = Next::Uncount);
    }

    fn step(mut self, index: usize, mutation: Mutation) -> Option<State> {
        use Mutation::{
            CountsAfterRelease, LooksAfterRelease, LooksForWaitersBeforeTheLock, WakesInASecondStep,
        };
        use Next::*;
        let Thread { next, inside, waiters, seen, .. } = self.threads[index];
        let early = |rule| mutation != rule;
        let next = match next {
            Lock | LockAgain | LockToChange if !self.lock.is_free() => return None,
            Lock => {
                self.lock.take(index);
                self.threads[index].changes = self.changes;
                if early(CountsAfterRelease) { Count } else { Look }
            }
            Count => {
                self.waiters += 1;
                if !early(CountsAfterRelease) {
                    FallAsleep
                } else if early(LooksAfterRelease) {
                    Look
                } else {
                    Release
                }
            }
            Look => {
                self.threads[index].seen = self.notified;
                if early(LooksAfterRelease) { Release } else { FallAsleep }
            }
            Release => {
                self.lock.release();
                if !early(CountsAfterRelease) {
                    Count
                } else if !early(LooksAfterRelease) {
                    Look
                } else {
                    FallAsleep
                }
            }
            FallAsleep if self.notified == seen => Asleep,
            FallAsleep => Uncount,
            Uncount => {
                self.waiters -= 1;
                LockAgain
            }
            LockAgain => {
                self.lock.take(index);
                ReleaseAtLast
            }
            ReleaseAtLast | ReleaseNotified => {
                self.lock.release();
                Done
            }
            LockToChange => {
                self.lock.take(index);
                if mutation == LooksForWaitersBeforeTheLock {
                    self.threads[index].waiters = waiters;
                }
                Change
            }
            Change => {
                self.changes += 1;
                self.threads[index].changes = self.changes;
                match (inside, mutation) {
                    (true, LooksForWaitersBeforeTheLock) => Notify,
                    (true, _) => LookForWaiters,
                    (false, _) => ReleaseChanged,
                }
            }
            ReleaseChanged => {
                self.lock.release();
                if mutation == LooksForWaitersBeforeTheLock { Notify } else { LookForWaiters }
            }
            LookForWaiters => {
                self.threads[index].waiters = self.waiters;
                if mutation == LooksForWaitersBeforeTheLock { LockToChange } else { Notify }
            }
            Notify if waiters == 0 => {
                self.told = self.told.max(self.threads[index].changes);
                if inside { ReleaseNotified } else { Done }
            }
            Notify => {
                self.notified += 1;
                self.told = self.told.max(self.threads[index].changes);
                if mutation == WakesInASecondStep {
                    Wake
                } else {
                    self.wake();
                    if inside { ReleaseNotified } else { Done }
                }
            }
            Wake => {
                self.wake();
                if inside { ReleaseNotified } else { Done }
            }
            Asleep | Done | Dead => return None,
        };
        self.threads[index].next = next;
        Some(self)
    }

    fn time_out(mut self, index: usize) -> Option<State> {
        let possible = self.threads[index].next == Next::Asleep;
        self.timeouts_left = self.timeouts_left.checked_sub(1)?;
        self.threads[index].next = Next::Uncount;
        possible.then_some(self)
    }

    fn kill(mut self, index: usize) -> Option<State> {
        let alive = !matches!(self.threads[index].next, Next::Done | Next::Dead);
        self.deaths_left = self.deaths_left.checked_sub(1)?;
        self.threads[index].next = Next::Dead;
        self.lock.bury(index);
        alive.then_some(self)
    }
}

impl World for State {
    type Mutation = Mutation;

    fn go_on(&self, mutation: Mutation, mut add: impl FnMut(Self)) {
        for index in 0..MOST {
            self.step(index, mutation).into_iter().for_each(&mut add);
            self.time_out(index).into_iter().for_each(&mut add);
            self.kill(index).into_iter().for_each(&mut add);
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        use Next::*;
        let over = self.threads.iter().all(|thread| matches!(thread.next, Asleep | Done | Dead));
        let missed = |thread: &Thread| thread.next == Asleep && thread.changes < self.told;
        if over && self.threads.iter().any(missed) {
            return Err("somebody sleeps though all were notified");
        }
        Ok(())
    }
}

fn start(acts: [(Next, bool); MOST], deaths: u8, timeouts: u8) -> State {
    let threads =
        acts.map(|(next, inside)| Thread { next, inside, waiters: 0, seen: 0, changes: 0 });
    State {
        lock: Robust::default(),
        notified: 0,
        waiters: 0,
        changes: 0,
        told: 0,
        threads,
        deaths_left: deaths,
        timeouts_left: timeouts,
    }
}

const WAIT: (Next, bool) = (Next::Lock, false);
const NOTIFY_INSIDE: (Next, bool) = (Next::LockToChange, true);
const NOTIFY_OUTSIDE: (Next, bool) = (Next::LockToChange, false);

#[test]
fn no_interleaving_passes_over_a_waiter() {
    for acts in [
        [WAIT, WAIT, NOTIFY_INSIDE, NOTIFY_OUTSIDE],
        [WAIT, WAIT, WAIT, NOTIFY_INSIDE],
        [WAIT, WAIT, WAIT, NOTIFY_OUTSIDE],
        [WAIT, NOTIFY_OUTSIDE, NOTIFY_OUTSIDE, NOTIFY_INSIDE],
    ] {
        let states = explore(start(acts, 2, 1), Mutation::None).unwrap();
        println!("condition: {states} states");
    }
}

#[test]
fn each_rule_is_needed() {
    use Mutation::*;
    let missed = Err("somebody sleeps though all were notified");
    for mutation in [LooksAfterRelease, CountsAfterRelease, WakesInASecondStep] {
        for notify in [NOTIFY_INSIDE, NOTIFY_OUTSIDE] {
            let acts = [WAIT, WAIT, notify, notify];
            assert_eq!(explore(start(acts, 1, 0), mutation), missed, "{mutation:?}");
        }
    }
    let acts = [WAIT, WAIT, (Next::LookForWaiters, true), (Next::LookForWaiters, false)];
    assert_eq!(explore(start(acts, 0, 0), LooksForWaitersBeforeTheLock), missed);
}
