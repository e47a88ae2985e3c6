//! What the tasks of one call have in common, and where their results come together.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::patience::Patience;
use multiproc_wire::Message;

use super::bells::Bells;
use crate::context::Sent;
use crate::error::TaskError;
use crate::options::Options;

/// The tasks of one call.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) options: Options,
    /// No task is begun after it.
    pub(crate) deadline: Option<Deadline>,
    /// The argument that all share.
    pub(crate) context: Option<Sent>,
    results: Mutex<Results>,
    arrived: Condvar,
    patience: Patience,
    pace: Arc<Pace>,
    cancelled: AtomicBool,
    /// Those of its pool, if it has one: the dispatcher is to look at the workers when somebody begins
    /// to wait for long.
    bells: Option<Arc<Bells>>,
    /// It was asked to since results came.
    attended: AtomicBool,
}

/// How long the tasks of a function take.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The mean so far, in nanoseconds. Zero before any was measured.
    nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct Results {
    parts: VecDeque<Part>,
    /// Somebody sleeps until there are some.
    sleeps: bool,
    /// Who polls for them.
    waker: Option<Waker>,
}

/// What came of some tasks.
#[derive(Debug)]
pub(crate) struct Part {
    /// The number of the first in the batch.
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    /// Framed outcomes.
    Outcomes(Message),
    /// All of them failed, and this is why.
    Failed(TaskError),
}

impl Batch {
    /// Makes one without tasks. The pace is that of their function, and the bells those of the pool.
    pub(crate) fn new(
        options: Options,
        context: Option<Sent>,
        pace: Arc<Pace>,
        bells: Arc<Bells>,
    ) -> Self {
        let deadline = options.deadline.map(Deadline::after);
        Batch { options, deadline, context, pace, bells: Some(bells), ..Batch::default() }
    }

    /// Tasks that were sent to a worker without the dispatcher are its concern once they take long: the
    /// worker may be stopped, while another has nothing to do.
    fn attend(&self) {
        if !self.attended.swap(true, Relaxed)
            && let Some(bells) = &self.bells
        {
            bells.call();
        }
    }

    /// Takes in how long some tasks took.
    pub(crate) fn learn(&self, tasks: usize, nanos: u64) {
        let mean = nanos / tasks.max(1) as u64;
        let before = self.pace.nanos.load(Relaxed);
        let now = if before == 0 { mean } else { (before + mean) / 2 };
        self.pace.nanos.store(now.max(1), Relaxed);
    }

    /// How long so many tasks will take, going by those before. `None` if there were none.
    pub(crate) fn expected(&self, tasks: usize) -> Option<Duration> {
        match self.pace.nanos.load(Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos.saturating_mul(tasks as u64))),
        }
    }

    /// How many of the waiting tasks are to go to a worker in one message.
    ///
    /// Enough to make the message's cost small, and few enough that all workers end together.
    pub(crate) fn room(&self, waiting: usize, workers: usize) -> usize {
        const WORTH_A_MESSAGE: Duration = Duration::from_millis(2);
        const UNMEASURED: usize = 16;
        let fair = waiting.div_ceil(workers.max(1) * 2);
        let long_enough = match self.pace.nanos.load(Relaxed) {
            0 => UNMEASURED.min(waiting.div_ceil(workers.max(1) * 4)),
            nanos => (WORTH_A_MESSAGE.as_nanos() as u64 / nanos) as usize,
        };
        long_enough.clamp(1, fair.max(1))
    }

    /// From now on nothing is taken in. What is there already stands.
    pub(crate) fn cancel(&self) {
        let results = self.results();
        self.cancelled.store(true, Relaxed);
        self.tell(results);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    pub(crate) fn put(&self, part: Part) {
        let mut results = self.results();
        if !self.is_cancelled() {
            results.parts.push_back(part);
            self.tell(results);
        }
    }

    fn tell(&self, mut results: MutexGuard<'_, Results>) {
        let waker = results.waker.take();
        let sleeps = std::mem::take(&mut results.sleeps);
        drop(results);
        if sleeps {
            self.arrived.notify_one();
        }
        if let (Some(waker), Some(bells)) = (waker, &self.bells) {
            bells.ring_later(waker);
        }
    }

    /// Waits for results. `None` if the deadline passed first, or the batch was cancelled.
    pub(crate) fn take(&self, deadline: Deadline) -> Option<Part> {
        let attempt = || Ok::<_, Infallible>(self.try_take());
        match self.patience.wait(attempt, || Ok(self.sleep(deadline))) {
            Ok(part) => part,
        }
    }

    /// Takes what is there, or has the task woken when something is.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Part>> {
        if let Some(taken) = self.try_take() {
            return Poll::Ready(taken);
        }
        let mut results = self.results();
        if !results.parts.is_empty() || self.is_cancelled() {
            return Poll::Ready(results.parts.pop_front());
        }
        let waker = context.waker();
        if !results.waker.as_ref().is_some_and(|before| before.will_wake(waker)) {
            let _before = results.waker.replace(waker.clone());
        }
        drop(results);
        self.attend();
        Poll::Pending
    }

    fn try_take(&self) -> Option<Option<Part>> {
        let part = self.results().parts.pop_front();
        if part.is_some() {
            self.attended.store(false, Relaxed);
        }
        (part.is_some() || self.is_cancelled()).then_some(part)
    }

    fn sleep(&self, deadline: Deadline) -> Option<Part> {
        self.attend();
        let mut results = self.results();
        loop {
            if let Some(part) = results.parts.pop_front() {
                return Some(part);
            }
            if self.is_cancelled() {
                return None;
            }
            results.sleeps = true;
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

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
