use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::task::Poll;

use multiproc_os::deadline::Deadline;
use multiproc_os::image::ENTRY_SIZE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::job::Jobs;
use crate::engine::{Batch, Part, Shared};
use crate::error::{Error, TaskError};
use crate::handle::read;

/// So many tasks for each worker, or so many chunks, are under way at a time, at least: one runs, the
/// others wait for it.
const LEAST: usize = 4;

/// And so many at most, when they are short.
const MOST: usize = 256;

/// What comes of tasks, in order: see [`Pool::imap`](crate::Pool::imap).
///
/// With feature `stream` it is a `Stream` as well.
#[must_use = "it hands in no task before results are taken"]
pub struct Imap<I, R> {
    unordered: ImapUnordered<I, R>,
    /// What came before its turn.
    early: BTreeMap<usize, Result<R, TaskError>>,
    next: usize,
}

/// What comes of tasks, as it comes: see [`Pool::imap_unordered`](crate::Pool::imap_unordered).
///
/// With feature `stream` it is a `Stream` as well.
#[must_use = "it hands in no task before results are taken"]
pub struct ImapUnordered<I, R> {
    shared: Arc<Shared>,
    entry: Result<[u8; ENTRY_SIZE], String>,
    batch: Arc<Batch>,
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
    pub(crate) fn new(
        shared: Arc<Shared>,
        entry: Result<[u8; ENTRY_SIZE], Error>,
        batch: Arc<Batch>,
        items: I,
    ) -> Self {
        ImapUnordered {
            shared,
            entry: entry.map_err(|error| error.to_string()),
            batch,
            items: Some(items),
            taken: 0,
            under_way: 0,
            ready: VecDeque::new(),
            returns: PhantomData,
        }
    }

    /// How many tasks are to be under way at most.
    fn room(&self) -> usize {
        let workers = self.shared.lock().size;
        let each = match self.batch.options.chunk_size {
            Some(size) => size.saturating_mul(LEAST),
            None => self.batch.room(usize::MAX, 1).saturating_mul(2).clamp(LEAST, MOST),
        };
        workers.saturating_mul(each)
    }
}

impl<I, R> ImapUnordered<I, R>
where
    I: Iterator<Item: Serialize>,
    R: DeserializeOwned,
{
    /// Hands in tasks until `room` of them are under way, or the items are at their end. Not before half
    /// of those are done, so that short ones go together.
    fn hand_in(&mut self, room: usize) {
        if self.under_way * 2 > room {
            return;
        }
        while self.under_way < room && self.items.is_some() && self.ready.len() < room {
            self.hand_in_some(room - self.under_way);
        }
    }

    /// Hands in so many tasks, if there are as many.
    fn hand_in_some(&mut self, room: usize) {
        let first = self.taken;
        let mut jobs = match &self.entry {
            Ok(entry) => Ok(Jobs::new(*entry, &self.batch, first)),
            Err(error) => Err(TaskError::not_run(error)),
        };
        let mut failure = None;
        let mut panic = None;
        for _ in 0..room {
            let items = &mut self.items;
            let next = AssertUnwindSafe(|| items.as_mut().and_then(Iterator::next));
            let item = match catch_unwind(next) {
                Ok(Some(item)) => item,
                Ok(None) => {
                    self.items = None;
                    break;
                }
                Err(payload) => {
                    panic = Some(payload);
                    break;
                }
            };
            self.taken += 1;
            let pushed = catch_unwind(AssertUnwindSafe(|| match &mut jobs {
                Ok(jobs) => jobs.push(item).map_err(TaskError::not_run),
                Err(error) => Err(error.clone()),
            }));
            let error = match pushed {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(payload) => {
                    panic = Some(payload);
                    TaskError::not_run("its argument panicked when it was serialised")
                }
            };
            failure = Some((self.taken - 1, Err(error)));
            break;
        }
        // Whatever became of the one behind them, those that were taken are done.
        if let Ok(jobs) = jobs {
            let (works, end) = jobs.finish();
            match self.shared.submit(works) {
                Ok(()) => self.under_way += end - first,
                Err(error) => {
                    let error = TaskError::not_run(error);
                    self.ready.extend((first..end).map(|index| (index, Err(error.clone()))));
                }
            }
        }
        self.ready.extend(failure);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Gives the next result. `take` waits for those of some tasks, or says that they are not there.
    fn poll_indexed(
        &mut self,
        room: usize,
        mut take: impl FnMut(&Batch) -> Poll<Option<Part>>,
    ) -> Poll<Option<(usize, Result<R, TaskError>)>> {
        loop {
            self.hand_in(room);
            if let Some(result) = self.ready.pop_front() {
                return Poll::Ready(Some(result));
            }
            if self.under_way == 0 {
                return Poll::Ready(None);
            }
            match take(&self.batch) {
                Poll::Ready(Some(part)) => self.note(part),
                // It was cancelled, which nobody can do but this.
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn note(&mut self, part: Part) {
        let (ready, under_way) = (&mut self.ready, &mut self.under_way);
        read(part, |index, outcome| {
            ready.push_back((index, outcome));
            *under_way -= 1;
        });
    }

    fn poll(
        &mut self,
        take: impl FnMut(&Batch) -> Poll<Option<Part>>,
    ) -> Poll<Option<Result<R, TaskError>>> {
        let room = self.room();
        self.poll_indexed(room, take).map(|result| result.map(|(_, outcome)| outcome))
    }
}

impl<I, R> Iterator for ImapUnordered<I, R>
where
    I: Iterator<Item: Serialize>,
    R: DeserializeOwned,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        ready(self.poll(wait))
    }
}

impl<I, R> Imap<I, R> {
    pub(crate) fn new(unordered: ImapUnordered<I, R>) -> Self {
        Imap { unordered, early: BTreeMap::new(), next: 0 }
    }
}

impl<I, R> Imap<I, R>
where
    I: Iterator<Item: Serialize>,
    R: DeserializeOwned,
{
    fn poll(
        &mut self,
        mut take: impl FnMut(&Batch) -> Poll<Option<Part>>,
    ) -> Poll<Option<Result<R, TaskError>>> {
        loop {
            if let Some(outcome) = self.early.remove(&self.next) {
                self.next += 1;
                return Poll::Ready(Some(outcome));
            }
            // What came early counts as under way: one slow task must not let the others run ahead
            // without bound.
            let room = self.unordered.room().saturating_sub(self.early.len()).max(1);
            match self.unordered.poll_indexed(room, &mut take) {
                Poll::Ready(Some((index, outcome))) => self.early.insert(index, outcome),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
        }
    }
}

impl<I, R> Iterator for Imap<I, R>
where
    I: Iterator<Item: Serialize>,
    R: DeserializeOwned,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        ready(self.poll(wait))
    }
}

impl<I, R> Drop for ImapUnordered<I, R> {
    fn drop(&mut self) {
        self.shared.abandon(&self.batch);
    }
}

fn wait(batch: &Batch) -> Poll<Option<Part>> {
    Poll::Ready(batch.take(Deadline::NEVER))
}

/// What a call gave that waits.
fn ready<T>(polled: Poll<Option<T>>) -> Option<T> {
    match polled {
        Poll::Ready(value) => value,
        Poll::Pending => None,
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

#[cfg(feature = "stream")]
mod stream {
    use std::pin::Pin;
    use std::task::Context;

    use futures_core::Stream;

    use super::{DeserializeOwned, Imap, ImapUnordered, Poll, Serialize, TaskError};
    use crate::completed::AsCompleted;

    impl<I, R> Stream for ImapUnordered<I, R>
    where
        I: Iterator<Item: Serialize> + Unpin,
        R: DeserializeOwned,
    {
        type Item = Result<R, TaskError>;

        fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.get_mut().poll(|batch| batch.poll_take(context))
        }
    }

    impl<I, R> Stream for Imap<I, R>
    where
        I: Iterator<Item: Serialize> + Unpin,
        R: DeserializeOwned,
    {
        type Item = Result<R, TaskError>;

        fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.get_mut().poll(|batch| batch.poll_take(context))
        }
    }

    impl<R: DeserializeOwned> Stream for AsCompleted<R> {
        type Item = (usize, Result<R, TaskError>);

        fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            AsCompleted::poll_next(self.get_mut(), context)
        }
    }

    // Neither results nor handles are ever pinned.
    impl<I: Unpin, R> Unpin for ImapUnordered<I, R> {}
    impl<I: Unpin, R> Unpin for Imap<I, R> {}
    impl<R> Unpin for AsCompleted<R> {}
}
