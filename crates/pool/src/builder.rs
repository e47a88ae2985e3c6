use multiproc_process::{StartMethod, cpu_count};

use crate::error::{Error, Kind};
use crate::pool::Pool;

/// Says how a pool is to be made: see [`Pool::builder`].
#[derive(Clone, Debug)]
#[must_use = "it makes nothing before `build`"]
pub struct Builder {
    pub(crate) workers: usize,
    pub(crate) start_method: StartMethod,
}

impl Default for Builder {
    fn default() -> Self {
        Builder { workers: cpu_count(), start_method: StartMethod::default() }
    }
}

impl Builder {
    /// Sets the number of workers; one for each processor that this process may use, without.
    #[doc(alias = "processes")]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets how the workers are started; [`StartMethod::ForkServer`] without.
    ///
    /// [`StartMethod::Fork`] works only where the pool is the first thing in the process that has a
    /// thread, and cannot replace a worker that died: the pool has a thread of its own.
    pub fn start_method(mut self, start_method: StartMethod) -> Self {
        self.start_method = start_method;
        self
    }

    /// Makes the pool and starts its workers.
    ///
    /// # Errors
    ///
    /// No workers were asked for, [`init`](multiproc_process::init) was not called, or the system has
    /// no process, memory or descriptor left.
    pub fn build(self) -> Result<Pool, Error> {
        if self.workers == 0 {
            return Err(Kind::NoWorkers.into());
        }
        Pool::start(self)
    }
}
