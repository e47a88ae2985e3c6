use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::pidfd::{PidFd, birth};
use serde::{Deserialize, Serialize};

use crate::current;
use crate::error::{Error, Kind};

/// Gives the process that has started this one, also where the fork server has forked it off. `None`
/// in a process that the user started.
///
/// # Errors
///
/// No descriptor is left.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, init, parent_process};
///
/// init();
/// assert!(parent_process()?.is_none());
/// let process = Process::spawn(
///     |()| {
///         let parent = parent_process().unwrap().unwrap();
///         (parent.pid(), parent.is_alive())
///     },
///     (),
/// )?;
/// assert_eq!(process.join()?, (std::process::id(), true));
/// # Ok::<(), multiproc_process::Error>(())
/// ```
pub fn parent_process() -> Result<Option<ParentProcess>, Error> {
    let Some(ParentId { pid, birth }) = current::identity().parent else { return Ok(None) };
    let sentinel = match PidFd::open_born(pid, birth) {
        Ok(Some(pidfd)) => Ok(pidfd.into()),
        Ok(None) => readable(),
        Err(error) => Err(error),
    };
    match sentinel {
        Ok(sentinel) => Ok(Some(ParentProcess { pid, sentinel })),
        Err(source) => {
            let name = format!("{pid}, the parent");
            Err(Kind::Io { operation: "watch", name, source }.into())
        }
    }
}

/// The process that has started this one: see [`parent_process`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use multiproc_process::{Process, init, parent_process};
///
/// init();
/// // It works until its parent has ended, or there is no more to do.
/// let works = |tasks: u32| {
///     let parent = parent_process().unwrap().unwrap();
///     (0..tasks).take_while(|_| !parent.wait_timeout(Duration::from_millis(1))).count()
/// };
/// assert_eq!(Process::spawn(works, 3)?.join()?, 3);
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(Debug)]
pub struct ParentProcess {
    pid: u32,
    sentinel: OwnedFd,
}

impl ParentProcess {
    /// Its number, which may be another process's once this one has ended.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells whether it has not ended yet.
    ///
    /// A parent in another namespace of process numbers, as a container has, counts as ended.
    pub fn is_alive(&self) -> bool {
        !self.wait_timeout(Duration::ZERO)
    }

    /// Waits until it has ended.
    #[doc(alias = "join")]
    pub fn wait(&self) {
        self.wait_until(Deadline::NEVER);
    }

    /// Waits until it has ended, for a limited time. Returns whether it has.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> bool {
        // Without memory for it, there is no knowing.
        multiproc_os::poll::readable([self.as_fd()], deadline).is_ok_and(|[ended]| ended)
    }
}

impl AsFd for ParentProcess {
    /// A descriptor that is readable once it has ended: Python's `sentinel`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sentinel.as_fd()
    }
}

/// What tells a parent from any other process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ParentId {
    pub(crate) pid: u32,
    birth: u64,
}

impl ParentId {
    pub(crate) fn of_this() -> io::Result<Self> {
        // Of which process the other is: a fork copies both.
        static PID: AtomicU32 = AtomicU32::new(0);
        static BIRTH: AtomicU64 = AtomicU64::new(0);

        let pid = std::process::id();
        if PID.load(Acquire) != pid {
            BIRTH.store(birth(pid)?, Relaxed);
            PID.store(pid, Release);
        }
        Ok(ParentId { pid, birth: BIRTH.load(Relaxed) })
    }
}

/// What stands for a process that has ended: a pipe at its end.
fn readable() -> io::Result<OwnedFd> {
    let (reader, _closed) = io::pipe()?;
    Ok(reader.into())
}
