//! The tasks of one call, and where their results come together.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use multiproc_os::deadline::Deadline;
use multiproc_os::image::ENTRY_SIZE;
use multiproc_pool::TaskError;

/// What holds for the tasks that are handed in through one handle of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) chunk_size: Option<usize>,
    pub(crate) timeout: Option<Duration>,
}

/// The tasks of one call.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) job: u64,
    pub(crate) entry: [u8; ENTRY_SIZE],
    pub(crate) settings: Settings,
    pub(crate) pace: Arc<Pace>,
    results: Mutex<Results>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Results {
    parts: VecDeque<Part>,
    waker: Option<Waker>,
    cancelled: bool,
}

/// What came of one task: the encoded value, or why there is none.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) index: usize,
    pub(crate) outcome: Result<Bytes, TaskError>,
}

/// How long the tasks of a function take: the mean so far, in nanoseconds; zero before any has run.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    pub(crate) fn forget(&self) {
        self.0.store(0, Relaxed);
    }

    pub(crate) fn learn(&self, tasks: usize, nanos: u64) {
        let mean = nanos / tasks.max(1) as u64;
        let before = self.0.load(Relaxed);
        let now = if before == 0 { mean } else { (before + mean) / 2 };
        self.0.store(now.max(1), Relaxed);
    }

    /// How long one takes, if one has run.
    pub(crate) fn mean(&self) -> Option<Duration> {
        Some(self.0.load(Relaxed)).filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }

    /// How many of the waiting tasks make a chunk: enough to make its cost small, and few enough that
    /// all workers end together.
    pub(crate) fn room(&self, waiting: usize, workers: usize) -> usize {
        const WORTH_A_CHUNK: Duration = Duration::from_millis(10);
        const UNMEASURED: usize = 16;
        let fair = waiting.div_ceil(workers.max(1) * 2);
        let long_enough = match self.mean() {
            None => UNMEASURED.min(waiting.div_ceil(workers.max(1) * 4)),
            Some(mean) => (WORTH_A_CHUNK.as_nanos() / mean.as_nanos()) as usize,
        };
        long_enough.clamp(1, fair.max(1))
    }
}

impl Batch {
    pub(crate) fn new(
        job: u64,
        entry: [u8; ENTRY_SIZE],
        settings: Settings,
        pace: Arc<Pace>,
    ) -> Self {
        let (results, arrived) = (Mutex::default(), Condvar::new());
        Batch { job, entry, settings, pace, results, arrived }
    }

    pub(crate) fn put(&self, parts: Vec<Part>) {
        let mut results = self.results();
        if !results.cancelled && !parts.is_empty() {
            results.parts.extend(parts);
            self.tell(results);
        }
    }

    /// From now on nothing is taken in. What is there already stands.
    pub(crate) fn cancel(&self) {
        let mut results = self.results();
        results.cancelled = true;
        self.tell(results);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.results().cancelled
    }

    fn tell(&self, mut results: MutexGuard<'_, Results>) {
        let waker = results.waker.take();
        drop(results);
        self.arrived.notify_one();
        if let Some(waker) = waker {
            // It is code of the user, and must not end the driver.
            let _panicked = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Waits for results. `None` if the deadline passed first, or the batch was cancelled.
    pub(crate) fn take(&self, deadline: Deadline) -> Option<VecDeque<Part>> {
        let mut results = self.results();
        loop {
            if !results.parts.is_empty() {
                return Some(std::mem::take(&mut results.parts));
            }
            if results.cancelled {
                return None;
            }
            results = match deadline.remaining() {
                None => self.arrived.wait(results).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(time) => {
                    let waited = self.arrived.wait_timeout(results, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes what is there, or has the task woken when something is.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<VecDeque<Part>>> {
        let mut results = self.results();
        if !results.parts.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut results.parts)));
        }
        if results.cancelled {
            return Poll::Ready(None);
        }
        results.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
