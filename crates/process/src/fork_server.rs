//! A clean copy of the program, with one thread, that forks off children.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multiproc_os::context;
use multiproc_os::deadline::Deadline;
use multiproc_os::exec::{Keep, exec_self};
use multiproc_os::fork::{Forked, exit_now, fork_with};
use multiproc_os::image;
use multiproc_os::patience::Patience;
use multiproc_os::pidfd::PidFd;
use multiproc_os::poll;
use multiproc_os::reactor::Reactor;
use multiproc_wire::{Endpoint, SharedFd, encode};
use serde::{Deserialize, Serialize};

use crate::boot::Snapshot;
use crate::child;
use crate::init::FORK_SERVER;
use crate::report::Report;

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
    namespaces: [u64; 7],
    pub(crate) snapshot: Snapshot,
}

/// To the server, once: whose children these are.
#[derive(Serialize, Deserialize)]
struct Greeting {
    parent: SharedFd,
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
        server.send(&Greeting { parent })?;
        server.expect_hello()?;
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
        let how = match ready {
            [false, false] => "did not say hello within a minute",
            _ => "ended before it said hello",
        };
        self.pidfd.send_signal(SIGKILL)?;
        let _ended = self.pidfd.wait_end(Deadline::NEVER)?;
        let _status = self.pidfd.reap();
        Err(io::Error::other(format!(
            "its fork server, a copy of this program, {how}: is `multiproc::init();` the first line of \
             main, and reached whatever the arguments are?"
        )))
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

/// The server's side. Ends when the parent has ended, or wants no more and no child is left.
pub(crate) fn serve(control: Endpoint) -> ! {
    let code = match Server::new(control).and_then(|mut server| server.run()) {
        Ok(()) => 0,
        // It has no standard error; whoever asks next finds it ended.
        Err(_) => 1,
    };
    exit_now(code)
}

const CONTROL: u64 = 0;
const PARENT: u64 = 1;
const FIRST_CHILD: u64 = 2;

struct Server {
    control: Endpoint,
    /// No more requests come.
    closed: bool,
    reactor: Reactor,
    children: HashMap<u64, Child>,
    next_child: u64,
}

struct Child {
    pidfd: PidFd,
    line: Endpoint,
}

impl Server {
    fn new(control: Endpoint) -> io::Result<Self> {
        // Ctrl-C is for the program and its children, which it reaches as well.
        context::ignore_interrupt(true);
        context::keep_ended_children();
        // What every child, and every spawn, asks for is found out once.
        image::identity()?;
        std::mem::forget(context::hold_namespaces());
        let Some(Greeting { parent }) = control.recv(Deadline::NEVER)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let reactor = Reactor::new()?;
        reactor.add(&control, CONTROL)?;
        reactor.add(&parent, PARENT)?;
        // It is watched until the server ends.
        std::mem::forget(parent);
        control.send(&encode(&())?, Deadline::NEVER)?;
        let next_child = FIRST_CHILD;
        Ok(Server { control, closed: false, reactor, children: HashMap::new(), next_child })
    }

    fn run(&mut self) -> io::Result<()> {
        let patience = Patience::new();
        while !self.closed || !self.children.is_empty() {
            let ready = |deadline| self.reactor.wait(deadline);
            let tokens = patience.wait(
                || ready(Deadline::now()).map(|tokens| (!tokens.is_empty()).then_some(tokens)),
                || ready(Deadline::NEVER),
            )?;
            for token in tokens {
                match token {
                    CONTROL => self.take_requests()?,
                    PARENT => return Ok(()),
                    child => self.reap(child)?,
                }
            }
        }
        Ok(())
    }

    fn take_requests(&mut self) -> io::Result<()> {
        loop {
            match self.control.recv::<Request>(Deadline::now()) {
                Ok(Some(request)) => self.fork(request.line)?,
                Ok(None) => return Ok(()),
                Err(error) if error.is_closed() => {
                    self.closed = true;
                    return self.reactor.remove(&self.control);
                }
                // There is nobody to answer to: the line that came with it, or for which there was no
                // descriptor left, is closed.
                Err(_) => {}
            }
        }
    }

    fn fork(&mut self, line: Endpoint) -> io::Result<()> {
        match fork_with(line.as_fd(), child::run_forked) {
            Ok(Forked { pidfd, .. }) => {
                let token = self.next_child;
                self.next_child += 1;
                self.reactor.add(&pidfd, token)?;
                self.children.insert(token, Child { pidfd, line });
            }
            Err(error) => {
                let (number, reason) = (error.raw_os_error(), error.to_string());
                child::report_if_room(&line, &Report::NotForked { number, reason });
            }
        }
        Ok(())
    }

    fn reap(&mut self, token: u64) -> io::Result<()> {
        let Some(child) = self.children.remove(&token) else { return Ok(()) };
        self.reactor.remove(&child.pidfd)?;
        if let Ok(Some(status)) = child.pidfd.reap() {
            child::report_if_room(&child.line, &Report::Exited(status.into_raw()));
        }
        Ok(())
    }
}
