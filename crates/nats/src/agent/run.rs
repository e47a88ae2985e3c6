//! A chunk on an agent: see the states in the crate's README.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::message::AckKind;
use bytes::Bytes;
use multiproc_pool::{MapHandle, TaskError};
use tokio::sync::Notify;
use tokio::time::{interval, sleep};

use super::lease::Life;
use super::{Agent, is_of};
use crate::build::Build;
use crate::chunk;
use crate::connection::Pause;
use crate::key::{Append, Sort};
use crate::message::{Blob, Content, Job, Outcome, Outcomes, Owned, Payload, Report};
use crate::names::ChunkId;
use crate::task::{Ran, Task, execute};

/// A chunk may be delivered so many times more than workers may die of a task.
const SPARE_DELIVERIES: u32 = 32;

/// A chunk that has waited for so long is handed back: perhaps another agent has nothing to do.
const PATIENCE: Duration = Duration::from_millis(100);

/// But not for ever.
const MOST_HANDED_BACK: u32 = 8;

/// After this time a chunk is delivered again that could not be run.
const LATER: Duration = Duration::from_secs(1);

/// What earlier deliveries have come to.
type Earlier = (Bytes, HashMap<u32, u32>);

impl Agent {
    /// Handles a chunk, and says that it is in progress for as long as that takes.
    pub(super) async fn handle(&self, message: Message) {
        let mut signs = interval(self.ack_wait / 3);
        signs.tick().await;
        let mut work = std::pin::pin!(self.work(&message));
        let verdict = loop {
            tokio::select! {
                verdict = &mut work => break verdict,
                _ = signs.tick() => {
                    let _late = message.ack_with(AckKind::Progress).await;
                }
            }
        };
        // If it does not come through, the chunk is delivered again.
        let _again = message.ack_with(verdict).await;
    }

    /// Does what is to be done with a chunk, and says what to tell the server.
    async fn work(&self, message: &Message) -> AckKind {
        let job = match self.connection.key.open::<Job<'_>>(Sort::Job, &message.payload) {
            Ok(job) => job,
            Err(refused) => {
                eprintln!("multiproc-nats: refused a job: {refused}");
                return AckKind::Term;
            }
        };
        let id = job.id;
        let delivered = message.info().map_or(1, |info| u32::try_from(info.delivered).unwrap_or(1));
        if job.build != self.connection.build {
            let reason = self.refusal(job.build);
            eprintln!("multiproc-nats: refused a job: {reason}");
            self.report(id, delivered, 0, Content::Refused(reason.into())).await;
            return AckKind::Term;
        }
        match self.life(id.session).await {
            Life::Lives => {}
            Life::Uncertain => return AckKind::Nak(Some(LATER)),
            Life::Gone => return AckKind::Term,
        }
        if self.is_cancelled(&id) {
            return AckKind::Term;
        }
        let arguments = match &job.arguments {
            Payload::Inline(arguments) => message.payload.slice_ref(&arguments.0),
            Payload::Stored { name, digest } => match self.connection.get(name, *digest).await {
                Ok(arguments) => arguments,
                Err(_) => {
                    self.report(id, delivered, 0, Content::Lost).await;
                    return AckKind::Ack;
                }
            },
        };
        let Some(tasks) = chunk::tasks(job.entry, &arguments, job.count) else {
            let reason = "its arguments cannot be read";
            self.report(id, delivered, 0, Content::Refused(reason.into())).await;
            return AckKind::Term;
        };
        let (earlier, deaths) = match delivered {
            ..=1 => Earlier::default(),
            _ => self.earlier(id).await.unwrap_or_default(),
        };
        let mut outcomes: Outcomes<'_> = postcard::from_bytes(&earlier).unwrap_or_default();
        outcomes.deaths.clear();
        let mut left = vec![true; tasks.len()];
        for (index, _) in &outcomes.done {
            if let Some(left) = left.get_mut(*index as usize) {
                *left = false;
            }
        }
        let (indices, tasks): (Vec<u32>, Vec<Task>) =
            (0..).zip(tasks).filter(|&(index, _)| left[index as usize]).unzip();
        let last = delivered >= job.attempts.saturating_add(SPARE_DELIVERIES);
        if last {
            let error = TaskError::__failed(format_args!(
                "was delivered {delivered} times, and those who had it never came to its end"
            ));
            outcomes.done.extend(indices.iter().map(|&i| (i, Outcome::Failed(error.clone()))));
            self.report_outcomes(id, delivered, 0, outcomes).await;
            return AckKind::Ack;
        }
        let turn = tokio::select! {
            turn = self.turns.acquire() => turn,
            () = sleep(PATIENCE), if delivered <= MOST_HANDED_BACK => {
                // Those that run are longer than those before.
                self.pace.forget();
                return AckKind::Nak(None);
            }
            () = self.stopped() => return AckKind::Nak(None),
        };
        let ran = self.run(id, job.timeout, tasks).await;
        drop(turn);
        let Some(ran) = ran else {
            return self.verdict_without_results(&id);
        };
        // A pool that has no worker may have one later, or another agent's has.
        if ran.iter().any(|ran| ran.as_ref().is_err_and(TaskError::is_not_run)) {
            // This one takes no others for a while.
            tokio::select! {
                () = sleep(5 * LATER) => {}
                () = self.stopped() => {}
            }
            return AckKind::Nak(None);
        }
        let mut nanos = 0u64;
        for (index, ran) in indices.into_iter().zip(ran) {
            let outcome = match ran {
                Ok(ran) => {
                    nanos = nanos.saturating_add(ran.nanos);
                    match ran.value {
                        Ok(Owned(value)) => Outcome::Returned(Blob(value.into())),
                        Err(reason) => Outcome::Failed(TaskError::__failed(reason)),
                    }
                }
                Err(error) if error.is_death() => {
                    let count = deaths.get(&index).copied().unwrap_or(0) + 1;
                    if count < job.attempts {
                        outcomes.deaths.push((index, count));
                        continue;
                    }
                    Outcome::Failed(error.__after_deaths(count))
                }
                Err(error) => Outcome::Failed(error),
            };
            outcomes.done.push((index, outcome));
        }
        self.pace.learn(1, nanos);
        let again = !outcomes.deaths.is_empty();
        self.report_outcomes(id, delivered, nanos, outcomes).await;
        if again { AckKind::Nak(None) } else { AckKind::Ack }
    }

    /// Runs tasks in the pool. `None` if the chunk was cancelled, or the agent is to end.
    async fn run(
        &self,
        id: ChunkId,
        timeout: Option<Duration>,
        tasks: Vec<Task>,
    ) -> Option<Vec<Result<Ran, TaskError>>> {
        let pool = match timeout {
            Some(timeout) => self.pool.with_timeout(timeout),
            None => self.pool.clone(),
        };
        let stop = Arc::new(Notify::new());
        self.state().running.insert(id, Arc::clone(&stop));
        let _running = Running(self, id);
        if self.is_cancelled(&id) {
            return None;
        }
        let count = tasks.len();
        let mut handle = match pool.map_async(execute as fn(Task) -> Ran, tasks) {
            Ok(handle) => handle,
            Err(error) => {
                let error = TaskError::__not_run(error);
                return Some((0..count).map(|_| Err(error.clone())).collect());
            }
        };
        tokio::select! {
            ran = outcomes(&mut handle) => return Some(ran),
            () = stop.notified() => {}
            () = self.stopped() => {}
        }
        handle.cancel();
        None
    }

    fn verdict_without_results(&self, id: &ChunkId) -> AckKind {
        if self.is_cancelled(id) { AckKind::Term } else { AckKind::Nak(None) }
    }

    fn is_cancelled(&self, id: &ChunkId) -> bool {
        self.state().cancelled.iter().any(|&(session, job)| is_of(id, session, job))
    }

    /// Asks what the chunk has come to in earlier deliveries.
    async fn earlier(&self, id: ChunkId) -> Option<Earlier> {
        let names = &self.connection.names;
        let stream = self.connection.stream(names.results_stream()).await.ok()?;
        let last = stream.get_last_raw_message_by_subject(&names.result(id)).await.ok()?;
        let report = self.connection.key.open::<Report<'_>>(Sort::Report, &last.payload).ok()?;
        let Content::Outcomes(payload) = report.content else { return None };
        let bytes = match payload {
            Payload::Inline(outcomes) => last.payload.slice_ref(&outcomes.0),
            Payload::Stored { name, digest } => self.connection.get(&name, digest).await.ok()?,
        };
        let outcomes: Outcomes<'_> = postcard::from_bytes(&bytes).ok()?;
        let deaths = outcomes.deaths.into_iter().collect();
        Some((bytes, deaths))
    }

    async fn report_outcomes(
        &self,
        id: ChunkId,
        delivered: u32,
        nanos: u64,
        outcomes: Outcomes<'_>,
    ) {
        let mut bytes = Vec::new();
        if postcard::serialize_with_flavor(&outcomes, Append(&mut bytes)).is_err() {
            return;
        }
        let name = format!("{id}.results.{delivered}.{:016x}", self.id);
        let mut pause = Pause::default();
        let payload = loop {
            match self.connection.put(&name, &bytes).await {
                Ok(payload) => break payload,
                Err(_) => pause.wait().await,
            }
        };
        self.report(id, delivered, nanos, Content::Outcomes(payload)).await;
    }

    /// Publishes a report, and waits until the server has it.
    async fn report(&self, id: ChunkId, delivered: u32, nanos: u64, content: Content<'_>) {
        let report = Report { id, agent: self.id, nanos, content };
        if let Ok(message) = self.connection.key.seal(Sort::Report, &report) {
            let once = format!("{id}.{delivered}.{:016x}", self.id);
            self.connection.insist(self.connection.names.result(id), once, message.into()).await;
        }
    }

    /// Why this program runs no task of that one.
    pub(super) fn refusal(&self, build: Build) -> String {
        format!(
            "it runs build {}, and the task is of build {build}: all hosts need the same program file",
            self.connection.build
        )
    }
}

/// A chunk runs for as long as it lives.
struct Running<'a>(&'a Agent, ChunkId);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().running.remove(&self.1);
    }
}

/// Waits for what comes of all tasks.
async fn outcomes(handle: &mut MapHandle<Ran>) -> Vec<Result<Ran, TaskError>> {
    match poll_fn(|context| Pin::new(&mut *handle).poll(context)).await {
        Ok(values) => values.into_iter().map(Ok).collect(),
        Err(error) => error.into_outcomes(),
    }
}
