//! The parent's side of one worker.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multiproc_os::deadline::Deadline;
use multiproc_process::Process;
use multiproc_wire::{Endpoint, Message, encode};

use super::board::Board;
use super::job::Work;
use crate::builder::Settings;
use crate::child::{self, Done, Order, Place, Report, Run};
use crate::context::Recent;
use crate::error::{Error, Kind, TaskError};
use crate::statistics::{Counts, WorkerStatistics};

/// So long a worker may take to come to its tasks before others that have none take them over.
pub(crate) const LATE: Duration = Duration::from_millis(1);

/// A worker process, and what it was given.
pub(crate) struct Worker {
    id: u64,
    pub(crate) process: Process<Result<(), String>>,
    pub(crate) line: Arc<Endpoint>,
    pub(crate) board: Board,
    /// It has said that it is there.
    pub(crate) ready: bool,
    pub(crate) life: Life,
    /// Somebody is sending it a message.
    pub(crate) sending: bool,
    /// What it has not reported yet, in order. The first may be running.
    pub(crate) assigned: VecDeque<Assigned>,
    /// Its number for the next task.
    next: u32,
    /// Tasks were taken back since it last had nothing to do: its numbers have a gap.
    gap: bool,
    /// Why it is being killed, and for which of its tasks.
    pub(crate) doom: Option<(u32, TaskError)>,
    /// What its finalizer returned.
    pub(crate) last_words: Option<Message>,
    contexts: Recent,
    pub(crate) born: Instant,
    /// Since when it has had nothing to do.
    pub(crate) idle_since: Instant,
    statistics: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Takes tasks.
    Active,
    /// Takes none any more; it is told to end when it has nothing to do.
    Spent,
    /// It was told to end.
    Retiring,
    /// It was killed.
    Dying,
}

/// An assignment, as far as it was not reported.
pub(crate) struct Assigned {
    /// May be empty, when what was left of it was taken back.
    pub(crate) work: Work,
    /// The worker's number for the first task.
    pub(crate) first: u32,
    /// How many tasks it was reported to have done.
    done: usize,
    /// Since when the worker has had nothing to do before it.
    pub(crate) since: Deadline,
}

impl Assigned {
    fn has(&self, task: u32) -> bool {
        task.checked_sub(self.first).is_some_and(|index| (index as usize) < self.work.tasks.len())
    }

    /// For how long the worker has had nothing to do before it.
    fn age(&self) -> Duration {
        Duration::from_nanos(Deadline::now().nanos() - self.since.nanos())
    }
}

impl Worker {
    pub(crate) fn start(settings: &Settings, id: u64) -> Result<Self, Error> {
        let (line, theirs) = Endpoint::pair().map_err(|error| Kind::Watch(error.into()))?;
        let board = Board::new().map_err(|error| Kind::Board(io::Error::other(error)))?;
        let place = Place {
            line: theirs,
            board: board.clone(),
            opens: settings.open.is_some(),
            most_resident: settings.most_resident,
        };
        let process = settings.process(id).spawn(child::work, place).map_err(Kind::Start)?;
        if let Some(open) = &settings.open {
            let header = encode(&Order::Open { entry: open.entry }).map_err(Kind::Initializer)?;
            let parts = [header.bytes(), open.argument.bytes()];
            // A worker that is gone already is seen to have ended.
            let _gone = line.send_parts(parts, &open.argument.fds(), Deadline::NEVER);
        }
        let now = Instant::now();
        Ok(Worker {
            statistics: Counts::default(),
            id,
            process,
            line: Arc::new(line),
            board,
            ready: false,
            life: Life::Active,
            sending: false,
            assigned: VecDeque::new(),
            next: 0,
            gap: false,
            doom: None,
            last_words: None,
            contexts: Recent::default(),
            born: now,
            idle_since: now,
        })
    }

    /// Whether it could take an assignment at once.
    pub(crate) fn is_idle(&self) -> bool {
        self.life == Life::Active && !self.sending && self.assigned.is_empty()
    }

    /// Whether it will soon be done with what it has, so that it should be sent more.
    pub(crate) fn wants_more(&self) -> bool {
        const SOON: Duration = Duration::from_millis(1);
        const MANY: u32 = 1 << 31;
        let (1, Some(front)) = (self.assigned.len(), self.assigned.front()) else { return false };
        let expected = front.work.job.batch.expected(front.work.tasks.len());
        self.life == Life::Active
            && self.ready
            && !self.sending
            && !self.gap
            && self.next < MANY
            && expected.is_some_and(|expected| expected <= SOON)
    }

    /// How many tasks it was given and has not begun.
    pub(crate) fn unbegun(&self) -> u32 {
        if self.assigned.is_empty() { 0 } else { self.board.claim().left() }
    }

    /// Whether taking tasks back from it saves time.
    pub(crate) fn is_behind(&self) -> bool {
        const WORTH: Duration = Duration::from_micros(50);
        let left = self.unbegun() as usize;
        let Some(back) = self.assigned.back().filter(|_| left > 0) else { return false };
        if self.chunk().is_some_and(|chunk| left < chunk as usize) {
            return false;
        }
        let expected = back.work.job.batch.expected(left);
        expected.is_some_and(|expected| expected >= WORTH) || back.age() > LATE
    }

    /// How many tasks the last assignment has, if the user has said how many make a chunk: those are
    /// not spread over several workers.
    pub(crate) fn chunk(&self) -> Option<u32> {
        let work = &self.assigned.back()?.work;
        work.job.batch.options.chunk_size.map(|_| work.tasks.len() as u32)
    }

    /// Lets it begin these tasks, and gives the order that says so. The flag tells whether it has the
    /// tasks' context.
    pub(crate) fn assign(&mut self, work: Work) -> (Run, bool) {
        let count = work.tasks.len() as u32;
        if self.assigned.is_empty() {
            self.next = 0;
            self.gap = false;
            self.board.reset(count);
            self.statistics.idle += self.idle_since.elapsed();
        } else {
            self.board.extend(count);
        }
        let batch = &work.job.batch;
        let context = batch.context.as_ref().map(|context| context.id);
        let run = Run {
            entry: work.job.entry,
            first: self.next,
            count,
            timed: batch.options.timeout.is_some(),
            context,
        };
        let has_context = context.is_none_or(|id| self.contexts.touch(id));
        self.assigned.push_back(Assigned {
            work,
            first: self.next,
            done: 0,
            since: Deadline::now(),
        });
        self.next += count;
        self.statistics.assigned += u64::from(count);
        (run, has_context)
    }

    /// How many tasks it may be given.
    pub(crate) fn most_tasks(&self, settings: &Settings) -> u32 {
        let left = |most: NonZeroU64| most.get().saturating_sub(self.statistics.assigned).max(1);
        settings.most_tasks.map_or(u32::MAX, |most| u32::try_from(left(most)).unwrap_or(u32::MAX))
    }

    /// Takes back the last assignment, which was not sent, unless others have taken all of it.
    pub(crate) fn unassign(&mut self, first: u32) -> Option<Work> {
        let back = self.assigned.pop_back_if(|back| back.first == first)?;
        let count = back.work.tasks.len() as u32;
        self.gap = true;
        self.board.take_back(|_| count);
        self.statistics.assigned -= u64::from(count);
        self.rest();
        Some(back.work).filter(|work| !work.tasks.is_empty())
    }

    /// Takes back tasks that it has not begun, the last first: so many of those as `share` says.
    pub(crate) fn take_back(&mut self, share: impl Fn(u32) -> u32) -> Vec<Work> {
        if self.assigned.is_empty() {
            return Vec::new();
        }
        let mut taken = self.board.take_back(share) as usize;
        self.gap |= taken > 0;
        let mut works = Vec::new();
        for assigned in self.assigned.iter_mut().rev() {
            let count = taken.min(assigned.work.tasks.len());
            if count > 0 {
                works.push(assigned.work.take_last(count));
                self.statistics.assigned -= count as u64;
                taken -= count;
            }
        }
        works
    }

    /// The task that it began last, by its number, and where it was assigned. It is over if its result
    /// is under way.
    pub(crate) fn running(&self) -> Option<(u32, &Assigned)> {
        let task = self.board.claim().next.checked_sub(1)?;
        self.assigned.iter().find(|assigned| assigned.has(task)).map(|assigned| (task, assigned))
    }

    /// Kills it for the task that it runs, unless it is past that. Tasks that it has not begun must
    /// have been taken back before, or are given to others at its end.
    pub(crate) fn doom(&mut self, task: u32, error: TaskError) -> bool {
        let doomed = self.board.doom(task);
        if doomed {
            self.doom = Some((task, error));
            self.kill();
        }
        doomed
    }

    pub(crate) fn kill(&mut self) {
        self.life = Life::Dying;
        let _gone = self.process.kill();
    }

    /// Takes in a message. Gives the tasks that the worker refuses.
    pub(crate) fn note(&mut self, report: Report, content: Message) -> Option<Work> {
        if !self.ready {
            self.ready = true;
            // Until now it may have had much to do.
            self.begin_next();
        }
        match report {
            Report::Ready => None,
            Report::Results { first, count, done } => {
                self.collect(first, count, content);
                done.and_then(|done| self.finish(done))
            }
            Report::Final => {
                self.last_words = Some(content);
                None
            }
        }
    }

    /// Passes results on, but for those that were passed on before.
    fn collect(&mut self, first: u32, count: u32, outcomes: Message) {
        let Some(front) = self.assigned.front_mut() else { return };
        if count == 0 || first != front.first || count as usize > front.work.tasks.len() {
            return;
        }
        front.work.finish(count as usize, outcomes);
        front.first += count;
        front.done += count as usize;
        self.statistics.tasks += u64::from(count);
    }

    /// It is done with the first assignment, but for tasks that it refuses.
    fn finish(&mut self, Done { nanos, overgrown }: Done) -> Option<Work> {
        if overgrown && self.life == Life::Active {
            self.life = Life::Spent;
        }
        let front = self.assigned.pop_front()?;
        if front.done > 0 {
            front.work.job.batch.learn(front.done, nanos);
        }
        self.statistics.busy += Duration::from_nanos(nanos);
        self.begin_next();
        self.rest();
        Some(front.work).filter(|work| !work.tasks.is_empty())
    }

    /// How many tasks it was given.
    pub(crate) fn given(&self) -> u64 {
        self.statistics.assigned
    }

    pub(crate) fn statistics(&self) -> WorkerStatistics {
        let mut counts = self.statistics;
        if self.assigned.is_empty() {
            counts.idle += self.idle_since.elapsed();
        }
        WorkerStatistics::new(self.id, self.process.pid(), self.born.elapsed(), counts)
    }

    fn begin_next(&mut self) {
        if let Some(next) = self.assigned.front_mut() {
            next.since = Deadline::now();
        }
    }

    fn rest(&mut self) {
        if self.assigned.is_empty() {
            self.idle_since = Instant::now();
        }
    }

    /// Reads the next of its messages, if there is one. At the end of all it is an error.
    pub(crate) fn read(
        line: &Endpoint,
    ) -> Result<Option<(Report, Message)>, multiproc_wire::Error> {
        let received = line.recv_with(Deadline::now(), |mut reader| {
            let report: Report = reader.read()?;
            Ok::<_, multiproc_wire::Error>((report, reader.into_message()?))
        })?;
        received.transpose()
    }

    /// After its end: passes on what it had finished. Gives the tasks that it refused.
    pub(crate) fn drain(&mut self) -> Vec<Work> {
        let mut refused = Vec::new();
        // What cannot be read is from no worker of ours.
        while let Ok(Some((report, content))) = Self::read(&self.line) {
            refused.extend(self.note(report, content));
        }
        if let Some((first, count, outcomes)) = self.board.outbox() {
            self.collect(first, count, outcomes);
        }
        refused
    }

    /// After its end: gives the task that it was running, and those that it had not begun.
    pub(crate) fn leave(&mut self) -> (Option<(u32, Work)>, Vec<Work>) {
        let begun = self.board.claim().next;
        let mut ran = None;
        let mut left = Vec::new();
        for mut assigned in self.assigned.drain(..) {
            if assigned.work.tasks.is_empty() {
                continue;
            }
            if assigned.first < begun && ran.is_none() {
                ran = Some((assigned.first, assigned.work.take_first(1)));
            }
            left.push(assigned.work);
        }
        (ran, left)
    }
}
