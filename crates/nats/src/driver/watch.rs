//! What the driver sees to from time to time: its lease, who is there, and that nothing is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval};

use super::agents::ASKS;
use super::engine::Driver;
use crate::connection::Pause;
use crate::key::Sort;
use crate::message::{Agent, Hello, Lease};
use crate::names::chunk_of;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);

/// When nothing has come for so long, it asks whether what should be there is.
const SILENCE: Duration = Duration::from_secs(10);

impl Driver {
    pub(super) async fn watch(self: Arc<Self>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connects = self.connection.connects();
        let (mut renewed, mut asked) = (Instant::now(), None::<Instant>);
        let mut audited = Instant::now();
        loop {
            looks.tick().await;
            let again = self.connection.connects() != connects;
            connects = self.connection.connects();
            if again || renewed.elapsed() >= self.lease / 3 {
                renewed = Instant::now();
                let driver = Arc::clone(&self);
                tokio::spawn(async move { driver.renew_lease().await });
            }
            let ready = self.shared.workers() > 0;
            let often = if ready { ASKS } else { 2 * LOOK };
            if again || asked.is_none_or(|asked| asked.elapsed() >= often) {
                asked = Some(Instant::now());
                self.say_hello().await;
            }
            let silent = {
                let state = self.shared.lock();
                let since = state.progress.map_or(Duration::ZERO, |progress| progress.elapsed());
                !state.flights.is_empty() && since.min(audited.elapsed()) >= SILENCE
            };
            if again || silent {
                audited = Instant::now();
                let driver = Arc::clone(&self);
                tokio::spawn(async move {
                    // If it fails, the silence goes on, and so do the questions.
                    let _later = driver.audit().await;
                });
            }
            self.give_up_if_refused();
        }
    }

    pub(super) async fn renew_lease(&self) {
        let session = self.shared.session;
        let Ok(message) = self.connection.key.seal(Sort::Lease, &Lease { session }) else { return };
        let subject = self.connection.names.lease(session);
        for _ in 0..2 {
            if self.connection.publish(subject.clone(), None, message.clone().into()).await.is_ok()
            {
                return;
            }
            let _later = self.connection.set_up().await;
        }
    }

    async fn say_hello(&self) {
        let hello = Hello { session: self.shared.session, build: self.connection.build };
        if let Ok(message) = self.connection.key.seal(Sort::Hello, &hello) {
            self.connection.tell(self.connection.names.hello(), message).await;
        }
    }

    /// Hears who is there.
    pub(super) async fn meet_agents(self: Arc<Self>) {
        let mut pause = Pause::default();
        loop {
            let names = &self.connection.names;
            let ours = self.connection.client.subscribe(names.agents_of(self.shared.session)).await;
            let all = self.connection.client.subscribe(names.all_agents()).await;
            if let (Ok(ours), Ok(all)) = (ours, all) {
                self.say_hello().await;
                let mut both = futures_util::stream::select(ours, all);
                while let Some(message) = both.next().await {
                    let agent = self.connection.key.open::<Agent>(Sort::Agent, &message.payload);
                    if let Ok(agent) = agent
                        // What agents say to all tells nothing of whether they run our tasks.
                        && (agent.is_leaving() || agent.build == self.connection.build
                            || !message.subject.ends_with(".all"))
                    {
                        self.shared.lock().agents.note(agent);
                        self.shared.changed.notify_all();
                        self.shared.attention.notify_one();
                    }
                }
            }
            pause.wait().await;
        }
    }

    /// Fails what nobody who is there would run.
    fn give_up_if_refused(&self) {
        let refusal = {
            let state = self.shared.lock();
            if state.is_idle() { None } else { state.agents.refusal() }
        };
        if let Some(reason) = refusal {
            self.shared.fail_all(&reason);
        }
    }

    /// Asks which chunks are there, as tasks or as results, and sends the others once more.
    async fn audit(self: &Arc<Self>) -> Result<(), String> {
        self.connection.set_up().await?;
        let sent: Vec<(u64, u32, bool)> = {
            let state = self.shared.lock();
            let accepted = state.flights.iter().filter(|(_, flight)| flight.accepted);
            let sent =
                accepted.map(|(&chunk, flight)| (chunk, flight.submissions, flight.is_new()));
            sent.collect()
        };
        if sent.is_empty() {
            return Ok(());
        }
        // In this order: a chunk's results are published before it is acknowledged.
        let names = &self.connection.names;
        let session = self.shared.session;
        let tasks = self.chunks(names.tasks_stream(), names.tasks_of_session(session)).await?;
        let results =
            self.chunks(names.results_stream(), names.results_of_session(session)).await?;
        for (chunk, submissions, new) in sent {
            // Results that were taken already are no sign that the others will come.
            if !(tasks.contains(&chunk) || new && results.contains(&chunk)) {
                self.submit_again(chunk, submissions);
            }
        }
        Ok(())
    }

    async fn chunks(&self, stream: String, subjects: String) -> Result<HashSet<u64>, String> {
        let stream = self.connection.stream(stream).await?;
        let found = stream.info_builder().subjects(subjects).fetch().await;
        let mut found = found.map_err(|error| error.to_string())?;
        let mut chunks = HashSet::new();
        while let Some(subject) = found.next().await {
            let (subject, _count) = subject.map_err(|error| error.to_string())?;
            chunks.extend(chunk_of(&subject));
        }
        Ok(chunks)
    }
}
