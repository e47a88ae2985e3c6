//! Yielding the processor for a moment before going to sleep.
//!
//! Waking a process that sleeps on an idle core of a virtual machine takes some 50 µs; a process
//! that yields instead sees the answer of its peer within 3 µs, whether they share a core or not.
//! So whoever waits first yields, for a budget that adapts: it stays where the answer tends to come
//! within it and falls to nothing where waits turn out long, so that an idle process burns no time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
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
}

impl Patience {
    /// Starts with the full budget.
    pub const fn new() -> Self {
        Patience { budget: AtomicU32::new(u32::MAX), scale: 1 }
    }

    /// Starts with ten times the full budget, for waits for a process to start or to end: the kernel
    /// takes 100 to 200 µs for that.
    pub const fn for_processes() -> Self {
        Patience { budget: AtomicU32::new(u32::MAX), scale: 10 }
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
        let most = longest() * self.scale;
        let budget = Duration::from_nanos(self.budget.load(Relaxed).into()).min(most);
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

    /// Grows to the full budget after a short sleep, halves after a long one.
    fn learn(&self, budget: Duration, waited: Duration, most: Duration) {
        let next = if waited < most * WORTH { most } else { budget / 2 };
        self.budget.store(u32::try_from(next.as_nanos()).unwrap_or(u32::MAX), Relaxed);
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

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
}
