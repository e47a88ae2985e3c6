//! What a process has from whoever started it: environment, directory, limits, processors, output.
#![allow(unsafe_code)] // The environment, `prlimit` over all resources, signals, numbers that may be 0.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::thread::CpuSet;

use crate::fork::threads;

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
/// # Errors
///
/// The process has more than one thread: another could be reading them.
pub fn set_environment(block: &[u8]) -> io::Result<()> {
    if threads()? != 1 {
        let text = "cannot change the environment of a process with threads";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let old: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in old {
        // SAFETY: there is no other thread.
        unsafe { std::env::remove_var(name) };
    }
    for entry in block.split(|byte| *byte == 0) {
        // A name may start with `=`, but not be empty.
        let Some(end) = entry.iter().skip(1).position(|byte| *byte == b'=') else { continue };
        let (name, value) = (&entry[..end + 1], &entry[end + 2..]);
        // SAFETY: as above.
        unsafe { std::env::set_var(OsStr::from_bytes(name), OsString::from_vec(value.to_vec())) };
    }
    Ok(())
}

/// The bits that are taken from the mode of new files.
pub fn umask() -> io::Result<u32> {
    // umask(2) can only be read by setting it, which other threads would see.
    if threads()? == 1 {
        let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        rustix::process::umask(mask);
        return Ok(mask.as_raw_mode());
    }
    let mut status = [0; 256];
    let len = File::open("/proc/self/status")?.read(&mut status)?;
    let status = String::from_utf8_lossy(&status[..len]);
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

/// How many descriptors this process may have open.
pub fn open_files() -> io::Result<u64> {
    Ok(limits()?[libc::RLIMIT_NOFILE as usize].0)
}

/// What a process may use of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of its address space.
    AddressSpace,
    /// Bytes of a core dump.
    CoreDump,
    /// Seconds of processor time.
    CpuTime,
    /// Open files.
    OpenFiles,
}

/// Sets one of this process's limits, the soft and the hard one.
pub fn set_limit(resource: Resource, (soft, hard): (u64, u64)) -> io::Result<()> {
    use rustix::process::{Resource as Kernels, Rlimit, setrlimit};
    let resource = match resource {
        Resource::AddressSpace => Kernels::As,
        Resource::CoreDump => Kernels::Core,
        Resource::CpuTime => Kernels::Cpu,
        Resource::OpenFiles => Kernels::Nofile,
    };
    Ok(setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })?)
}

/// Sets how much this process gives way to others: from -20, not at all, to 19.
pub fn set_niceness(niceness: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, niceness)?)
}

/// The process group of this process; 0 if whoever leads it is outside this pid namespace.
pub fn process_group() -> i32 {
    // SAFETY: touches no memory. rustix's takes the number for one that is never 0.
    unsafe { libc::getpgrp() }
}

/// The session of this process; 0 if whoever leads it is outside this pid namespace.
fn session() -> i32 {
    // SAFETY: as above.
    unsafe { libc::getsid(0) }
}

/// Moves this process to a process group of its session, or to one of its own for 0.
pub fn set_process_group(group: i32) -> io::Result<()> {
    let group = match group {
        0 => None,
        group if group < 0 => return Err(Errno::INVAL.into()),
        group => rustix::process::Pid::from_raw(group),
    };
    Ok(rustix::process::setpgid(None, group)?)
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

/// What tells the working directory from any other, as long as someone is in it.
pub fn working_directory_id() -> io::Result<(u64, u64)> {
    let stat = rustix::fs::stat(".")?;
    Ok((stat.st_dev, stat.st_ino))
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

/// Opens `/dev/null` in place of each standard stream that is closed.
///
/// What a process opens takes the lowest free number: a socket of ours would become its standard
/// input. While the files given here are held, it cannot.
pub fn occupy_standard_streams() -> io::Result<Vec<File>> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let closed = streams.iter().filter(|fd| rustix::io::fcntl_getfd(fd) == Err(Errno::BADF));
    closed.map(|_| File::options().read(true).write(true).open("/dev/null")).collect()
}

/// Makes the descriptors standard input, output and error; `/dev/null` stands in for `None`.
pub fn set_standard_streams(streams: [Option<BorrowedFd<'_>>; 3]) -> io::Result<()> {
    let [stdin, stdout, stderr] = streams;
    set_standard_input(stdin)?;
    or_null(stdout, |fd| Ok(rustix::stdio::dup2_stdout(fd)?))?;
    or_null(stderr, |fd| Ok(rustix::stdio::dup2_stderr(fd)?))
}

/// Makes the descriptor standard input; `/dev/null` stands in for `None`.
pub fn set_standard_input(stdin: Option<BorrowedFd<'_>>) -> io::Result<()> {
    or_null(stdin, |fd| Ok(rustix::stdio::dup2_stdin(fd)?))
}

fn or_null(
    fd: Option<BorrowedFd<'_>>,
    set: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    match fd {
        Some(fd) => set(fd),
        None => set(File::options().read(true).write(true).open("/dev/null")?.as_fd()),
    }
}

/// Who the process is to the kernel: user, groups, capabilities and root directory; and whom its
/// terminal's signals reach, by session and process group. A copy of the process that was made before
/// any of it changed must not stand in for the process any more.
pub fn credentials() -> io::Result<Vec<u64>> {
    use rustix::process::{getegid, geteuid, getgid, getgroups, getuid};
    let ids = [getuid().as_raw(), geteuid().as_raw(), getgid().as_raw(), getegid().as_raw()];
    let mut all: Vec<u64> = ids.into_iter().map(u64::from).collect();
    all.extend(getgroups()?.into_iter().map(|group| u64::from(group.as_raw())));
    let sets = rustix::thread::capabilities(None)?;
    all.extend([sets.effective, sets.permitted, sets.inheritable].map(|set| set.bits()));
    all.push(rustix::thread::no_new_privs()?.into());
    all.extend([session(), process_group()].map(|id| u64::from(id.unsigned_abs())));
    // A mount's number is of one mount namespace.
    let flags = StatxFlags::INO | StatxFlags::MNT_ID;
    let root = rustix::fs::statx(CWD, "/", AtFlags::empty(), flags)?;
    all.extend([root.stx_ino, root.stx_mnt_id]);
    Ok(all)
}

const NAMESPACES: [&str; 6] = ["net", "pid_for_children", "user", "uts", "ipc", "cgroup"];

/// The namespaces that children of the calling thread are in, but for that of mounts, which
/// [`credentials`] tell. They matter as those do, and take ten times as long to ask for.
pub fn namespaces() -> [u64; NAMESPACES.len()] {
    NAMESPACES.map(|name| number_of_namespace(name).unwrap_or(0))
}

fn number_of_namespace(name: &str) -> Option<u64> {
    // Such as `net:[4026531840]`: it takes half the time of asking the file, which has the same number.
    let text = rustix::fs::readlink(format!("/proc/thread-self/ns/{name}"), Vec::new()).ok()?;
    text.to_str().ok()?.split(['[', ']']).nth(1)?.parse().ok()
}

/// Has a write to a closed pipe be an error instead of a signal.
///
/// std arranges for it before `main`; whoever takes over earlier must do so too.
pub fn ignore_broken_pipe() {
    // SAFETY: sets a disposition that runs no code of this process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Has the kernel keep ended children until they are reaped, even if whoever started this process
/// ignored `SIGCHLD`.
pub fn keep_ended_children() {
    // SAFETY: sets a disposition that runs no code of this process.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Sets whether `SIGINT`, as from Ctrl-C, does nothing, or ends the process.
pub fn ignore_interrupt(ignore: bool) {
    let disposition = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: sets a disposition that runs no code of this process.
    unsafe { libc::signal(libc::SIGINT, disposition) };
}

/// Tells whether `SIGINT` does nothing now. A handler is not nothing, and a child does not have it.
pub fn ignores_interrupt() -> bool {
    // SAFETY: `sigaction` writes one `sigaction` to `action`, for which all zeros is a valid value.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGINT, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}
