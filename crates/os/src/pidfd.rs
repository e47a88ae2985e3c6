//! Processes by descriptor: no confusion with whoever gets the number next.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    waitid,
};

use crate::deadline::Deadline;
use crate::pidfd_info;
use crate::poll;

pub use crate::pidfd_info::ExitInfo;

/// A descriptor of a process, readable once the process has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process that has this number now.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(PidFd(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Opens the process that has this number and was born at this time: see [`birth`]. `None` if it
    /// was reaped, whoever may have the number now.
    pub fn open_born(pid: u32, born: u64) -> io::Result<Option<Self>> {
        let pidfd = match Self::open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match birth(pid) {
            Ok(found) => Ok((found == born).then_some(pidfd)),
            // It was reaped in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the calling process.
    pub fn current() -> io::Result<Self> {
        Self::open(std::process::id())
    }

    /// Opens the parent of the calling process. `None` if it has none that can be seen.
    pub fn parent() -> io::Result<Option<Self>> {
        match rustix::process::getppid() {
            Some(pid) => Ok(Some(PidFd(pidfd_open(pid, PidfdFlags::empty())?))),
            None => Ok(None),
        }
    }

    /// Sends a signal. A process that has ended already is no error.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(Errno::INVAL)?;
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended. Returns `false` if the deadline passed first.
    pub fn wait_end(&self, deadline: Deadline) -> io::Result<bool> {
        let [ended] = poll::readable([self.as_fd()], deadline)?;
        Ok(ended)
    }

    /// Reaps the process, which must be a child of the caller. `None` if it runs.
    ///
    /// # Errors
    ///
    /// `ECHILD`: it is no child of the caller, or was reaped before.
    pub fn reap(&self) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = retry_on_intr(|| waitid(WaitId::PidFd(self.0.as_fd()), options))?;
        Ok(status.as_ref().map(exit_status))
    }

    /// Asks the kernel how the process ended: Linux 6.15 and later know it once it was reaped, whoever
    /// reaped it.
    pub fn exit_info(&self) -> ExitInfo {
        pidfd_info::exit_info(self.0.as_fd())
    }
}

impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> Self {
        PidFd(fd)
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// When the process of this number was started, in ticks of the clock since the machine was. With the
/// number, it names one process: no number is given out twice within a tick.
pub fn birth(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; see proc_pid_stat(5) for what follows it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let birth = fields.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    birth.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has no time"))
}

/// `waitid` tells in parts what `wait` packs into one number: see wait(2).
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    const CORE_DUMPED: i32 = 0x80;
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if status.dumped() => signal | CORE_DUMPED,
        (None, signal) => signal.unwrap_or(0),
    };
    ExitStatus::from_raw(raw)
}
