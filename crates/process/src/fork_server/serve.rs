//! The server's side.
//!
//! One child is forked ahead, the *spare*, and waits for a line. So a child starts within the time of
//! a message, and the next spare is forked while it runs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use multiproc_os::context;
use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, exit_now, fork_with};
use multiproc_os::image;
use multiproc_os::patience::Patience;
use multiproc_os::pidfd::PidFd;
use multiproc_os::reactor::Reactor;
use multiproc_wire::{Endpoint, encode};

use super::{Greeting, Request, preload};
use crate::child;
use crate::report::Report;

/// Ends when the parent has ended, or wants no more and no child is left.
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
    /// Those that have a line.
    children: HashMap<u64, Child>,
    spare: Option<Spare>,
    next_child: u64,
    requests: u64,
}

struct Child {
    pidfd: PidFd,
    line: Endpoint,
}

struct Spare {
    pidfd: PidFd,
    /// Over which it gets its line.
    control: Endpoint,
}

impl Server {
    fn new(control: Endpoint) -> io::Result<Self> {
        // Ctrl-C is for the program and its children, which it reaches as well.
        context::ignore_interrupt(true);
        context::keep_ended_children();
        // What every child asks for is found out once.
        image::identity()?;
        let Some(Greeting { parent, preload }) = control.recv(Deadline::NEVER)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let reactor = Reactor::new()?;
        reactor.add(&control, CONTROL)?;
        reactor.add(&parent, PARENT)?;
        // It is watched until the server ends.
        std::mem::forget(parent);
        control.send(&encode(&())?, Deadline::NEVER)?;
        if let Some(encoded) = preload {
            let result = preload::run(&encoded);
            control.send(&encode(&result)?, Deadline::NEVER)?;
            if result.is_err() {
                return Err(io::ErrorKind::Other.into());
            }
        }
        Ok(Server {
            control,
            closed: false,
            reactor,
            children: HashMap::new(),
            spare: None,
            next_child: FIRST_CHILD,
            requests: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let patience = Patience::for_processes();
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
        self.dismiss_spare();
        Ok(())
    }

    fn take_requests(&mut self) -> io::Result<()> {
        loop {
            match self.control.recv::<Request>(Deadline::now()) {
                Ok(Some(Request { line })) => self.start_child(line)?,
                Ok(None) => break,
                Err(error) if error.is_closed() => {
                    self.closed = true;
                    self.dismiss_spare();
                    return self.reactor.remove(&self.control);
                }
                // There is nobody to answer to: the line that came with it, or for which there was no
                // descriptor left, is closed.
                Err(_) => {}
            }
        }
        // A program that starts one process does not pay for two.
        if self.requests > 1 && self.spare.is_none() {
            self.spare = fork_spare().ok();
        }
        Ok(())
    }

    fn start_child(&mut self, line: Endpoint) -> io::Result<()> {
        self.requests += 1;
        let (started, line) = match self.spare.take() {
            Some(spare) => give(spare, line),
            None => (None, line),
        };
        let pidfd = match started {
            Some(pidfd) => pidfd,
            None => match fork_with(line.as_fd(), |line| child::run_forked(line.into())) {
                Ok(Forked { pidfd, .. }) => pidfd,
                Err(error) => {
                    let (number, reason) = (error.raw_os_error(), error.to_string());
                    child::report_if_room(&line, &Report::NotForked { number, reason });
                    return Ok(());
                }
            },
        };
        let token = self.next_child;
        self.next_child += 1;
        self.reactor.add(&pidfd, token)?;
        self.children.insert(token, Child { pidfd, line });
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

    fn dismiss_spare(&mut self) {
        if let Some(Spare { pidfd, control }) = self.spare.take() {
            // It sees its control closed, and ends.
            drop(control);
            let _ended = pidfd.wait_end(Deadline::NEVER);
            let _status = pidfd.reap();
        }
    }
}

fn fork_spare() -> io::Result<Spare> {
    let (control, theirs) = Endpoint::pair()?;
    let Forked { pidfd, .. } = fork_with(theirs.as_fd(), run_spare)?;
    Ok(Spare { pidfd, control })
}

/// Gives the spare its line. One that was killed is reaped instead, and gives nothing.
fn give(spare: Spare, line: Endpoint) -> (Option<PidFd>, Endpoint) {
    let request = Request { line };
    let sent = encode(&request).and_then(|message| spare.control.send(&message, Deadline::now()));
    if matches!(sent, Ok(true)) {
        return (Some(spare.pidfd), request.line);
    }
    drop(spare.control);
    let _ended = spare.pidfd.wait_end(Deadline::NEVER);
    let _status = spare.pidfd.reap();
    (None, request.line)
}

/// In the spare.
fn run_spare(control: OwnedFd) -> i32 {
    let control: Endpoint = Endpoint::from(control).with_patience(Patience::for_processes());
    match control.recv::<Request>(Deadline::NEVER) {
        Ok(Some(Request { line })) => {
            drop(control);
            child::run_forked(line.with_patience(Patience::for_processes()))
        }
        // It was not needed.
        _ => 0,
    }
}
