//! What callers and the dispatcher share: waiting tasks, and the workers with what they run.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::image::ENTRY_SIZE;
use multiproc_wire::{Endpoint, Message, encode};

use super::batch::{Batch, Pace};
use super::bells::{Bells, Ringing};
use super::deadlines::Deadlines;
use super::job::Work;
use super::waiting::Waiting;
use super::worker::{Life, Worker};
use crate::builder::Settings;
use crate::child::{Order, Run};
use crate::error::{Error, Kind, TaskError, TaskKind};
use crate::statistics::Statistics;

pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told when the pool has ended.
    ended: Condvar,
    pub(crate) bells: Arc<Bells>,
    pub(crate) settings: Settings,
    /// Of each function that was run.
    paces: Mutex<BTreeMap<[u8; ENTRY_SIZE], Arc<Pace>>>,
}

pub(crate) struct State {
    pub(crate) waiting: Waiting,
    pub(crate) workers: BTreeMap<u64, Worker>,
    /// How many workers there are to be, at most.
    pub(crate) size: usize,
    pub(crate) closed: bool,
    pub(crate) terminated: bool,
    pub(crate) ended: bool,
    pub(crate) deadlines: Deadlines,
    /// When the dispatcher will look at the state at the latest.
    pub(crate) attended: Deadline,
    /// What finalizers have returned.
    pub(crate) finals: Vec<Message>,
    /// Of workers that have ended, and of the pool.
    pub(crate) statistics: Statistics,
}

/// The state, locked. Who is to be woken is woken once it is not locked any more.
pub(crate) struct Locked<'a> {
    // In this order they are dropped.
    state: MutexGuard<'a, State>,
    _ringing: Ringing<'a>,
}

/// A message that is to be sent to a worker.
pub(crate) struct Plan {
    worker: u64,
    line: Arc<Endpoint>,
    works: Vec<Work>,
    run: Run,
    /// It goes before the tasks.
    context: bool,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> std::io::Result<Self> {
        let state = State {
            waiting: Waiting::default(),
            workers: BTreeMap::new(),
            size: settings.workers,
            closed: false,
            terminated: false,
            ended: false,
            deadlines: Deadlines::default(),
            attended: Deadline::NEVER,
            finals: Vec::new(),
            statistics: Statistics::default(),
        };
        Ok(Shared {
            state: Mutex::new(state),
            ended: Condvar::new(),
            bells: Arc::new(Bells::new()?),
            settings,
            paces: Mutex::default(),
        })
    }

    /// How long tasks of the function take.
    pub(crate) fn pace(&self, entry: [u8; ENTRY_SIZE]) -> Arc<Pace> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(paces.entry(entry).or_default())
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { state, _ringing: Ringing(&self.bells) }
    }

    /// Hands in tasks. What idle workers can take is sent at once, without the dispatcher.
    pub(crate) fn submit(&self, works: Vec<Work>) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed || state.terminated {
            return Err(Kind::Closed.into());
        }
        if let Some(work) = works.first() {
            state.deadlines.note(&work.job.batch);
        }
        works.into_iter().for_each(|work| state.waiting.push(work));
        let mut state = self.dispatch(state);
        state.make_way();
        let starved = !state.waiting.is_empty() && state.active() < state.size;
        let due = state.next_timer() < state.attended.nanos();
        if starved || due {
            self.bells.call_later();
        }
        Ok(())
    }

    /// Sends waiting tasks to workers. The state is not locked meanwhile.
    pub(crate) fn dispatch<'a>(&'a self, state: Locked<'a>) -> Locked<'a> {
        let mut state = state;
        while let Some(plan) = state.plan(&self.settings) {
            drop(state);
            let sent = plan.send();
            state = self.lock();
            state.settle(&plan, sent);
            if state.is_to_be_looked_at(plan.worker, &self.settings) {
                self.bells.call_later();
            }
        }
        state
    }

    /// Ends the tasks of a batch: those that wait, and those that run, with their workers.
    pub(crate) fn cancel(&self, batch: &Arc<Batch>) {
        batch.cancel();
        let mut state = self.lock();
        state.end_tasks(|other| Arc::ptr_eq(other, batch), || TaskKind::Cancelled.into());
        let _state = self.dispatch(state);
    }

    /// Has no more tasks of a batch begun. Those that run are let run.
    pub(crate) fn abandon(&self, batch: &Arc<Batch>) {
        batch.cancel();
        let mut state = self.lock();
        state.take_back_all(&|other| Arc::ptr_eq(other, batch), &|| TaskKind::Cancelled.into());
        let _state = self.dispatch(state);
    }

    /// Says that the dispatcher is done.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.ended.notify_all();
    }

    /// Waits until the dispatcher is done.
    pub(crate) fn wait_for_the_end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.ended {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl State {
    /// How many workers take tasks.
    pub(crate) fn active(&self) -> usize {
        self.workers.values().filter(|worker| worker.life == Life::Active).count()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.workers.values().all(|worker| worker.assigned.is_empty())
    }

    /// Whether another worker may be given tasks. One that is to end after those that it has counts,
    /// though another has been started for it.
    fn has_room(&self) -> bool {
        let busy = |worker: &&Worker| !worker.assigned.is_empty() && worker.life != Life::Dying;
        self.workers.values().filter(busy).count() < self.size
    }

    /// Assigns tasks to one worker, if there are any and a worker that is to have more.
    fn plan(&mut self, settings: &Settings) -> Option<Plan> {
        let has_room = self.has_room();
        let idle = self.workers.iter().filter(|(_, worker)| has_room && worker.is_idle());
        // The first of them, of those that are ready if there is one.
        let id = match idle.min_by_key(|(_, worker)| !worker.ready) {
            Some((&id, _)) => {
                if self.waiting.is_empty() {
                    self.take_back();
                }
                id
            }
            None if self.waiting.is_empty() => return None,
            None => *self.workers.iter().find(|(_, worker)| worker.wants_more())?.0,
        };
        let count = self.active();
        let worker = self.workers.get_mut(&id)?;
        let works = self.waiting.take(count, worker.most_tasks(settings) as usize);
        let (run, has_context) = worker.assign(&works)?;
        worker.sending = true;
        if settings.most_tasks.is_some_and(|most| worker.given() >= most.get()) {
            worker.life = Life::Spent;
        }
        let line = Arc::clone(&worker.line);
        Some(Plan { worker: id, line, works, run, context: !has_context })
    }

    /// Takes tasks back from the worker that has most of them before it, since another has none.
    fn take_back(&mut self) {
        let behind = self.workers.values_mut().filter(|worker| worker.is_behind());
        let Some(worker) = behind.max_by_key(|worker| worker.unbegun()) else { return };
        for work in worker.take_half() {
            self.waiting.put_back(work);
        }
    }

    /// Takes back tasks that workers have not begun, if some of a higher priority wait.
    fn make_way(&mut self) {
        let Some(priority) = self.waiting.priority() else { return };
        for worker in self.workers.values_mut() {
            if worker.assigned.iter().any(|assigned| assigned.work.priority() < priority) {
                for work in worker.take_back(|left| left) {
                    self.waiting.put_back(work);
                }
            }
        }
    }

    /// Whether a worker may keep others waiting, for tasks that it has not begun or for results.
    pub(crate) fn may_be_late(&self) -> bool {
        self.may_take_back() || self.workers.values().any(Worker::has_many)
    }

    /// Whether an idle worker may soon be given tasks of another.
    pub(crate) fn may_take_back(&self) -> bool {
        self.has_room()
            && self.workers.values().any(Worker::is_idle)
            && self.workers.values().any(|worker| worker.unbegun() > 0)
    }

    /// Whether the dispatcher is to look at a worker that was sent a message: if it has had nothing to
    /// do any more before that was over, it was passed over.
    fn is_to_be_looked_at(&self, id: u64, settings: &Settings) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        worker.assigned.is_empty()
            && (worker.life == Life::Spent
                || self.closed
                || settings.idle_timeout.is_some()
                || self.may_take_back())
    }

    /// After a message was sent, or was not.
    fn settle(&mut self, plan: &Plan, sent: Result<bool, multiproc_wire::Error>) {
        // If it has ended meanwhile, its tasks went to others then.
        let Some(worker) = self.workers.get_mut(&plan.worker) else { return };
        worker.sending = false;
        let reason = match sent {
            Ok(true) => return,
            Ok(false) => "the worker takes no message".to_owned(),
            Err(error) if error.is_closed() => {
                // It ends, or a task has closed its socket.
                worker.kill();
                for work in worker.unassign(plan.run.first) {
                    self.waiting.put_back(work);
                }
                return;
            }
            Err(error) => error.to_string(),
        };
        if plan.run.context.is_some() {
            // Which contexts it keeps is not known any more.
            worker.kill();
        }
        let mut works = worker.unassign(plan.run.first);
        if let Some(first) = works.last_mut() {
            first.fail_first(TaskError::not_run(reason));
        }
        for work in works {
            self.waiting.put_back(work);
        }
    }

    /// Ends the tasks of some batches that workers have.
    pub(crate) fn end_tasks(
        &mut self,
        ends: impl Fn(&Arc<Batch>) -> bool,
        error: impl Fn() -> TaskError,
    ) {
        self.take_back_all(&ends, &error);
        for worker in self.workers.values_mut() {
            let runs = worker.running().filter(|(_, assigned)| ends(&assigned.work.job.batch));
            if let Some(task) = runs.map(|(task, _)| task) {
                worker.doom(task, error());
            }
        }
    }

    /// Fails the tasks of some batches that workers have not begun.
    fn take_back_all(&mut self, ends: &dyn Fn(&Arc<Batch>) -> bool, error: &dyn Fn() -> TaskError) {
        for worker in self.workers.values_mut() {
            if !worker.assigned.iter().any(|assigned| ends(&assigned.work.job.batch)) {
                continue;
            }
            for work in worker.take_back(|left| left) {
                if ends(&work.job.batch) {
                    work.fail(error());
                } else {
                    self.waiting.put_back(work);
                }
            }
        }
    }

    /// Kills workers whose task has taken too long.
    pub(crate) fn end_overdue(&mut self) {
        let now = Deadline::now().nanos();
        for worker in self.workers.values_mut() {
            let Some((at, running)) = worker.timer() else { continue };
            if at > now {
                continue;
            }
            match running {
                Some((task, timeout)) => {
                    worker.doom(task, TaskKind::TimedOut(timeout).into());
                }
                // It was stopped, or has not come to the task for some other reason.
                None => {
                    for work in worker.take_back(|left| left) {
                        self.waiting.put_back(work);
                    }
                    worker.kill();
                }
            }
        }
    }

    /// Ends batches whose time is up.
    pub(crate) fn end_expired(&mut self) {
        let now = Deadline::now().nanos();
        if self.deadlines.pass(now) {
            let passed =
                |batch: &Arc<Batch>| batch.deadline.is_some_and(|deadline| deadline.nanos() <= now);
            self.end_tasks(passed, || TaskKind::Deadline.into());
            self.waiting.expire();
        }
    }

    /// When a task or a batch has to be ended, in nanoseconds.
    pub(crate) fn next_timer(&self) -> u64 {
        let tasks = self.workers.values().filter_map(|worker| Some(worker.timer()?.0)).min();
        let batches = self.deadlines.next();
        tasks.unwrap_or(u64::MAX).min(batches.unwrap_or(u64::MAX))
    }
}

impl Worker {
    /// When it has to be killed if it does not go on, in nanoseconds; and for which task, if it runs
    /// one, and the task's timeout.
    fn timer(&self) -> Option<(u64, Option<(u32, Duration)>)> {
        /// So long a worker may take to come to a task. Others take the task over much earlier.
        const AT_LEAST: Duration = Duration::from_secs(1);
        let front = self.assigned.front().filter(|_| self.life != Life::Dying)?;
        let nanos = |timeout: Duration| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        if let Some((task, assigned)) = self.running() {
            let timeout = assigned.work.job.batch.options.timeout?;
            let at = self.board.started().saturating_add(nanos(timeout));
            return Some((at, Some((task, timeout))));
        }
        // Before it is ready it may have much to do.
        let timeout = front.work.job.batch.options.timeout.filter(|_| self.ready)?;
        let at = front.since.nanos().saturating_add(nanos(timeout.max(AT_LEAST)));
        Some((at, None))
    }
}

impl Plan {
    fn send(&self) -> Result<bool, multiproc_wire::Error> {
        // A worker's socket has room for what it is given ahead, so that only a system short of memory
        // or descriptors makes it wait.
        const PATIENCE: Duration = Duration::from_secs(1);
        let deadline = Deadline::after(PATIENCE);
        let [first, others @ ..] = &*self.works else { return Ok(true) };
        let job = &first.job;
        if let Some(context) = job.batch.context.as_ref().filter(|_| self.context) {
            let order = encode(&Order::Keep { context: context.id })?;
            let parts = [order.bytes(), context.content.bytes()];
            if !self.line.send_parts(parts, &context.content.fds(), deadline)? {
                return Ok(false);
            }
        }
        let order = encode(&Order::Run(self.run.clone()))?;
        if others.is_empty() {
            let parts = [order.bytes(), job.arguments.bytes(&first.tasks)];
            return self.line.send_parts(parts, &job.arguments.fds(), deadline);
        }
        // Only one that is alone can have handles.
        let all = self.works.iter().map(|work| work.job.arguments.bytes(&work.tasks));
        self.line.send_parts([order.bytes(), &all.collect::<Vec<_>>().concat()], &[], deadline)
    }
}
