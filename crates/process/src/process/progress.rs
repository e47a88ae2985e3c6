//! What a handle learns of its process, over the line and from the kernel.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::patience::Patience;
use multiproc_os::pidfd::ExitInfo;
use multiproc_os::poll;
use multiproc_wire::Reader;
use serde::de::DeserializeOwned;

use super::{Process, Reaped};
use crate::error::{Error, Kind};
use crate::report::Report;
use crate::trace;

/// How long an orphan's status is waited for once it has ended. Whoever has adopted it reaps it at
/// once, as a rule; some that run as process 1 look around every few seconds only.
const ADOPTION: Duration = Duration::from_secs(5);

impl<R: DeserializeOwned> Process<R> {
    /// Waits until it has ended and was reaped. Returns `false` if the deadline passed first.
    pub(super) fn wait(&mut self, deadline: Deadline) -> Result<bool, Error> {
        /// Whether processes that are joined tend to end soon is learnt over all of them.
        static PATIENCE: Patience = Patience::for_processes();
        let this = std::cell::RefCell::new(&mut *self);
        let result = PATIENCE.wait(
            || match this.borrow_mut().look()? {
                true => Ok(Some(true)),
                false => Ok(deadline.has_passed().then_some(false)),
            },
            || this.borrow_mut().sleep(deadline),
        );
        result.map_err(|error| self.io("wait for", error))
    }

    fn sleep(&mut self, deadline: Deadline) -> io::Result<bool> {
        loop {
            if let Some(until) = self.orphaned {
                let reaped = poll::hung_up(self.child.tracked.as_fd(), deadline.min(until))?;
                if self.look()? {
                    return Ok(true);
                }
                if !reaped && deadline.has_passed() {
                    return Ok(false);
                }
                continue;
            }
            let line = (!self.line_closed).then(|| self.child.line.as_fd());
            let pidfd = self.child.tracked.as_fd();
            // Once the process has ended, its own pidfd would wake this loop for ever.
            let process = if self.child.tracked.wait_end(Deadline::now())? {
                match &self.child.reaped {
                    Reaped::Here => pidfd,
                    Reaped::ByServer(server) => server.as_fd(),
                }
            } else {
                pidfd
            };
            let ready = poll::readable([line.unwrap_or(process), process], deadline)?;
            if self.look()? {
                return Ok(true);
            }
            if ready == [false, false] {
                return Ok(false);
            }
        }
    }

    /// Takes in what there is to know, without waiting. Returns whether the process has ended.
    fn look(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(true);
        }
        self.read_line();
        if self.ended {
            return Ok(true);
        }
        match &self.child.reaped {
            Reaped::Here => match self.child.tracked.reap() {
                Ok(None) => return Ok(false),
                Ok(status) => self.status = status,
                // Someone else has reaped it, or `SIGCHLD` is ignored.
                Err(_) if self.child.tracked.wait_end(Deadline::now())? => {
                    if let ExitInfo::Known(status) = self.child.tracked.exit_info() {
                        self.status = Some(status);
                    }
                }
                Err(error) => return Err(error),
            },
            Reaped::ByServer(server) => {
                // The server's word comes over the line, unless the server was killed.
                if !self.line_closed && !server.has_ended() {
                    return Ok(false);
                }
                if !self.child.tracked.wait_end(Deadline::now())? {
                    return Ok(false);
                }
                self.read_line();
                if !self.ended && !self.look_at_orphan() {
                    return Ok(false);
                }
            }
        }
        // What it said last was on the line before it ended.
        self.read_line();
        self.end();
        Ok(true)
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            trace::ended(&self.name, self.child.tracked.pid, self.status);
        }
    }

    /// Takes in how a process ended that the server cannot tell of any more. Returns `false` if that
    /// will be known soon.
    fn look_at_orphan(&mut self) -> bool {
        // This process may be the one that has adopted it: as process 1, or by its own wish.
        if let Ok(Some(status)) = self.child.tracked.reap() {
            self.status = Some(status);
            return true;
        }
        match self.child.tracked.exit_info() {
            ExitInfo::Known(status) => self.status = Some(status),
            ExitInfo::NotReaped if self.outcome.is_none() => {
                let until = self.orphaned.get_or_insert_with(|| Deadline::after(ADOPTION));
                return until.has_passed();
            }
            ExitInfo::NotReaped | ExitInfo::Unknown => {}
        }
        true
    }

    /// Reads the reports that are there.
    fn read_line(&mut self) {
        while !self.line_closed && !self.ended {
            let read = self.child.line.recv_with(Deadline::now(), |mut reader: Reader<'_>| {
                let report: Report = reader.read()?;
                let value = match report {
                    Report::Returned => Some(reader.read::<R>()),
                    _ => None,
                };
                Ok::<_, multiproc_wire::Error>((report, value))
            });
            match read {
                Ok(None) => return,
                Ok(Some(Ok((report, value)))) => self.note(report, value),
                Ok(Some(Err(source))) => self.fail(source),
                Err(error) if error.is_closed() => self.line_closed = true,
                Err(source) => {
                    self.fail(source);
                    return;
                }
            }
        }
    }

    fn note(&mut self, report: Report, value: Option<Result<R, multiproc_wire::Error>>) {
        let name = || self.name.clone();
        match report {
            Report::Hello { .. } => self.child.said_hello = true,
            Report::Returned => match value {
                Some(Ok(value)) => self.outcome = Some(Ok(value)),
                Some(Err(source)) => self.fail(source),
                None => {}
            },
            Report::Panicked(panic) => {
                self.outcome = Some(Err(Kind::Panicked { name: name(), panic }.into()));
            }
            Report::Failed(reason) => {
                self.outcome = Some(Err(Kind::Failed { name: name(), reason }.into()));
            }
            Report::Exited(status) => {
                self.status = Some(ExitStatus::from_raw(status));
                self.end();
            }
            Report::NotForked { .. } => {}
        }
    }

    fn fail(&mut self, source: multiproc_wire::Error) {
        self.outcome = Some(Err(Kind::Value { name: self.name.clone(), source }.into()));
    }
}
