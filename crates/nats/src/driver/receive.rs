//! Results as they come.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use async_nats::jetstream::Message;
use async_nats::jetstream::message::AckKind;
use bytes::Bytes;
use multiproc_pool::TaskError;

use super::engine::Driver;
use crate::batch::Part;
use crate::connection::Pause;
use crate::key::Sort;
use crate::message::{Content, Outcome, Outcomes, Payload, Report};
use crate::names::ChunkId;

/// So many results are asked for at once.
const MANY: usize = 64;

impl Driver {
    /// Takes results, for ever.
    pub(super) async fn receive(self: Arc<Self>) {
        let mut pause = Pause::default();
        loop {
            if self.receive_until_it_fails(&mut pause).await.is_err() {
                pause.wait().await;
            }
        }
    }

    async fn receive_until_it_fails(self: &Arc<Self>, pause: &mut Pause) -> Result<(), String> {
        let consumer = self.connection.results(self.shared.session).await?;
        loop {
            let connects = self.connection.connects();
            let mut pull = self.connection.pull(&consumer, MANY).await?;
            while let Some(message) = pull.next().await {
                self.note(message?).await;
                *pause = Pause::default();
            }
            if self.connection.connects() != connects {
                // The server may have come back without the consumer, and would not say so.
                return Ok(());
            }
        }
    }

    async fn note(self: &Arc<Self>, message: Message) {
        let payload = message.payload.clone();
        let Ok(report) = self.connection.key.open::<Report<'_>>(Sort::Report, &payload) else {
            let _gone = message.ack_with(AckKind::Term).await;
            return;
        };
        let Report { id, agent, nanos, content } = report;
        self.shared.lock().agents.touch(agent);
        match content {
            Content::Outcomes(Payload::Inline(outcomes)) => {
                let outcomes = payload.slice_ref(&outcomes.0);
                self.take(id, nanos, &outcomes, None, message).await;
            }
            Content::Outcomes(Payload::Stored { name, digest }) => {
                let (driver, name) = (Arc::clone(self), name.into_owned());
                self.stored.store(true, Relaxed);
                tokio::spawn(async move {
                    match driver.connection.get(&name, digest).await {
                        Ok(outcomes) => {
                            driver.take(id, nanos, &outcomes, Some(name), message).await
                        }
                        Err(_) => driver.lost(id, &message).await,
                    }
                });
            }
            Content::Lost => self.lost(id, &message).await,
            Content::Refused(reason) => {
                let error = TaskError::__not_run(reason);
                let flight = self.shared.lock().flights.remove(&id.chunk);
                if let Some(mut flight) = flight {
                    flight.fail(&error);
                    self.finished();
                    self.let_go(flight.objects, flight.held).await;
                }
                let _again = message.ack().await;
            }
        }
    }

    /// Takes what came of a chunk, or of a part of it.
    async fn take(
        &self,
        id: ChunkId,
        nanos: u64,
        bytes: &Bytes,
        object: Option<String>,
        message: Message,
    ) {
        let Ok(outcomes) = postcard::from_bytes::<Outcomes<'_>>(bytes) else {
            let _gone = message.ack_with(AckKind::Term).await;
            return;
        };
        let part = |(index, outcome)| {
            let outcome = match outcome {
                Outcome::Returned(value) => Ok(bytes.slice_ref(&value.0)),
                Outcome::Failed(error) => Err(error),
            };
            Part { index: index as usize, outcome }
        };
        let parts: Vec<Part> = outcomes.done.into_iter().map(part).collect();
        let (objects, held) = {
            let mut state = self.shared.lock();
            state.progress = Some(Instant::now());
            match state.flights.get_mut(&id.chunk) {
                Some(flight) => {
                    let ran = parts.len();
                    let new = flight.note(parts);
                    if !new.is_empty() {
                        flight.batch.pace.learn(ran, nanos);
                    }
                    flight.batch.put(new);
                    flight.objects.extend(object);
                    flight.held.push(message);
                    if !flight.is_done() {
                        return;
                    }
                    let flight = state.flights.remove(&id.chunk);
                    flight.map(|flight| (flight.objects, flight.held)).unwrap_or_default()
                }
                // It was done before, or cancelled.
                None => (object.into_iter().collect(), vec![message]),
            }
        };
        self.finished();
        self.let_go(objects, held).await;
    }

    /// There is room in the window, and perhaps nothing left to do.
    pub(super) fn finished(&self) {
        self.shared.attention.notify_one();
        self.shared.changed.notify_all();
    }

    /// Something of a chunk is not in the store any more.
    async fn lost(self: &Arc<Self>, id: ChunkId, message: &Message) {
        let submissions =
            self.shared.lock().flights.get(&id.chunk).map(|flight| flight.submissions);
        if let Some(submissions) = submissions {
            self.submit_again(id.chunk, submissions);
        }
        let _again = message.ack().await;
    }

    /// The server need not keep these any more.
    pub(super) async fn let_go(&self, objects: Vec<String>, messages: Vec<Message>) {
        for message in messages {
            let _again = message.ack().await;
        }
        if !objects.is_empty() {
            let connection = self.connection.clone();
            tokio::spawn(async move {
                for object in objects {
                    connection.remove(&object).await;
                }
            });
        }
    }
}
