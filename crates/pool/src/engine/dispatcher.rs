//! The thread that watches the workers.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use multiproc_os::deadline::Deadline;
use multiproc_os::patience::Patience;
use multiproc_os::reactor::Reactor;
use multiproc_wire::{Endpoint, encode};

use super::shared::{Shared, State};
use super::worker::{LATE, Left, Life, Worker};
use crate::child::{self, Order};
use crate::death::Death;
use crate::error::{Error, Kind, TaskError};
use crate::trace;

const WAKER: u64 = 0;

/// So many workers in a row may end before they are ready for a task, before no more are started.
const FUTILE: u32 = 10;

/// So long it takes then until another is tried, where others run tasks meanwhile; twice as long after
/// each that was futile as well, up to the most.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    reactor: Reactor,
    /// The lines that it reads.
    lines: BTreeMap<u64, Arc<Endpoint>>,
    next_worker: u64,
    tries: Tries,
}

/// How the start of workers goes.
struct Tries {
    /// How many have ended since one was last ready for a task.
    futile: u32,
    /// How the last of them ended.
    reason: String,
    /// No task waits any more, since those that did have failed for it: one that comes is a new try.
    told: bool,
    /// When another is tried, and how long it takes until the one after that.
    next: Option<Deadline>,
    pause: Duration,
}

impl Dispatcher {
    /// Starts the workers.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, Error> {
        let reactor = Reactor::new().map_err(Kind::Watch)?;
        reactor.add(&*shared.bells, WAKER).map_err(Kind::Watch)?;
        let mut dispatcher = Dispatcher {
            shared: Arc::clone(&shared),
            reactor,
            lines: BTreeMap::new(),
            next_worker: 0,
            tries: Tries::default(),
        };
        for _ in 0..shared.settings.at_first() {
            dispatcher.start_worker()?;
        }
        Ok(dispatcher)
    }

    /// Runs until the pool has ended.
    pub(crate) fn run(mut self) {
        // Whatever happens here, nobody waits for a result that cannot come.
        let failure = match catch_unwind(AssertUnwindSafe(|| self.watch())) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the pool failed: {error}")),
            Err(_) => Some("the pool's thread panicked".into()),
        };
        if let Some(failure) = failure {
            self.shared.lock().terminated = true;
            self.end(&TaskError::not_run(failure));
        }
        self.shared.end();
    }

    fn watch(&mut self) -> io::Result<()> {
        let patience = Patience::new();
        let shared = Arc::clone(&self.shared);
        let mut until = Deadline::NEVER;
        loop {
            let ready = self.wait(&patience, until)?;
            for token in ready {
                match token {
                    WAKER => shared.bells.clear(),
                    line if line % 2 == 1 => self.read(id(line))?,
                    pidfd => self.bury(id(pidfd))?,
                }
            }
            let mut state = shared.lock();
            if state.terminated {
                drop(state);
                self.end(&TaskError::not_run("the pool was terminated"));
                return Ok(());
            }
            state.workers.values_mut().for_each(Worker::look_into_outbox);
            state.end_expired();
            state.end_overdue();
            drop(shared.dispatch(state));
            self.replace();
            let mut state = shared.dispatch(shared.lock());
            self.retire(&mut state);
            if state.closed && state.waiting.is_empty() && state.workers.is_empty() {
                return Ok(());
            }
            until = self.next_look(&state);
            state.attended = until;
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, patience: &Patience, until: Deadline) -> io::Result<Vec<u64>> {
        let mut turn = patience.turn();
        turn.yield_ahead();
        let mut ready = self.reactor.wait(Deadline::now())?;
        while ready.is_empty() {
            if turn.try_yield() {
                ready = self.reactor.wait(Deadline::now())?;
            } else {
                ready = self.reactor.wait(until)?;
                break;
            }
        }
        turn.end(true);
        Ok(ready)
    }

    /// Reads one message of a worker's.
    fn read(&mut self, id: u64) -> io::Result<()> {
        let Some(line) = self.lines.get(&id) else { return Ok(()) };
        let message = match Worker::read(line) {
            Ok(None) => return Ok(()),
            Ok(Some(message)) => Ok(message),
            // It has ended, or a task has closed its socket, or written to it; or here is no descriptor
            // or memory left for what it has sent.
            Err(error) => {
                self.reactor.remove(&**line)?;
                self.lines.remove(&id);
                Err(error)
            }
        };
        let mut state = self.shared.lock();
        let state = &mut *state;
        let Some(worker) = state.workers.get_mut(&id) else { return Ok(()) };
        if !worker.ready && message.is_ok() {
            self.tries.succeeded();
        }
        match message {
            Ok((report, content)) => {
                for left in worker.note(report, content) {
                    state.waiting.put_back(left);
                }
            }
            Err(_) if worker.life == Life::Retiring => {}
            Err(error) => {
                worker.unheard = (!error.is_closed()).then(|| error.to_string());
                worker.kill();
            }
        }
        Ok(())
    }

    fn start_worker(&mut self) -> Result<(), Error> {
        let id = self.next_worker;
        let worker = Worker::start(&self.shared.settings, id)?;
        self.next_worker += 1;
        self.reactor.add(&*worker.line, line_token(id)).map_err(Kind::Watch)?;
        let watched = self.reactor.add(worker.process.as_fd(), line_token(id) + 1);
        if let Err(error) = watched {
            let _watched = self.reactor.remove(&*worker.line);
            return Err(Kind::Watch(error).into());
        }
        trace::worker_started(id, worker.process.pid());
        self.lines.insert(id, Arc::clone(&worker.line));
        self.shared.lock().workers.insert(id, worker);
        Ok(())
    }

    /// Takes leave of a worker that has ended.
    fn bury(&mut self, id: u64) -> io::Result<()> {
        let mut state = self.shared.lock();
        let Some(mut worker) = state.workers.remove(&id) else { return Ok(()) };
        // Who has seen a result sees it counted.
        let counted = worker.statistics();
        state.statistics.part_with(&counted, worker.life != Life::Retiring);
        drop(state);
        let limited = self.shared.settings.memory_limit;
        let told = catch_unwind(AssertUnwindSafe(|| {
            self.forget(id, &worker)?;
            Ok(Death::of(&mut worker.process, limited, worker.unheard.clone()))
        }));
        let death = match told.unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))) {
            Ok(death) => death,
            Err(error) => {
                // Its tasks fail with all others.
                self.shared.lock().workers.insert(id, worker);
                return Err(error);
            }
        };
        let mut state = self.shared.lock();
        let left = worker.drain();
        state.statistics.tasks_of_ended += worker.statistics().tasks - counted.tasks;
        if worker.ready {
            self.tries.succeeded();
        } else {
            self.tries.futile += 1;
            self.tries.reason = death.to_string();
        }
        trace::worker_ended(&worker.statistics(), &death);
        let unforeseen = worker.life != Life::Retiring;
        if !unforeseen && self.shared.settings.close.is_some() && worker.last_words.is_none() {
            worker.last_words = Some(child::failed(format!("its worker {death}")));
        }
        let Left { ran, unheard, unbegun } = worker.leave(death.is_unheard());
        for work in left.into_iter().chain(unbegun.into_iter().rev()) {
            state.waiting.put_back(work);
        }
        for work in unheard {
            work.fail(TaskError::died(death.clone(), 1));
        }
        if let Some((task, mut work)) = ran {
            let doom = worker.doom.take().filter(|(doomed, _)| *doomed == task);
            let options = &work.job.batch.options;
            let deaths = work.job.count_death(work.tasks.start);
            match doom {
                Some((_, error)) => work.fail_first(error),
                None if deaths <= options.retries => state.waiting.put_back(work),
                None => work.fail_first(TaskError::died(death, deaths)),
            }
        }
        state.finals.extend(worker.last_words);
        Ok(())
    }

    fn forget(&mut self, id: u64, worker: &Worker) -> io::Result<()> {
        if let Some(line) = self.lines.remove(&id) {
            self.reactor.remove(&*line)?;
        }
        self.reactor.remove(worker.process.as_fd())
    }

    /// Starts workers where there are fewer than there are to be.
    fn replace(&mut self) {
        loop {
            let mut state = self.shared.lock();
            let alone = state.workers.is_empty();
            if alone || state.active() >= self.shared.settings.needed(&state) {
                self.tries.next = None;
            }
            if state.active() >= self.shared.settings.needed(&state)
                || self.tries.next.is_some_and(|next| !next.has_passed())
            {
                return;
            }
            let again = self.tries.next.take().is_some();
            // Once one was futile, those count that may be as well.
            let starting = state.workers.values().filter(|worker| !worker.ready).count() as u32;
            if self.tries.futile > 0 && self.tries.futile + starting >= FUTILE && !again {
                if !alone {
                    if starting == 0 {
                        self.tries.pause();
                    }
                    return;
                }
                self.tries.told = state.waiting.is_empty() || !self.tries.told;
                if self.tries.told {
                    state.waiting.fail(&TaskError::not_run(format!(
                        "{} workers in a row ended before they were ready for a task; the last {}",
                        self.tries.futile, self.tries.reason
                    )));
                    return;
                }
                // Tasks have come since then.
            }
            drop(state);
            if let Err(error) = self.start_worker() {
                self.tries.futile += 1;
                self.tries.reason = format!("was not started: {error}");
                if !alone {
                    // They go on meanwhile.
                    self.tries.pause();
                    return;
                }
            }
        }
    }

    /// Lets workers end that are not to take more tasks, once they have none.
    fn retire(&self, state: &mut State) {
        let settings = &self.shared.settings;
        let closing = state.closed && state.is_idle();
        let mut active = state.active();
        let (size, least) = (state.size, settings.least_workers);
        for worker in state.workers.values_mut().rev() {
            let idle = worker.is_idle();
            let unused = settings
                .idle_timeout
                .is_some_and(|most| idle && active > least && worker.idle_since.elapsed() >= most);
            let old = settings.lifetime.is_some_and(|most| worker.born.elapsed() >= most);
            if worker.life == Life::Active && (closing || old || unused || active > size) {
                worker.life = Life::Spent;
                active -= 1;
            }
            if worker.life == Life::Spent && worker.assigned.is_empty() && !worker.sending {
                let order = encode(&Order::Retire { entry: settings.close });
                let told = order.and_then(|order| worker.line.send(&order, Deadline::now()));
                worker.life = Life::Retiring;
                if !matches!(told, Ok(true)) {
                    worker.kill();
                }
            }
        }
    }

    /// When something is to be done though nobody says so.
    fn next_look(&self, state: &State) -> Deadline {
        let settings = &self.shared.settings;
        let mut next = Deadline::from_nanos(state.next_timer());
        if let Some(next_try) = self.tries.next {
            next = next.min(next_try);
        }
        if state.may_take_back() {
            next = next.min(Deadline::after(LATE));
        } else if state.may_be_late() {
            next = next.min(Deadline::after(LATE * 4));
        }
        let mut look_at = |since: Instant, after: Duration| {
            next = next.min(Deadline::after(after.saturating_sub(since.elapsed())));
        };
        let active = state.active();
        for worker in state.workers.values().filter(|worker| worker.life == Life::Active) {
            if let Some(lifetime) = settings.lifetime {
                look_at(worker.born, lifetime);
            }
            if let Some(timeout) = settings.idle_timeout
                && worker.is_idle()
                && active > settings.least_workers
            {
                look_at(worker.idle_since, timeout);
            }
        }
        next
    }

    /// Ends all workers at once and fails what was not done.
    fn end(&mut self, error: &TaskError) {
        let mut state = self.shared.lock();
        state.waiting.fail(error);
        let workers = std::mem::take(&mut state.workers);
        drop(state);
        for worker in workers.values() {
            let _gone = worker.process.kill();
        }
        for (id, mut worker) in workers {
            let _watched = self.forget(id, &worker);
            let left = worker.drain();
            let _killed = worker.process.join_timeout(Duration::MAX);
            let Left { ran, unbegun, .. } = worker.leave(false);
            for work in left.into_iter().chain(unbegun).chain(ran.map(|(_, work)| work)) {
                work.fail(error.clone());
            }
        }
    }
}

impl Default for Tries {
    fn default() -> Self {
        Tries { futile: 0, reason: String::new(), told: false, next: None, pause: PAUSE }
    }
}

impl Tries {
    /// A worker has come to be ready for tasks.
    fn succeeded(&mut self) {
        *self = Tries::default();
    }

    /// Has another tried some time later.
    fn pause(&mut self) {
        self.next = Some(Deadline::after(self.pause));
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
    }
}

fn line_token(id: u64) -> u64 {
    id * 2 + 1
}

fn id(token: u64) -> u64 {
    (token - 1) / 2
}
