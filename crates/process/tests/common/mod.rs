//! What the tests of this crate share: a harness with one thread, a watchdog, a look into `/proc`.
#![allow(dead_code, unused_imports)] // Each test takes what it needs.
#![allow(unsafe_code)] // Pidfds of threads, variables.

use std::os::fd::{FromRawFd, OwnedFd};
use std::panic;

use multiproc_os::deadline::Deadline;
use multiproc_os::pidfd::PidFd;
use multiproc_os::poll;
use multiproc_process::{Process, StartMethod};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use multiproc_harness::{eventually, run, watchdog};

pub(crate) const METHODS: [StartMethod; 3] =
    [StartMethod::ForkServer, StartMethod::Spawn, StartMethod::Fork];

/// The first line of each `main`: takes over in children, and keeps their panics, which are meant,
/// and their core dumps off the disk and the screen.
pub(crate) fn init() {
    panic::set_hook(Box::new(|_| {}));
    multiproc_process::init();
    let _quiet = panic::take_hook();
    let (print, own) = (panic::take_hook(), std::process::id());
    panic::set_hook(Box::new(move |info| {
        if std::process::id() == own {
            print(info);
        }
    }));
    let none = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    setrlimit(Resource::Core, none).unwrap();
    set_variable("RUST_BACKTRACE", None);
}

/// Changes the environment of a process that has one thread.
pub(crate) fn set_variable(name: &str, value: Option<&str>) {
    assert_eq!(multiproc_os::fork::threads().unwrap(), 1);
    // SAFETY: there is no other thread.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Waits until the process was reaped, by whoever is its parent.
pub(crate) fn wait_reaped(pidfd: &OwnedFd) {
    assert!(poll::hung_up(pidfd, Deadline::NEVER).unwrap());
}

/// Waits until only this thread is left.
pub(crate) fn wait_for_threads() {
    let own = u64::from(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let id: u64 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
        if id != own
            && let Some(pidfd) = thread_pidfd(id)
        {
            poll::readable([std::os::fd::AsFd::as_fd(&pidfd)], Deadline::NEVER).unwrap();
        }
    }
    eventually("one thread", || std::fs::read_dir("/proc/self/task").unwrap().count() == 1);
}

/// `None` if the thread has ended.
fn thread_pidfd(id: u64) -> Option<OwnedFd> {
    const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
    // SAFETY: the call gives a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, PIDFD_THREAD) };
    // SAFETY: it is new, so that nobody else owns it.
    i32::try_from(fd).ok().filter(|fd| *fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the process has open, as `number -> what`, without the descriptor that looks.
pub(crate) fn open_files(pid: u32) -> Vec<String> {
    let directory = format!("/proc/{pid}/fd");
    let mut files: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let target = std::fs::read_link(&path).ok()?;
            Some(format!("{} -> {}", path.file_name()?.to_str()?, target.display()))
        })
        .filter(|line| !line.ends_with(&directory))
        .collect();
    files.sort();
    files
}

/// How much the process has open.
pub(crate) fn count_open(pid: u32) -> usize {
    open_files(pid).len()
}

/// The children of a process: number, and whether it is a zombie.
pub(crate) fn children(parent: u32) -> Vec<(u32, bool)> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(stat) = std::fs::read_to_string(entry.unwrap().path().join("stat")) else {
            continue;
        };
        let (pid, (_, fields)) = (stat.split_once(' ').unwrap().0, stat.rsplit_once(')').unwrap());
        let mut fields = fields.split_ascii_whitespace();
        let zombie = fields.next() == Some("Z");
        if fields.next().unwrap().parse() == Ok(parent) {
            children.push((pid.parse().unwrap(), zombie));
        }
    }
    children
}

/// Kills this process's fork server, and gives its pidfd.
pub(crate) fn kill_server() -> OwnedFd {
    let process = Process::spawn(|()| std::os::unix::process::parent_id(), ()).unwrap();
    let pid = process.join().unwrap();
    let server = PidFd::open(pid).unwrap();
    assert!(children(std::process::id()).contains(&(pid, false)), "it is nobody else's");
    server.send_signal(9).unwrap();
    assert!(server.wait_end(Deadline::NEVER).unwrap());
    server.into()
}

/// Never returns, and uses no processor.
pub(crate) fn hang() -> ! {
    loop {
        std::thread::park();
    }
}
