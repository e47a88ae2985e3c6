use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::process::Process;
use crate::spawn;
use crate::start_method::StartMethod;

/// Says how a process is to be started: see [`Process::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "it starts nothing before `spawn`"]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
    start_method: StartMethod,
}

impl Builder {
    /// Names the process, for errors and for [`current_process`](crate::current_process). The name is
    /// `Process-N` without.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the process ends with this one, however this one ends, `SIGKILL` included. It
    /// does not, without.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets how the process comes into being: as [`StartMethod::default`] says, without.
    pub fn start_method(mut self, start_method: StartMethod) -> Self {
        self.start_method = start_method;
        self
    }

    /// Starts the process: see [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    pub fn spawn<A, R>(self, function: fn(A) -> R, argument: A) -> Result<Process<R>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        spawn::spawn(self.into_settings(), function, argument)
    }

    pub(crate) fn into_settings(self) -> Settings {
        Settings {
            name: self.name.unwrap_or_else(next_name),
            daemon: self.daemon,
            start_method: self.start_method,
        }
    }
}

/// A finished [`Builder`].
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) start_method: StartMethod,
}

fn next_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("Process-{}", NEXT.fetch_add(1, Relaxed))
}
