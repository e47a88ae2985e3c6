//! Whether a driver still wants what it has asked for.

use std::collections::HashSet;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use tokio::time::{Instant, sleep};

use super::Agent;
use crate::key::Sort;
use crate::message::Lease;
use crate::names::Session;

impl Agent {
    /// Stops what runs for drivers that are gone.
    pub(super) async fn watch_leases(&self) {
        loop {
            sleep(self.lease / 2).await;
            let sessions: HashSet<Session> =
                self.state().running.keys().map(|id| id.session).collect();
            for session in sessions {
                if !self.lives(session).await {
                    self.cancel(session, None);
                }
            }
        }
    }

    /// Notes that the driver lives.
    pub(super) fn note_lease(&self, session: Session) {
        const MANY: usize = 1000;
        let mut state = self.state();
        if state.leases.len() >= MANY {
            let lease = self.lease;
            state.leases.retain(|_, seen| seen.elapsed() < lease);
        }
        state.leases.insert(session, Instant::now());
    }

    /// Tells whether the driver lives, as far as can be known: without an answer from the server it
    /// does. Removes what one has left that does not.
    pub(super) async fn lives(&self, session: Session) -> bool {
        let fresh = |seen: &Instant| seen.elapsed() < self.lease / 2;
        if self.state().leases.get(&session).is_some_and(fresh) {
            return true;
        }
        let names = &self.connection.names;
        let Ok(stream) = self.connection.stream(names.leases_stream()).await else { return true };
        match stream.get_last_raw_message_by_subject(&names.lease(session)).await {
            Ok(message) => {
                let lease = self.connection.key.open::<Lease>(Sort::Lease, &message.payload);
                if lease.is_ok_and(|lease| lease.session == session) {
                    self.note_lease(session);
                }
                true
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                let tasks = names.tasks_of_session(session);
                self.connection.purge(names.tasks_stream(), tasks).await;
                let results = names.results_of_session(session);
                self.connection.purge(names.results_stream(), results).await;
                eprintln!("multiproc-nats: removed the tasks of a driver that is gone ({session})");
                false
            }
            Err(_) => true,
        }
    }
}
