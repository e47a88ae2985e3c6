//! Starting a child as a copy of this process.

use std::cell::Cell;

use multiproc_os::context::occupy_standard_streams;
use multiproc_os::fork::{Forked, flush_streams};
use multiproc_os::lifeline;
use multiproc_wire::Endpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::OwnedFd;

use crate::builder::Settings;
use crate::child;
use crate::current::{self, Identity};
use crate::error::{Error, Kind};
use crate::process::{Child, Process, Reaped};

pub(crate) fn fork<R: Serialize + DeserializeOwned>(
    settings: Settings,
    identity: Identity,
    function: impl FnOnce() -> R,
) -> Result<Process<R>, Error> {
    let start = || -> std::io::Result<Child> {
        let _occupied = occupy_standard_streams()?;
        let (line, theirs) = Endpoint::pair()?;
        let lifeline = match identity.daemon {
            true => Some(lifeline::end()?),
            false => None,
        };
        // What is buffered here would be written by the copy as well.
        flush_streams();
        let line = Cell::new(Some(line));
        let forked = multiproc_os::fork::fork(|| {
            drop(line.take());
            run(theirs, identity, lifeline, function)
        })?;
        let Forked { pid, pidfd } = forked;
        let line = line.take().ok_or(std::io::ErrorKind::NotConnected)?;
        Ok(Child { pid, pidfd, line, said_hello: true, reaped: Reaped::Here })
    };
    match start() {
        Ok(child) => Ok(Process::new(settings.name, child)),
        Err(source) => Err(Kind::Start { name: settings.name, source }.into()),
    }
}

/// In the copy.
fn run<R: Serialize>(
    line: Endpoint,
    identity: Identity,
    end: Option<OwnedFd>,
    function: impl FnOnce() -> R,
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
    child::watch_panics(line);
    let message = child::outcome(function);
    child::finish(line, &message);
    0
}
