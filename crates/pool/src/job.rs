//! Tasks as they wait, and results as they are collected.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::image::ENTRY_SIZE;
use multiproc_os::patience::Patience;
use multiproc_wire::Message;
use serde::Serialize;

use crate::error::{Error, Kind, TaskError};

/// Encoded tasks of one function.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) entry: [u8; ENTRY_SIZE],
    pub(crate) arguments: Arguments,
    /// The number of its first task among all that its caller handed in.
    pub(crate) first: usize,
    pub(crate) collector: Arc<Collector>,
    /// The mean time of a task so far, in nanoseconds. Zero before any was measured.
    task_nanos: AtomicU64,
}

impl Job {
    pub(crate) fn new(
        entry: [u8; ENTRY_SIZE],
        arguments: Arguments,
        first: usize,
        collector: Arc<Collector>,
    ) -> Self {
        Job { entry, arguments, first, collector, task_nanos: AtomicU64::new(0) }
    }

    /// Takes in how long some tasks took.
    pub(crate) fn learn(&self, tasks: usize, nanos: u64) {
        let mean = nanos / tasks.max(1) as u64;
        let before = self.task_nanos.load(Relaxed);
        let now = if before == 0 { mean } else { (before + mean) / 2 };
        self.task_nanos.store(now.max(1), Relaxed);
    }

    /// How many of the waiting tasks are to go to a worker at once.
    ///
    /// Enough to make the message's cost small, and few enough that all workers end together.
    pub(crate) fn chunk(&self, waiting: usize, workers: usize) -> usize {
        const WORTH_A_MESSAGE: Duration = Duration::from_millis(2);
        const UNMEASURED: usize = 16;
        let fair = waiting.div_ceil(workers * 2);
        let long_enough = match self.task_nanos.load(Relaxed) {
            0 => UNMEASURED.min(waiting.div_ceil(workers * 4)),
            nanos => (WORTH_A_MESSAGE.as_nanos() as u64 / nanos) as usize,
        };
        long_enough.clamp(1, fair.max(1))
    }
}

/// The jobs of one caller, as they are made.
pub(crate) struct Jobs<'a> {
    entry: [u8; ENTRY_SIZE],
    collector: &'a Arc<Collector>,
    done: Vec<Job>,
    /// Tasks that go into one job.
    open: Arguments,
    /// How many tasks there are.
    count: usize,
}

impl<'a> Jobs<'a> {
    pub(crate) fn new(entry: [u8; ENTRY_SIZE], collector: &'a Arc<Collector>) -> Self {
        Jobs { entry, collector, done: Vec::new(), open: Arguments::default(), count: 0 }
    }

    pub(crate) fn push<A: Serialize>(&mut self, argument: A) -> Result<(), Error> {
        let index = self.count;
        self.open.push(argument).map_err(|source| Kind::Argument { index, source })?;
        self.count += 1;
        // A task with handles is a job of its own, so that they go to its worker only. Those that came
        // before it have none.
        if self.open.has_fds() {
            let alone = self.open.split_last();
            self.close(self.count - 1);
            self.open = alone;
            self.close(self.count);
        } else if self.open.len() == u32::MAX as usize {
            self.close(self.count);
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> (Vec<Job>, usize) {
        self.close(self.count);
        (self.done, self.count)
    }

    /// Makes a job of what is open, which ends before task `end`.
    fn close(&mut self, end: usize) {
        let arguments = std::mem::take(&mut self.open);
        if arguments.len() > 0 {
            let first = end - arguments.len();
            self.done.push(Job::new(self.entry, arguments, first, Arc::clone(self.collector)));
        }
    }
}

/// Framed arguments, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    message: Message,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Arguments {
    pub(crate) fn push<A: Serialize>(&mut self, argument: A) -> Result<(), multiproc_wire::Error> {
        self.message.push_framed(argument)?;
        // It is kept until the task is done, and must not keep the task's memory mapped.
        self.message.let_go();
        self.ends.push(self.message.bytes().len());
        Ok(())
    }

    /// Takes off the last, the only one with handles.
    fn split_last(&mut self) -> Self {
        self.ends.pop();
        let start = self.ends.last().copied().unwrap_or(0);
        let message = self.message.split_off(start);
        Arguments { ends: vec![message.bytes().len()], message }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn has_fds(&self) -> bool {
        self.message.has_fds()
    }

    pub(crate) fn bytes(&self, tasks: &Range<usize>) -> &[u8] {
        let end = |task: usize| task.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.message.bytes()[end(tasks.start)..end(tasks.end)]
    }

    pub(crate) fn fds(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.message.fds()
    }
}

/// What came of some tasks.
#[derive(Debug)]
pub(crate) struct Part {
    /// The number of the first, among all that the caller handed in.
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

/// Where the results of a caller's tasks come together, in the order in which they come.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    parts: Mutex<VecDeque<Part>>,
    arrived: Condvar,
    patience: Patience,
}

impl Collector {
    pub(crate) fn put(&self, part: Part) {
        self.parts().push_back(part);
        self.arrived.notify_one();
    }

    /// Waits for results. `None` if the deadline passed first.
    pub(crate) fn take(&self, deadline: Deadline) -> Option<Part> {
        let waited: Result<_, std::convert::Infallible> = self
            .patience
            .wait(|| Ok(self.parts().pop_front().map(Some)), || Ok(self.sleep(deadline)));
        match waited {
            Ok(part) => part,
        }
    }

    fn sleep(&self, deadline: Deadline) -> Option<Part> {
        let mut parts = self.parts();
        loop {
            if let Some(part) = parts.pop_front() {
                return Some(part);
            }
            parts = match deadline.remaining() {
                None => self.arrived.wait(parts).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(time) => {
                    let waited = self.arrived.wait_timeout(parts, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn parts(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
