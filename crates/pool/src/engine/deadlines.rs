//! The points in time at which batches are to be ended.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use super::batch::Batch;

/// The next first. It keeps no batch, and what it has of those that are gone is thrown out now and then.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    entries: BinaryHeap<Entry>,
    /// How many there may be before it looks for those of batches that are gone.
    most: usize,
}

#[derive(Debug)]
struct Entry {
    /// In nanoseconds.
    at: u64,
    batch: Weak<Batch>,
}

impl Deadlines {
    /// Notes the deadline of a batch, if it has one.
    pub(crate) fn note(&mut self, batch: &Arc<Batch>) {
        const LEAST: usize = 64;
        let Some(deadline) = batch.deadline else { return };
        if self.entries.len() >= self.most {
            self.entries.retain(|entry| entry.batch.strong_count() > 0);
            self.most = LEAST.max(self.entries.len() * 2);
        }
        self.entries.push(Entry { at: deadline.nanos(), batch: Arc::downgrade(batch) });
    }

    /// When the next is.
    pub(crate) fn next(&self) -> Option<u64> {
        self.entries.peek().map(|entry| entry.at)
    }

    /// Takes out those that have passed. Returns whether there were any.
    pub(crate) fn pass(&mut self, now: u64) -> bool {
        let mut any = false;
        while self.next().is_some_and(|at| at <= now) {
            self.entries.pop();
            any = true;
        }
        any
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use multiproc_os::deadline::Deadline;

    use super::*;

    fn batch(at: u64) -> Arc<Batch> {
        let mut batch = Batch::default();
        batch.deadline = Some(Deadline::from_nanos(at));
        Arc::new(batch)
    }

    #[test]
    fn they_come_in_order_and_pass_once() {
        let batches = [70, 30, 50].map(batch);
        let mut deadlines = Deadlines::default();
        batches.iter().for_each(|batch| deadlines.note(batch));
        deadlines.note(&Arc::default());
        assert_eq!(deadlines.next(), Some(30));
        assert!(!deadlines.pass(29) && deadlines.pass(50) && !deadlines.pass(50));
        assert_eq!(deadlines.next(), Some(70));
    }

    /// Regression: there was an entry for each job until its time came, long after it was done.
    #[test]
    fn those_of_batches_that_are_gone_do_not_pile_up() {
        let kept: Vec<_> = (0..100).map(batch).collect();
        let mut deadlines = Deadlines::default();
        kept.iter().for_each(|batch| deadlines.note(batch));
        (0..100_000).for_each(|at| deadlines.note(&batch(1_000 + at)));
        assert!(deadlines.entries.len() <= 400, "{}", deadlines.entries.len());
        for at in 0..100 {
            assert_eq!(deadlines.next(), Some(at));
            assert!(deadlines.pass(at));
        }
    }
}
