//! What is told to whoever subscribes to the events of the `tracing` crate: the one place that knows
//! of it. Without the feature these functions are empty.
#![cfg_attr(not(feature = "tracing"), expect(unused_variables))]

use crate::statistics::WorkerStatistics;

/// As the umbrella names this crate.
#[cfg(feature = "tracing")]
const TARGET: &str = "multiproc::pool";

pub(crate) fn worker_started(id: u64, pid: u32) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: TARGET, worker = id + 1, pid, "worker started");
}

pub(crate) fn worker_ended(worker: &WorkerStatistics, how: &dyn std::fmt::Display) {
    #[cfg(feature = "tracing")]
    {
        let WorkerStatistics { number, pid, tasks, .. } = worker;
        tracing::debug!(target: TARGET, worker = number, pid, tasks, "worker {how}");
    }
}

/// In a worker: runs a task within a span of its own, for subscribers that an initializer has set.
#[inline]
pub(crate) fn task<R>(number: u32, run: impl FnOnce() -> R) -> R {
    // It is not moved, which would cost as much as a small task.
    #[cfg(feature = "tracing")]
    return tracing::debug_span!(target: TARGET, "task", number).in_scope(run);
    #[cfg(not(feature = "tracing"))]
    run()
}

pub(crate) fn handed_in(tasks: usize) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: TARGET, tasks, "tasks handed in");
}
