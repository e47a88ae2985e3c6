//! Whether a driver still wants what it has asked for.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use tokio::time::{Instant, sleep};

use super::Agent;
use crate::key::Sort;
use crate::message::Lease;
use crate::names::Session;

/// What is known of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Lives,
    /// There is no lease of it, which a server may have lost: it will be there again soon.
    Uncertain,
    Gone,
}

/// A driver whose lease is missing for so long is gone. One that lives renews it within a second of its
/// connection's coming back.
const GRACE: Duration = Duration::from_secs(3);

/// So many drivers are remembered.
const MANY: usize = 1000;

impl Agent {
    /// Stops what runs for drivers that are gone.
    pub(super) async fn watch_leases(&self) {
        loop {
            sleep(self.lease / 2).await;
            let sessions: HashSet<Session> =
                self.state().running.keys().map(|id| id.session).collect();
            for session in sessions {
                if self.life(session).await == Life::Gone {
                    self.cancel(session, None);
                }
            }
        }
    }

    /// Notes that the driver lives.
    pub(super) fn note_lease(&self, session: Session) {
        let mut state = self.state();
        if state.leases.len() >= MANY {
            let lease = self.lease;
            state.leases.retain(|_, seen| seen.elapsed() < lease);
        }
        state.leases.insert(session, Instant::now());
        // It was only cut off.
        if state.missing.remove(&session).is_some() {
            state.cancelled.retain(|&cancelled| cancelled != (session, None));
        }
    }

    /// Tells whether the driver lives, as far as can be known: without an answer from the server it
    /// does. Removes what one has left that does not.
    pub(super) async fn life(&self, session: Session) -> Life {
        let fresh = |seen: &Instant| seen.elapsed() < self.lease / 2;
        if self.state().leases.get(&session).is_some_and(fresh) {
            return Life::Lives;
        }
        let names = &self.connection.names;
        let Ok(stream) = self.connection.stream(names.leases_stream()).await else {
            return Life::Lives;
        };
        match stream.get_last_raw_message_by_subject(&names.lease(session)).await {
            Ok(message) => {
                let lease = self.connection.key.open::<Lease>(Sort::Lease, &message.payload);
                if lease.is_ok_and(|lease| lease.session == session) {
                    self.note_lease(session);
                }
                Life::Lives
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                let since = {
                    let missing = &mut self.state().missing;
                    if missing.len() >= MANY {
                        missing.clear();
                    }
                    *missing.entry(session).or_insert_with(Instant::now)
                };
                if since.elapsed() < GRACE {
                    return Life::Uncertain;
                }
                let tasks = names.tasks_of_session(session);
                self.connection.purge(names.tasks_stream(), tasks).await;
                let results = names.results_of_session(session);
                self.connection.purge(names.results_stream(), results).await;
                self.connection.remove_all(&format!("{session}.")).await;
                Life::Gone
            }
            Err(_) => Life::Lives,
        }
    }
}
