//! Starting a child as a copy of this process.

use std::cell::Cell;

use multiproc_os::context::occupy_standard_streams;
use multiproc_os::fork::{Forked, flush_streams};
use multiproc_os::lifeline;
use multiproc_wire::{Endpoint, Message};
use std::os::fd::OwnedFd;

use crate::builder::Settings;
use crate::changes::Changes;
use crate::child;
use crate::children::Tracked;
use crate::current::{self, Identity};
use crate::error::{Error, Kind};
use crate::process::{Child, Pipes, Process, Reaped};

/// Copies this process. The copy runs `body`, which gives what is to be sent home; it is sent the
/// argument, if there is one, over the line.
pub(crate) fn fork<R>(
    settings: Settings,
    pipes: Pipes,
    identity: Identity,
    argument: Option<Message>,
    body: impl FnOnce(&'static Endpoint) -> Message,
) -> Result<Process<R>, Error> {
    let start = || -> std::io::Result<(Child, Pipes)> {
        let _occupied = occupy_standard_streams()?;
        let (line, theirs) = Endpoint::pair()?;
        let lifeline = match identity.daemon {
            true => Some(lifeline::end()?),
            false => None,
        };
        // What is buffered here would be written by the copy as well.
        flush_streams();
        // What is the parent's alone: the copy drops it, and with it the descriptors.
        let ours = Cell::new(Some((line, argument, pipes)));
        let Forked { pid, pidfd } = multiproc_os::fork::fork(|| {
            drop(ours.take());
            run(theirs, identity, lifeline, &settings.changes, body)
        })?;
        let (line, argument, pipes) = ours.take().ok_or(std::io::ErrorKind::NotConnected)?;
        let tracked = Tracked::new(pid, &settings.name, pidfd);
        let child = Child { tracked, line, said_hello: true, reaped: Reaped::Here };
        child.tell(argument.as_slice())?;
        Ok((child, pipes))
    };
    match start() {
        Ok((child, pipes)) => Ok(Process::new(settings, child, pipes)),
        Err(source) => Err(Kind::Start { name: settings.name, source }.into()),
    }
}

/// In the copy.
fn run(
    line: Endpoint,
    identity: Identity,
    end: Option<OwnedFd>,
    changes: &Changes,
    body: impl FnOnce(&'static Endpoint) -> Message,
) -> i32 {
    lifeline::let_go();
    current::set_identity(identity);
    let line: &'static Endpoint = Box::leak(Box::new(line));
    if let Some(end) = end
        && let Err(error) = lifeline::hold(&end)
    {
        let reason = format!("cannot hold its lifeline: {error}");
        child::report(line, &crate::report::Report::Failed(reason));
        return 1;
    }
    if let Err(reason) = changes.make() {
        child::report(line, &crate::report::Report::Failed(reason));
        return 1;
    }
    child::watch_panics(line);
    let message = body(line);
    child::finish(line, &message);
    0
}
