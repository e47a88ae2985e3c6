//! Who is there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::build::Build;
use crate::message::{Agent, AgentState};

/// An agent of a pool's: see [`Pool::agents`](crate::Pool::agents).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentInfo {
    /// The name of its host.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// How many workers it has.
    pub workers: usize,
}

#[derive(Debug, Default)]
pub(super) struct Agents(HashMap<u64, Known>);

#[derive(Debug)]
struct Known {
    info: AgentInfo,
    build: Build,
    state: AgentState,
    first_seen: Instant,
    seen: Instant,
}

/// How often a driver asks who is there.
pub(super) const ASKS: Duration = Duration::from_secs(5);

/// An agent that has not answered for so long is gone, or is cut off.
const GONE: Duration = Duration::from_secs(3 * ASKS.as_secs() + 1);

/// For how long one that would run tasks may come after one that refuses to.
const GRACE: Duration = Duration::from_secs(1);

impl Agents {
    pub(super) fn note(&mut self, agent: Agent) {
        let Agent { id, host, pid, workers, build, state } = agent;
        if state == AgentState::Leaving {
            self.0.remove(&id);
            return;
        }
        let now = Instant::now();
        let info = AgentInfo { host, pid, workers: workers as usize };
        let first_seen = self.0.get(&id).map_or(now, |known| known.first_seen);
        self.0.insert(id, Known { info, build, state, first_seen, seen: now });
    }

    /// Notes that the agent has sent something.
    pub(super) fn touch(&mut self, id: u64) {
        if let Some(known) = self.0.get_mut(&id) {
            known.seen = Instant::now();
        }
    }

    pub(super) fn ready(&self) -> Vec<AgentInfo> {
        let ready = self.present().filter(|known| known.state == AgentState::Ready);
        ready.map(|known| known.info.clone()).collect()
    }

    pub(super) fn workers(&self) -> usize {
        self.ready().iter().map(|info| info.workers).sum()
    }

    /// Why none of those that are there runs a task of ours.
    pub(super) fn refusal(&self) -> Option<String> {
        let mut refusal = None;
        for Known { info, build, state, first_seen, .. } in self.present() {
            match state {
                AgentState::Refuses(reason) if first_seen.elapsed() >= GRACE => {
                    let AgentInfo { host, pid, .. } = info;
                    refusal = Some(format!(
                        "the agent on {host} (process {pid}, build {build}) refuses: {reason}"
                    ));
                }
                AgentState::Ready => return None,
                _ => {}
            }
        }
        refusal
    }

    fn present(&self) -> impl Iterator<Item = &Known> {
        self.0.values().filter(|known| known.seen.elapsed() < GONE)
    }
}
