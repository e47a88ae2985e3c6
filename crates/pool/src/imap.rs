use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use multiproc_os::deadline::Deadline;
use multiproc_os::image::ENTRY_SIZE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, TaskError};
use crate::handle::read;
use crate::job::Collector;
use crate::pool::Pool;

/// So many tasks for each worker are under way at a time: one runs, the others wait for it.
const UNDER_WAY: usize = 4;

/// What comes of tasks, in order: see [`Pool::imap`].
#[must_use = "it hands in no task before results are taken"]
pub struct Imap<'a, I, A, R> {
    unordered: ImapUnordered<'a, I, A, R>,
    /// What came before its turn.
    early: BTreeMap<usize, Result<R, TaskError>>,
    next: usize,
}

/// What comes of tasks, as it comes: see [`Pool::imap_unordered`].
#[must_use = "it hands in no task before results are taken"]
pub struct ImapUnordered<'a, I, A, R> {
    pool: &'a Pool,
    entry: Result<[u8; ENTRY_SIZE], Arc<Error>>,
    /// `None` once it has given its last item.
    items: Option<I>,
    collector: Arc<Collector>,
    /// How many tasks were taken from the items.
    taken: usize,
    /// How many of them were handed in and are not read yet.
    under_way: usize,
    ready: VecDeque<(usize, Result<R, TaskError>)>,
    function: std::marker::PhantomData<fn(A) -> R>,
}

impl<'a, I, A, R> ImapUnordered<'a, I, A, R>
where
    I: Iterator<Item = A>,
    A: Serialize,
    R: DeserializeOwned,
{
    pub(crate) fn new(pool: &'a Pool, entry: Result<[u8; ENTRY_SIZE], Error>, items: I) -> Self {
        ImapUnordered {
            pool,
            entry: entry.map_err(Arc::new),
            items: Some(items),
            collector: Arc::default(),
            taken: 0,
            under_way: 0,
            ready: VecDeque::new(),
            function: std::marker::PhantomData,
        }
    }

    /// Hands in tasks until `room` of them are under way, or the items are at their end.
    fn hand_in(&mut self, room: usize) {
        while self.under_way < room {
            let Some(item) = self.items.as_mut().and_then(Iterator::next) else {
                self.items = None;
                return;
            };
            let index = self.taken;
            self.taken += 1;
            let handed_in = match &self.entry {
                Ok(entry) => self
                    .pool
                    .submit_one(*entry, item, index, &self.collector)
                    .map_err(TaskError::not_run),
                Err(error) => Err(TaskError::not_run(error)),
            };
            match handed_in {
                Ok(()) => self.under_way += 1,
                Err(error) => {
                    self.ready.push_back((index, Err(error)));
                    return;
                }
            }
        }
    }

    fn next_indexed(&mut self, room: usize) -> Option<(usize, Result<R, TaskError>)> {
        loop {
            self.hand_in(room);
            if let Some(result) = self.ready.pop_front() {
                return Some(result);
            }
            if self.under_way == 0 {
                return None;
            }
            let part = self.collector.take(Deadline::NEVER)?;
            let (ready, under_way) = (&mut self.ready, &mut self.under_way);
            read(part, |index, outcome| {
                ready.push_back((index, outcome));
                *under_way -= 1;
            });
        }
    }

    fn room(&self) -> usize {
        self.pool.workers() * UNDER_WAY
    }
}

impl<I, A, R> Iterator for ImapUnordered<'_, I, A, R>
where
    I: Iterator<Item = A>,
    A: Serialize,
    R: DeserializeOwned,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_indexed(self.room()).map(|(_, outcome)| outcome)
    }
}

impl<'a, I, A, R> Imap<'a, I, A, R> {
    pub(crate) fn new(unordered: ImapUnordered<'a, I, A, R>) -> Self {
        Imap { unordered, early: BTreeMap::new(), next: 0 }
    }
}

impl<I, A, R> Iterator for Imap<'_, I, A, R>
where
    I: Iterator<Item = A>,
    A: Serialize,
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

impl<I, A, R> fmt::Debug for Imap<'_, I, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<I, A, R> fmt::Debug for ImapUnordered<'_, I, A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("taken", &self.taken).finish_non_exhaustive()
    }
}
