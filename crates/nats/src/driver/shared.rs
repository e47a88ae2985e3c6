//! What callers and the driver's thread share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multiproc_os::deadline::Deadline;
use multiproc_os::image::ENTRY_SIZE;
use multiproc_pool::__private as pool;
use multiproc_pool::{Error, TaskError};
use tokio::sync::Notify;

use super::agents::{AgentInfo, Agents};
use super::flight::{Flight, Sheet, Waiting};
use crate::batch::{Batch, Pace, Settings};
use crate::chunk::Arguments;
use crate::names::{ChunkId, Session};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) session: Session,
    window: Option<usize>,
    state: Mutex<State>,
    /// Agents have come, or all is done.
    pub(super) changed: Condvar,
    /// The driver's thread has something to do.
    pub(super) attention: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    waiting: VecDeque<Waiting>,
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) agents: Agents,
    paces: HashMap<[u8; ENTRY_SIZE], Arc<Pace>>,
    next_job: u64,
    next_chunk: u64,
    closed: bool,
    /// The driver's thread is to end, and takes nothing in any more.
    pub(super) ended: bool,
    /// What was cancelled, for the driver's thread.
    pub(super) cancelled: Vec<Cancelled>,
    /// When a result came last, or there was none to wait for.
    pub(super) progress: Option<Instant>,
}

/// A call whose results are not wanted any more.
#[derive(Debug)]
pub(super) struct Cancelled {
    pub(super) job: u64,
    /// Whether workers that run its tasks are to be killed.
    pub(super) kill: bool,
    pub(super) flights: Vec<Flight>,
}

impl Shared {
    pub(super) fn new(session: Session, window: Option<usize>) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Shared { session, window, state, changed, attention: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The callers' side.

    /// Begins a call.
    pub(crate) fn batch(&self, entry: [u8; ENTRY_SIZE], settings: Settings) -> Arc<Batch> {
        const MANY: usize = 1000;
        let mut state = self.lock();
        if state.paces.len() >= MANY {
            state.paces.clear();
        }
        let pace = Arc::clone(state.paces.entry(entry).or_default());
        state.next_job += 1;
        Arc::new(Batch::new(state.next_job, entry, settings, pace))
    }

    /// Hands in tasks of a call, the first of which has this number.
    pub(crate) fn submit(
        &self,
        batch: &Arc<Batch>,
        arguments: Arguments,
        base: usize,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed || state.ended {
            return Err(pool::closed());
        }
        if arguments.len() == 0 {
            return Ok(());
        }
        if state.is_idle() {
            state.progress = Some(Instant::now());
        }
        let (batch, arguments) = (Arc::clone(batch), Arc::new(arguments));
        state.waiting.push_back(Waiting { batch, arguments, base, next: 0 });
        drop(state);
        self.attention.notify_one();
        Ok(())
    }

    /// Sees to it that the tasks do not run on. If `kill` is not set, those that were begun may.
    pub(crate) fn cancel(&self, batch: &Batch, kill: bool) {
        let mut state = self.lock();
        let job = batch.job;
        state.waiting.retain(|waiting| waiting.batch.job != job);
        let flights: Vec<Flight> = state
            .flights
            .extract_if(.., |_, flight| flight.id.job == job)
            .map(|(_, f)| f)
            .collect();
        if !flights.is_empty() {
            state.cancelled.push(Cancelled { job, kill, flights });
        }
        drop(state);
        batch.cancel();
        self.changed.notify_all();
        self.attention.notify_one();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until all tasks are done.
    pub(crate) fn wait_until_idle(&self) {
        let mut state = self.lock();
        while !state.is_idle() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has the driver's thread end. What is not done fails.
    pub(crate) fn end(&self, reason: &str) {
        let mut state = self.lock();
        state.ended = true;
        drop(state);
        self.fail_all(reason);
        self.attention.notify_one();
    }

    /// The agents that would run a task.
    pub(crate) fn agents(&self) -> Vec<AgentInfo> {
        self.lock().agents.ready()
    }

    /// Waits until there are so many of them. Returns whether there are.
    pub(crate) fn wait_for_agents(&self, count: usize, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        let mut state = self.lock();
        while state.agents.ready().len() < count {
            let left = match deadline.remaining() {
                Some(Duration::ZERO) => return false,
                Some(left) => left,
                None => Duration::MAX,
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// How many workers the agents have, as far as they are known.
    pub(crate) fn workers(&self) -> usize {
        self.lock().agents.workers()
    }

    // The driver's side.

    /// Gives a chunk that is to be submitted.
    pub(super) fn next_chunk(&self) -> Option<u64> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let workers = state.agents.workers().max(1);
        let window = self.window.unwrap_or_else(|| (workers * 4).clamp(16, 256));
        if state.flights.len() >= window || state.ended {
            return None;
        }
        let front = state.waiting.front_mut()?;
        state.next_chunk += 1;
        let chunk = state.next_chunk;
        let id = ChunkId { session: self.session, job: front.batch.job, chunk };
        let flight = front.take(id, workers);
        if front.left() == 0 {
            state.waiting.pop_front();
        }
        state.flights.insert(chunk, flight);
        Some(chunk)
    }

    /// What a chunk's message is made of, unless it is done, or was cancelled.
    pub(super) fn sheet(&self, chunk: u64) -> Option<Sheet> {
        self.lock().flights.get(&chunk).map(Flight::sheet)
    }

    /// Has everything fail that was handed in.
    pub(super) fn fail_all(&self, reason: &str) {
        let mut state = self.lock();
        let error = TaskError::__not_run(reason);
        for mut flight in std::mem::take(&mut state.flights).into_values() {
            flight.fail(&error);
            let job = flight.id.job;
            state.cancelled.push(Cancelled { job, kill: true, flights: vec![flight] });
        }
        while let Some(mut waiting) = state.waiting.pop_front() {
            let id = ChunkId { session: self.session, job: waiting.batch.job, chunk: 0 };
            while waiting.left() > 0 {
                let mut flight = waiting.take(id, 1);
                flight.fail(&error);
            }
        }
        drop(state);
        self.changed.notify_all();
        self.attention.notify_one();
    }
}

impl State {
    /// Nothing was handed in that is not done.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }
}
