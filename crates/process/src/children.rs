use std::collections::HashMap;
use std::collections::hash_map::Entry::Occupied;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use multiproc_os::deadline::Deadline;
use multiproc_os::pidfd::{PidFd, birth};

use crate::error::{Error, Kind};
use crate::trace;

/// Gives the children of this process that have not ended, in the order of their numbers, whether
/// their handles are there still or were dropped. Those that have ended are reaped, and can be joined
/// all the same.
///
/// Children are the processes that were started here; not those that the children have started.
///
/// # Errors
///
/// No descriptor is left for a child whose handle was dropped.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, active_children, init};
///
/// init();
/// let process = Process::builder()
///     .name("sleeper")
///     .spawn(|()| std::thread::sleep(std::time::Duration::MAX), ())?;
/// drop(process);
/// for child in active_children()? {
///     println!("{} still runs as {}", child.name(), child.pid());
///     child.terminate()?;
/// }
/// # Ok::<(), multiproc_process::Error>(())
/// ```
pub fn active_children() -> Result<Vec<ActiveChild>, Error> {
    let mut active = with(Children::sweep)?;
    active.sort_by_key(ActiveChild::pid);
    Ok(active)
}

/// A child that [`active_children`] has found. It can be signalled and waited for; what its function
/// returns goes to its [`Process`](crate::Process).
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, active_children, init};
///
/// init();
/// let process = Process::spawn(|()| std::thread::sleep(std::time::Duration::MAX), ())?;
/// let children = active_children()?;
/// assert_eq!(children[0].pid(), process.pid());
/// assert!(children[0].is_alive());
/// children[0].kill()?;
/// assert_eq!(process.join().unwrap_err().signal(), Some(9));
/// assert!(!children[0].is_alive());
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ActiveChild(Arc<Tracked>);

impl ActiveChild {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// The name that it was given, or `Process-N`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Tells whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        !self.0.wait_end(Deadline::now()).unwrap_or(true)
    }

    /// Asks it to end: sends `SIGTERM`. One that has ended already is no error.
    ///
    /// # Errors
    ///
    /// It runs as another user by now.
    pub fn terminate(&self) -> Result<(), Error> {
        self.signal("terminate", SIGTERM)
    }

    /// Ends it at once: sends `SIGKILL`. One that has ended already is no error.
    ///
    /// # Errors
    ///
    /// It runs as another user by now.
    pub fn kill(&self) -> Result<(), Error> {
        self.signal("kill", SIGKILL)
    }

    fn signal(&self, operation: &'static str, signal: i32) -> Result<(), Error> {
        let name = || self.0.name.clone();
        let sent = self.0.send_signal(signal);
        sent.map_err(|source| Kind::Io { operation, name: name(), source }.into())
    }
}

impl AsFd for ActiveChild {
    /// Its pidfd, which is readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A child's pidfd. Whoever reaps the child leaves its status here for the others.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) pid: u32,
    name: String,
    pidfd: PidFd,
    status: Mutex<Option<ExitStatus>>,
}

impl Tracked {
    pub(crate) fn new(pid: u32, name: &str, pidfd: PidFd) -> Arc<Self> {
        Arc::new(Tracked { pid, name: name.into(), pidfd, status: Mutex::new(None) })
    }

    /// As [`PidFd::reap`], but gives the status each time.
    pub(crate) fn reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_none() {
            *status = self.pidfd.reap()?;
        }
        Ok(*status)
    }

    /// As [`PidFd::send_signal`].
    pub(crate) fn send_signal(&self, signal: i32) -> io::Result<()> {
        self.pidfd.send_signal(signal)?;
        trace::signalled(&self.name, self.pid, signal);
        Ok(())
    }

    /// Tells whether it has ended, and reaps it if it is for this process to reap.
    fn has_ended(&self) -> bool {
        match self.reap() {
            Ok(status) => status.is_some(),
            Err(_) => self.wait_end(Deadline::now()).unwrap_or(true),
        }
    }
}

impl Deref for Tracked {
    type Target = PidFd;

    fn deref(&self) -> &PidFd {
        &self.pidfd
    }
}

/// Has [`active_children`] find the child.
pub(crate) fn register(child: &Arc<Tracked>) {
    with(|children| children.known.insert(child.pid, Known::Held(Arc::downgrade(child))));
}

/// The handle of the child is dropped. A child that runs on is remembered without a descriptor.
pub(crate) fn let_go(child: &Arc<Tracked>, ended: bool) {
    with(|children| children.let_go(child, ended));
}

/// So many children that were let go are remembered before it is looked which of them have ended.
const SWEEP_AT: usize = 64;

/// The children of this process that have not been seen to end.
struct Children {
    /// A forked copy has none.
    owner: u32,
    known: HashMap<u32, Known>,
    detached: usize,
    sweep_at: usize,
}

enum Known {
    Held(Weak<Tracked>),
    /// Its number may be another's by now, who was born at another time.
    Detached {
        name: String,
        birth: u64,
    },
}

static CHILDREN: Mutex<Option<Children>> = Mutex::new(None);

fn with<T>(act: impl FnOnce(&mut Children) -> T) -> T {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = std::process::id();
    if children.as_ref().is_some_and(|children| children.owner != owner) {
        *children = None;
    }
    act(children.get_or_insert_with(|| Children {
        owner,
        known: HashMap::new(),
        detached: 0,
        sweep_at: SWEEP_AT,
    }))
}

impl Children {
    fn let_go(&mut self, child: &Arc<Tracked>, ended: bool) {
        let Occupied(mut entry) = self.known.entry(child.pid) else { return };
        match entry.get() {
            Known::Held(held) if std::ptr::eq(held.as_ptr(), Arc::as_ptr(child)) => {}
            _ => return,
        }
        // The number is the child's while it has not ended, and so is the time.
        let born = if ended { None } else { birth(child.pid).ok() };
        let Some(birth) = born.filter(|_| !child.has_ended()) else {
            entry.remove();
            return;
        };
        entry.insert(Known::Detached { name: child.name.clone(), birth });
        self.detached += 1;
        if self.detached >= self.sweep_at {
            // With no descriptor left, it is done another time.
            let _active = self.sweep();
            self.sweep_at = SWEEP_AT.max(self.detached * 2);
        }
    }

    /// Forgets those that have ended, and gives the others.
    fn sweep(&mut self) -> Result<Vec<ActiveChild>, Error> {
        let mut active = Vec::new();
        let mut failure = None;
        self.known.retain(|pid, known| {
            let found = match known {
                Known::Held(held) => Ok(held.upgrade()),
                Known::Detached { name, birth } => find(*pid, name, *birth),
            };
            match found {
                Ok(Some(child)) if !child.has_ended() => active.push(ActiveChild(child)),
                Ok(_) => return false,
                Err(error) => failure = Some(error),
            }
            true
        });
        let detached = self.known.values().filter(|known| matches!(known, Known::Detached { .. }));
        self.detached = detached.count();
        match failure {
            Some(error) => Err(error),
            None => Ok(active),
        }
    }
}

/// Opens a child whose handle was dropped, unless it has ended.
fn find(pid: u32, name: &str, born: u64) -> Result<Option<Arc<Tracked>>, Error> {
    match PidFd::open_born(pid, born) {
        Ok(pidfd) => Ok(pidfd.map(|pidfd| Tracked::new(pid, name, pidfd))),
        Err(source) => Err(Kind::Io { operation: "watch", name: name.into(), source }.into()),
    }
}
