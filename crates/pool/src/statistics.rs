use std::fmt;
use std::time::Duration;

/// What a pool and its workers have done so far: see [`Pool::statistics`](crate::Pool::statistics).
///
/// Printed, it is a table.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// The workers that there are.
    pub workers: Vec<WorkerStatistics>,
    /// How many workers have ended.
    pub ended: u64,
    /// How many of those were killed, or ended otherwise than the pool meant them to.
    pub died: u64,
    /// How many tasks the workers have done that have ended.
    pub tasks_of_ended: u64,
    /// How many tasks wait.
    pub waiting: usize,
}

/// What a worker has done so far.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStatistics {
    /// Its number, from 1: the worker that takes its place has the next that is free.
    pub number: u64,
    /// Its process.
    pub pid: u32,
    /// How many tasks it has done.
    pub tasks: u64,
    /// How long it has run tasks, as far as it has reported.
    pub busy: Duration,
    /// How long it has had none.
    pub idle: Duration,
    /// Since when it has been there.
    pub age: Duration,
}

/// What is counted of a worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) assigned: u64,
    pub(crate) tasks: u64,
    pub(crate) busy: Duration,
    pub(crate) idle: Duration,
}

impl Statistics {
    /// How many tasks were done by all workers, of which those that failed are a part.
    pub fn tasks(&self) -> u64 {
        self.tasks_of_ended + self.workers.iter().map(|worker| worker.tasks).sum::<u64>()
    }

    /// Counts a worker that has ended.
    pub(crate) fn part_with(&mut self, worker: &WorkerStatistics, died: bool) {
        self.ended += 1;
        self.died += u64::from(died);
        self.tasks_of_ended += worker.tasks;
    }
}

impl WorkerStatistics {
    pub(crate) fn new(id: u64, pid: u32, age: Duration, counts: Counts) -> Self {
        let Counts { tasks, busy, idle, .. } = counts;
        WorkerStatistics { number: id + 1, pid, tasks, busy, idle, age }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8}{:>10}{:>12}{:>12}{:>12}", "worker", "pid", "tasks", "busy", "idle")?;
        for worker in &self.workers {
            let WorkerStatistics { number, pid, tasks, busy, idle, .. } = worker;
            let [busy, idle] = [busy, idle].map(|time| format!("{:.3} s", time.as_secs_f64()));
            writeln!(f, "{number:>8}{pid:>10}{tasks:>12}{busy:>12}{idle:>12}")?;
        }
        let Statistics { ended, died, tasks_of_ended, waiting, .. } = self;
        write!(
            f,
            "{ended} workers have ended after {tasks_of_ended} tasks, {died} of them unforeseen; \
             {waiting} tasks wait"
        )
    }
}
