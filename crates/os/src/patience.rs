//! Yielding the processor for a moment before going to sleep.
//!
//! Waking a process that sleeps on an idle core of a virtual machine takes some 50 µs; a process
//! that yields instead sees the answer of its peer within 3 µs, whether they share a core or not.
//! So whoever waits first yields, for a budget that adapts: it stays where the answer tends to come
//! within it and falls to nothing where waits turn out long, so that an idle process burns no time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The environment variable that sets the longest time, in microseconds, that a wait yields before
/// it sleeps. `0` turns yielding off.
pub const VARIABLE: &str = "MULTIPROC_YIELD_US";

const DEFAULT_MICROS: u32 = 20;

/// A wait that took less than this many budgets would have been worth yielding for.
const WORTH: u32 = 4;

/// How long the next wait at one place yields before it sleeps.
#[derive(Debug)]
pub struct Patience {
    /// In nanoseconds.
    budget: AtomicU32,
    /// How many times the usual budget is the full one.
    scale: u32,
    /// For how many [turns](Turn), at least, nothing was there at the first attempt.
    late: AtomicU8,
}

impl Patience {
    /// Starts with the full budget.
    pub const fn new() -> Self {
        Patience { budget: AtomicU32::new(u32::MAX), scale: 1, late: AtomicU8::new(0) }
    }

    /// Starts with ten times the full budget, for waits for a process to start or to end: the kernel
    /// takes 100 to 200 µs for that.
    pub const fn for_processes() -> Self {
        Patience { budget: AtomicU32::new(u32::MAX), scale: 10, late: AtomicU8::new(0) }
    }

    /// Tries until it gives something: at once, then between yields for the length of the budget,
    /// and then by `sleep`, which blocks until the thing is there or its own deadline passed.
    #[inline]
    pub fn wait<T, E>(
        &self,
        mut attempt: impl FnMut() -> Result<Option<T>, E>,
        sleep: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        match attempt()? {
            Some(value) => Ok(value),
            None => self.wait_on(attempt, sleep),
        }
    }

    /// Waits as [`wait`](Patience::wait) does, for a caller that has just tried.
    pub fn wait_on<T, E>(
        &self,
        mut attempt: impl FnMut() -> Result<Option<T>, E>,
        sleep: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let (budget, most) = self.budget();
        let start = Instant::now();
        while start.elapsed() < budget {
            rustix::thread::sched_yield();
            if let Some(value) = attempt()? {
                return Ok(value);
            }
        }
        let result = sleep();
        self.learn(budget, start.elapsed(), most);
        result
    }

    /// Begins a wait whose caller makes the attempts himself, and so at a single place, which costs
    /// less: where a call returns right behind a system call, the processor has lost its prediction.
    #[inline]
    pub fn turn(&self) -> Turn<'_> {
        Turn { patience: self, start: None, yielded: false, slept: false }
    }

    /// How long the next wait yields, and for how long at most any does.
    fn budget(&self) -> (Duration, Duration) {
        let most = longest() * self.scale;
        (Duration::from_nanos(self.budget.load(Relaxed).into()).min(most), most)
    }

    /// Grows to the full budget after a short sleep, halves after a long one.
    fn learn(&self, budget: Duration, waited: Duration, most: Duration) {
        let next = if waited < most * WORTH { most } else { budget / 2 };
        self.budget.store(u32::try_from(next.as_nanos()).unwrap_or(u32::MAX), Relaxed);
    }
}

/// One wait: see [`Patience::turn`].
#[derive(Debug)]
pub struct Turn<'a> {
    patience: &'a Patience,
    /// When it first yielded or would have.
    start: Option<Instant>,
    yielded: bool,
    slept: bool,
}

impl Turn<'_> {
    /// After so many late turns the next ones yield ahead.
    const ENOUGH: u8 = 4;
    /// Each one of so many makes an attempt first.
    const PROBE: u8 = 16;

    /// Yields ahead of the first attempt if such attempts find nothing lately, which saves them. Now
    /// and then it does not, in order to see whether they still do not.
    #[inline]
    pub fn yield_ahead(&mut self) {
        let late = self.patience.late.load(Relaxed);
        if late >= Self::ENOUGH && !late.is_multiple_of(Self::PROBE) {
            self.try_yield();
        }
    }

    /// Yields after an attempt found nothing, and says whether to make another. If not, the caller is
    /// to sleep.
    #[inline]
    pub fn try_yield(&mut self) -> bool {
        let (budget, _) = self.patience.budget();
        let left = match self.start {
            Some(start) => start.elapsed() < budget,
            None => {
                self.start = Some(Instant::now());
                !budget.is_zero()
            }
        };
        if left {
            rustix::thread::sched_yield();
            self.yielded = true;
        } else {
            self.slept = true;
        }
        left
    }

    /// Learns from the wait, which is over, and whether it found what it was for.
    #[inline]
    pub fn end(self, found: bool) {
        let late = &self.patience.late;
        if !self.yielded && !self.slept {
            if found && late.load(Relaxed) != 0 {
                late.store(0, Relaxed);
            }
            return;
        }
        late.store(late.load(Relaxed).checked_add(1).unwrap_or(Self::ENOUGH), Relaxed);
        if let (true, Some(start)) = (self.slept, self.start) {
            let (budget, most) = self.patience.budget();
            self.patience.learn(budget, start.elapsed(), most);
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
fn longest() -> Duration {
    static LONGEST: OnceLock<Duration> = OnceLock::new();
    *LONGEST.get_or_init(|| {
        let set = std::env::var(VARIABLE).ok().and_then(|text| text.trim().parse().ok());
        Duration::from_micros(set.unwrap_or(DEFAULT_MICROS).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_falls_to_nothing_after_long_waits_and_returns_after_a_short_one() {
        let patience = Patience::new();
        let most = Duration::from_micros(20);
        for _ in 0..40 {
            let budget = Duration::from_nanos(patience.budget.load(Relaxed).into()).min(most);
            patience.learn(budget, Duration::from_millis(5), most);
        }
        assert_eq!(patience.budget.load(Relaxed), 0);
        patience.learn(Duration::ZERO, Duration::from_micros(60), most);
        assert_eq!(patience.budget.load(Relaxed), 20_000);
    }

    #[test]
    fn a_turn_yields_ahead_only_while_first_attempts_find_nothing() {
        let patience = Patience::new();
        if longest().is_zero() {
            return;
        }
        let ahead = |attempts_after: u32| {
            let mut turn = patience.turn();
            turn.yield_ahead();
            let ahead = turn.yielded;
            for _ in 0..attempts_after {
                turn.try_yield();
            }
            turn.end(true);
            ahead
        };
        assert_eq!([1; 6].map(ahead), [false, false, false, false, true, true]);
        // The probes: one finds nothing, the next something.
        let late = (0..1000).map(|_| ahead(0)).take_while(|&ahead| ahead).count();
        assert_eq!(late, usize::from(Turn::PROBE) - 6);
        assert_eq!([0; 6].map(ahead), [false; 6]);
    }

    #[test]
    fn a_turn_without_budget_sleeps_at_once() {
        let patience = Patience { budget: AtomicU32::new(0), ..Patience::new() };
        for _ in 0..40 {
            let mut turn = patience.turn();
            turn.yield_ahead();
            assert!(!turn.try_yield());
            assert!(!turn.yielded);
            turn.slept = false;
            turn.end(true);
        }
    }
}
