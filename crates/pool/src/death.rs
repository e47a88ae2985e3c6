//! How a worker ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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
    /// The kernel has killed a process for want of memory since this was last looked at.
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

/// Tells whether the kernel has killed a process for want of memory since this was asked before.
/// Which one it was, it does not say.
pub(crate) fn kernel_has_killed() -> bool {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let Ok(counters) = std::fs::read_to_string("/proc/vmstat") else { return false };
    let counter = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    let Some(now) = counter.and_then(|count| count.trim().parse().ok()) else { return false };
    SEEN.fetch_max(now, Relaxed) < now
}
