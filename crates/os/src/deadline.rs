//! Points in time until which a call may wait.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A point on the monotonic clock, or never. It does not move when the wall clock is set.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use multiproc_os::deadline::Deadline;
///
/// assert!(Deadline::after(Duration::ZERO).has_passed());
/// assert!(!Deadline::after(Duration::MAX).has_passed());
/// assert_eq!(Deadline::NEVER.remaining(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(
    /// Time since the clock's start; `None` is never.
    Option<Duration>,
);

impl Deadline {
    /// The call waits as long as it takes.
    pub const NEVER: Deadline = Deadline(None);

    /// The call does not wait.
    pub fn now() -> Self {
        Deadline(Some(clock()))
    }

    /// The call waits for this long. What no clock can count to is never.
    pub fn after(duration: Duration) -> Self {
        Deadline(clock().checked_add(duration).filter(|time| i64::try_from(time.as_secs()).is_ok()))
    }

    /// Gives the one that passes first.
    pub fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(this), Some(that)) => Deadline(Some(this.min(that))),
            (this, that) => Deadline(this.or(that)),
        }
    }

    /// Tells whether the deadline never passes.
    pub fn is_never(self) -> bool {
        self.0.is_none()
    }

    /// Tells whether it has passed.
    pub fn has_passed(self) -> bool {
        self.0.is_some_and(|time| time <= clock())
    }

    /// How long until it passes: zero if it has, `None` if it never does.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|time| time.saturating_sub(clock()))
    }

    /// The point on `CLOCK_MONOTONIC` in nanoseconds: the greatest number for never.
    pub fn nanos(self) -> u64 {
        self.0.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The point that [`nanos`](Deadline::nanos) gave, or one that was calculated from it.
    pub fn from_nanos(nanos: u64) -> Self {
        Deadline((nanos < u64::MAX).then(|| Duration::from_nanos(nanos)))
    }

    /// The point on `CLOCK_MONOTONIC`, for calls that take an absolute time.
    pub fn timespec(self) -> Option<Timespec> {
        self.0.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        })
    }
}

fn clock() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
