//! The barrier: changes under a lock, each announced before it is made; one party that has the watch
//! and sleeps on what is announced and on all places; others that sleep on the watch and on the round.

use crate::{Robust, World, explore};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// The last party changes things without announcing it.
    LastDoesNotAnnounce,
    /// Nobody looks whether the last one to change things has died at it.
    DoesNotSeeTo,
    /// The watch sleeps on what is announced only.
    WatchesNoPlaces,
    /// The watch looks whether a party has died, and then again at its place to sleep there.
    LooksTwice,
    /// The watch does not wait for the change that was announced.
    DoesNotWaitForTheChange,
    /// Those without the watch sleep on the watch only.
    SleepsOnTheWatchOnly,
    /// Whoever comes takes the place of one who has died, and does not look.
    NewcomerDoesNotLook,
}

/// What a thread does next. What it has loaded is with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    TakePlace,
    LockChanges,
    Announce,
    SeeTo,
    LookForTheDead,
    Tell,
    Arrive,
    EndArrived,
    EndCompleted,
    EndRound,
    ReleaseAsLast,
    ReleaseToWait,
    ReleaseBroken,
    // Who waits.
    TryWatch,
    LookWithoutWatch,
    FallAsleepBeside,
    AsleepBeside,
    LoadAnnounced,
    LookAsWatch,
    PassChanges,
    /// Has looked at so many places.
    Collect(u8),
    /// Has found it taken, and looks again.
    CollectAgain(u8),
    LookOnceMore,
    FallAsleepAsWatch,
    AsleepAsWatch,
    LockToBreak,
    AnnounceBreak,
    Break,
    ReleaseWatch,
    // Who comes to abort it.
    LockToAbort,
    AnnounceAbort,
    AbortBroken,
    AbortRound,
    ReleaseAborted,
    ForgetArrival,
    LeavePlace,
    Done,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Thread {
    next: Next,
    /// Its place.
    place: u8,
    /// The round in which it has arrived, and how many had been completed.
    round: u8,
    completed: u8,
    /// What it has seen announced, and the places that it is to watch: of whom, from 1.
    announced: u8,
    watched: [u8; MOST],
    /// How often it comes yet.
    rounds: u8,
}

const MOST: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    parties: u8,
    changes: Robust,
    watch: Robust,
    /// Who is in each place, from 1; the dead are not.
    places: [u8; MOST],
    /// Who has arrived there, and in which round.
    arrivals: [(u8, u8); MOST],
    arrived: u8,
    round: u8,
    completed: u8,
    broken: bool,
    announced: u8,
    threads: [Thread; MOST],
    deaths_left: u8,
    /// A round was completed with one who was dead before the last one came.
    with_the_dead: bool,
    /// The one who is last has had the chance to see that somebody has died.
    dead_before: bool,
}

impl State {
    fn start(threads: usize, parties: u8, rounds: u8, deaths: u8) -> Self {
        let idle = Thread {
            next: Next::Done,
            place: 0,
            round: 0,
            completed: 0,
            announced: 0,
            watched: [0; MOST],
            rounds,
        };
        let mut all = [idle; MOST];
        all[..threads].iter_mut().for_each(|thread| thread.next = Next::TakePlace);
        State {
            parties,
            changes: Robust::default(),
            watch: Robust::default(),
            places: [0; MOST],
            arrivals: [(0, 0); MOST],
            arrived: 0,
            round: 0,
            completed: 0,
            broken: false,
            announced: 0,
            threads: all,
            deaths_left: deaths,
            with_the_dead: false,
            dead_before: false,
        }
    }

    fn announce(&mut self) {
        self.announced += 1;
        self.wake_watch(|_| true);
    }

    /// Wakes whoever has the watch and sleeps on what was changed.
    fn wake_watch(&mut self, on: impl Fn(&Thread) -> bool) {
        for thread in &mut self.threads {
            if thread.next == Next::AsleepAsWatch && on(thread) {
                thread.next = Next::LoadAnnounced;
            }
        }
    }

    fn next_round(&mut self, mutation: Mutation) {
        self.round += 1;
        for thread in &mut self.threads {
            if thread.next == Next::AsleepBeside && mutation != Mutation::SleepsOnTheWatchOnly {
                thread.next = Next::TryWatch;
            }
        }
    }

    fn break_round(&mut self, mutation: Mutation) {
        self.broken = true;
        self.arrived = 0;
        self.next_round(mutation);
    }

    fn see_to(&mut self, mutation: Mutation) {
        if self.changes.poisoned && mutation != Mutation::DoesNotSeeTo {
            self.break_round(mutation);
        }
        self.changes.poisoned = false;
    }

    /// Who has arrived in this round and is dead.
    fn has_lost_a_party(&self) -> bool {
        let of_this_round = |(thread, round): &(u8, u8)| *thread != 0 && *round == self.round;
        let is_dead = |thread: u8| self.threads[usize::from(thread) - 1].next == Next::Dead;
        self.arrivals.iter().any(|arrival| of_this_round(arrival) && is_dead(arrival.0))
    }

    /// The same, as one sees it who has this place and looks at who has the others.
    fn sees_a_loss(&self, own: usize) -> bool {
        (0..MOST).any(|place| {
            let (thread, round) = self.arrivals[place];
            let here = thread != 0 && round == self.round;
            here && (place == own || self.places[place] != thread)
        })
    }

    fn step(mut self, index: usize, mutation: Mutation) -> Option<State> {
        use Mutation::{
            DoesNotWaitForTheChange, LastDoesNotAnnounce, LooksTwice, NewcomerDoesNotLook,
            SleepsOnTheWatchOnly, WatchesNoPlaces,
        };
        use Next::*;
        let number = index as u8 + 1;
        let Thread { next, place, round, .. } = self.threads[index];
        let own = usize::from(place);
        let is_over = self.round != round;
        let next = match next {
            TakePlace => {
                let free = self.places.iter().position(|holder| *holder == 0)?;
                self.places[free] = number;
                self.threads[index].place = free as u8;
                LockChanges
            }
            LockChanges | LockToBreak | PassChanges | LockToAbort if !self.changes.is_free() => {
                return None;
            }
            LockChanges => {
                self.changes.take(index);
                self.dead_before = self.has_lost_a_party();
                let is_last = self.arrived + 1 == self.parties;
                if is_last && mutation == LastDoesNotAnnounce { SeeTo } else { Announce }
            }
            Announce => {
                self.announce();
                SeeTo
            }
            SeeTo => {
                self.see_to(mutation);
                LookForTheDead
            }
            LookForTheDead => {
                if mutation != NewcomerDoesNotLook && self.sees_a_loss(own) {
                    self.break_round(mutation);
                }
                if self.broken {
                    ReleaseBroken
                } else {
                    self.threads[index].round = self.round;
                    self.threads[index].completed = self.completed;
                    Tell
                }
            }
            Tell => {
                self.arrivals[own] = (number, self.round);
                Arrive
            }
            Arrive => {
                self.arrived += 1;
                if self.arrived >= self.parties { EndArrived } else { ReleaseToWait }
            }
            EndArrived => {
                self.arrived = 0;
                EndCompleted
            }
            EndCompleted => {
                self.completed += 1;
                self.with_the_dead |= self.dead_before;
                EndRound
            }
            EndRound => {
                self.next_round(mutation);
                ReleaseAsLast
            }
            ReleaseAsLast | ReleaseBroken => {
                self.changes.release();
                ForgetArrival
            }
            ReleaseToWait => {
                self.changes.release();
                TryWatch
            }
            TryWatch if self.watch.take(index) => LoadAnnounced,
            TryWatch if mutation == SleepsOnTheWatchOnly => FallAsleepBeside,
            TryWatch => LookWithoutWatch,
            LookWithoutWatch if is_over => ForgetArrival,
            LookWithoutWatch => FallAsleepBeside,
            FallAsleepBeside if self.watch.is_free() => TryWatch,
            FallAsleepBeside if is_over && mutation != SleepsOnTheWatchOnly => TryWatch,
            FallAsleepBeside => AsleepBeside,
            // Handed on by the one who had it, or by the kernel.
            AsleepBeside if self.watch.is_free() => TryWatch,
            LoadAnnounced => {
                self.threads[index].announced = self.announced;
                LookAsWatch
            }
            LookAsWatch if is_over => ReleaseWatch,
            LookAsWatch => {
                self.threads[index].watched = [0; MOST];
                match mutation {
                    DoesNotWaitForTheChange => Collect(0),
                    _ => PassChanges,
                }
            }
            PassChanges => {
                self.see_to(mutation);
                if mutation == WatchesNoPlaces { LookOnceMore } else { Collect(0) }
            }
            Collect(place) if usize::from(place) == MOST => LookOnceMore,
            Collect(at) | CollectAgain(at) => {
                let (thread, arrived_in) = self.arrivals[usize::from(at)];
                let is_there = self.places[usize::from(at)] == thread;
                if at == place || thread == 0 || arrived_in != round {
                    Collect(at + 1)
                } else if mutation == LooksTwice && matches!(next, Collect(_)) {
                    if is_there { CollectAgain(at) } else { LockToBreak }
                } else if is_there {
                    self.threads[index].watched[usize::from(at)] = thread;
                    Collect(at + 1)
                } else if mutation == LooksTwice {
                    Collect(at + 1)
                } else {
                    LockToBreak
                }
            }
            LookOnceMore if is_over => LoadAnnounced,
            LookOnceMore => FallAsleepAsWatch,
            FallAsleepAsWatch => {
                let Thread { announced, watched, .. } = self.threads[index];
                let is_same =
                    (0..MOST).all(|at| watched[at] == 0 || self.places[at] == watched[at]);
                if self.announced == announced && is_same { AsleepAsWatch } else { LoadAnnounced }
            }
            LockToBreak => {
                self.changes.take(index);
                AnnounceBreak
            }
            AnnounceBreak => {
                self.announce();
                self.see_to(mutation);
                Break
            }
            Break => {
                if self.round == round {
                    self.break_round(mutation);
                }
                self.changes.release();
                LoadAnnounced
            }
            LockToAbort => {
                self.changes.take(index);
                AnnounceAbort
            }
            AnnounceAbort => {
                self.announce();
                self.see_to(mutation);
                AbortBroken
            }
            AbortBroken => {
                self.broken = true;
                AbortRound
            }
            AbortRound => {
                self.break_round(mutation);
                ReleaseAborted
            }
            ReleaseAborted => {
                self.changes.release();
                Done
            }
            ReleaseWatch => {
                self.watch.release();
                ForgetArrival
            }
            ForgetArrival => {
                self.arrivals[own] = (0, 0);
                LeavePlace
            }
            LeavePlace => {
                self.empty(own);
                self.threads[index].rounds -= 1;
                let again = self.threads[index].rounds > 0 && !self.broken;
                if again { TakePlace } else { Done }
            }
            AsleepBeside | AsleepAsWatch | Done | Dead => return None,
        };
        self.threads[index].next = next;
        Some(self)
    }

    /// Nobody is in the place any more.
    fn empty(&mut self, place: usize) {
        self.places[place] = 0;
        self.wake_watch(|thread| thread.watched[place] != 0);
    }

    fn kill(mut self, index: usize) -> Option<State> {
        let alive = !matches!(self.threads[index].next, Next::Done | Next::Dead);
        self.deaths_left = self.deaths_left.checked_sub(1)?;
        self.threads[index].next = Next::Dead;
        self.changes.bury(index);
        self.watch.bury(index);
        self.watch.poisoned = false;
        for place in 0..MOST {
            if self.places[place] == index as u8 + 1 {
                self.empty(place);
            }
        }
        alive.then_some(self)
    }
}

impl World for State {
    type Mutation = Mutation;

    fn go_on(&self, mutation: Mutation, mut add: impl FnMut(Self)) {
        for index in 0..MOST {
            self.step(index, mutation).into_iter().for_each(&mut add);
            self.kill(index).into_iter().for_each(&mut add);
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        use Next::*;
        if self.with_the_dead {
            return Err("a round is completed with a dead party");
        }
        let sleeps = |thread: &&Thread| {
            thread.next == AsleepAsWatch || thread.next == AsleepBeside && !self.watch.is_free()
        };
        let over = |thread: &Thread| sleeps(&thread) || matches!(thread.next, Done | Dead);
        if !self.threads.iter().all(over) {
            return Ok(());
        }
        // They may wait for parties that have not come; for nothing else.
        let mut asleep = self.threads.iter().filter(sleeps);
        let in_vain = |thread: &Thread| thread.round != self.round || self.broken;
        if self.has_lost_a_party() && asleep.clone().next().is_some() || asleep.any(in_vain) {
            return Err("somebody sleeps for ever");
        }
        Ok(())
    }
}

/// With one more thread that aborts the barrier at any time.
fn with_abort(mut state: State) -> State {
    let idle = state.threads.iter_mut().find(|thread| thread.next == Next::Done);
    idle.unwrap().next = Next::LockToAbort;
    state
}

#[test]
fn no_interleaving_leaves_a_party_waiting() {
    // Threads, parties, how often each thread comes, how many are killed.
    for (threads, parties, rounds, deaths) in
        [(2, 2, 3, 0), (2, 2, 2, 1), (3, 3, 1, 1), (3, 3, 1, 2), (3, 2, 1, 1), (2, 3, 1, 1)]
    {
        let start = State::start(threads, parties, rounds, deaths);
        let states = explore(start, Mutation::None).unwrap();
        println!("barrier: {threads} threads, {parties} parties, {deaths} deaths: {states} states");
    }
    let states = explore(with_abort(State::start(2, 2, 1, 2)), Mutation::None).unwrap();
    println!("barrier: 2 threads, 2 parties, 2 deaths, aborted: {states} states");
}

#[test]
#[ignore = "24 million states take some minutes"]
fn no_interleaving_of_two_rounds_of_three_leaves_a_party_waiting() {
    println!("barrier: {} states", explore(State::start(3, 3, 2, 0), Mutation::None).unwrap());
}

#[test]
fn each_rule_is_needed() {
    use Mutation::*;
    let asleep = Err("somebody sleeps for ever");
    for mutation in [LastDoesNotAnnounce, DoesNotWaitForTheChange] {
        assert_eq!(explore(State::start(2, 2, 1, 1), mutation), asleep, "{mutation:?}");
    }
    assert_eq!(explore(with_abort(State::start(2, 2, 1, 1)), DoesNotSeeTo), asleep);
    // The third never comes, and would see it.
    for mutation in [WatchesNoPlaces, LooksTwice] {
        assert_eq!(explore(State::start(2, 3, 1, 1), mutation), asleep, "{mutation:?}");
    }
    assert_eq!(explore(State::start(3, 3, 2, 0), SleepsOnTheWatchOnly), asleep);
    let with_the_dead = Err("a round is completed with a dead party");
    assert_eq!(explore(State::start(3, 2, 1, 1), NewcomerDoesNotLook), with_the_dead);
}
