//! Tasks on their way.

use std::ops::Range;
use std::sync::Arc;

use async_nats::jetstream::Message;
use multiproc_pool::TaskError;

use crate::batch::{Batch, Part};
use crate::chunk::Arguments;
use crate::names::ChunkId;

/// Tasks that were handed in and make no chunk yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) batch: Arc<Batch>,
    pub(crate) arguments: Arc<Arguments>,
    /// The number in the batch of the task that has the first argument.
    pub(crate) base: usize,
    /// The first argument that is in no chunk.
    pub(crate) next: usize,
}

/// A chunk that is submitted, or about to be.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) id: ChunkId,
    pub(super) batch: Arc<Batch>,
    arguments: Arc<Arguments>,
    range: Range<usize>,
    /// The number in the batch of its first task.
    first: usize,
    done: Vec<bool>,
    missing: usize,
    /// How often it was submitted.
    pub(super) submissions: u32,
    /// The server has said that it has it.
    pub(super) accepted: bool,
    /// What it has in the object store.
    pub(super) objects: Vec<String>,
    /// Results of a part of it, acknowledged when all is done: agents may need them.
    pub(super) held: Vec<Message>,
}

/// What a flight's message is made of.
pub(super) struct Sheet {
    pub(super) id: ChunkId,
    pub(super) batch: Arc<Batch>,
    pub(super) arguments: Arc<Arguments>,
    pub(super) range: Range<usize>,
    pub(super) submissions: u32,
}

impl Waiting {
    pub(super) fn left(&self) -> usize {
        self.arguments.len() - self.next
    }

    /// Takes a chunk off.
    pub(super) fn take(&mut self, id: ChunkId, workers: usize) -> Flight {
        /// Below what a message takes, so that few chunks need the object store.
        const BYTES: usize = 256 << 10;
        let Batch { settings, pace, .. } = &*self.batch;
        let count = match settings.chunk_size {
            Some(size) => size.clamp(1, self.left()),
            None => {
                let most = pace.room(self.left(), workers);
                self.arguments.fitting(self.next, most, BYTES)
            }
        };
        let first = self.base + self.next;
        let range = self.next..self.next + count;
        self.next = range.end;
        Flight {
            id,
            batch: Arc::clone(&self.batch),
            arguments: Arc::clone(&self.arguments),
            range,
            first,
            done: vec![false; count],
            missing: count,
            submissions: 0,
            accepted: false,
            objects: Vec::new(),
            held: Vec::new(),
        }
    }
}

impl Flight {
    pub(super) fn sheet(&self) -> Sheet {
        Sheet {
            id: self.id,
            batch: Arc::clone(&self.batch),
            arguments: Arc::clone(&self.arguments),
            range: self.range.clone(),
            submissions: self.submissions,
        }
    }

    /// Takes what it has not had before.
    pub(super) fn note(&mut self, outcomes: Vec<Part>) -> Vec<Part> {
        let mut new = Vec::new();
        for Part { index, outcome } in outcomes {
            if let Some(done @ false) = self.done.get_mut(index) {
                *done = true;
                self.missing -= 1;
                new.push(Part { index: self.first + index, outcome });
            }
        }
        new
    }

    /// Has all that is missing fail.
    pub(super) fn fail(&mut self, error: &TaskError) {
        let all = (0..self.done.len()).map(|index| Part { index, outcome: Err(error.clone()) });
        let missing = self.note(all.collect());
        self.batch.put(missing);
    }

    pub(super) fn is_done(&self) -> bool {
        self.missing == 0
    }

    /// None of its results has come.
    pub(super) fn is_new(&self) -> bool {
        self.held.is_empty()
    }
}
