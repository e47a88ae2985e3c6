//! The tasks that no worker has.

use std::collections::{BTreeMap, VecDeque};

use super::job::Work;
use crate::error::{TaskError, TaskKind};

/// Work by priority, and in the order in which it came. None of it is empty.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_priority: BTreeMap<i32, VecDeque<Work>>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_priority.is_empty()
    }

    /// The highest priority that some have.
    pub(crate) fn priority(&self) -> Option<i32> {
        self.by_priority.last_key_value().map(|(&priority, _)| priority)
    }

    /// How many tasks there are.
    pub(crate) fn tasks(&self) -> usize {
        self.by_priority.values().flatten().map(|work| work.tasks.len()).sum()
    }

    pub(crate) fn push(&mut self, work: Work) {
        if !work.tasks.is_empty() {
            self.queue(&work).push_back(work);
        }
    }

    /// Puts work that was assigned before back to its place in front.
    pub(crate) fn put_back(&mut self, work: Work) {
        if work.tasks.is_empty() {
            return;
        }
        let queue = self.queue(&work);
        match queue.front_mut() {
            Some(first) if first.follows(&work) => first.tasks.start = work.tasks.start,
            _ => queue.push_front(work),
        }
    }

    /// Takes the tasks that are next, so many as `count` says of the work that they are part of.
    pub(crate) fn take(&mut self, count: impl FnOnce(&Work) -> usize) -> Option<Work> {
        loop {
            let mut queue = self.by_priority.last_entry()?;
            let Some(first) = queue.get_mut().front_mut() else {
                queue.remove();
                continue;
            };
            if let Some(error) = first.expired() {
                if let Some(work) = queue.get_mut().pop_front() {
                    work.fail(error);
                }
                continue;
            }
            let taken = first.take_first(count(first).clamp(1, first.tasks.len()));
            if first.tasks.is_empty() {
                queue.get_mut().pop_front();
            }
            if queue.get().is_empty() {
                queue.remove();
            }
            return Some(taken);
        }
    }

    /// Fails what is not to be begun any more.
    pub(crate) fn expire(&mut self) {
        self.by_priority.retain(|_, queue| {
            queue.retain_mut(|work| match work.expired() {
                Some(error) => {
                    work.clone().fail(error);
                    false
                }
                None => true,
            });
            !queue.is_empty()
        });
    }

    /// Fails all.
    pub(crate) fn fail(&mut self, error: &TaskError) {
        for work in std::mem::take(&mut self.by_priority).into_values().flatten() {
            work.fail(error.clone());
        }
    }

    fn queue(&mut self, work: &Work) -> &mut VecDeque<Work> {
        self.by_priority.entry(work.priority()).or_default()
    }
}

impl Work {
    /// Why it is not to be begun any more, if so.
    pub(crate) fn expired(&self) -> Option<TaskError> {
        let batch = &self.job.batch;
        if batch.is_cancelled() {
            Some(TaskKind::Cancelled.into())
        } else if batch.deadline.is_some_and(|deadline| deadline.has_passed()) {
            Some(TaskKind::Deadline.into())
        } else {
            None
        }
    }

    pub(crate) fn priority(&self) -> i32 {
        self.job.batch.options.priority
    }

    /// Whether these are the tasks right behind others.
    fn follows(&self, before: &Work) -> bool {
        std::sync::Arc::ptr_eq(&self.job, &before.job) && before.tasks.end == self.tasks.start
    }
}
