use std::num::NonZero;
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::parent::ParentId;

/// The process that asks.
///
/// # Examples
///
/// ```
/// multiproc_process::init();
/// let current = multiproc_process::current_process();
/// assert_eq!(current.pid(), std::process::id());
/// assert_eq!(current.name(), "MainProcess");
/// assert!(!current.is_daemon());
/// assert_eq!(current.parent_pid(), None, "the user has started it");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentProcess {
    identity: Identity,
}

/// What a child is told about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) parent: Option<ParentId>,
    /// How many processes of ours stand above it.
    pub(crate) depth: u32,
}

static IDENTITY: RwLock<Option<Identity>> = RwLock::new(None);

/// Gives the calling process: its number, its name, whether it is a daemon.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, current_process, init};
///
/// init();
/// let process = Process::builder()
///     .name("reader")
///     .spawn(|()| current_process().name().to_string(), ())?;
/// assert_eq!(process.join()?, "reader");
/// # Ok::<(), multiproc_process::Error>(())
/// ```
pub fn current_process() -> CurrentProcess {
    CurrentProcess { identity: identity() }
}

/// How many processors this process may use: its affinity and its cgroup's quota count. At least 1.
///
/// # Examples
///
/// ```
/// assert!(multiproc_process::cpu_count() >= 1);
/// ```
#[doc(alias = "process_cpu_count")]
#[doc(alias = "num_cpus")]
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

impl CurrentProcess {
    /// Its number.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// The name that it was started with; `MainProcess` for one that the user started.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Whether it ends with its parent.
    pub fn is_daemon(&self) -> bool {
        self.identity.daemon
    }

    /// The number of the process that asked for it; `None` for one that the user started.
    pub fn parent_pid(&self) -> Option<u32> {
        self.identity.parent.map(|parent| parent.pid)
    }
}

pub(crate) fn identity() -> Identity {
    let identity = IDENTITY.read().unwrap_or_else(PoisonError::into_inner);
    identity.clone().unwrap_or_else(|| Identity {
        name: "MainProcess".into(),
        daemon: false,
        parent: None,
        depth: 0,
    })
}

pub(crate) fn set_identity(identity: Identity) {
    *IDENTITY.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
}
