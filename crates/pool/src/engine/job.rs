//! Tasks as they wait.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use multiproc_os::image::ENTRY_SIZE;
use multiproc_wire::Message;
use serde::Serialize;

use super::batch::{Batch, Content, Part};
use crate::error::{Error, Kind, TaskError};

/// Encoded tasks of one function.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) entry: [u8; ENTRY_SIZE],
    pub(crate) arguments: Arguments,
    /// The number of its first task in its batch.
    pub(crate) first: usize,
    pub(crate) batch: Arc<Batch>,
    /// How many workers have died of a task, for those of which any did.
    deaths: Mutex<BTreeMap<usize, u32>>,
}

/// Consecutive tasks of a job.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) job: Arc<Job>,
    pub(crate) tasks: Range<usize>,
}

impl Job {
    pub(crate) fn new(
        entry: [u8; ENTRY_SIZE],
        arguments: Arguments,
        first: usize,
        batch: Arc<Batch>,
    ) -> Self {
        Job { entry, arguments, first, batch, deaths: Mutex::default() }
    }

    /// Counts the death of a worker that ran the task. Gives how many there were.
    pub(crate) fn count_death(&self, task: usize) -> u32 {
        let mut deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        let deaths = deaths.entry(task).or_default();
        *deaths += 1;
        *deaths
    }
}

impl Work {
    /// All tasks of the job.
    pub(crate) fn all(job: Job) -> Self {
        Work { tasks: 0..job.arguments.len(), job: Arc::new(job) }
    }

    /// Takes off the first so many tasks.
    pub(crate) fn take_first(&mut self, count: usize) -> Self {
        let start = self.tasks.start;
        self.tasks.start += count;
        Work { job: Arc::clone(&self.job), tasks: start..start + count }
    }

    /// Takes off the last so many tasks.
    pub(crate) fn take_last(&mut self, count: usize) -> Self {
        let end = self.tasks.end;
        self.tasks.end -= count;
        Work { job: Arc::clone(&self.job), tasks: end - count..end }
    }

    /// Hands in the outcomes of the first so many tasks, and takes those off.
    pub(crate) fn finish(&mut self, count: usize, outcomes: Message) {
        self.put(count, Content::Outcomes(outcomes));
    }

    /// Fails the first task, and takes it off.
    pub(crate) fn fail_first(&mut self, error: TaskError) {
        self.put(1, Content::Failed(error));
    }

    /// Fails all tasks.
    pub(crate) fn fail(mut self, error: TaskError) {
        if !self.tasks.is_empty() {
            self.put(self.tasks.len(), Content::Failed(error));
        }
    }

    fn put(&mut self, count: usize, content: Content) {
        let first = self.job.first + self.tasks.start;
        self.tasks.start += count;
        self.job.batch.put(Part { first, count, content });
    }
}

/// The jobs of one batch, as they are made.
pub(crate) struct Jobs<'a> {
    entry: [u8; ENTRY_SIZE],
    batch: &'a Arc<Batch>,
    done: Vec<Work>,
    /// Tasks that go into one job.
    open: Arguments,
    /// How many tasks there are, those before the first job among them.
    count: usize,
}

impl<'a> Jobs<'a> {
    /// Starts with no task; the first will have this number.
    pub(crate) fn new(entry: [u8; ENTRY_SIZE], batch: &'a Arc<Batch>, first: usize) -> Self {
        Jobs { entry, batch, done: Vec::new(), open: Arguments::default(), count: first }
    }

    pub(crate) fn push<A: Serialize>(&mut self, argument: A) -> Result<(), Error> {
        let index = self.count;
        self.open.push(argument).map_err(|source| Kind::Argument { index, source })?;
        self.count += 1;
        // A task with handles is a job of its own, so that they go to its worker only. Those that came
        // before it have none.
        if self.open.message.has_fds() {
            let alone = self.open.split_last();
            self.close(self.count - 1);
            self.open = alone;
            self.close(self.count);
        } else if self.open.len() >= Self::LONGEST {
            self.close(self.count);
        }
        Ok(())
    }

    /// Gives the jobs, and how many tasks there are.
    pub(crate) fn finish(mut self) -> (Vec<Work>, usize) {
        self.close(self.count);
        (self.done, self.count)
    }

    /// A worker counts its tasks in 32 bits.
    const LONGEST: usize = 1 << 24;

    /// Makes a job of what is open, which ends before task `end`.
    fn close(&mut self, end: usize) {
        let arguments = mem::take(&mut self.open);
        if arguments.len() > 0 {
            let first = end - arguments.len();
            let job = Job::new(self.entry, arguments, first, Arc::clone(self.batch));
            self.done.push(Work::all(job));
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
    fn push<A: Serialize>(&mut self, argument: A) -> Result<(), multiproc_wire::Error> {
        let start = self.ends.last().copied().unwrap_or(0);
        let message = &mut self.message;
        let pushed = catch_unwind(AssertUnwindSafe(|| message.push_framed(argument)));
        pushed.unwrap_or_else(|payload| {
            self.message.truncate(start);
            resume_unwind(payload)
        })?;
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

    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.message.fds()
    }
}
