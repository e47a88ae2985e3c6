//! How a worker ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multiproc_process::{Panic, Process};
use serde::{Deserialize, Serialize};

/// See `signal(7)`.
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// How a worker ended, as far as it can be known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Death {
    #[serde(with = "raw_status")]
    pub(crate) status: Option<ExitStatus>,
    pub(crate) panic: Option<Panic>,
    /// The reason that it gave itself.
    reason: Option<String>,
    /// Why the pool has killed it: what it sent could not be received.
    unheard: Option<String>,
    pub(crate) memory: Option<Memory>,
}

/// How memory may have been the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Memory {
    /// The kernel has just killed a process for want of memory, and this may be it.
    OutOfMemoryKiller,
    /// It aborted, as a Rust program does that gets no memory, and had a limit.
    Limit,
}

impl Death {
    /// Asks how the process ended, which has. `limited` tells whether it had a limit of memory, and
    /// `unheard` why it was killed, if it sent what could not be received.
    pub(crate) fn of(
        process: &mut Process<Result<(), String>>,
        limited: bool,
        unheard: Option<String>,
    ) -> Self {
        let mut death = Death { unheard, ..Death::default() };
        match process.join_timeout(Duration::MAX) {
            Ok(Some(Err(reason))) => death.reason = Some(reason),
            Ok(_) => {}
            Err(error) => {
                death.status = error.exit_status();
                death.panic = error.panic().cloned();
            }
        }
        death.memory = match death.status.and_then(|status| status.signal()) {
            Some(SIGKILL) if kernel_has_killed() => Some(Memory::OutOfMemoryKiller),
            Some(SIGABRT) if limited => Some(Memory::Limit),
            _ => None,
        };
        death
    }
}

impl Death {
    /// Whether what it had sent is lost: of tasks that it began nobody knows what came of them.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard.is_some()
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.panic, &self.reason, self.status) {
            (Some(panic), ..) => write!(f, "panicked: {panic}"),
            (_, Some(reason), _) => write!(f, "failed: {reason}"),
            (_, _, Some(status)) if status.code().is_some() => write!(f, "ended ({status})"),
            (_, _, Some(status)) => write!(f, "was killed ({status})"),
            _ => f.write_str("ended, and how is not known"),
        }?;
        if let Some(unheard) = &self.unheard {
            write!(f, ", since what it sent could not be received: {unheard}")?;
        }
        match self.memory {
            Some(Memory::OutOfMemoryKiller) => {
                f.write_str(", it seems by the kernel, for want of memory")
            }
            Some(Memory::Limit) => f.write_str(", perhaps at its limit of memory"),
            None => Ok(()),
        }
    }
}

/// A status as the number that the kernel has for it.
mod raw_status {
    use super::{Deserialize, ExitStatus, ExitStatusExt, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        status: &Option<ExitStatus>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        status.map(ExitStatus::into_raw).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ExitStatus>, D::Error> {
        Ok(Option::<i32>::deserialize(deserializer)?.map(ExitStatus::from_raw))
    }
}

/// The processes that the kernel has killed for want of memory. Which ones they were, it does not say.
struct Kills {
    counted: u64,
    /// Those of them that no death was put down to.
    open: u64,
    /// When the last of them was noticed.
    noticed: Instant,
}

impl Kills {
    /// For so long a death may be one that was noticed before.
    const FRESH: Duration = Duration::from_secs(1);

    /// What there is to know by now; `None` if nothing.
    fn now() -> Option<MutexGuard<'static, Option<Self>>> {
        static KILLS: Mutex<Option<Kills>> = Mutex::new(None);
        let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
        let counter = counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        let now = counter.trim().parse().ok()?;
        let mut kills = KILLS.lock().unwrap_or_else(PoisonError::into_inner);
        let noticed = Instant::now();
        kills.get_or_insert(Kills { counted: now, open: 0, noticed }).count(now, noticed);
        Some(kills)
    }

    fn count(&mut self, counted: u64, noticed: Instant) {
        if noticed.duration_since(self.noticed) >= Self::FRESH {
            self.open = 0;
        }
        // Somebody else may have counted later, and come here before.
        let new = counted.saturating_sub(self.counted);
        if new > 0 {
            *self = Kills { counted: self.counted + new, open: self.open + new, noticed };
        }
    }

    /// Puts a death down to one of them.
    fn take(&mut self) -> bool {
        let one = self.open > 0;
        self.open -= u64::from(one);
        one
    }
}

/// Counts what the kernel has killed so far, which is to be no reason for deaths that come later.
pub(crate) fn count_kernel_kills() {
    let _counted = Kills::now();
}

/// Tells whether a death may be one of those by which the kernel got memory.
fn kernel_has_killed() -> bool {
    Kills::now().and_then(|mut kills| kills.as_mut().map(Kills::take)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::{Duration, Instant, Kills};

    #[test]
    fn each_kill_is_the_reason_of_one_death_soon_after() {
        let start = Instant::now();
        let mut kills = Kills { counted: 7, open: 0, noticed: start };
        assert!(!kills.take());
        // Two at once.
        kills.count(9, start);
        assert!(kills.take());
        kills.count(9, start);
        assert!(kills.take() && !kills.take());
        // Counted out of turn.
        kills.count(11, start);
        kills.count(10, start);
        assert!(kills.take() && kills.take() && !kills.take());
        // Too long ago.
        kills.count(12, start);
        kills.count(12, start + Kills::FRESH - Duration::from_nanos(1));
        assert_eq!(kills.open, 1);
        kills.count(12, start + Kills::FRESH);
        assert!(!kills.take());
        kills.count(13, start + 2 * Kills::FRESH);
        assert!(kills.take() && !kills.take());
    }
}
