use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use multiproc_os::deadline::Deadline;
use multiproc_pool::{Error, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::{Batch, Part};
use crate::chunk::Arguments;
use crate::driver::Shared;
use crate::handle::decode;

/// So many chunks for each worker are under way at a time: one runs, the others are on their way to it
/// or back.
const CHUNKS: usize = 4;

/// Workers that are thought to be there while no agent is known.
const UNKNOWN: usize = 4;

/// So many tasks for each worker are under way at most, when they are short.
const MOST: usize = 1024;

/// What comes of tasks, in order: see [`Pool::imap`](crate::Pool::imap).
#[must_use = "it hands in no task before results are taken"]
pub struct Imap<I, R> {
    unordered: ImapUnordered<I, R>,
    /// What came before its turn.
    early: BTreeMap<usize, Result<R, TaskError>>,
    next: usize,
}

/// What comes of tasks, as it comes: see [`Pool::imap_unordered`](crate::Pool::imap_unordered).
#[must_use = "it hands in no task before results are taken"]
pub struct ImapUnordered<I, R> {
    shared: Arc<Shared>,
    batch: Result<Arc<Batch>, String>,
    /// `None` once it has given its last item.
    items: Option<I>,
    /// How many tasks were taken from the items.
    taken: usize,
    /// How many of them were handed in and are not read yet.
    under_way: usize,
    ready: VecDeque<(usize, Result<R, TaskError>)>,
    returns: PhantomData<fn() -> R>,
}

impl<I, R> ImapUnordered<I, R> {
    pub(crate) fn new(shared: Arc<Shared>, batch: Result<Arc<Batch>, Error>, items: I) -> Self {
        ImapUnordered {
            shared,
            batch: batch.map_err(|error| error.to_string()),
            items: Some(items),
            taken: 0,
            under_way: 0,
            ready: VecDeque::new(),
            returns: PhantomData,
        }
    }

    /// How many tasks are to be under way at most.
    fn room(&self) -> usize {
        let workers = match self.shared.workers() {
            0 => UNKNOWN,
            workers => workers,
        };
        let each = match &self.batch {
            Ok(batch) => match batch.settings.chunk_size {
                Some(size) => size.saturating_mul(CHUNKS),
                None => batch.pace.room(usize::MAX, 1).saturating_mul(CHUNKS).min(MOST),
            },
            Err(_) => 1,
        };
        workers.saturating_mul(each)
    }
}

impl<I, R> ImapUnordered<I, R>
where
    I: Iterator<Item: Serialize>,
    R: DeserializeOwned,
{
    /// Hands in tasks until `room` of them are under way, or the items are at their end. Not before a
    /// quarter of those are done, so that short ones go together.
    fn hand_in(&mut self, room: usize) {
        if self.under_way * 4 > room * 3 {
            return;
        }
        let room = (room - self.under_way).saturating_sub(self.ready.len());
        let first = self.taken;
        let mut arguments = Arguments::default();
        while self.taken - first < room {
            let Some(item) = self.items.as_mut().and_then(Iterator::next) else {
                self.items = None;
                break;
            };
            let index = self.taken;
            self.taken += 1;
            let pushed = match &self.batch {
                Ok(_) => arguments.push(index, &item).map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = pushed {
                self.submit(arguments, first);
                self.ready.push_back((index, Err(TaskError::__not_run(error))));
                return;
            }
        }
        self.submit(arguments, first);
    }

    fn submit(&mut self, arguments: Arguments, first: usize) {
        let Ok(batch) = &self.batch else { return };
        let count = arguments.len();
        match self.shared.submit(batch, arguments, first) {
            Ok(()) => self.under_way += count,
            Err(error) => {
                let error = TaskError::__not_run(error);
                self.ready.extend((first..first + count).map(|index| (index, Err(error.clone()))));
            }
        }
    }

    /// Waits for the next result.
    fn next_indexed(&mut self, room: usize) -> Option<(usize, Result<R, TaskError>)> {
        loop {
            self.hand_in(room);
            if let Some(result) = self.ready.pop_front() {
                return Some(result);
            }
            if self.under_way == 0 {
                return None;
            }
            let parts = self.batch.as_ref().ok()?.take(Deadline::NEVER)?;
            self.under_way = self.under_way.saturating_sub(parts.len());
            let read = |Part { index, outcome }| (index, outcome.and_then(|value| decode(&value)));
            self.ready.extend(parts.into_iter().map(read));
        }
    }
}

impl<I, R> Iterator for ImapUnordered<I, R>
where
    I: Iterator<Item: Serialize>,
    R: DeserializeOwned,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let room = self.room();
        self.next_indexed(room).map(|(_, outcome)| outcome)
    }
}

impl<I, R> Imap<I, R> {
    pub(crate) fn new(unordered: ImapUnordered<I, R>) -> Self {
        Imap { unordered, early: BTreeMap::new(), next: 0 }
    }
}

impl<I, R> Iterator for Imap<I, R>
where
    I: Iterator<Item: Serialize>,
    R: DeserializeOwned,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(outcome) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(outcome);
            }
            // What came early counts as under way: one slow task must not let the others run ahead
            // without bound.
            let room = self.unordered.room().saturating_sub(self.early.len()).max(1);
            let (index, outcome) = self.unordered.next_indexed(room)?;
            self.early.insert(index, outcome);
        }
    }
}

impl<I, R> Drop for ImapUnordered<I, R> {
    fn drop(&mut self) {
        if let Ok(batch) = &self.batch
            && self.under_way > 0
        {
            self.shared.cancel(batch, false);
        }
    }
}

impl<I, R> fmt::Debug for Imap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<I, R> fmt::Debug for ImapUnordered<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("taken", &self.taken).finish_non_exhaustive()
    }
}
