mod lease;
mod run;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use multiproc_pool::Pool;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::batch::Pace;
use crate::connection::{Connection, Pause};
use crate::error::{Error, Kind};
use crate::key::Sort;
use crate::message::{self, AgentState, Cancel, Hello};
use crate::names::{ChunkId, Session};
use crate::options::Options;

/// Makes this process an agent, which runs tasks of drivers of the same program until it is told to end.
///
/// It is to be called behind [`init`](multiproc_process::init), in a program that does nothing else. On
/// `SIGTERM` and `SIGINT` it hands back what it has not finished, kills its workers, and returns. What it
/// refuses, and why, it says on its standard error.
///
/// # Errors
///
/// The server cannot be reached, refuses who connects, or has no JetStream; the key is too short; or no
/// worker can be started. Once it runs, it never gives up: a server that is gone may come back.
///
/// # Examples
///
/// ```no_run
/// use multiproc_nats::{Options, agent};
///
/// multiproc_process::init();
/// if let Some(url) = std::env::args().skip_while(|word| word != "--agent").nth(1) {
///     agent(&url, Options::new(std::fs::read("/etc/my-program.key")?))?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn agent(url: &str, mut options: Options) -> Result<(), Error> {
    let workers = options.workers.take().unwrap_or_else(Pool::builder);
    // Before there is a thread that would be in the way of a fork.
    let pool = workers.build().map_err(Kind::Pool)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Kind::Start)?;
    runtime.block_on(async {
        let stop = stop_signal().map_err(Kind::Start)?;
        let connection = Connection::open(url, &options).await?;
        let agent = Agent::new(connection, pool, options.ack_wait, options.lease)?;
        agent.serve(stop).await;
        Ok(())
    })
}

struct Agent {
    connection: Connection,
    pool: Pool,
    id: u64,
    host: String,
    ack_wait: Duration,
    lease: Duration,
    /// How many chunks it has.
    held: AtomicUsize,
    /// A chunk is done.
    room: Notify,
    /// One for each worker: which chunks may run.
    turns: Semaphore,
    /// How long its chunks run.
    pace: Pace,
    stop: watch::Receiver<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The chunks that run, and what stops them.
    running: HashMap<ChunkId, Arc<Notify>>,
    cancelled: VecDeque<(Session, Option<u64>)>,
    /// When drivers gave a sign of life.
    leases: HashMap<Session, Instant>,
    /// Since when drivers have no lease.
    missing: HashMap<Session, Instant>,
}

impl Agent {
    fn new(
        connection: Connection,
        pool: Pool,
        ack_wait: Duration,
        lease: Duration,
    ) -> Result<Self, Error> {
        let mut id = [0; 8];
        getrandom::fill(&mut id)
            .map_err(|error| Kind::Start(std::io::Error::other(error.to_string())))?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Agent {
            connection,
            turns: Semaphore::new(pool.workers()),
            pool,
            id: u64::from_le_bytes(id),
            host: host.trim_end().into(),
            ack_wait,
            lease,
            held: AtomicUsize::new(0),
            room: Notify::new(),
            pace: Pace::default(),
            stop: watch::channel(false).1,
            state: Mutex::default(),
        })
    }

    async fn serve(mut self, stop: watch::Receiver<bool>) {
        /// For how long it hands back what it has.
        const FAREWELL: Duration = Duration::from_secs(5);

        self.stop = stop;
        let agent = Arc::new(self);
        let mut chunks = JoinSet::new();
        tokio::select! {
            () = agent.take_chunks(&mut chunks) => {}
            () = agent.answer() => {}
            () = agent.heed() => {}
            () = agent.watch_leases() => {}
            () = agent.stopped() => {}
        }
        agent.say(agent.connection.names.all_agents(), AgentState::Leaving).await;
        let all = async { while chunks.join_next().await.is_some() {} };
        let _late = timeout(FAREWELL, all).await;
        let _flushed = timeout(FAREWELL, agent.connection.client.flush()).await;
        agent.pool.terminate();
    }

    /// Takes chunks and has them run, for ever.
    async fn take_chunks(self: &Arc<Self>, chunks: &mut JoinSet<()>) {
        let mut pause = Pause::default();
        loop {
            // Whatever it was, a server that is gone may come back.
            if self.take_until_it_fails(chunks, &mut pause).await.is_err() {
                pause.wait().await;
            }
        }
    }

    async fn take_until_it_fails(
        self: &Arc<Self>,
        chunks: &mut JoinSet<()>,
        pause: &mut Pause,
    ) -> Result<(), String> {
        let consumer = self.connection.tasks(self.ack_wait).await?;
        loop {
            let connects = self.connection.connects();
            let most = self.wait_for_room().await;
            let mut pull = self.connection.pull(&consumer, most).await?;
            while let Some(message) = pull.next().await {
                let message = message?;
                *pause = Pause::default();
                self.held.fetch_add(1, Relaxed);
                let agent = Arc::clone(self);
                chunks.spawn(async move {
                    agent.handle(message).await;
                    agent.held.fetch_sub(1, Relaxed);
                    agent.room.notify_one();
                });
                while chunks.try_join_next().is_some() {}
            }
            if self.connection.connects() != connects {
                // The server may have come back without the consumer, and would not say so.
                return Ok(());
            }
        }
    }

    /// Waits until it may take chunks. Returns how many.
    async fn wait_for_room(&self) -> usize {
        loop {
            let most = self.most_chunks();
            let held = self.held.load(Relaxed);
            if held < most {
                return most - held;
            }
            self.room.notified().await;
        }
    }

    /// One for each worker, and where they are short so many more as run while others are got.
    fn most_chunks(&self) -> usize {
        const GETTING_OTHERS: Duration = Duration::from_millis(10);
        const SHORT: Duration = Duration::from_millis(100);
        const MORE: usize = 16;
        let workers = self.pool.workers();
        let each = match self.pace.mean() {
            Some(mean) if mean <= SHORT => {
                GETTING_OTHERS.as_nanos().div_ceil(mean.as_nanos().max(1))
            }
            _ => 0,
        };
        let more = usize::try_from(each).unwrap_or(usize::MAX).saturating_mul(workers);
        workers + more.min(MORE.max(workers))
    }

    /// Answers drivers that ask who is there.
    async fn answer(&self) {
        let mut pause = Pause::default();
        loop {
            let names = &self.connection.names;
            if let Ok(mut asked) = self.connection.client.subscribe(names.hello()).await {
                self.say(names.all_agents(), AgentState::Ready).await;
                while let Some(message) = asked.next().await {
                    let hello = self.connection.key.open::<Hello>(Sort::Hello, &message.payload);
                    let Ok(Hello { session, build }) = hello else { continue };
                    self.note_lease(session);
                    let state = if build == self.connection.build {
                        AgentState::Ready
                    } else {
                        AgentState::Refuses(self.refusal(build))
                    };
                    self.say(names.agents_of(session), state).await;
                }
            }
            pause.wait().await;
        }
    }

    /// Stops what is not wanted any more.
    async fn heed(&self) {
        let mut pause = Pause::default();
        loop {
            let cancels = self.connection.names.all_cancels();
            if let Ok(mut told) = self.connection.client.subscribe(cancels).await {
                while let Some(message) = told.next().await {
                    let cancel = self.connection.key.open::<Cancel>(Sort::Cancel, &message.payload);
                    let Ok(Cancel { session, job }) = cancel else { continue };
                    self.cancel(session, job);
                }
            }
            pause.wait().await;
        }
    }

    /// Begins no task of these any more, and stops those that run.
    fn cancel(&self, session: Session, job: Option<u64>) {
        const KEPT: usize = 4096;
        let mut state = self.state();
        if state.cancelled.len() == KEPT {
            state.cancelled.pop_front();
        }
        state.cancelled.push_back((session, job));
        let stopped = state.running.iter().filter(|(id, _)| is_of(id, session, job));
        stopped.for_each(|(_, stop)| stop.notify_one());
    }

    async fn say(&self, subject: String, state: AgentState) {
        let agent = message::Agent {
            id: self.id,
            host: self.host.clone(),
            pid: std::process::id(),
            workers: u32::try_from(self.pool.workers()).unwrap_or(u32::MAX),
            build: self.connection.build,
            state,
        };
        if let Ok(message) = self.connection.key.seal(Sort::Agent, &agent) {
            self.connection.tell(subject, message).await;
        }
    }

    /// Returns when it is to end.
    async fn stopped(&self) {
        // It is an error if nobody can tell it to end.
        if self.stop.clone().wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_of(id: &ChunkId, session: Session, job: Option<u64>) -> bool {
    id.session == session && job.is_none_or(|job| job == id.job)
}

/// Becomes true when the process is told to end.
fn stop_signal() -> std::io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ended = tell.send(true);
        // The receivers would take its end for an error.
        std::future::pending::<()>().await;
    });
    Ok(told)
}
