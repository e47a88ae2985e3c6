//! The event: a bit, a bit for sleepers, and a count of how often it was cleared.

use crate::{World, explore};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Clearing it is not counted.
    ClearDoesNotCount,
    /// It is set in one step, and those that sleep are woken in another.
    WakesInASecondStep,
    /// Whoever falls asleep does not say so.
    SleeperSaysNothing,
    /// One sleeper is woken, not all.
    WakesOne,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Word {
    set: bool,
    waiters: bool,
    cleared: u8,
}

/// What a thread does next. What it has loaded is with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    Start,
    Look,
    SayThatItSleeps,
    FallAsleep,
    Asleep,
    Set,
    SetTo(Word),
    Wake,
    Clear,
    ClearFrom(Word),
    Done,
    Dead,
}

/// A thread, the acts that it has yet to do, and for who waits: the word when it came, and how often
/// the event had been set by then.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Thread {
    next: Next,
    /// Whether it clears the event when it has set it, or the other way round.
    then: Option<bool>,
    start: Word,
    sets_before: u8,
}

const MOST: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    word: Word,
    sets: u8,
    threads: [Thread; MOST],
    deaths_left: u8,
}

const CLEAR: Word = Word { set: false, waiters: false, cleared: 0 };

impl State {
    fn wake(&mut self, mutation: Mutation) {
        let most = if mutation == Mutation::WakesOne { 1 } else { MOST };
        let sleepers = self.threads.iter_mut().filter(|thread| thread.next == Next::Asleep);
        sleepers.take(most).for_each(|thread| thread.next = Next::Look);
    }

    fn step(mut self, index: usize, mutation: Mutation) -> Option<State> {
        use Mutation::{ClearDoesNotCount, SleeperSaysNothing, WakesInASecondStep};
        use Next::*;
        let Thread { next, then, start, .. } = self.threads[index];
        let without_waiters = |word: Word| Word { waiters: false, ..word };
        let waiting = Word { waiters: mutation != SleeperSaysNothing, ..start };
        // What comes after the act.
        let rest = match then {
            Some(true) => Clear,
            Some(false) => Set,
            None => Done,
        };
        let finish = |state: &mut State| {
            state.threads[index].then = None;
            rest
        };
        let next = match next {
            Start if self.word.set => Done,
            Start => {
                self.threads[index].start = without_waiters(self.word);
                self.threads[index].sets_before = self.sets;
                Look
            }
            Look if without_waiters(self.word) != start => Done,
            Look if self.word == waiting => FallAsleep,
            Look => SayThatItSleeps,
            SayThatItSleeps => {
                if self.word != start {
                    Look
                } else {
                    self.word = waiting;
                    FallAsleep
                }
            }
            FallAsleep if self.word == waiting => Asleep,
            FallAsleep => Look,
            Set => SetTo(self.word),
            SetTo(Word { set: true, .. }) => finish(&mut self),
            SetTo(Word { waiters: true, .. }) => {
                self.sets += u8::from(!self.word.set);
                self.word.set = true;
                if mutation == WakesInASecondStep {
                    Wake
                } else {
                    self.wake(mutation);
                    finish(&mut self)
                }
            }
            SetTo(seen) => {
                if self.word == seen {
                    self.word.set = true;
                    self.sets += 1;
                    finish(&mut self)
                } else {
                    Set
                }
            }
            Wake => {
                self.wake(mutation);
                finish(&mut self)
            }
            Clear => ClearFrom(self.word),
            ClearFrom(Word { set: false, .. }) => finish(&mut self),
            ClearFrom(seen) => {
                if self.word == seen {
                    let cleared = seen.cleared + u8::from(mutation != ClearDoesNotCount);
                    self.word = Word { cleared, ..CLEAR };
                    finish(&mut self)
                } else {
                    Clear
                }
            }
            Asleep | Done | Dead => return None,
        };
        self.threads[index].next = next;
        Some(self)
    }

    fn kill(mut self, index: usize) -> Option<State> {
        let alive = !matches!(self.threads[index].next, Next::Done | Next::Dead);
        self.deaths_left = self.deaths_left.checked_sub(1)?;
        self.threads[index].next = Next::Dead;
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
        let over = self.threads.iter().all(|thread| matches!(thread.next, Asleep | Done | Dead));
        let missed = |thread: &Thread| thread.next == Asleep && thread.sets_before != self.sets;
        if over && self.threads.iter().any(missed) {
            return Err("somebody sleeps though it was set");
        }
        Ok(())
    }
}

fn start(acts: [(Next, Option<bool>); MOST], deaths: u8) -> State {
    let threads = acts.map(|(next, then)| Thread { next, then, start: CLEAR, sets_before: 0 });
    State { word: CLEAR, sets: 0, threads, deaths_left: deaths }
}

const WAIT: (Next, Option<bool>) = (Next::Start, None);
const SET: (Next, Option<bool>) = (Next::Set, None);
const PULSE: (Next, Option<bool>) = (Next::Set, Some(true));
const CLEAR_AND_SET: (Next, Option<bool>) = (Next::Clear, Some(false));

#[test]
fn no_interleaving_passes_over_a_sleeper() {
    for acts in [
        [WAIT, WAIT, SET, PULSE],
        [WAIT, WAIT, PULSE, PULSE],
        [WAIT, WAIT, WAIT, PULSE],
        [WAIT, SET, PULSE, CLEAR_AND_SET],
        [WAIT, WAIT, PULSE, CLEAR_AND_SET],
    ] {
        let states = explore(start(acts, 2), Mutation::None).unwrap();
        println!("event: {states} states");
    }
}

#[test]
fn each_rule_is_needed() {
    use Mutation::*;
    for mutation in [ClearDoesNotCount, WakesInASecondStep, SleeperSaysNothing, WakesOne] {
        let found = explore(start([WAIT, WAIT, PULSE, PULSE], 1), mutation);
        assert_eq!(found, Err("somebody sleeps though it was set"), "{mutation:?}");
    }
}
