//! The driver's thread.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use multiproc_pool::TaskError;
use tokio::runtime;
use tokio::time::timeout;

use super::flight::Sheet;
use super::shared::{Cancelled, Shared};
use crate::connection::{Connection, Pause};
use crate::error::{Error, Kind};
use crate::key::Sort;
use crate::message::{Cancel, Job, Payload};
use crate::names::Session;
use crate::options::Options;

/// For how long the driver tidies up at its end.
const TIDY: Duration = Duration::from_secs(3);

pub(super) struct Driver {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) lease: Duration,
    pub(super) attempts: u32,
    /// Something of its session went by the object store.
    pub(super) stored: AtomicBool,
}

/// Connects, and starts the driver's thread.
pub(crate) fn start(url: &str, options: Options) -> Result<(Arc<Shared>, JoinHandle<()>), Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Kind::Start)?;
    let session = Session(random().map_err(Kind::Start)?);
    let shared = Arc::new(Shared::new(session, options.window));
    let (url, theirs) = (url.to_owned(), Arc::clone(&shared));
    let (tell, told) = mpsc::channel();
    let thread = thread::Builder::new().name("multiproc-nats".into());
    let thread = thread.spawn(move || {
        // Whatever ends it, nobody waits for what cannot come.
        let _last = Last(Arc::clone(&theirs));
        runtime.block_on(async {
            let driver = match Driver::connect(&url, &options, theirs).await {
                Ok(driver) => Arc::new(driver),
                Err(error) => {
                    let _told = tell.send(Err(error));
                    return;
                }
            };
            let _told = tell.send(Ok(()));
            driver.run().await;
        });
        runtime.shutdown_background();
    });
    let thread = thread.map_err(Kind::Start)?;
    let ended = || Err(Kind::Start(io::Error::other("the driver's thread has ended")).into());
    told.recv().unwrap_or_else(|_| ended())?;
    Ok((shared, thread))
}

struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.end("the driver has ended");
    }
}

impl Driver {
    async fn connect(url: &str, options: &Options, shared: Arc<Shared>) -> Result<Self, Error> {
        let connection = Connection::open(url, options).await?;
        let Options { lease, attempts, .. } = *options;
        let stored = AtomicBool::new(false);
        let driver = Driver { connection, shared, lease, attempts, stored };
        driver.renew_lease().await;
        Ok(driver)
    }

    async fn run(self: &Arc<Self>) {
        tokio::select! {
            () = self.serve() => {}
            () = Arc::clone(self).receive() => {}
            () = Arc::clone(self).watch() => {}
            () = Arc::clone(self).meet_agents() => {}
        }
        let _tidied = timeout(TIDY, self.tidy_up()).await;
    }

    /// Submits what there is room for, and removes what was cancelled. Returns when the driver is to end.
    async fn serve(self: &Arc<Self>) {
        loop {
            while let Some(chunk) = self.shared.next_chunk() {
                tokio::spawn(Arc::clone(self).submit(chunk));
            }
            let (cancelled, ended) = {
                let mut state = self.shared.lock();
                (std::mem::take(&mut state.cancelled), state.ended)
            };
            if ended {
                self.shared.lock().cancelled.extend(cancelled);
                return;
            }
            if !cancelled.is_empty() {
                tokio::spawn(Arc::clone(self).remove(cancelled));
            }
            self.shared.attention.notified().await;
        }
    }

    /// Submits a chunk, as often as it takes until the server has it.
    pub(super) async fn submit(self: Arc<Self>, chunk: u64) {
        let mut pause = Pause::default();
        let connection = &self.connection;
        while let Some(sheet) = self.shared.sheet(chunk) {
            let Sheet { id, batch, arguments, range, submissions } = sheet;
            let name = format!("{id}.arguments.{submissions}");
            let sent = async {
                let arguments = connection.put(&name, arguments.bytes(range.clone())).await?;
                let stored = matches!(arguments, Payload::Stored { .. });
                self.stored.fetch_or(stored, Relaxed);
                let job = Job {
                    id,
                    build: connection.build,
                    attempts: self.attempts,
                    timeout: batch.settings.timeout,
                    entry: batch.entry,
                    count: range.len() as u32,
                    arguments,
                };
                let message = connection.key.seal(Sort::Job, &job)?;
                let subject = connection.names.task(connection.build, id);
                let once = format!("{id}.{submissions}");
                connection.publish(subject, Some(once), message.into()).await?;
                Ok::<_, String>(stored)
            };
            match sent.await {
                Ok(stored) => {
                    if let Some(flight) = self.shared.lock().flights.get_mut(&chunk) {
                        flight.accepted |= flight.submissions == submissions;
                        flight.objects.extend(stored.then_some(name));
                        return;
                    }
                    // It is done, or was cancelled.
                    if stored {
                        connection.remove(&name).await;
                    }
                    return;
                }
                Err(_) => pause.wait().await,
            }
            let _later = connection.set_up().await;
        }
    }

    /// Sends a chunk once more, of which something is gone.
    pub(super) fn submit_again(self: &Arc<Self>, chunk: u64, submissions: u32) {
        /// A server may come back without it now and then, but not for ever.
        const MOST: u32 = 10;
        let mut state = self.shared.lock();
        let Some(flight) = state.flights.get_mut(&chunk) else { return };
        if flight.submissions != submissions {
            return;
        }
        flight.submissions += 1;
        flight.accepted = false;
        if submissions < MOST {
            tokio::spawn(Arc::clone(self).submit(chunk));
            return;
        }
        let reason = "it was sent ten times, and is gone again: somebody removes it, perhaps an agent \
                      that has another key";
        flight.fail(&TaskError::__not_run(reason));
        let flight = state.flights.remove(&chunk);
        state.cancelled.extend(flight.map(|flight| Cancelled {
            job: flight.id.job,
            kill: false,
            flights: vec![flight],
        }));
        drop(state);
        self.finished();
    }

    /// Removes from the server what was cancelled, and tells the agents.
    async fn remove(self: Arc<Self>, cancelled: Vec<Cancelled>) {
        let names = &self.connection.names;
        let session = self.shared.session;
        let jobs: BTreeSet<_> = cancelled.iter().map(|each| (each.job, each.kill)).collect();
        for (job, kill) in jobs {
            let subject = names.tasks_of_job(session, job);
            self.connection.purge(names.tasks_stream(), subject).await;
            if kill {
                self.tell_cancelled(Some(job)).await;
            }
        }
        for flight in cancelled.into_iter().flat_map(|each| each.flights) {
            self.let_go(flight.objects, flight.held).await;
        }
    }

    async fn tell_cancelled(&self, job: Option<u64>) {
        let session = self.shared.session;
        if let Ok(message) = self.connection.key.seal(Sort::Cancel, &Cancel { session, job }) {
            self.connection.tell(self.connection.names.cancel(session), message).await;
        }
    }

    /// Leaves nothing behind.
    async fn tidy_up(&self) {
        let Connection { names, context, client, .. } = &self.connection;
        let session = self.shared.session;
        let (cancelled, idle) = {
            let mut state = self.shared.lock();
            (std::mem::take(&mut state.cancelled), state.is_idle())
        };
        if !cancelled.is_empty() || !idle {
            self.tell_cancelled(None).await;
            self.connection.purge(names.tasks_stream(), names.tasks_of_session(session)).await;
        }
        if self.stored.load(Relaxed) {
            self.connection.remove_all(&format!("{session}.")).await;
        }
        let consumer = names.driver_consumer(session);
        let _gone = context.delete_consumer_from_stream(consumer, names.results_stream()).await;
        self.connection.purge(names.results_stream(), names.results_of_session(session)).await;
        self.connection.purge(names.leases_stream(), names.lease(session)).await;
        let _flushed = client.flush().await;
    }
}

fn random() -> io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u128::from_le_bytes(bytes))
}
