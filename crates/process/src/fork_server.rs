//! A clean copy of the program, with one thread, that forks off children.

mod preload;
mod serve;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multiproc_os::context;
use multiproc_os::deadline::Deadline;
use multiproc_os::exec::{Keep, exec_self};
use multiproc_os::fork::Forked;
use multiproc_os::image::ENTRY_SIZE;
use multiproc_os::pidfd::PidFd;
use multiproc_os::poll;
use multiproc_wire::{Endpoint, SharedFd, encode};
use serde::{Deserialize, Serialize};

use crate::boot::Snapshot;
use crate::error::describe;
use crate::init::FORK_SERVER;
pub use preload::set_forkserver_preload;
pub(crate) use serve::serve;

/// The server of this process, if one was started.
static SERVER: Mutex<Option<Arc<ForkServer>>> = Mutex::new(None);

/// The parent's side.
#[derive(Debug)]
pub(crate) struct ForkServer {
    /// Who started it: a forked copy of that process has none.
    owner: u32,
    pidfd: PidFd,
    control: Endpoint,
    credentials: Vec<u64>,
    namespaces: [u64; 6],
    pub(crate) snapshot: Snapshot,
}

/// To the server, once: whose children these are.
#[derive(Serialize, Deserialize)]
struct Greeting {
    parent: SharedFd,
    preload: Option<[u8; ENTRY_SIZE]>,
}

/// Has the next spawn start a server anew.
fn forget() {
    *SERVER.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// To the server: fork, and let the child have this line.
#[derive(Serialize, Deserialize)]
struct Request {
    line: Endpoint,
}

impl ForkServer {
    /// Gives the running server, or starts one if there is none that could stand in for this process.
    pub(crate) fn get() -> io::Result<Arc<Self>> {
        let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        let credentials = context::credentials()?;
        if let Some(server) = &*server
            && server.owner == std::process::id()
            && server.credentials == credentials
            && !server.has_ended()
        {
            return Ok(Arc::clone(server));
        }
        // The old one ends once it has reaped its last child: its control socket is closed.
        *server = None;
        let started = Arc::new(Self::start(credentials)?);
        *server = Some(Arc::clone(&started));
        Ok(started)
    }

    fn start(credentials: Vec<u64>) -> io::Result<Self> {
        let (control, theirs) = Endpoint::pair()?;
        let snapshot = Snapshot::take()?;
        let namespaces = context::namespaces();
        let theirs = theirs.as_fd().try_clone_to_owned()?;
        let Forked { pidfd, .. } = exec_self(FORK_SERVER, theirs, Keep::Nothing)?;
        let parent = SharedFd::from(OwnedFd::from(PidFd::current()?));
        let server = ForkServer {
            owner: std::process::id(),
            pidfd,
            control,
            credentials,
            namespaces,
            snapshot,
        };
        let preload = preload::encoded();
        server.send(&Greeting { parent, preload })?;
        server.expect_hello()?;
        if preload.is_some() {
            server.expect_preload()?;
        }
        Ok(server)
    }

    /// The copy must get to `init()`: a program that does something else first would never answer.
    fn expect_hello(&self) -> io::Result<()> {
        let ready = poll::readable([self.control.as_fd(), self.pidfd.as_fd()], hello_deadline())?;
        let said = match ready {
            [true, _] => {
                self.control.recv::<()>(Deadline::now()).is_ok_and(|hello| hello.is_some())
            }
            _ => false,
        };
        if said {
            return Ok(());
        }
        let late = ready == [false, false];
        if late || !self.is_ending() {
            self.pidfd.send_signal(SIGKILL)?;
        }
        let status = self.end()?;
        let how = match late {
            true => "did not say hello within a minute".into(),
            false => format!("{} before it said hello", status.map_or("ended".into(), describe)),
        };
        Err(io::Error::other(format!(
            "its fork server, a copy of this program, {how}: is `multiproc::init();` the first line of \
             main, and reached whatever the arguments are?"
        )))
    }

    /// What is loaded may take its time.
    fn expect_preload(&self) -> io::Result<()> {
        let fds = [self.control.as_fd(), self.pidfd.as_fd()];
        if let [true, _] = poll::readable(fds, Deadline::NEVER)?
            && let Ok(Some(result)) = self.control.recv::<Result<(), String>>(Deadline::now())
        {
            return result.map_err(|reason| preload::failed(&reason));
        }
        let how = self.end()?.map_or("ended".into(), describe);
        Err(preload::failed(&format!("the server {how} in it")))
    }

    /// Waits for the end of a server that has closed its socket, which it does a moment before.
    fn end(&self) -> io::Result<Option<ExitStatus>> {
        self.pidfd.wait_end(Deadline::NEVER)?;
        Ok(self.pidfd.reap().ok().flatten())
    }

    /// Tells whether this process has gone to other namespaces since it started the server.
    ///
    /// Then the server is not used any more.
    pub(crate) fn is_left_behind(&self) -> bool {
        if context::namespaces() == self.namespaces {
            return false;
        }
        let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        if server.as_ref().is_some_and(|server| std::ptr::eq(Arc::as_ptr(server), self)) {
            *server = None;
        }
        true
    }

    /// Has a child forked that gets this end of its line.
    pub(crate) fn fork(&self, line: Endpoint) -> io::Result<()> {
        self.send(&Request { line })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.pidfd.wait_end(Deadline::now()).unwrap_or(true)
    }

    /// Tells whether it has ended, where one of its sockets was found closed: a process that dies
    /// closes them a moment before its end can be seen.
    pub(crate) fn is_ending(&self) -> bool {
        const MOMENT: Duration = Duration::from_secs(1);
        self.pidfd.wait_end(Deadline::after(MOMENT)).unwrap_or(true)
    }

    fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.control.send(&encode(message)?, Deadline::NEVER)?;
        Ok(())
    }
}

impl AsFd for ForkServer {
    /// The server's pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            crate::reaper::reap_later(self.pidfd.as_fd());
        }
    }
}

const SIGKILL: i32 = 9;

fn hello_deadline() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}
