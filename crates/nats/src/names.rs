//! The names of streams, subjects and consumers: see the tables in the crate's README.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::build::Build;

/// Names all of them.
#[derive(Clone, Debug)]
pub(crate) struct Names(String);

/// The driver's connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Session(pub(crate) u128);

/// One chunk of one call of one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ChunkId {
    pub(crate) session: Session,
    pub(crate) job: u64,
    pub(crate) chunk: u64,
}

impl Names {
    pub(crate) fn new(name: &str) -> Self {
        Names(name.into())
    }

    pub(crate) fn tasks_stream(&self) -> String {
        format!("{self}-tasks")
    }

    pub(crate) fn results_stream(&self) -> String {
        format!("{self}-results")
    }

    pub(crate) fn leases_stream(&self) -> String {
        format!("{self}-leases")
    }

    pub(crate) fn payloads(&self) -> String {
        format!("{self}-payloads")
    }

    /// All subjects of a stream: `tasks`, `results` or `leases`.
    pub(crate) fn all(&self, of: &str) -> String {
        format!("{self}.{of}.>")
    }

    pub(crate) fn task(&self, build: Build, ChunkId { session, job, chunk }: ChunkId) -> String {
        format!("{self}.tasks.{build}.{session}.{job}.{chunk}")
    }

    pub(crate) fn tasks_of_build(&self, build: Build) -> String {
        format!("{self}.tasks.{build}.>")
    }

    pub(crate) fn tasks_of_session(&self, session: Session) -> String {
        format!("{self}.tasks.*.{session}.>")
    }

    pub(crate) fn tasks_of_job(&self, session: Session, job: u64) -> String {
        format!("{self}.tasks.*.{session}.{job}.>")
    }

    pub(crate) fn result(&self, ChunkId { session, job, chunk }: ChunkId) -> String {
        format!("{self}.results.{session}.{job}.{chunk}")
    }

    pub(crate) fn results_of_session(&self, session: Session) -> String {
        format!("{self}.results.{session}.>")
    }

    pub(crate) fn lease(&self, session: Session) -> String {
        format!("{self}.leases.{session}")
    }

    pub(crate) fn hello(&self) -> String {
        format!("{self}.hello")
    }

    /// Where agents answer a driver.
    pub(crate) fn agents_of(&self, session: Session) -> String {
        format!("{self}.agents.{session}")
    }

    /// Where agents say that they have come, or are about to go.
    pub(crate) fn all_agents(&self) -> String {
        format!("{self}.agents.all")
    }

    pub(crate) fn cancel(&self, session: Session) -> String {
        format!("{self}.cancel.{session}")
    }

    pub(crate) fn all_cancels(&self) -> String {
        format!("{self}.cancel.*")
    }

    pub(crate) fn agents_consumer(&self, build: Build) -> String {
        format!("agents-{build}")
    }

    pub(crate) fn driver_consumer(&self, session: Session) -> String {
        format!("driver-{session}")
    }
}

/// The number of a chunk that has this subject, as a task or as a result.
pub(crate) fn chunk_of(subject: &str) -> Option<u64> {
    subject.rsplit('.').next()?.parse().ok()
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChunkId { session, job, chunk } = self;
        write!(f, "{session}.{job}.{chunk}")
    }
}
