//! The tasks that no worker has.

use std::collections::{BTreeMap, VecDeque};

use multiproc_wire::INLINE_MAX;

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

/// How many bytes of arguments a message has at most, if so many tasks fit into it: it goes in one packet
/// then, and is copied while it is in the processor's cache.
const PACKET: usize = INLINE_MAX - (1 << 10);
const MANY: usize = 16;

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
        let mut bytes = PACKET;
        while room > 0
            && bytes > 0
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
            let arguments = &next.job.arguments;
            let count = match arguments.fitting(&next.tasks, bytes) {
                _ if batch.options.chunk_size.is_some() => size.min(most),
                few @ ..MANY if few < next.tasks.len() => room,
                fitting => room.min(fitting),
            };
            let Some(work) = self.take_first(count) else { break };
            room = room.saturating_sub(work.tasks.len());
            bytes = bytes.saturating_sub(arguments.bytes(&work.tasks).len());
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use multiproc_os::image::ENTRY_SIZE;

    use super::*;
    use crate::engine::bells::Bells;
    use crate::engine::job::Jobs;
    use crate::options::Options;

    fn batch(options: Options) -> Arc<Batch> {
        let bells = Arc::new(Bells::new().unwrap());
        Arc::new(Batch::new(options, None, Arc::default(), bells))
    }

    fn work(batch: &Arc<Batch>, tasks: usize) -> Work {
        let mut jobs = Jobs::new([0; ENTRY_SIZE], batch, 0);
        (0..tasks).for_each(|task| jobs.push(task).unwrap());
        jobs.finish().0.remove(0)
    }

    /// Takes all, a message for one of two workers at a time.
    fn drain(waiting: &mut Waiting) -> Vec<Work> {
        let mut all = Vec::new();
        while !waiting.is_empty() {
            all.extend(waiting.take(2, usize::MAX));
        }
        assert_eq!(waiting.tasks(), 0);
        all
    }

    #[test]
    fn higher_priorities_come_first_and_equal_ones_in_order() {
        let mut waiting = Waiting::default();
        let batches: Vec<_> = [0, 7, -3, 7, 0]
            .into_iter()
            .map(|priority| batch(Options { priority, ..Options::default() }))
            .collect();
        batches.iter().for_each(|batch| waiting.push(work(batch, 30)));
        assert_eq!((waiting.tasks(), waiting.priority()), (150, Some(7)));
        let all = drain(&mut waiting);
        let order = |work: &Work| batches.iter().position(|b| Arc::ptr_eq(b, &work.job.batch));
        let mut order: Vec<_> = all.iter().filter_map(order).collect();
        order.dedup();
        assert_eq!(order, [1, 3, 0, 4, 2]);
    }

    #[test]
    fn what_is_put_back_stands_where_it_stood() {
        let mut waiting = Waiting::default();
        let batch = batch(Options::default());
        waiting.push(work(&batch, 100));
        let mut taken = waiting.take(1, 40);
        let mut first = taken.remove(0);
        let mut middle = first.take_last(first.tasks.len() / 2);
        let last = middle.take_last(1);
        // The last first, as workers give them back.
        for work in [last, middle, first] {
            waiting.put_back(work);
        }
        assert_eq!(waiting.tasks(), 100);
        let tasks: Vec<usize> = drain(&mut waiting).into_iter().flat_map(|w| w.tasks).collect();
        assert!(tasks.into_iter().eq(0..100));
    }

    #[test]
    fn chunks_of_a_size_set_by_hand_are_divided_only_for_a_worker_that_may_have_less() {
        let sized = batch(Options { chunk_size: Some(4), ..Options::default() });
        let mut waiting = Waiting::default();
        waiting.push(work(&sized, 11));
        assert!(waiting.take(1, 3).iter().map(|work| work.tasks.len()).eq([3]));
        let lengths: Vec<_> = drain(&mut waiting).iter().map(|work| work.tasks.len()).collect();
        assert_eq!(lengths, [4, 4]);
    }

    #[test]
    fn what_was_cancelled_or_came_too_late_is_never_given_out() {
        let mut waiting = Waiting::default();
        let cancelled = batch(Options::default());
        let late = batch(Options { deadline: Some(Default::default()), ..Options::default() });
        let kept = batch(Options::default());
        for batch in [&cancelled, &late, &kept, &cancelled] {
            waiting.push(work(batch, 5));
        }
        cancelled.cancel();
        let all = drain(&mut waiting);
        assert!(all.iter().all(|work| Arc::ptr_eq(&kept, &work.job.batch)));
        assert_eq!(all.iter().map(|work| work.tasks.len()).sum::<usize>(), 5);
        for batch in [&late, &cancelled] {
            waiting.push(work(batch, 5));
        }
        waiting.expire();
        assert!(waiting.is_empty() && waiting.tasks() == 0);
    }
}
