//! What came of the tasks of one call, put in order as it comes.

use std::collections::BTreeMap;
use std::iter;

use serde::de::DeserializeOwned;

use crate::engine::{Content, Part};
use crate::error::TaskError;
use crate::outcome;

/// What came of tasks so far.
pub(crate) struct Gathered<R> {
    /// How many tasks there are.
    count: usize,
    /// How many of them are done.
    done: usize,
    /// What came of the first ones.
    front: Stretch<R>,
    /// What came before its turn, by the number of its first task.
    early: BTreeMap<usize, Stretch<R>>,
}

/// What came of consecutive tasks. Where all goes well, it is what the caller is to have.
struct Stretch<R> {
    values: Vec<R>,
    /// Those that failed, in order, with their places among all.
    failures: Vec<(usize, TaskError)>,
}

impl<R> Gathered<R> {
    /// Starts with nothing of so many tasks.
    pub(crate) fn new(count: usize) -> Self {
        Gathered { count, done: 0, front: Stretch::default(), early: BTreeMap::new() }
    }

    /// How many tasks there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are done.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.done >= self.count
    }

    /// Whether none has failed, of those whose turn has come.
    pub(crate) fn is_successful(&self) -> bool {
        self.front.failures.is_empty()
    }

    /// Puts in what came of some tasks, but for those of which something came before.
    pub(crate) fn put(&mut self, part: Part)
    where
        R: DeserializeOwned,
    {
        if part.first < self.front.len() || self.early.contains_key(&part.first) {
            return;
        }
        self.done += part.count;
        if part.first > self.front.len() {
            self.early.insert(part.first, Stretch::read(part.count, part));
            return;
        }
        if self.front.len() == 0 && matches!(part.content, Content::Outcomes(_)) {
            self.front.values.reserve_exact(self.count);
        }
        self.front.take_in(part);
        while let Some(next) = self.early.remove(&self.front.len()) {
            self.front.append(next);
        }
    }

    /// Fails what is missing.
    pub(crate) fn fail_missing(&mut self, error: impl Fn() -> TaskError) {
        while self.front.len() < self.count {
            let next = self.early.pop_first();
            let end = next.as_ref().map_or(self.count, |(first, _)| *first);
            while self.front.len() < end {
                self.front.push(Err(error()));
            }
            if let Some((_, next)) = next {
                self.front.append(next);
            }
        }
        self.done = self.count;
    }

    /// What came of the only task.
    pub(crate) fn into_only(mut self) -> Option<Result<R, TaskError>> {
        let failure = self.front.failures.pop().map(|(_, error)| Err(error));
        failure.or_else(|| self.front.values.pop().map(Ok))
    }

    /// The values of all, or what came of each if some have failed.
    pub(crate) fn into_values(self) -> Result<Vec<R>, Vec<Result<R, TaskError>>> {
        if self.is_successful() { Ok(self.front.values) } else { Err(self.into_outcomes()) }
    }

    /// What came of each.
    pub(crate) fn into_outcomes(self) -> Vec<Result<R, TaskError>> {
        let Stretch { values, failures } = self.front;
        let mut outcomes = Vec::with_capacity(self.count);
        let mut values = values.into_iter().map(Ok);
        for (place, error) in failures {
            let before = place - outcomes.len();
            outcomes.extend(values.by_ref().take(before).chain(iter::once(Err(error))));
        }
        outcomes.extend(values);
        outcomes
    }
}

impl<R> Stretch<R> {
    fn len(&self) -> usize {
        self.values.len() + self.failures.len()
    }

    fn push(&mut self, outcome: Result<R, TaskError>) {
        match outcome {
            Ok(value) => self.values.push(value),
            Err(error) => self.failures.push((self.len(), error)),
        }
    }

    fn append(&mut self, next: Self) {
        let len = self.len();
        let failures = next.failures.into_iter();
        self.failures.extend(failures.map(|(place, error)| (len + place, error)));
        self.values.extend(next.values);
    }
}

impl<R: DeserializeOwned> Stretch<R> {
    fn read(room: usize, part: Part) -> Self {
        let mut stretch = Self::default();
        if matches!(part.content, Content::Outcomes(_)) {
            stretch.values.reserve_exact(room);
        }
        stretch.take_in(part);
        stretch
    }

    fn take_in(&mut self, part: Part) {
        match part.content {
            Content::Failed(error) => {
                (0..part.count).for_each(|_| self.push(Err(error.clone())));
            }
            Content::Outcomes(message) => {
                let mut reader = message.reader();
                outcome::read_each(&mut reader, part.count, |outcome| self.push(outcome));
            }
        }
    }
}

impl<R> Default for Stretch<R> {
    fn default() -> Self {
        Stretch { values: Vec::new(), failures: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use multiproc_wire::Message;

    use super::*;

    fn outcomes(first: usize, values: &[u32]) -> Part {
        let mut message = Message::new();
        values.iter().for_each(|value| message.push_framed((0u8, value)).unwrap());
        Part { first, count: values.len(), content: Content::Outcomes(message) }
    }

    fn failed(first: usize, count: usize) -> Part {
        Part { first, count, content: Content::Failed(TaskError::not_run("no")) }
    }

    /// Those that failed are `None`.
    fn values(gathered: Gathered<u32>) -> Vec<Option<u32>> {
        gathered.into_outcomes().into_iter().map(Result::ok).collect()
    }

    #[test]
    fn parts_in_any_order_are_put_in_order() {
        let parts = || [outcomes(0, &[0, 1]), outcomes(2, &[2]), outcomes(3, &[3, 4, 5])];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut gathered = Gathered::new(6);
            let mut parts = parts().map(Some);
            for part in order {
                assert!(!gathered.is_complete());
                gathered.put(parts[part].take().unwrap());
            }
            assert!(gathered.is_complete() && gathered.is_successful());
            assert_eq!(gathered.into_values().ok(), Some(vec![0u32, 1, 2, 3, 4, 5]), "{order:?}");
        }
    }

    #[test]
    fn failures_stand_where_their_tasks_stood() {
        let mut gathered = Gathered::new(8);
        for part in [failed(5, 2), outcomes(3, &[3, 4]), failed(0, 1), outcomes(1, &[1, 2])] {
            gathered.put(part);
        }
        assert_eq!((gathered.done(), gathered.is_successful()), (7, false));
        gathered.put(outcomes(7, &[7]));
        let expected = [None, Some(1), Some(2), Some(3), Some(4), None, None, Some(7)];
        assert_eq!(values(gathered), expected);
    }

    #[test]
    fn what_cannot_be_read_fails_alone() {
        let mut message = Message::new();
        message.push_framed((0u8, 1u32)).unwrap();
        message.push_framed((0u8, "text")).unwrap();
        message.push_framed((9u8, 1u32)).unwrap();
        message.push_framed(()).unwrap();
        message.push_framed((0u8, 5u32)).unwrap();
        let mut gathered = Gathered::new(6);
        gathered.put(Part { first: 0, count: 6, content: Content::Outcomes(message) });
        assert_eq!(values(gathered), [Some(1), None, None, None, Some(5), None]);
    }

    #[test]
    fn what_is_missing_fails() {
        let mut gathered = Gathered::new(7);
        gathered.put(outcomes(2, &[2]));
        gathered.put(outcomes(4, &[4, 5]));
        gathered.fail_missing(|| TaskError::not_run("no"));
        assert!(gathered.is_complete());
        assert_eq!(values(gathered), [None, None, Some(2), None, Some(4), Some(5), None]);
        let mut none: Gathered<u32> = Gathered::new(0);
        none.fail_missing(|| TaskError::not_run("no"));
        assert_eq!(none.into_values().ok(), Some(vec![]));
    }

    #[test]
    fn one_that_is_alone_is_given_as_it_is() {
        let mut gathered: Gathered<u32> = Gathered::new(1);
        gathered.put(outcomes(0, &[7]));
        assert_eq!(gathered.into_only().unwrap().ok(), Some(7));
        let mut gathered: Gathered<u32> = Gathered::new(1);
        gathered.put(failed(0, 1));
        assert!(gathered.into_only().unwrap().is_err());
    }
}
