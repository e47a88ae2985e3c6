//! The tasks that no worker has.

use std::collections::{BTreeMap, VecDeque};

use super::batch::Batch;
use super::job::Work;
use crate::error::{TaskError, TaskKind};

/// Work by priority, and in the order in which it came. None of it is empty.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    by_priority: BTreeMap<i32, VecDeque<Work>>,
    /// How many tasks there are.
    tasks: usize,
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
        self.tasks
    }

    pub(crate) fn push(&mut self, work: Work) {
        if !work.tasks.is_empty() {
            self.tasks += work.tasks.len();
            self.queue(&work).push_back(work);
        }
    }

    /// Puts work that was assigned before back to its place in front.
    pub(crate) fn put_back(&mut self, work: Work) {
        if work.tasks.is_empty() {
            return;
        }
        self.tasks += work.tasks.len();
        let queue = self.queue(&work);
        match queue.front_mut() {
            Some(first) if first.follows(&work) => first.tasks.start = work.tasks.start,
            _ => queue.push_front(work),
        }
    }

    /// Takes tasks for one message: those that are next, no more than `most`, and as many as the
    /// tasks' own time says. They are of one function, and none is left out.
    pub(crate) fn take(&mut self, workers: usize, most: usize) -> Vec<Work> {
        let mut taken: Vec<Work> = Vec::new();
        let mut room = most;
        while room > 0
            && let Some(next) = self.next()
        {
            let batch = &next.job.batch;
            match taken.first() {
                Some(first) if !next.goes_with(first) => break,
                Some(_) => {}
                None => room = room.min(batch.room(self.tasks, workers)),
            }
            let size = batch.options.chunk_size.unwrap_or(usize::MAX);
            // A chunk is not divided unless the worker may not have all of it.
            if size.min(next.tasks.len()) > room && !taken.is_empty() {
                break;
            }
            let count = if batch.options.chunk_size.is_some() { size.min(most) } else { room };
            let Some(work) = self.take_first(count) else { break };
            room = room.saturating_sub(work.tasks.len());
            taken.push(work);
        }
        taken
    }

    /// The work that is next. What is not to be begun any more is failed.
    fn next(&mut self) -> Option<Work> {
        while let Some(mut queue) = self.by_priority.last_entry() {
            match queue.get().front().map(Work::expired) {
                Some(None) => break,
                Some(Some(error)) => {
                    if let Some(work) = queue.get_mut().pop_front() {
                        self.tasks -= work.tasks.len();
                        work.fail(error);
                    }
                }
                None => _ = queue.remove(),
            }
        }
        self.by_priority.last_entry()?.get().front().cloned()
    }

    /// Takes so many tasks off the work that is next, or all of it if it has fewer.
    fn take_first(&mut self, count: usize) -> Option<Work> {
        let mut queue = self.by_priority.last_entry()?;
        let first = queue.get_mut().front_mut()?;
        let taken = first.take_first(count.clamp(1, first.tasks.len()));
        if first.tasks.is_empty() {
            queue.get_mut().pop_front();
        }
        if queue.get().is_empty() {
            queue.remove();
        }
        self.tasks -= taken.tasks.len();
        Some(taken)
    }

    /// Fails what is not to be begun any more.
    pub(crate) fn expire(&mut self) {
        let tasks = &mut self.tasks;
        self.by_priority.retain(|_, queue| {
            queue.retain_mut(|work| match work.expired() {
                Some(error) => {
                    *tasks -= work.tasks.len();
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
        self.tasks = 0;
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

    /// Whether a message for a worker can have these tasks behind others.
    fn goes_with(&self, first: &Work) -> bool {
        let (job, other) = (&self.job, &first.job);
        let context = |batch: &Batch| batch.context.as_ref().map(|context| context.id);
        job.entry == other.entry
            && !job.arguments.has_fds()
            && !other.arguments.has_fds()
            && job.batch.options.timeout == other.batch.options.timeout
            && context(&job.batch) == context(&other.batch)
    }

    /// Whether these are the tasks right behind others.
    fn follows(&self, before: &Work) -> bool {
        std::sync::Arc::ptr_eq(&self.job, &before.job) && before.tasks.end == self.tasks.start
    }
}
