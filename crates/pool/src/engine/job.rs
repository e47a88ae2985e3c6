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
use multiproc_wire::{Message, Series, framed_len};
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
    /// How many they are, and where some of them begin.
    count: usize,
    marks: Vec<usize>,
    /// The number of the first of them.
    first: usize,
}

impl<'a> Jobs<'a> {
    /// Starts with no task; the first will have this number.
    pub(crate) fn new(entry: [u8; ENTRY_SIZE], batch: &'a Arc<Batch>, first: usize) -> Self {
        let (done, open, marks) = (Vec::new(), Series::new(), Vec::new());
        Jobs { entry, batch, done, open, count: 0, marks, first }
    }

    /// Adds a task. If its argument fails, or panics, those before it stay.
    #[inline(always)] // Called for each of many, it would keep nothing in registers.
    pub(crate) fn push<A: Serialize>(&mut self, argument: A) -> Result<(), Error> {
        let start = self.open.bytes().len();
        if let Err(source) = self.open.push(argument) {
            return Err(Kind::Argument { index: self.first + self.count, source }.into());
        }
        if self.open.has_fds() {
            self.close_alone(start);
            return Ok(());
        }
        if self.count.is_multiple_of(Arguments::STRIDE) {
            self.marks.push(start);
        }
        self.count += 1;
        if self.count >= Self::LONGEST {
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
        let (count, marks) = (mem::take(&mut self.count), mem::take(&mut self.marks));
        self.close_with(Arguments { message, count, marks });
    }

    /// Makes a job of the last task, which starts there and has handles, so that they go to its worker
    /// only. Those that came before it have none.
    #[cold]
    fn close_alone(&mut self, start: usize) {
        let mut message = self.open.split_off(start);
        self.close();
        // It is kept until the task is done, and must not keep the task's memory mapped.
        message.let_go();
        self.close_with(Arguments { message, count: 1, marks: vec![0] });
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
    count: usize,
    /// Where each one of so many begins: more would be more to write and to keep than the arguments.
    marks: Vec<usize>,
}

impl Arguments {
    const STRIDE: usize = 8;

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn has_fds(&self) -> bool {
        self.message.has_fds()
    }

    pub(crate) fn bytes(&self, tasks: &Range<usize>) -> &[u8] {
        let start = self.place(tasks.start);
        let end = match tasks.len() {
            few @ ..Self::STRIDE => self.skip(start, few),
            _ => self.place(tasks.end),
        };
        &self.message.bytes()[start..end]
    }

    /// How many of the tasks, at least one, have arguments that are no longer than this together.
    pub(crate) fn fitting(&self, tasks: &Range<usize>, most: usize) -> usize {
        let end = self.place(tasks.start) + most;
        if self.message.bytes().len() <= end {
            return tasks.len();
        }
        let mark = self.marks.partition_point(|mark| *mark <= end).saturating_sub(1);
        (mark * Self::STRIDE).saturating_sub(tasks.start).clamp(1, tasks.len().max(1))
    }

    /// Where the task begins, or where those before it end.
    fn place(&self, task: usize) -> usize {
        match self.marks.get(task / Self::STRIDE) {
            Some(mark) => self.skip(*mark, task % Self::STRIDE),
            None => self.message.bytes().len(),
        }
    }

    /// Where so many more begin behind the one that begins there.
    fn skip(&self, place: usize, tasks: usize) -> usize {
        let bytes = self.message.bytes();
        let next = |place: usize, _| place + framed_len(&bytes[place..]).unwrap_or(0);
        (0..tasks).fold(place, next)
    }

    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.message.fds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_any_tasks_are_found() {
        for count in [1, 7, 8, 9, 16, 100] {
            let batch = Arc::default();
            let mut jobs = Jobs::new([0; ENTRY_SIZE], &batch, 0);
            let value = |task: usize| "x".repeat(task * 37 % 400);
            (0..count).for_each(|task| jobs.push(value(task)).unwrap());
            let (works, end) = jobs.finish();
            let arguments = &works[0].job.arguments;
            assert_eq!((works.len(), end, arguments.len()), (1, count, count));
            for (start, end) in (0..=count).flat_map(|end| (0..=end).map(move |start| (start, end)))
            {
                let message = Message::from_bytes(arguments.bytes(&(start..end)).to_vec());
                let mut reader = message.reader();
                for task in start..end {
                    assert_eq!(reader.read_framed::<String>().unwrap(), value(task));
                }
                reader.finish().unwrap();
            }
        }
    }

    #[test]
    fn no_more_arguments_are_said_to_fit_than_do() {
        let batch = Arc::default();
        let mut jobs = Jobs::new([0; ENTRY_SIZE], &batch, 0);
        (0..1000u32).for_each(|task| jobs.push(task).unwrap());
        let (works, _) = jobs.finish();
        let arguments = &works[0].job.arguments;
        for (start, end, most) in [(0, 1000, 100), (3, 1000, 100), (3, 10, 3000), (990, 1000, 1)] {
            let tasks = start..end;
            let fitting = arguments.fitting(&tasks, most);
            assert!((1..=tasks.len()).contains(&fitting));
            let len = arguments.bytes(&(start..start + fitting)).len();
            assert!(fitting == 1 || len <= most, "{len} of {most}");
        }
        assert_eq!(arguments.fitting(&(0..1000), 10_000), 1000);
        assert!(arguments.fitting(&(0..1000), 1000) > 200);
    }

    #[test]
    fn each_move_doubles_the_patience_up_to_a_second() {
        let batch = Arc::default();
        let mut jobs = Jobs::new([0; ENTRY_SIZE], &batch, 0);
        jobs.push(7u32).unwrap();
        let job = &jobs.finish().0[0].job;
        assert_eq!(job.patience(), None);
        for milliseconds in [4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024] {
            job.note_move();
            assert_eq!(job.patience(), Some(Duration::from_millis(milliseconds)));
        }
    }
}
