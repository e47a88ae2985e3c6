//! Tasks as they wait.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multiproc_os::image::ENTRY_SIZE;
use multiproc_wire::{Message, Series};
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
    /// How often tasks of it were taken back from a worker that had begun none of its assignment.
    moves: AtomicU32,
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
        Job { entry, arguments, first, batch, deaths: Mutex::default(), moves: AtomicU32::new(0) }
    }

    /// Its tasks were taken back from a worker that had begun none of its assignment.
    pub(crate) fn note_move(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    /// For how long a worker may be about to begin an assignment before tasks are taken back from it:
    /// longer each time, or large arguments would go to and fro between two workers that both take
    /// longer to read them. `None` if it has not happened.
    pub(crate) fn patience(&self) -> Option<Duration> {
        const FIRST: Duration = Duration::from_millis(2);
        const MOST: u32 = 9;
        let moves = self.moves.load(Relaxed);
        (moves > 0).then(|| FIRST * (1 << moves.min(MOST)))
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
    /// Arguments that go into one job.
    open: Series,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// The number of the first of them.
    first: usize,
}

impl<'a> Jobs<'a> {
    /// Starts with no task; the first will have this number.
    pub(crate) fn new(entry: [u8; ENTRY_SIZE], batch: &'a Arc<Batch>, first: usize) -> Self {
        Jobs { entry, batch, done: Vec::new(), open: Series::new(), ends: Vec::new(), first }
    }

    /// Adds a task. If its argument fails, or panics, those before it stay.
    #[inline]
    pub(crate) fn push<A: Serialize>(&mut self, argument: A) -> Result<(), Error> {
        if let Err(source) = self.open.push(argument) {
            return Err(Kind::Argument { index: self.first + self.ends.len(), source }.into());
        }
        self.ends.push(self.open.bytes().len());
        if self.open.has_fds() {
            self.close_alone();
        } else if self.ends.len() >= Self::LONGEST {
            self.close();
        }
        Ok(())
    }

    /// Gives the jobs, and how many tasks there are, those before the first job among them.
    pub(crate) fn finish(mut self) -> (Vec<Work>, usize) {
        self.close();
        (self.done, self.first)
    }

    /// A worker counts its tasks in 32 bits.
    const LONGEST: usize = 1 << 24;

    /// Makes a job of what is open.
    fn close(&mut self) {
        let message = mem::take(&mut self.open).into_message();
        let arguments = Arguments { message, ends: mem::take(&mut self.ends) };
        self.close_with(arguments);
    }

    /// Makes a job of the last task, which has handles, so that they go to its worker only. Those that
    /// came before it have none.
    #[cold]
    fn close_alone(&mut self) {
        self.ends.pop();
        let mut message = self.open.split_off(self.ends.last().copied().unwrap_or(0));
        self.close();
        // It is kept until the task is done, and must not keep the task's memory mapped.
        message.let_go();
        self.close_with(Arguments { ends: vec![message.bytes().len()], message });
    }

    fn close_with(&mut self, arguments: Arguments) {
        let count = arguments.len();
        if count > 0 {
            let job = Job::new(self.entry, arguments, self.first, Arc::clone(self.batch));
            self.done.push(Work::all(job));
            self.first += count;
        }
    }
}

/// Framed arguments, one after the other.
#[derive(Debug)]
pub(crate) struct Arguments {
    message: Message,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Arguments {
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
