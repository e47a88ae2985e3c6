//! What a child is told before its argument.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use multiproc_os::context;
use multiproc_os::fork::hold_interrupt;
use multiproc_os::image::ENTRY_SIZE;
use multiproc_wire::SharedFd;
use serde::{Deserialize, Serialize};

use crate::changes::Changes;
use crate::current::Identity;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// Of the image, so that the entry's offsets mean the same.
    pub(crate) image: u64,
    pub(crate) entry: [u8; ENTRY_SIZE],
    pub(crate) identity: Identity,
    /// The parent's end, for a daemon to hold on to.
    pub(crate) lifeline: Option<SharedFd>,
    pub(crate) context: Context,
    pub(crate) changes: Changes,
}

/// What the child is to have of its parent and does not inherit from whoever forks it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Context {
    streams: Streams,
    directory: Option<SharedFd>,
    environment: Option<Vec<u8>>,
    umask: Option<u32>,
    limits: Option<context::Limits>,
    affinity: Option<Vec<u32>>,
    ignore_interrupt: Option<bool>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Streams {
    All([Option<SharedFd>; 3]),
    /// An executed child has inherited the others.
    Input(Option<SharedFd>),
}

/// What a fork server had of its parent when it was started, and so its children have unless told.
#[derive(Debug)]
pub(crate) struct Snapshot {
    directory: (u64, u64),
    environment: Vec<u8>,
    umask: u32,
    limits: context::Limits,
    affinity: Vec<u32>,
}

impl Snapshot {
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Snapshot {
            directory: context::working_directory_id()?,
            environment: context::environment(),
            umask: context::umask()?,
            limits: context::limits()?,
            affinity: context::affinity()?,
        })
    }
}

impl Context {
    /// For a child of the fork server: what is different now.
    pub(crate) fn since(snapshot: &Snapshot, ignore_interrupt: Option<bool>) -> io::Result<Self> {
        let now = Snapshot::take()?;
        let directory = if now.directory == snapshot.directory {
            None
        } else {
            Some(context::working_directory()?.into())
        };
        Ok(Context {
            streams: Streams::All(context::standard_streams().map(|fd| fd.map(SharedFd::from))),
            directory,
            environment: changed(now.environment, &snapshot.environment),
            umask: changed(now.umask, &snapshot.umask),
            limits: changed(now.limits, &snapshot.limits),
            affinity: changed(now.affinity, &snapshot.affinity),
            ignore_interrupt: Some(ignore_interrupt.unwrap_or_else(context::ignores_interrupt)),
        })
    }

    /// For a child that was executed: it has inherited all but its standard input, in whose place it
    /// was given the line.
    pub(crate) fn for_executed() -> Self {
        let [stdin, ..] = context::standard_streams();
        Context {
            streams: Streams::Input(stdin.map(SharedFd::from)),
            directory: None,
            environment: None,
            umask: None,
            limits: None,
            affinity: None,
            ignore_interrupt: None,
        }
    }

    pub(crate) fn apply(&self) -> io::Result<()> {
        match &self.streams {
            Streams::All(streams) => context::set_standard_streams(streams.each_ref().map(borrow))?,
            Streams::Input(stdin) => context::set_standard_input(borrow(stdin))?,
        }
        context::ignore_broken_pipe();
        if let Some(ignore) = self.ignore_interrupt {
            context::ignore_interrupt(ignore);
            hold_interrupt(false);
        }
        if let Some(directory) = &self.directory {
            context::set_working_directory(directory)?;
        }
        if let Some(environment) = &self.environment {
            context::set_environment(environment)?;
        }
        if let Some(umask) = self.umask {
            context::set_umask(umask);
        }
        if let Some(affinity) = &self.affinity {
            context::set_affinity(affinity)?;
        }
        if let Some(limits) = &self.limits {
            context::set_limits(limits)?;
        }
        Ok(())
    }
}

fn changed<T: PartialEq>(now: T, before: &T) -> Option<T> {
    (now != *before).then_some(now)
}

fn borrow(fd: &Option<SharedFd>) -> Option<BorrowedFd<'_>> {
    fd.as_ref().map(AsFd::as_fd)
}
