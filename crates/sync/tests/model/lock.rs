//! The lock.

use crate::{World, explore};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// A taker clears `WAITERS`.
    TakerForgetsWaiters,
    /// A contended release stores 0, and wakes.
    ReleaseForgetsWaiters,
    /// The turn stays the same.
    NoTurn,
    /// `WAITERS` is taken away after a wake that found somebody too.
    ClearsInAnyCase,
    /// Operations are not announced: the kernel sees the list only.
    NotAnnounced,
    /// Store and wake are two steps, and the operation is not announced in between.
    WakesInASecondStep,
    /// Who finds only when it releases that it was waited for has taken `WAITERS` away by then.
    ReleaseSwaps,
    /// Whose time is over goes without a last try, though it was woken.
    GivesUpWhenWoken,
    /// A taker does not mark what the dead have left.
    TakerForgetsPoison,
}

/// The lock's state: the word, and the turn.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Word {
    /// A thread's number from 1; 0 is nobody.
    owner: u8,
    waiters: bool,
    owner_died: bool,
    turn: u8,
}

impl Word {
    const FREE: Word = Word { owner: 0, waiters: false, owner_died: false, turn: 0 };

    /// Without the turn, which the kernel does not compare.
    fn same_word(self, other: Word) -> bool {
        Word { turn: other.turn, ..self } == other
    }

    fn taken_by(self, thread: u8, mutation: Mutation) -> Word {
        let waiters = self.waiters && mutation != Mutation::TakerForgetsWaiters;
        let turn = self.turn + u8::from(waiters && mutation != Mutation::NoTurn);
        Word { owner: thread, waiters, owner_died: false, turn }
    }
}

/// What a thread does next. What it has loaded is with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Next {
    Announce,
    Load,
    Take(Word),
    Poison(Word),
    Link(Word),
    Use(Word),
    Unlink(Word),
    Release(Word),
    StoreAndWake(Word),
    /// The second half, where that is two steps: for who was not waited for when it took the lock.
    Wake(Word),
    Clear(Word),
    Conclude,
    PrepareSleep,
    SetWaiters(Word),
    Wait(Word),
    Asleep,
    /// Was woken when its time was over.
    LastTry,
    Done,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Thread {
    next: Next,
    announced: bool,
    linked: bool,
    /// How often it takes the lock yet.
    rounds: u8,
}

const MOST: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    word: Word,
    poisoned: bool,
    /// Somebody has died in the middle of its work, and nobody has repaired that.
    broken: bool,
    threads: [Thread; MOST],
    deaths_left: u8,
    timeouts_left: u8,
}

impl State {
    /// Of so many threads that each take the lock so often.
    fn start(threads: usize, rounds: u8, deaths: u8, timeouts: u8) -> Self {
        let idle = Thread { next: Next::Done, announced: false, linked: false, rounds };
        let mut state = State {
            word: Word::FREE,
            poisoned: false,
            broken: false,
            threads: [idle; MOST],
            deaths_left: deaths,
            timeouts_left: timeouts,
        };
        state.threads[..threads].iter_mut().for_each(|thread| thread.next = Next::Announce);
        state
    }

    fn asleep(&self) -> impl Iterator<Item = usize> {
        (0..MOST).filter(|index| self.threads[*index].next == Next::Asleep)
    }

    /// The lock's value becomes another if it is as it was seen.
    fn exchange(&mut self, seen: Word, new: Word) -> bool {
        let same = self.word == seen;
        if same {
            self.word = new;
        }
        same
    }

    /// All that can come of waking one sleeper, and whether there was one.
    fn wake_one(self, mutation: Mutation) -> Vec<(State, bool)> {
        let mut found = Vec::new();
        for sleeper in self.asleep() {
            let mut woken = self;
            woken.threads[sleeper].next = Next::Load;
            found.push((woken, true));
            if mutation == Mutation::GivesUpWhenWoken && self.timeouts_left > 0 {
                woken.threads[sleeper].next = Next::Conclude;
                woken.timeouts_left -= 1;
                found.push((woken, true));
            }
        }
        if found.is_empty() {
            found.push((self, false));
        }
        found
    }

    /// All that can be after the thread has made one step.
    fn step(mut self, index: usize, mutation: Mutation) -> Vec<State> {
        use Next::*;
        let number = index as u8 + 1;
        let next = match self.threads[index].next {
            Announce => {
                self.threads[index].announced = mutation != Mutation::NotAnnounced;
                Load
            }
            Load | LastTry if self.word.owner == 0 => Take(self.word),
            Load => PrepareSleep,
            LastTry => Conclude,
            Take(seen) => {
                let taken = seen.taken_by(number, mutation);
                match self.exchange(seen, taken) {
                    true if seen.owner_died && mutation != Mutation::TakerForgetsPoison => {
                        Poison(taken)
                    }
                    true => Link(taken),
                    false => Load,
                }
            }
            Poison(taken) => {
                self.poisoned = true;
                Link(taken)
            }
            Link(taken) => {
                self.threads[index].linked = true;
                Use(taken)
            }
            Use(taken) => {
                // Whoever sees the poison repairs what is broken and says so.
                if self.poisoned {
                    (self.poisoned, self.broken) = (false, false);
                }
                Unlink(taken)
            }
            Unlink(taken) => {
                self.threads[index].linked = false;
                Release(taken)
            }
            Release(taken) if taken.waiters => StoreAndWake(taken),
            Release(_) => {
                let left = Word { owner: 0, ..self.word };
                let waiters = left.waiters && mutation != Mutation::ReleaseSwaps;
                self.word = Word { waiters, ..left };
                if left.waiters { Wake(left) } else { Conclude }
            }
            StoreAndWake(Word { turn, .. }) => {
                let waiters = mutation != Mutation::ReleaseForgetsWaiters;
                self.word = Word { waiters, turn, ..Word::FREE };
                if mutation != Mutation::WakesInASecondStep {
                    return self.wake(index, turn, mutation);
                }
                self.threads[index].announced = false;
                Wake(self.word)
            }
            Wake(Word { turn, .. }) => return self.wake(index, turn, mutation),
            Clear(Word { turn, .. }) => {
                let free = Word { turn, ..Word::FREE };
                self.exchange(Word { waiters: true, ..free }, free);
                Conclude
            }
            Conclude => {
                let thread = &mut self.threads[index];
                thread.announced = false;
                thread.rounds -= 1;
                if thread.rounds == 0 { Done } else { Announce }
            }
            PrepareSleep => match self.word {
                Word { owner: 0, .. } => Load,
                seen @ Word { waiters: true, .. } => Wait(seen),
                seen => SetWaiters(seen),
            },
            SetWaiters(seen) => {
                let waiting = Word { waiters: true, ..seen };
                if self.exchange(seen, waiting) { Wait(waiting) } else { Load }
            }
            Wait(seen) if self.word.same_word(seen) => Asleep,
            Wait(_) => Load,
            Asleep | Done | Dead => return Vec::new(),
        };
        self.threads[index].next = next;
        vec![self]
    }

    /// The thread wakes one, and takes `WAITERS` away if there was none.
    fn wake(self, index: usize, turn: u8, mutation: Mutation) -> Vec<State> {
        let clear = Next::Clear(Word { turn, ..Word::FREE });
        let after = |(mut state, woken): (State, bool)| {
            let skip = woken && mutation != Mutation::ClearsInAnyCase;
            state.threads[index].next = if skip { Next::Conclude } else { clear };
            state
        };
        self.wake_one(mutation).into_iter().map(after).collect()
    }

    /// All that can be after the time of a sleeper is over.
    fn time_out(mut self, index: usize) -> Option<State> {
        let possible = self.timeouts_left > 0 && self.threads[index].next == Next::Asleep;
        self.timeouts_left = self.timeouts_left.checked_sub(1)?;
        self.threads[index].next = Next::LastTry;
        possible.then_some(self)
    }

    /// All that can be after the thread was killed, and the kernel has walked its list.
    fn kill(mut self, index: usize, mutation: Mutation) -> Vec<State> {
        use Next::*;
        let thread = self.threads[index];
        if self.deaths_left == 0 || matches!(thread.next, Done | Dead) {
            return Vec::new();
        }
        self.deaths_left -= 1;
        self.threads[index].next = Dead;
        // It has written, and perhaps not all.
        self.broken |= matches!(thread.next, Unlink(_));
        let owns = self.word.owner == index as u8 + 1;
        let wake = if (thread.linked || thread.announced) && owns {
            self.word = Word { owner: 0, owner_died: true, ..self.word };
            self.word.waiters
        } else {
            thread.announced && self.word.owner == 0
        };
        if !wake {
            return vec![self];
        }
        self.wake_one(mutation).into_iter().map(|(state, _)| state).collect()
    }
}

impl World for State {
    type Mutation = Mutation;

    fn go_on(&self, mutation: Mutation, add: impl FnMut(Self)) {
        let all = (0..MOST).flat_map(|index| {
            let steps = self.step(index, mutation).into_iter();
            steps.chain(self.time_out(index)).chain(self.kill(index, mutation))
        });
        all.for_each(add);
    }

    fn check(&self) -> Result<(), &'static str> {
        use Next::*;
        let living = || self.threads.iter().map(|thread| thread.next);
        let holders = living()
            .filter(|next| matches!(next, Poison(_) | Link(_) | Use(_) | Unlink(_) | Release(_)))
            .count();
        if holders > 1 {
            return Err("two hold the lock");
        }
        if self.broken && !self.poisoned && living().any(|next| matches!(next, Use(_))) {
            return Err("a death goes unseen");
        }
        let over = living().all(|next| matches!(next, Asleep | Done | Dead));
        if over && living().any(|next| next == Asleep) {
            return Err("somebody sleeps for ever");
        }
        Ok(())
    }
}

#[test]
fn no_interleaving_breaks_the_lock() {
    // Threads, how often each takes the lock, how many are killed, how many waits run out of time.
    for (threads, rounds, deaths, timeouts) in [(2, 3, 2, 2), (3, 2, 2, 1), (4, 1, 2, 0)] {
        let start = State::start(threads, rounds, deaths, timeouts);
        let states = explore(start, Mutation::None).unwrap();
        println!("{threads} threads, {rounds} rounds, {deaths} deaths: {states} states");
    }
}

#[test]
fn each_rule_is_needed() {
    use Mutation::*;
    let start = State::start(4, 1, 1, 1);
    let asleep = [
        TakerForgetsWaiters,
        ReleaseForgetsWaiters,
        NoTurn,
        ClearsInAnyCase,
        NotAnnounced,
        WakesInASecondStep,
        ReleaseSwaps,
        GivesUpWhenWoken,
    ];
    for mutation in asleep {
        let found = explore(start, mutation);
        assert_eq!(found, Err("somebody sleeps for ever"), "{mutation:?}");
    }
    assert_eq!(explore(start, TakerForgetsPoison), Err("a death goes unseen"));
}
