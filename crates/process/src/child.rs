//! What a child does from its hello to its end.

use std::process::exit;

use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{await_interrupts_under_way, flush_streams, hold_interrupt};
use multiproc_os::image::{self, Entry};
use multiproc_os::lifeline;
use multiproc_os::pidfd::PidFd;
use multiproc_wire::{Endpoint, Message, SharedFd, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd, OwnedFd};

use crate::boot::Boot;
use crate::current;
use crate::panics;
use crate::report::Report;

/// A function to run in a child, with the code that knows its types: it receives the argument over
/// the line, and gives the message to be sent home.
pub(crate) type ChildEntry = Entry<&'static Endpoint, Message>;

/// A child that was executed. It ends as a program does, with its exit handlers.
pub(crate) fn run_spawned(line: Endpoint) -> ! {
    exit(run(line, None))
}

/// A child that the fork server forked off. Exit handlers are the fork server's, and not run.
pub(crate) fn run_forked(line: Endpoint) -> i32 {
    // The fork server ignores it. From the hello on, it is for the child, which learns from its boot
    // what to do with it.
    hold_interrupt(true);
    // One that it was sent before must end the parent before that hears the hello.
    await_interrupts_under_way();
    let pidfd = PidFd::current().ok().map(|pidfd| SharedFd::from(OwnedFd::from(pidfd)));
    run(line, pidfd)
}

fn run(line: Endpoint, pidfd: Option<SharedFd>) -> i32 {
    // It is used until the process ends, by the panic hook too.
    let line: &'static Endpoint = Box::leak(Box::new(line));
    report(line, &Report::Hello { pid: std::process::id(), pidfd });
    let entry = match boot(line) {
        Ok(Some(entry)) => entry,
        // The parent gave up, or died, before it said what to do.
        Ok(None) => return 0,
        Err(reason) => {
            report(line, &Report::Failed(reason));
            return 1;
        }
    };
    let message = entry.call(line);
    finish(line, &message);
    0
}

/// Sends the last message and writes what is buffered.
pub(crate) fn finish(line: &Endpoint, message: &Message) {
    // Whoever is not there any more needs no report.
    if let Err(error) = line.send(message, Deadline::NEVER)
        && !error.is_closed()
    {
        report(line, &Report::Failed(error.to_string()));
    }
    flush_streams();
}

/// Takes over what the boot message says and gives the function to run. `None` if none came.
fn boot(line: &'static Endpoint) -> Result<Option<ChildEntry>, String> {
    let boot: Boot = match line.recv(Deadline::NEVER) {
        Ok(Some(boot)) => boot,
        Ok(None) => return Ok(None),
        Err(error) if error.is_closed() => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let text = |error: std::io::Error| error.to_string();
    if image::identity().map_err(text)? != boot.image {
        return Err("it runs another program file than its parent".into());
    }
    boot.context
        .apply()
        .map_err(|error| format!("cannot take over its parent's context: {error}"))?;
    if let Some(end) = boot.lifeline {
        let end = end.as_fd().try_clone_to_owned().map_err(text)?;
        lifeline::hold(&end).map_err(|error| format!("cannot hold its lifeline: {error}"))?;
    }
    // A limit of descriptors is not to keep it from anything.
    boot.changes.make()?;
    current::set_identity(boot.identity);
    watch_panics(line);
    let entry = ChildEntry::decode(&boot.entry);
    entry.map(Some).ok_or_else(|| "its function is not one of this program".into())
}

pub(crate) fn watch_panics(line: &'static Endpoint) {
    panics::watch(|panic| report(line, &Report::Panicked(panic)));
}

/// The code that knows a function's types.
pub(crate) fn call<A: DeserializeOwned, R: Serialize>(
    function: fn(A) -> R,
    line: &'static Endpoint,
) -> Message {
    // It is read by the user's code, which may panic.
    match panics::catch(|| line.recv::<A>(Deadline::NEVER)) {
        Ok(Ok(Some(argument))) => outcome(|| function(argument)),
        Ok(Ok(None)) => failed("its argument did not come".into()),
        Ok(Err(error)) => failed(format!("its argument: {error}")),
        Err(panic) => message(&Report::Panicked(panic)),
    }
}

/// Runs the function and gives what is to be sent home.
pub(crate) fn outcome<R: Serialize>(function: impl FnOnce() -> R) -> Message {
    let value = match panics::catch(function) {
        Ok(value) => value,
        Err(panic) => return message(&Report::Panicked(panic)),
    };
    let mut message = message(&Report::Returned);
    match panics::catch(|| message.push_move(value)) {
        Ok(Ok(())) => message,
        Ok(Err(error)) => failed(format!("its value: {error}")),
        Err(panic) => self::message(&Report::Panicked(panic)),
    }
}

fn failed(reason: String) -> Message {
    message(&Report::Failed(reason))
}

/// Reports of ours have nothing that could fail to serialise.
fn message(report: &Report) -> Message {
    encode(report).unwrap_or_default()
}

pub(crate) fn report(line: &Endpoint, report: &Report) {
    // A parent that is gone needs none.
    let _gone = line.send(&message(report), Deadline::NEVER);
}

/// As [`report`], but never waits.
pub(crate) fn report_if_room(line: &Endpoint, report: &Report) {
    let _gone = line.send(&message(report), Deadline::now());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Panic;

    #[test]
    fn reports_serialise() {
        let panic = Panic { message: "m".into(), location: None, backtrace: None };
        for report in [Report::Returned, Report::Panicked(panic), Report::Failed("f".into())] {
            assert!(!message(&report).is_empty());
        }
    }
}
