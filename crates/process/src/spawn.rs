//! Starting a child by each of the methods.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use multiproc_os::context::occupy_standard_streams;
use multiproc_os::deadline::Deadline;
use multiproc_os::exec::{Keep, exec_self};
use multiproc_os::fork::Forked;
use multiproc_os::image;
use multiproc_os::lifeline;
use multiproc_os::patience::Patience;
use multiproc_os::pidfd::PidFd;
use multiproc_os::poll;
use multiproc_wire::{Endpoint, Message, SharedFd, encode, encode_move};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::boot::{Boot, Context};
use crate::builder::Settings;
use crate::changes::Changes;
use crate::child::{self, ChildEntry};
use crate::children::Tracked;
use crate::current::{self, Identity};
use crate::error::{Error, Kind, describe};
use crate::fork;
use crate::fork_server::ForkServer;
use crate::init::{self, SPAWNED};
use crate::parent::ParentId;
use crate::process::{Child, Pipes, Process, Reaped};
use crate::report::Report;
use crate::start_method::StartMethod;

/// So many processes may have started each other: a program that starts itself without end is
/// stopped before the machine is.
const DEEPEST: u32 = 100;

pub(crate) fn spawn<A, R>(
    mut settings: Settings,
    function: fn(A) -> R,
    argument: A,
) -> Result<Process<R>, Error>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    let name = settings.name.clone();
    let identity = check(&settings)?;
    let start_error = |source| Kind::Start { name: name.clone(), source };
    let _occupied = occupy_standard_streams().map_err(start_error)?;
    let entry = ChildEntry::new(function, child::call::<A, R>)
        .map_err(|source| Kind::Function { name: name.clone(), source })?;
    let argument = encode_move(argument)
        .map_err(|rejected| Kind::Argument { name: name.clone(), source: rejected.error })?
        .into_message();
    let pipes = Pipes::open(settings.piped, &mut settings.changes).map_err(start_error)?;
    let started = match settings.start_method {
        StartMethod::Fork => {
            return fork::fork(settings, pipes, identity, Some(argument), |line| {
                child::call(function, line)
            });
        }
        StartMethod::Spawn => start_executed(identity, entry, &settings.changes, &argument),
        _ => start_forked(identity, entry, &settings.changes, &argument),
    };
    let child = started.map_err(start_error)?;
    Ok(Process::new(settings, child, pipes))
}

/// Checks what is checked for every method, and says who the child will be.
pub(crate) fn check(settings: &Settings) -> Result<Identity, Error> {
    init::check(&settings.name)?;
    let invalid = |source| Kind::Start { name: settings.name.clone(), source };
    settings.changes.check().map_err(invalid)?;
    let depth = current::identity().depth + 1;
    if depth > DEEPEST {
        return Err(Kind::TooDeep { name: settings.name.clone(), depth }.into());
    }
    let parent = ParentId::of_this().map_err(invalid)?;
    Ok(Identity {
        name: settings.name.clone(),
        daemon: settings.daemon,
        parent: Some(parent),
        depth,
    })
}

fn start_executed(
    identity: Identity,
    entry: ChildEntry,
    changes: &Changes,
    argument: &Message,
) -> io::Result<Child> {
    let name = identity.name.clone();
    let boot = boot(identity, entry, Context::for_executed(), changes)?;
    let (line, theirs) = Endpoint::pair()?;
    let Forked { pid, pidfd } =
        exec_self(SPAWNED, theirs.as_fd().try_clone_to_owned()?, Keep::Usual)?;
    drop(theirs);
    let tracked = Tracked::new(pid, &name, pidfd);
    let child = Child { tracked, line, said_hello: false, reaped: Reaped::Here };
    child.tell([&boot, argument])?;
    Ok(child)
}

fn start_forked(
    identity: Identity,
    entry: ChildEntry,
    changes: &Changes,
    argument: &Message,
) -> io::Result<Child> {
    const TRIES: u32 = 3;
    let mut failure = io::ErrorKind::NotFound.into();
    for _ in 0..TRIES {
        let server = ForkServer::get()?;
        let (line, theirs) = Endpoint::pair()?;
        // A server that has just died is found out by its end of the control socket.
        match server.fork(theirs) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && server.is_ending() => {
                failure = error;
                continue;
            }
            result => result?,
        }
        // While the server forks, this process finds out what to tell the child.
        if server.is_left_behind() {
            // The child finds its line closed before it was told anything, and ends.
            failure = io::Error::other("this process keeps changing its namespaces");
            continue;
        }
        let context = Context::since(&server.snapshot, changes.ignore_interrupt())?;
        let boot = boot(identity.clone(), entry, context, changes)?;
        tell(&line, [&boot])?;
        // The child runs by now. With the descriptors that went there, one is free for its pidfd.
        drop(boot);
        match hear_hello(&line, &server)? {
            Some((pid, pidfd)) => {
                let reaped = Reaped::ByServer(server);
                let tracked = Tracked::new(pid, &identity.name, pidfd);
                let child = Child { tracked, line, said_hello: true, reaped };
                // Not before: if an interrupt comes that the child does not get yet, and ends this
                // process, the child is not to run.
                child.tell([argument])?;
                return Ok(child);
            }
            None => failure = io::Error::other("its fork server was killed"),
        }
    }
    Err(failure)
}

/// Sends a child what it needs to know. One that is gone already is found out by its end.
pub(crate) fn tell<'a>(
    line: &Endpoint,
    messages: impl IntoIterator<Item = &'a Message>,
) -> io::Result<()> {
    for message in messages {
        match line.send(message, Deadline::NEVER) {
            Ok(_) => {}
            Err(error) if error.is_closed() => return Ok(()),
            // The child finds the line closed before it has all, and ends.
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits for the child's first word. `None` if nobody is left who could say it.
fn hear_hello(line: &Endpoint, server: &Arc<ForkServer>) -> io::Result<Option<(u32, PidFd)>> {
    static PATIENCE: Patience = Patience::for_processes();
    loop {
        let report = match line.recv::<Report>(Deadline::now()) {
            Ok(Some(report)) => report,
            Ok(None) => {
                // A line that is held open by nobody is closed, also by a server that dies.
                let ready = |deadline| poll::readable([line.as_fd()], deadline);
                PATIENCE.wait(
                    || ready(Deadline::now()).map(|[ready]| ready.then_some(())),
                    || ready(Deadline::NEVER).map(drop),
                )?;
                continue;
            }
            Err(error) if error.is_closed() && server.is_ending() => return Ok(None),
            Err(error) if error.is_closed() => {
                return Err(io::Error::other(
                    "its fork server has lost the request, most likely since it has no descriptor left: \
                     see RLIMIT_NOFILE",
                ));
            }
            Err(error) => return Err(error.into()),
        };
        return match report {
            Report::Hello { pid, pidfd: Some(pidfd) } => {
                Ok(Some((pid, PidFd::from(pidfd.as_fd().try_clone_to_owned()?))))
            }
            Report::NotForked { number: Some(number), .. } => {
                Err(io::Error::from_raw_os_error(number))
            }
            Report::NotForked { number: None, reason } => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("its fork server: {reason}"),
            )),
            Report::Exited(status) => Err(io::Error::other(format!(
                "it {} before it said hello",
                describe(ExitStatus::from_raw(status))
            ))),
            Report::Failed(reason) => Err(io::Error::other(reason)),
            other => Err(io::Error::other(format!("it said {other:?} before hello"))),
        };
    }
}

fn boot(
    identity: Identity,
    entry: ChildEntry,
    context: Context,
    changes: &Changes,
) -> io::Result<Message> {
    let lifeline = match identity.daemon {
        true => Some(SharedFd::from(lifeline::end()?)),
        false => None,
    };
    let image = image::identity()?;
    Ok(encode(&Boot {
        image,
        entry: entry.encode(),
        identity,
        lifeline,
        context,
        changes: changes.clone(),
    })?)
}
