//! The thread that watches the workers.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};

use multiproc_os::deadline::Deadline;
use multiproc_os::patience::Patience;
use multiproc_os::reactor::Reactor;

use crate::error::{Error, TaskError};
use crate::state::{Shared, State, Worker};

const WAKER: u64 = 0;

/// So many workers in a row may die before they are ready for a task, before no more are started.
const FUTILE: u32 = 10;

pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    reactor: Reactor,
    /// How many workers have died since one was last ready for a task.
    futile: u32,
}

impl Dispatcher {
    /// Starts the workers.
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, Error> {
        let watch = |error| Error::from(crate::error::Kind::Watch(error));
        let reactor = Reactor::new().map_err(watch)?;
        reactor.add(&shared.waker, WAKER).map_err(watch)?;
        let dispatcher = Dispatcher { shared, reactor, futile: 0 };
        let shared = Arc::clone(&dispatcher.shared);
        let mut state = shared.lock();
        for _ in 0..shared.settings.workers {
            dispatcher.start_worker(&mut state)?;
        }
        drop(state);
        Ok(dispatcher)
    }

    /// Runs until the pool has ended.
    pub(crate) fn run(mut self) {
        // Whatever happens here, nobody waits for a result that cannot come.
        let failure = match catch_unwind(AssertUnwindSafe(|| self.watch())) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("the pool failed: {error}"),
            Err(_) => "the pool's thread panicked".into(),
        };
        let mut state = self.shared.lock();
        state.terminated = true;
        self.end(&mut state, &TaskError::not_run(failure));
    }

    fn watch(&mut self) -> io::Result<()> {
        let patience = Patience::new();
        loop {
            let ready = patience.wait(
                || {
                    self.reactor
                        .wait(Deadline::now())
                        .map(|ready| Some(ready).filter(|r| !r.is_empty()))
                },
                || self.reactor.wait(Deadline::NEVER),
            )?;
            let shared = Arc::clone(&self.shared);
            let mut state = shared.lock();
            for token in ready {
                match token {
                    WAKER => shared.waker.clear(),
                    line if line % 2 == 1 => {
                        if let Some(worker) = state.workers.get_mut(&id(line)) {
                            worker.read_line();
                        }
                    }
                    pidfd => self.bury(&mut state, id(pidfd))?,
                }
            }
            if state.terminated {
                self.end(&mut state, &TaskError::not_run("the pool was terminated"));
                return Ok(());
            }
            self.replace(&mut state);
            state.assign();
            if state.closed && state.is_idle() {
                self.retire(state);
                return Ok(());
            }
        }
    }

    fn start_worker(&self, state: &mut State) -> Result<(), Error> {
        let id = state.start_worker(&self.shared.settings)?;
        let watched = match state.workers.get(&id) {
            Some(worker) => {
                let line = self.reactor.add(&worker.line, line_token(id));
                line.and_then(|()| self.reactor.add(worker.process.as_fd(), line_token(id) + 1))
            }
            None => Ok(()),
        };
        watched.map_err(|error| {
            state.workers.remove(&id);
            crate::error::Kind::Watch(error).into()
        })
    }

    /// Takes leave of a worker that has ended.
    fn bury(&mut self, state: &mut MutexGuard<'_, State>, id: u64) -> io::Result<()> {
        let Some(mut worker) = state.workers.remove(&id) else { return Ok(()) };
        self.forget(&worker)?;
        let left = worker.bury();
        self.futile = if worker.was_ready() { 0 } else { self.futile + 1 };
        if let Some(work) = left {
            state.waiting.push_front(work);
        }
        Ok(())
    }

    fn forget(&self, worker: &Worker) -> io::Result<()> {
        self.reactor.remove(&worker.line)?;
        self.reactor.remove(worker.process.as_fd())
    }

    /// Starts workers in the place of those that have ended.
    fn replace(&mut self, state: &mut State) {
        while state.workers.len() < self.shared.settings.workers {
            if state.closed && state.waiting.is_empty() {
                return;
            }
            if self.futile >= FUTILE {
                let reason =
                    format!("{} workers in a row ended before they ran a task", self.futile);
                if state.workers.is_empty() && !state.waiting.is_empty() {
                    state.fail_waiting(&TaskError::not_run(reason));
                    // Tasks that come later are a new try.
                    self.futile = FUTILE - 1;
                }
                return;
            }
            if let Err(error) = self.start_worker(state) {
                // The others go on; with none, nothing would ever run what waits.
                if state.workers.is_empty() {
                    state.fail_waiting(&TaskError::not_run(error));
                }
                return;
            }
        }
    }

    /// Ends idle workers in peace: each sees its line close.
    fn retire(&self, mut state: MutexGuard<'_, State>) {
        let workers = std::mem::take(&mut state.workers);
        state.terminated = true;
        drop(state);
        let mut ending = Vec::new();
        for worker in workers.into_values() {
            let _watched = self.forget(&worker);
            ending.push(worker.process);
        }
        for process in ending {
            let _ended = process.join();
        }
    }

    /// Ends all workers at once and fails what was not done.
    fn end(&self, state: &mut State, error: &TaskError) {
        state.fail_waiting(error);
        let workers = std::mem::take(&mut state.workers);
        for worker in workers.values() {
            let _ended = worker.process.kill();
        }
        for worker in workers.into_values() {
            let _watched = self.forget(&worker);
            worker.abandon(error);
        }
    }
}

fn line_token(id: u64) -> u64 {
    id * 2 + 1
}

fn id(token: u64) -> u64 {
    (token - 1) / 2
}
