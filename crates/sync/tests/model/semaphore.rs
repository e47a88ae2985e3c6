//! The semaphore: a count with a bit, and a gate at which all stand in line but the first.

use crate::{Robust, World, explore};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Units are given in one step, and the first in line is woken in another.
    WakesInASecondStep,
    /// Whoever waits sleeps on the units, without the gate.
    SleepsWithoutTheGate,
    /// Whoever falls asleep does not say so.
    SleeperSaysNothing,
    /// Whose time is over leaves the line, and then says that nobody sleeps.
    ClearsAfterLeaving,
}

/// The units, and whether the first in line may be asleep.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Word {
    units: u8,
    waiter: bool,
}

/// What a thread does next. What it has loaded is with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    // Who takes.
    Look,
    Take(Word),
    StandInLine,
    LookAsFirst,
    TakeAsFirst(Word),
    SayThatItSleeps,
    FallAsleep,
    Asleep,
    LastLook,
    LastTake(Word),
    Clear,
    Leave,
    ClearOutside,
    // Who gives.
    Give(u8),
    GiveTo(Word, u8),
    Wake,
    Done,
    Dead,
}

const MOST: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    word: Word,
    gate: Robust,
    threads: [Next; MOST],
    deaths_left: u8,
    timeouts_left: u8,
}

impl State {
    fn exchange(&mut self, seen: Word, new: Word) -> bool {
        let same = self.word == seen;
        if same {
            self.word = new;
        }
        same
    }

    /// All that can come of waking one who sleeps on the units.
    fn wake_one(self) -> Vec<State> {
        let sleepers = (0..MOST).filter(|index| self.threads[*index] == Next::Asleep);
        let mut found: Vec<State> = sleepers
            .map(|index| {
                let mut woken = self;
                woken.threads[index] = Next::LookAsFirst;
                woken
            })
            .collect();
        if found.is_empty() {
            found.push(self);
        }
        found
    }

    fn step(mut self, index: usize, mutation: Mutation) -> Vec<State> {
        use Mutation::{
            ClearsAfterLeaving, SleeperSaysNothing, SleepsWithoutTheGate, WakesInASecondStep,
        };
        use Next::*;
        let taken = |seen: Word| Word { units: seen.units - 1, waiter: false };
        let next = match self.threads[index] {
            Look if self.word.waiter || self.word.units == 0 => {
                if mutation == SleepsWithoutTheGate { LookAsFirst } else { StandInLine }
            }
            Look => Take(self.word),
            Take(seen) => {
                let rest = Word { units: seen.units - 1, ..seen };
                if self.exchange(seen, rest) { Done } else { Look }
            }
            StandInLine if self.gate.take(index) => LookAsFirst,
            StandInLine => return Vec::new(),
            LookAsFirst if self.word.units > 0 => TakeAsFirst(self.word),
            LookAsFirst => SayThatItSleeps,
            TakeAsFirst(seen) => {
                if self.exchange(seen, taken(seen)) {
                    Leave
                } else {
                    LookAsFirst
                }
            }
            SayThatItSleeps => {
                self.word.waiter |= mutation != SleeperSaysNothing;
                if self.word.units > 0 { LookAsFirst } else { FallAsleep }
            }
            FallAsleep => {
                let waiter = mutation != SleeperSaysNothing;
                if self.word == (Word { units: 0, waiter }) { Asleep } else { LookAsFirst }
            }
            LastLook if self.word.units > 0 => LastTake(self.word),
            LastLook => Clear,
            LastTake(seen) => {
                if self.exchange(seen, taken(seen)) {
                    Clear
                } else {
                    LastLook
                }
            }
            Clear if mutation == ClearsAfterLeaving => {
                self.gate.release();
                ClearOutside
            }
            Clear => {
                self.word.waiter = false;
                Leave
            }
            ClearOutside => {
                self.word.waiter = false;
                Done
            }
            Leave => {
                self.gate.bury(index);
                self.gate.poisoned = false;
                Done
            }
            Give(units) => GiveTo(self.word, units),
            GiveTo(Word { waiter: true, .. }, units) => {
                self.word.units += units;
                if mutation != WakesInASecondStep {
                    self.threads[index] = Done;
                    return self.wake_one();
                }
                Wake
            }
            GiveTo(seen, units) => {
                let sum = Word { units: seen.units + units, ..seen };
                if self.exchange(seen, sum) { Done } else { Give(units) }
            }
            Wake => {
                self.threads[index] = Done;
                return self.wake_one();
            }
            Asleep | Done | Dead => return Vec::new(),
        };
        self.threads[index] = next;
        vec![self]
    }

    fn time_out(mut self, index: usize) -> Option<State> {
        let possible = self.threads[index] == Next::Asleep;
        self.timeouts_left = self.timeouts_left.checked_sub(1)?;
        self.threads[index] = Next::LastLook;
        possible.then_some(self)
    }

    fn kill(mut self, index: usize) -> Option<State> {
        let alive = !matches!(self.threads[index], Next::Done | Next::Dead);
        self.deaths_left = self.deaths_left.checked_sub(1)?;
        self.threads[index] = Next::Dead;
        self.gate.bury(index);
        self.gate.poisoned = false;
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
        let waits = |next: &Next| *next == Asleep || *next == StandInLine && !self.gate.is_free();
        let over = self.threads.iter().all(|next| waits(next) || matches!(next, Done | Dead));
        if over && self.word.units > 0 && self.threads.iter().any(waits) {
            return Err("somebody sleeps while there is a unit");
        }
        Ok(())
    }
}

fn start(threads: [Next; MOST], units: u8, deaths: u8, timeouts: u8) -> State {
    State {
        word: Word { units, waiter: false },
        gate: Robust::default(),
        threads,
        deaths_left: deaths,
        timeouts_left: timeouts,
    }
}

#[test]
fn no_interleaving_loses_a_unit() {
    use Next::*;
    for (threads, units) in [
        ([Look, Look, Give(1), Give(1)], 0),
        ([Look, Look, Look, Give(2)], 0),
        ([Look, Look, Look, Give(1)], 1),
        ([Look, Give(1), Give(1), Give(1)], 0),
        ([Look, Look, Look, Look], 2),
    ] {
        let states = explore(start(threads, units, 2, 2), Mutation::None).unwrap();
        println!("semaphore: {states} states");
    }
}

#[test]
fn each_rule_is_needed() {
    use Mutation::*;
    use Next::*;
    for mutation in
        [WakesInASecondStep, SleepsWithoutTheGate, SleeperSaysNothing, ClearsAfterLeaving]
    {
        let found = explore(start([Look, Look, Give(1), Give(1)], 0, 1, 1), mutation);
        assert_eq!(found, Err("somebody sleeps while there is a unit"), "{mutation:?}");
    }
}
