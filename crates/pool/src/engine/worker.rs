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
use super::job::{Job, Work};
use super::outcomes::Outcomes;
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
    /// Why what it sent could not be received.
    pub(crate) unheard: Option<String>,
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

/// Tasks of one job in an assignment, as far as they were not reported.
pub(crate) struct Assigned {
    /// May be empty, when what was left of it was taken back.
    pub(crate) work: Work,
    /// The worker's number for the first task.
    pub(crate) first: u32,
    /// How many tasks were reported as done.
    done: usize,
    /// There are no more in the assignment.
    last: bool,
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
            unheard: None,
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
        self.life == Life::Active
            && self.ready
            && !self.sending
            && !self.gap
            && self.next < MANY
            && self.assigned.iter().filter(|assigned| assigned.last).count() == 1
            && self.expected().is_some_and(|expected| expected <= SOON)
    }

    /// How long what it has will take, going by what was before.
    fn expected(&self) -> Option<Duration> {
        let expected = |assigned: &Assigned| {
            let work = &assigned.work;
            work.job.batch.expected(work.tasks.len())
        };
        self.assigned.iter().map(expected).sum()
    }

    /// How many tasks it was given and has not begun.
    pub(crate) fn unbegun(&self) -> u32 {
        if self.assigned.is_empty() { 0 } else { self.board.claim().left() }
    }

    /// Whether taking tasks back from it saves time.
    pub(crate) fn is_behind(&self) -> bool {
        const WORTH: Duration = Duration::from_micros(50);
        let left = self.unbegun();
        let Some(back) = self.assigned.back().filter(|_| self.half(left) > 0) else { return false };
        if self.sending {
            return false;
        }
        if let Some(patience) = self.job_to_begin().and_then(Job::patience) {
            return back.age() > patience;
        }
        let expected = back.work.job.batch.expected(left as usize);
        expected.is_some_and(|expected| expected >= WORTH) || back.age() > LATE
    }

    /// The job of an assignment of which it has begun no task yet.
    fn job_to_begin(&self) -> Option<&Job> {
        let front = self.assigned.front()?;
        (self.board.claim().next <= front.first).then_some(&*front.work.job)
    }

    /// How many tasks to take back if so many are left: about half of them, and whole chunks, if the
    /// user has said how many tasks make one.
    pub(crate) fn half(&self, left: u32) -> u32 {
        let half = left.div_ceil(2);
        let mut count = 0;
        for Assigned { work, .. } in self.assigned.iter().rev() {
            let size = work.tasks.len() as u32;
            if work.job.batch.options.chunk_size.is_none() {
                return (count + size).min(half.max(count));
            }
            if count >= half || count + size > left {
                break;
            }
            count += size;
        }
        count
    }

    /// Lets it begin these tasks, and gives the order that says so. The flag tells whether it has the
    /// tasks' context.
    pub(crate) fn assign(&mut self, works: &[Work]) -> Option<(Run, bool)> {
        let Job { entry, batch, .. } = &*works.first()?.job;
        let count = works.iter().map(|work| work.tasks.len() as u32).sum();
        if self.assigned.is_empty() {
            self.next = 0;
            self.gap = false;
            self.board.reset(count);
            self.statistics.idle += self.idle_since.elapsed();
        } else {
            self.board.extend(count);
        }
        let context = batch.context.as_ref().map(|context| context.id);
        let timed = batch.options.timeout.is_some();
        let run = Run { entry: *entry, first: self.next, count, timed, context };
        let has_context = context.is_none_or(|id| self.contexts.touch(id));
        let since = Deadline::now();
        for (work, left) in works.iter().zip((0..works.len()).rev()) {
            let work = work.clone();
            let first = self.next;
            self.next += work.tasks.len() as u32;
            self.assigned.push_back(Assigned { work, first, done: 0, last: left == 0, since });
        }
        self.statistics.assigned += u64::from(count);
        Some((run, has_context))
    }

    /// How many tasks it may be given.
    pub(crate) fn most_tasks(&self, settings: &Settings) -> u32 {
        let left = |most: NonZeroU64| most.get().saturating_sub(self.statistics.assigned).max(1);
        settings.most_tasks.map_or(u32::MAX, |most| u32::try_from(left(most)).unwrap_or(u32::MAX))
    }

    /// Takes back the last assignment, which was not sent, as far as others have not taken it. The last
    /// tasks come first.
    pub(crate) fn unassign(&mut self, first: u32) -> Vec<Work> {
        let mut works = Vec::new();
        while let Some(back) = self.assigned.pop_back_if(|back| back.first >= first) {
            let count = back.work.tasks.len() as u32;
            self.gap = true;
            self.board.take_back(|_| count);
            self.statistics.assigned -= u64::from(count);
            works.extend(Some(back.work).filter(|work| !work.tasks.is_empty()));
        }
        self.rest();
        works
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

    /// Takes back about half of the tasks that it has not begun.
    pub(crate) fn take_half(&mut self) -> Vec<Work> {
        // What it begins meanwhile makes it fewer.
        let count = self.half(self.unbegun());
        if let Some(job) = self.job_to_begin() {
            job.note_move();
        }
        self.take_back(|left| count.min(left))
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

    /// Takes in a message. Gives the tasks that the worker refuses, the last first.
    pub(crate) fn note(&mut self, report: Report, content: Message) -> Vec<Work> {
        if !self.ready {
            self.ready = true;
            // Until now it may have had much to do.
            self.begin_next();
        }
        match report {
            Report::Ready => Vec::new(),
            Report::Results { first, count, done } => {
                self.collect(first, count, content);
                done.map_or_else(Vec::new, |done| self.finish(done))
            }
            Report::Final => {
                self.last_words = Some(content);
                Vec::new()
            }
        }
    }

    /// Passes results on, but for those that were passed on before.
    fn collect(&mut self, first: u32, count: u32, outcomes: Message) {
        let mut outcomes = Outcomes::new(outcomes, first, count);
        for assigned in self.assigned.iter_mut().filter(|each| !each.work.tasks.is_empty()) {
            outcomes.skip_to(assigned.first);
            let most = u32::try_from(assigned.work.tasks.len()).unwrap_or(u32::MAX);
            let Some((count, content)) = outcomes.take(assigned.first, most) else { break };
            assigned.work.finish(count as usize, content);
            assigned.first += count;
            assigned.done += count as usize;
            self.statistics.tasks += u64::from(count);
        }
    }

    /// Whether it has more than one task to report.
    pub(crate) fn has_many(&self) -> bool {
        self.assigned.iter().map(|assigned| assigned.work.tasks.len()).sum::<usize>() > 1
    }

    /// Passes on what it has finished and not sent, if it has had an assignment for long.
    pub(crate) fn look_into_outbox(&mut self) {
        if self.is_late()
            && let Some((first, count, outcomes)) = self.board.outbox()
        {
            self.collect(first, count, outcomes);
        }
    }

    /// Whether it has had an assignment for long, of more than the task that it runs.
    pub(crate) fn is_late(&self) -> bool {
        let begun = self.board.claim().next;
        self.assigned.front().is_some_and(|front| begun > front.first + 1 && front.age() > LATE)
    }

    /// It is done with the first assignment, but for tasks that it refuses, which it gives, the last
    /// first.
    fn finish(&mut self, Done { nanos, overgrown }: Done) -> Vec<Work> {
        if overgrown && self.life == Life::Active {
            self.life = Life::Spent;
        }
        let mut refused = Vec::new();
        let mut done = 0;
        while let Some(Assigned { work, done: count, last, .. }) = self.assigned.pop_front() {
            done += count;
            if last && done > 0 {
                work.job.batch.learn(done, nanos);
            }
            refused.extend(Some(work).filter(|work| !work.tasks.is_empty()));
            if last {
                break;
            }
        }
        self.statistics.busy += Duration::from_nanos(nanos);
        self.begin_next();
        self.rest();
        refused.reverse();
        refused
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
        // What cannot be read is from no worker of ours. Behind a message that is lost, none is of use.
        while self.unheard.is_none()
            && let Ok(Some((report, content))) = Self::read(&self.line)
        {
            refused.extend(self.note(report, content));
        }
        if let Some((first, count, outcomes)) = self.board.outbox() {
            self.collect(first, count, outcomes);
        }
        refused
    }

    /// After its end: gives the task that it was running, and those that it had not begun. If a message of
    /// its is lost, nobody knows what came of those that it began: these come in the place of the first.
    pub(crate) fn leave(&mut self, lost: bool) -> Left {
        let begun = self.board.claim().next;
        let mut leaves = Left::default();
        for mut assigned in self.assigned.drain(..) {
            let first = assigned.first;
            if lost {
                let count = begun.saturating_sub(first) as usize;
                let count = count.min(assigned.work.tasks.len());
                leaves.unheard.push(assigned.work.take_first(count));
            } else if first < begun && leaves.ran.is_none() && !assigned.work.tasks.is_empty() {
                leaves.ran = Some((first, assigned.work.take_first(1)));
            }
            leaves.unbegun.push(assigned.work);
        }
        leaves
    }
}

/// What a worker leaves undone, some of it perhaps empty.
#[derive(Default)]
pub(crate) struct Left {
    pub(crate) ran: Option<(u32, Work)>,
    pub(crate) unheard: Vec<Work>,
    pub(crate) unbegun: Vec<Work>,
}
