//! Reaps children of this process whose handles were dropped while they ran.
//!
//! A thread that lives as long as there is such a child. The fork server's children are the fork
//! server's, which reaps them: so this is for the other start methods.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use multiproc_os::deadline::Deadline;
use multiproc_os::pidfd::PidFd;
use multiproc_os::reactor::{Reactor, Waker};

/// The thread that runs, and what it has not seen yet.
static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

struct Reaper {
    /// Whose thread it is: a forked copy has none.
    owner: u32,
    new: Vec<PidFd>,
    waker: Arc<Waker>,
}

/// Reaps the child now if it has ended, else when it does.
pub(crate) fn reap_later(pidfd: BorrowedFd<'_>) {
    // With no descriptor left the zombie stays until this process ends. There is no other remedy.
    let Ok(pidfd) = pidfd.try_clone_to_owned().map(PidFd::from) else { return };
    if !matches!(pidfd.reap(), Ok(None)) {
        return;
    }
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *reaper {
        Some(running) if running.owner == std::process::id() => {
            running.new.push(pidfd);
            running.waker.wake();
        }
        _ => *reaper = start(pidfd).ok(),
    }
}

fn start(first: PidFd) -> io::Result<Reaper> {
    let waker = Arc::new(Waker::new()?);
    let reactor = Reactor::new()?;
    reactor.add(waker.as_fd(), WAKER)?;
    let awaited = Arc::clone(&waker);
    let thread = thread::Builder::new().name("multiproc-reaper".into());
    thread.spawn(move || {
        // What cannot be watched is left to the end of this process.
        let _error = run(&reactor, &awaited);
        REAPER.lock().unwrap_or_else(PoisonError::into_inner).take();
    })?;
    Ok(Reaper { owner: std::process::id(), new: vec![first], waker })
}

const WAKER: u64 = 0;

fn run(reactor: &Reactor, waker: &Waker) -> io::Result<()> {
    let mut children: HashMap<u64, PidFd> = HashMap::new();
    let mut next = WAKER + 1;
    loop {
        for pidfd in take_new(children.is_empty()) {
            reactor.add(&pidfd, next)?;
            children.insert(next, pidfd);
            next += 1;
        }
        if children.is_empty() {
            return Ok(());
        }
        for token in reactor.wait(Deadline::NEVER)? {
            if token == WAKER {
                waker.clear();
            } else if let Some(pidfd) = children.remove(&token) {
                reactor.remove(&pidfd)?;
                let _status = pidfd.reap();
            }
        }
    }
}

/// Takes what was added. If there is nothing more to do, the thread is taken off in the same breath,
/// so that nothing is added to one that ends.
fn take_new(idle: bool) -> Vec<PidFd> {
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    let new = reaper.as_mut().map(|reaper| std::mem::take(&mut reaper.new)).unwrap_or_default();
    if idle && new.is_empty() {
        *reaper = None;
    }
    new
}
