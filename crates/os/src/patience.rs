//! Yielding the processor for a moment before going to sleep.
//!
//! Waking a process that sleeps on an idle core of a virtual machine takes some 50 µs; a process
//! that yields instead sees the answer of its peer within 3 µs, whether they share a core or not.
//! So whoever waits first yields, for a budget that adapts: it stays where the answer tends to come
//! within it and falls to nothing where waits turn out long, so that an idle process burns no time.
//! Nor does anybody yield, but for an attempt now and then, where others keep the core busy: they
//! would have it for whole time slices.

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
    /// How crowded the core has been: so many [`STEP`]s, less one for each yield that was quick since.
    crowd: AtomicU32,
    /// How many turns, at the least, are still to sleep without a yield since the core is crowded.
    rest: AtomicU32,
}

/// What one yield that took too long adds to the crowd.
const STEP: u32 = 256;
/// How many steps the crowd has at most.
const STEPS: u32 = 8;
/// How many turns rest at most, half as many after each step less.
const REST: u32 = 1 << 12;

impl Patience {
    /// Starts with the full budget.
    pub const fn new() -> Self {
        Self::with_scale(1)
    }

    /// Starts with ten times the full budget, for waits for a process to start or to end: the kernel
    /// takes 100 to 200 µs for that.
    pub const fn for_processes() -> Self {
        Self::with_scale(10)
    }

    const fn with_scale(scale: u32) -> Self {
        Patience {
            budget: AtomicU32::new(u32::MAX),
            scale,
            late: AtomicU8::new(0),
            crowd: AtomicU32::new(0),
            rest: AtomicU32::new(0),
        }
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
        let mut turn = self.turn();
        while turn.try_yield() {
            if let Some(value) = attempt()? {
                turn.end(true);
                return Ok(value);
            }
        }
        let result = sleep();
        turn.end(true);
        result
    }

    /// Begins a wait whose caller makes the attempts himself, and so at a single place, which costs
    /// less: where a call returns right behind a system call, the processor has lost its prediction.
    #[inline]
    pub fn turn(&self) -> Turn<'_> {
        Turn { patience: self, start: None, last: None, yielded: false, slept: false, rests: false }
    }

    /// How long the next wait yields, and for how long at most any does.
    fn budget(&self) -> (Duration, Duration) {
        let most = longest() * self.scale;
        (Duration::from_nanos(self.budget.load(Relaxed).into()).min(most), most)
    }

    fn rests(&self) -> bool {
        self.rest.load(Relaxed) != 0
    }

    /// Grows to the full budget after a short sleep, halves after a long one.
    fn learn(&self, budget: Duration, waited: Duration, most: Duration) {
        let next = if waited < most * WORTH { most } else { budget / 2 };
        self.budget.store(u32::try_from(next.as_nanos()).unwrap_or(u32::MAX), Relaxed);
    }

    /// Learns from a yield, which costs as long as others keep the core: those that are busy for whole
    /// time slices, where a sleeper would be let in at once. One of these costs what a thousand
    /// others gain, so that they are soon no more than one of thousands.
    fn learn_yield(&self, took: Duration, most: Duration) {
        let crowd = self.crowd.load(Relaxed);
        if took < most * WORTH {
            self.crowd.store(crowd.saturating_sub(1), Relaxed);
            return;
        }
        let crowd = (crowd + STEP).min(STEP * STEPS);
        self.crowd.store(crowd, Relaxed);
        self.rest.store(REST >> (STEPS - crowd / STEP), Relaxed);
    }
}

/// One wait: see [`Patience::turn`].
#[derive(Debug)]
pub struct Turn<'a> {
    patience: &'a Patience,
    /// When it first looked at the clock.
    start: Option<Instant>,
    /// When it last did, and yielded then.
    last: Option<Instant>,
    yielded: bool,
    slept: bool,
    /// It has slept at once, if there was nothing, and learns nothing from that.
    rests: bool,
}

impl Turn<'_> {
    /// After so many late turns the next ones yield ahead.
    const ENOUGH: u8 = 4;
    /// Each one of so many makes an attempt first.
    const PROBE: u8 = 16;
    /// Each one of so many looks at how long its first yield takes.
    const WATCH: u8 = 8;

    /// Yields ahead of the first attempt if such attempts find nothing lately, which saves them. Now
    /// and then it does not, in order to see whether they still do not.
    #[inline]
    pub fn yield_ahead(&mut self) {
        if self.is_ahead() {
            self.try_yield();
        }
    }

    /// Tells whether this wait is one that [yields ahead](Turn::yield_ahead).
    #[inline]
    pub fn is_ahead(&self) -> bool {
        let late = self.patience.late.load(Relaxed);
        late >= Self::ENOUGH && !late.is_multiple_of(Self::PROBE) && self.will_yield()
    }

    /// Tells whether others keep the core busy, so that an attempt may as well be one that sleeps.
    #[inline]
    pub fn sleeps_at_once(&mut self) -> bool {
        let rest = self.patience.rest.load(Relaxed);
        if rest == 0 {
            return false;
        }
        if rest.is_multiple_of(u32::from(Self::WATCH)) {
            self.start = Some(Instant::now());
            self.slept = true;
        } else {
            // Most look at no clock, which costs more than what else there is to do here.
            self.patience.rest.store(rest - 1, Relaxed);
            self.rests = true;
        }
        true
    }

    /// Tells whether it would [yield](Turn::try_yield), as far as is known without a look at the clock.
    #[inline]
    pub fn will_yield(&self) -> bool {
        !self.patience.budget().0.is_zero() && !self.patience.rests()
    }

    /// Yields after an attempt found nothing, and says whether to make another. If not, the caller is
    /// to sleep.
    #[inline]
    pub fn try_yield(&mut self) -> bool {
        let patience = self.patience;
        let (budget, most) = patience.budget();
        let none = budget.is_zero() || patience.rests();
        // The first yield is often the only one, and then needs no clock.
        let now = (none || self.yielded || self.watches()).then(Instant::now);
        if let (Some(now), Some(last)) = (now, self.last) {
            patience.learn_yield(now - last, most);
        }
        self.start = self.start.or(now);
        let left = match (now, self.start) {
            (Some(now), Some(start)) => now - start < budget && !patience.rests(),
            _ => true,
        };
        if left {
            self.last = now;
            rustix::thread::sched_yield();
            self.yielded = true;
        } else {
            self.last = None;
            self.slept = true;
        }
        left
    }

    /// Whether this one looks at how long its first yield takes.
    #[inline]
    fn watches(&self) -> bool {
        self.patience.crowd.load(Relaxed) != 0
            || self.patience.late.load(Relaxed).is_multiple_of(Self::WATCH)
    }

    /// Learns from the wait, which is over, and whether it found what it was for.
    #[inline]
    pub fn end(self, found: bool) {
        let patience = self.patience;
        let late = &patience.late;
        if !self.yielded && !self.slept {
            if found && !self.rests && late.load(Relaxed) != 0 {
                late.store(0, Relaxed);
            }
            return;
        }
        late.store(late.load(Relaxed).checked_add(1).unwrap_or(Self::ENOUGH), Relaxed);
        let (budget, most) = patience.budget();
        if let (true, Some(start)) = (self.slept, self.start) {
            patience.learn(budget, start.elapsed(), most);
            let rest = &patience.rest;
            rest.store(rest.load(Relaxed).saturating_sub(1), Relaxed);
        } else if let Some(last) = self.last {
            patience.learn_yield(last.elapsed(), most);
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

/// Tells whether anybody yields at all: see [`VARIABLE`].
///
/// # Examples
///
/// ```
/// use multiproc_os::patience;
///
/// let off = std::env::var(patience::VARIABLE).is_ok_and(|micros| micros == "0");
/// assert!(off || patience::is_on());
/// ```
pub fn is_on() -> bool {
    !longest().is_zero()
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
        // No yield takes so long that the core would count as crowded.
        let patience = Patience::with_scale(1 << 20);
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
    fn yields_that_take_too_long_become_rare_and_return_once_they_are_quick() {
        let most = Duration::from_micros(20);
        let (slow, quick) = (Duration::from_millis(3), Duration::from_micros(2));
        let patience = Patience::new();
        // Of so many turns, how many yield while each yield takes so long?
        let yields = |turns: u32, took: Duration| {
            let mut yields = 0;
            for _ in 0..turns {
                if patience.rests() {
                    patience.rest.store(patience.rest.load(Relaxed) - 1, Relaxed);
                } else {
                    patience.learn_yield(took, most);
                    yields += 1;
                }
            }
            yields
        };
        assert_eq!(yields(100, quick), 100);
        assert!((4..12).contains(&yields(10_000, slow)));
        assert!(yields(100_000, slow) < 30);
        yields(REST + STEP * STEPS, quick);
        assert_eq!(yields(100, quick), 100);
        // A single one that is slow costs little.
        yields(1, slow);
        assert!(yields(1000, quick) > 900);
    }

    #[test]
    fn a_turn_on_a_crowded_core_sleeps_at_once_and_counts_its_rest() {
        let patience = Patience { rest: AtomicU32::new(3), ..Patience::new() };
        for left in [2, 1, 0] {
            let mut turn = patience.turn();
            turn.yield_ahead();
            assert!(!turn.try_yield());
            assert!(!turn.yielded);
            turn.end(true);
            assert_eq!(patience.rest.load(Relaxed), left);
        }
        assert!(!patience.turn().sleeps_at_once());
        assert_eq!(patience.turn().try_yield(), !longest().is_zero());
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
