//! What callers and the dispatcher share: waiting tasks, and the workers with what they run.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::reactor::Waker;
use multiproc_process::Process;
use multiproc_shm::Array;
use multiproc_wire::{Endpoint, Message, encode};

use crate::builder::Builder;
use crate::error::{Error, Kind, TaskError, TaskKind};
use crate::job::{Content, Job, Part};
use crate::outbox;
use crate::worker::{self, Assignment, Place, Report};

pub(crate) struct Shared {
    state: Mutex<State>,
    /// Has the dispatcher look at the state.
    pub(crate) waker: Waker,
    pub(crate) settings: Builder,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) waiting: VecDeque<Work>,
    pub(crate) workers: BTreeMap<u64, Worker>,
    next_worker: u64,
    pub(crate) closed: bool,
    pub(crate) terminated: bool,
}

/// Consecutive tasks of a job.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) job: Arc<Job>,
    pub(crate) tasks: Range<usize>,
}

pub(crate) struct Worker {
    pub(crate) process: Process<Result<(), String>>,
    pub(crate) line: Endpoint,
    outbox: Array<u8>,
    /// It has said that it is there.
    ready: bool,
    /// What it was given and has not reported yet.
    running: Option<Work>,
    chunk: usize,
}

impl Shared {
    pub(crate) fn new(settings: Builder) -> std::io::Result<Self> {
        Ok(Shared { state: Mutex::default(), waker: Waker::new()?, settings })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in tasks. What an idle worker can take is sent at once, without the dispatcher.
    pub(crate) fn submit(&self, jobs: Vec<Job>) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed || state.terminated {
            return Err(Kind::Closed.into());
        }
        for job in jobs {
            let tasks = 0..job.arguments.len();
            state.waiting.push_back(Work { job: Arc::new(job), tasks });
        }
        state.assign();
        if state.workers.is_empty() {
            // None could be started; the dispatcher tries again.
            self.waker.wake();
        }
        Ok(())
    }
}

impl State {
    /// Starts a worker and gives its number.
    pub(crate) fn start_worker(&mut self, settings: &Builder) -> Result<u64, Error> {
        let (line, theirs) = Endpoint::pair().map_err(|error| Kind::Watch(error.into()))?;
        let outbox = outbox::new().map_err(|error| Kind::Outbox(std::io::Error::other(error)))?;
        let id = self.next_worker;
        let process = Process::builder()
            .name(format!("PoolWorker-{}", id + 1))
            .daemon(true)
            .start_method(settings.start_method)
            .spawn(worker::run, Place { line: theirs, outbox: outbox.clone() })
            .map_err(Kind::Start)?;
        self.next_worker += 1;
        self.workers
            .insert(id, Worker { process, line, outbox, ready: false, running: None, chunk: 0 });
        Ok(id)
    }

    /// Sends waiting tasks to idle workers.
    pub(crate) fn assign(&mut self) {
        let count = self.workers.len();
        for worker in self.workers.values_mut().filter(|worker| worker.running.is_none()) {
            let Some(first) = self.waiting.front_mut() else { return };
            let size = first.job.chunk(first.tasks.len(), count);
            let chunk = first.tasks.start..first.tasks.start + size;
            let work = Work { job: Arc::clone(&first.job), tasks: chunk.clone() };
            // A worker that is dying takes nothing; its end is noticed by its pidfd.
            if !worker.send(work) {
                continue;
            }
            first.tasks.start = chunk.end;
            if first.tasks.is_empty() {
                self.waiting.pop_front();
            }
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.workers.values().all(|worker| worker.running.is_none())
    }

    /// Fails all tasks that wait.
    pub(crate) fn fail_waiting(&mut self, error: &TaskError) {
        for work in std::mem::take(&mut self.waiting) {
            work.fail(error.clone());
        }
    }
}

impl Work {
    fn put(&self, first: usize, count: usize, content: Content) {
        self.job.collector.put(Part { first: self.job.first + first, count, content });
    }

    pub(crate) fn fail(&self, error: TaskError) {
        if !self.tasks.is_empty() {
            self.put(self.tasks.start, self.tasks.len(), Content::Failed(error));
        }
    }
}

impl Worker {
    fn send(&mut self, work: Work) -> bool {
        // Its socket is empty, so that only a system short of memory or descriptors makes it wait.
        const PATIENCE: Duration = Duration::from_secs(1);
        let job = &work.job;
        let first = work.tasks.start as u32;
        let count = work.tasks.len() as u32;
        let Ok(header) = encode(&Assignment { entry: job.entry, first, count }) else {
            return false;
        };
        let parts = [header.bytes(), job.arguments.bytes(&work.tasks)];
        let sent = self.line.send_parts(parts, &job.arguments.fds(), Deadline::after(PATIENCE));
        if !matches!(sent, Ok(true)) {
            return false;
        }
        self.chunk = work.tasks.len();
        self.running = Some(work);
        true
    }

    /// Takes in the results that it has sent.
    pub(crate) fn read_line(&mut self) {
        loop {
            let received = self.line.recv_with(Deadline::now(), |mut reader| {
                let report: Report = reader.read()?;
                Ok::<_, multiproc_wire::Error>((report, reader.into_message()?))
            });
            match received {
                Ok(Some(Ok((report, outcomes)))) => self.note(&report, outcomes),
                // The line is closed, or what came is from no worker of ours: its end tells the rest.
                Ok(Some(Err(_)) | None) | Err(_) => return,
            }
        }
    }

    fn note(&mut self, report: &Report, outcomes: Message) {
        self.ready = true;
        self.collect(report.first, report.count, outcomes);
        if let (Some(nanos), Some(work)) = (report.done, &self.running) {
            work.job.learn(self.chunk, nanos);
            self.running = None;
        }
    }

    /// Passes results on, but for those that were passed on before.
    fn collect(&mut self, first: u32, count: u32, outcomes: Message) {
        let Some(work) = &mut self.running else { return };
        let (first, count) = (first as usize, count as usize);
        if count == 0 || first != work.tasks.start || count > work.tasks.len() {
            return;
        }
        work.put(first, count, Content::Outcomes(outcomes));
        work.tasks.start += count;
    }

    /// Whether it ever got to where it runs tasks.
    pub(crate) fn was_ready(&self) -> bool {
        self.ready
    }

    /// After its end: passes on what it had finished, fails the task that it ran, and gives those that
    /// it had not begun.
    pub(crate) fn bury(&mut self) -> Option<Work> {
        self.read_line();
        if let Some((first, count, outcomes)) = outbox::take(&self.outbox) {
            self.collect(first, count, outcomes);
        }
        let ended = self.process.join_timeout(Duration::MAX);
        let mut work = self.running.take().filter(|work| !work.tasks.is_empty())?;
        let error = match ended {
            Err(error) => match error.panic() {
                Some(panic) => TaskKind::Panicked(panic.clone()),
                None => TaskKind::Died(error.exit_status()),
            },
            Ok(Some(Err(reason))) => TaskKind::Failed(reason),
            Ok(_) => TaskKind::Died(None),
        };
        work.put(work.tasks.start, 1, Content::Failed(error.into()));
        work.tasks.start += 1;
        (!work.tasks.is_empty()).then_some(work)
    }

    /// After it was killed: passes on what it had finished and fails the rest.
    pub(crate) fn abandon(mut self, error: &TaskError) {
        self.read_line();
        if let Some((first, count, outcomes)) = outbox::take(&self.outbox) {
            self.collect(first, count, outcomes);
        }
        let _killed = self.process.join();
        if let Some(work) = self.running {
            work.fail(error.clone());
        }
    }
}
