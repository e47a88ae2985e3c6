//! What a process has from whoever started it: environment, directory, limits, processors, output.
#![allow(unsafe_code)] // The environment, `prlimit` over all resources, signal dispositions.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::thread::CpuSet;

/// How many resources the kernel limits: `RLIM_NLIMITS`.
pub const LIMITS: usize = 16;

/// The soft and the hard limit of each resource, by the kernel's numbers.
pub type Limits = [(u64, u64); LIMITS];

/// All variables, as `NAME=VALUE` with a zero byte after each.
pub fn environment() -> Vec<u8> {
    let mut block = Vec::with_capacity(4096);
    for (name, value) in std::env::vars_os() {
        block.extend_from_slice(name.as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_bytes());
        block.push(0);
    }
    block
}

/// Replaces all variables by those of the block.
///
/// # Safety
///
/// The process has one thread.
pub unsafe fn set_environment(block: &[u8]) {
    let old: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in old {
        // SAFETY: the caller says that there is one thread.
        unsafe { std::env::remove_var(name) };
    }
    for entry in block.split(|byte| *byte == 0) {
        // A name may start with `=`, but not be empty.
        let Some(end) = entry.iter().skip(1).position(|byte| *byte == b'=') else { continue };
        let (name, value) = (&entry[..end + 1], &entry[end + 2..]);
        // SAFETY: as above.
        unsafe { std::env::set_var(OsStr::from_bytes(name), OsString::from_vec(value.to_vec())) };
    }
}

/// The bits that are taken from the mode of new files.
pub fn umask() -> io::Result<u32> {
    // umask(2) can only be read by setting it, which other threads would see.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    field
        .and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no Umask"))
}

/// Sets the bits that are taken from the mode of new files.
pub fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask));
}

/// The limits of this process.
pub fn limits() -> io::Result<Limits> {
    let mut limits = [(0, 0); LIMITS];
    for (resource, limit) in (0..).zip(&mut limits) {
        let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: writes one `rlimit64` to `old`.
        let result = unsafe { libc::prlimit64(0, resource, std::ptr::null(), &mut old) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        *limit = (old.rlim_cur, old.rlim_max);
    }
    Ok(limits)
}

/// Sets the limits of this process.
pub fn set_limits(limits: &Limits) -> io::Result<()> {
    for (resource, (soft, hard)) in (0..).zip(limits) {
        let new = libc::rlimit64 { rlim_cur: *soft, rlim_max: *hard };
        // SAFETY: reads one `rlimit64` from `new`.
        let result = unsafe { libc::prlimit64(0, resource, &new, std::ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The numbers of the processors that the calling thread may run on.
pub fn affinity() -> io::Result<Vec<u32>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu as u32).collect())
}

/// Sets the processors that the calling thread, and what it starts, may run on.
pub fn set_affinity(cpus: &[u32]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().map(|cpu| *cpu as usize).filter(|cpu| *cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The working directory, as a descriptor that only names it.
pub fn working_directory() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(".", flags, Mode::empty())?)
}

/// Changes the working directory.
pub fn set_working_directory(directory: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::fchdir(directory)?)
}

/// Duplicates of standard input, output and error; `None` for one that is closed.
pub fn standard_streams() -> [Option<OwnedFd>; 3] {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    streams.map(|fd| fd.try_clone_to_owned().ok())
}

/// Makes the descriptors standard input, output and error; closed ones become `/dev/null`.
pub fn set_standard_streams(streams: [Option<BorrowedFd<'_>>; 3]) -> io::Result<()> {
    let null;
    let null = if streams.iter().any(Option::is_none) {
        null = File::options().read(true).write(true).open("/dev/null")?;
        Some(null.as_fd())
    } else {
        None
    };
    let [stdin, stdout, stderr] = streams.map(|stream| stream.or(null));
    if let Some(fd) = stdin {
        rustix::stdio::dup2_stdin(fd)?;
    }
    if let Some(fd) = stdout {
        rustix::stdio::dup2_stdout(fd)?;
    }
    if let Some(fd) = stderr {
        rustix::stdio::dup2_stderr(fd)?;
    }
    Ok(())
}

/// Who the process is to the kernel: user, groups and namespaces. A copy of the process that was
/// made before any of it changed must not stand in for the process any more.
pub fn credentials() -> io::Result<Vec<u64>> {
    use rustix::process::{getegid, geteuid, getgid, getgroups, getuid};
    let ids = [getuid().as_raw(), geteuid().as_raw(), getgid().as_raw(), getegid().as_raw()];
    let mut all: Vec<u64> = ids.into_iter().map(u64::from).collect();
    all.extend(getgroups()?.into_iter().map(|group| u64::from(group.as_raw())));
    for name in ["mnt", "net", "pid_for_children", "user", "uts", "ipc", "cgroup"] {
        let path = format!("/proc/thread-self/ns/{name}");
        all.push(rustix::fs::stat(path).map_or(0, |stat| stat.st_ino));
    }
    Ok(all)
}

/// Sets how the process takes `SIGPIPE` and `SIGINT`.
///
/// A write to a closed pipe is an error in Rust, which std arranges for before `main`, and which
/// must be arranged for by whoever takes over earlier.
pub fn set_signals(interrupt: Interrupt) {
    // SAFETY: sets dispositions that run no code of this process.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let disposition = match interrupt {
            Interrupt::Ignored => libc::SIG_IGN,
            Interrupt::Ends => libc::SIG_DFL,
        };
        libc::signal(libc::SIGINT, disposition);
    }
}

/// What `SIGINT` does to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Nothing.
    Ignored,
    /// It ends the process.
    Ends,
}

/// Tells what `SIGINT` does now. A handler counts as [`Interrupt::Ends`]: a child has none.
pub fn interrupt() -> Interrupt {
    // SAFETY: `sigaction` writes one `sigaction` to `action`, for which all zeros is a valid value.
    let ignored = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGINT, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    };
    if ignored { Interrupt::Ignored } else { Interrupt::Ends }
}

/// Moves the descriptor to the lowest place that no standard stream takes and closes all others
/// above it.
///
/// # Safety
///
/// Nothing in this process uses the descriptors that are closed, or closes them once more.
pub unsafe fn keep_only(fd: OwnedFd) -> io::Result<OwnedFd> {
    const PLACE: i32 = 3;
    use std::os::fd::{FromRawFd, IntoRawFd, RawFd};
    let old: RawFd = fd.into_raw_fd();
    if old != PLACE {
        // SAFETY: `PLACE` is one of those that the caller gives up.
        if unsafe { libc::dup3(old, PLACE, libc::O_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, PLACE + 1, u32::MAX, 0) };
    // SAFETY: `PLACE` is open and belongs to nobody else.
    let kept = unsafe { OwnedFd::from_raw_fd(PLACE) };
    rustix::io::fcntl_setfd(&kept, FdFlags::CLOEXEC)?;
    Ok(kept)
}
