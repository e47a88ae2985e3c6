//! Encoded arguments, and the pieces of them that travel together.

use std::ops::Range;

use multiproc_os::image::ENTRY_SIZE;
use multiproc_pool::__private as pool;
use multiproc_wire::Message;
use serde::Serialize;

use crate::message::Owned;
use crate::task::Task;

/// The encoded arguments of the tasks of one call, each behind its length.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    scratch: Message,
}

/// The length before an argument, little-endian.
const FRAME: usize = 4;

impl Arguments {
    /// Adds an argument, that of the task with this index.
    pub(crate) fn push<A: Serialize>(
        &mut self,
        index: usize,
        argument: &A,
    ) -> Result<(), multiproc_pool::Error> {
        self.scratch.clear();
        self.scratch.push(argument).map_err(|error| pool::argument(index, error))?;
        if self.scratch.has_fds() {
            self.scratch.clear();
            return Err(pool::handle(index));
        }
        let encoded = self.scratch.bytes();
        let Ok(len) = u32::try_from(encoded.len()) else {
            return Err(pool::elsewhere(format_args!("task {index}: its argument has over 4 GiB")));
        };
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(encoded);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The arguments of these tasks.
    pub(crate) fn bytes(&self, tasks: Range<usize>) -> &[u8] {
        &self.bytes[self.start(tasks.start)..self.start(tasks.end)]
    }

    /// How many tasks from `first` on make a chunk, `most` at most: no more than `bytes` have room for.
    pub(crate) fn fitting(&self, first: usize, most: usize, bytes: usize) -> usize {
        let end = self.start(first) + bytes;
        let ends = &self.ends[first..self.ends.len().min(first.saturating_add(most))];
        ends.partition_point(|&each| each <= end).max(1)
    }

    fn start(&self, task: usize) -> usize {
        task.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

/// Takes a chunk's arguments apart, into tasks of this function. `None` if they are not so many.
pub(crate) fn tasks(
    entry: [u8; ENTRY_SIZE],
    mut arguments: &[u8],
    count: u32,
) -> Option<Vec<Task>> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let (len, rest) = arguments.split_first_chunk::<FRAME>()?;
        let (argument, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        tasks.push(Task(Owned([&entry[..], argument].concat())));
        arguments = rest;
    }
    arguments.is_empty().then_some(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_apart_as_they_were_put_together() {
        let mut arguments = Arguments::default();
        for (index, text) in ["", "one", "three"].into_iter().enumerate() {
            arguments.push(index, &text).unwrap();
        }
        assert_eq!(arguments.len(), 3);
        let entry = [7; ENTRY_SIZE];
        let all = tasks(entry, arguments.bytes(1..3), 2).unwrap();
        assert_eq!(all[1].0.0[ENTRY_SIZE..], *b"\x05three");
        assert!(tasks(entry, arguments.bytes(1..3), 1).is_none());
        assert!(tasks(entry, arguments.bytes(1..3), 3).is_none());
        assert!(tasks(entry, &arguments.bytes(1..3)[..8], 2).is_none());
    }

    #[test]
    fn a_chunk_has_room_for_one_at_least() {
        let mut arguments = Arguments::default();
        (0..5).for_each(|index| arguments.push(index, &[0u8; 100].as_slice()).unwrap());
        assert_eq!(arguments.fitting(0, 10, 300), 2);
        assert_eq!(arguments.fitting(3, 10, 3000), 2);
        assert_eq!(arguments.fitting(1, 3, 3000), 3);
        assert_eq!(arguments.fitting(4, 1, 10), 1);
    }
}
