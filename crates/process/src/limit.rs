use multiproc_os::context::Resource;
use serde::{Deserialize, Serialize};

/// What a process may use of the machine: see [`Builder::limit`](crate::Builder::limit).
///
/// # Examples
///
/// ```
/// use multiproc_process::{Limit, Process, init};
///
/// init();
/// let process = Process::builder()
///     .limit(Limit::AddressSpace, 1 << 30)
///     .spawn(|()| Vec::<u8>::new().try_reserve(2 << 30).is_err(), ())?;
/// assert!(process.join()?, "two gigabytes are not to be had");
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Limit {
    /// Bytes of address space, the program's own and all mappings included. Beyond it, memory is not
    /// to be had: Rust programs abort then, as a rule.
    #[doc(alias = "RLIMIT_AS")]
    AddressSpace,
    /// Bytes of the core dump that the process leaves in its directory, or wherever the system's
    /// `core_pattern` has it, when a signal such as `SIGSEGV` or `SIGABRT` ends it. With 0, it leaves
    /// none.
    #[doc(alias = "RLIMIT_CORE")]
    CoreDump,
    /// Seconds of processor time, over all threads. Beyond it, the process is ended by `SIGXCPU`, and
    /// by `SIGKILL` a second later if it has a handler for that.
    #[doc(alias = "RLIMIT_CPU")]
    CpuTime,
    /// Open files, the standard streams and the handles in the argument included. Beyond it, opening
    /// is an error.
    #[doc(alias = "RLIMIT_NOFILE")]
    OpenFiles,
}

impl Limit {
    pub(crate) fn resource(self) -> Resource {
        match self {
            Limit::AddressSpace => Resource::AddressSpace,
            Limit::CoreDump => Resource::CoreDump,
            Limit::CpuTime => Resource::CpuTime,
            Limit::OpenFiles => Resource::OpenFiles,
        }
    }

    /// The soft limit and the hard one. That on time kills where the soft one asks.
    pub(crate) fn pair(self, most: u64) -> (u64, u64) {
        match self {
            Limit::CpuTime => (most, most.saturating_add(1)),
            _ => (most, most),
        }
    }
}
