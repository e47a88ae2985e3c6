//! The results of consecutive tasks, as they are divided among their jobs.

use std::mem;

use multiproc_wire::{Message, framed_len};

/// Framed outcomes of tasks, from the one with a number on.
pub(crate) struct Outcomes {
    message: Message,
    /// How much of the message was taken.
    at: usize,
    first: u32,
    count: u32,
}

impl Outcomes {
    pub(crate) fn new(message: Message, first: u32, count: u32) -> Self {
        Outcomes { message, at: 0, first, count }
    }

    /// Leaves those before this task out, which were taken before.
    pub(crate) fn skip_to(&mut self, task: u32) {
        while self.count > 0 && self.first < task {
            self.pass(1);
        }
    }

    /// Takes those of so many tasks from this one on, or of fewer if there are no more. `None` if the
    /// next is not of this task.
    pub(crate) fn take(&mut self, task: u32, most: u32) -> Option<(u32, Message)> {
        if self.count == 0 || self.first != task {
            return None;
        }
        let count = most.min(self.count);
        let start = self.at;
        if count == self.count {
            // With the handles, which only the last can have.
            self.count = 0;
            let rest = match start {
                0 => mem::take(&mut self.message),
                start => self.message.split_off(start),
            };
            return Some((count, rest));
        }
        self.pass(count);
        Some((count, Message::from_bytes(self.message.bytes()[start..self.at].to_vec())))
    }

    fn pass(&mut self, count: u32) {
        for _ in 0..count {
            let rest = &self.message.bytes()[self.at..];
            match framed_len(rest).filter(|len| *len <= rest.len()) {
                Some(len) => self.at += len,
                // It is from no worker of ours.
                None => self.count = 0,
            }
        }
        self.first += count;
        self.count = self.count.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(first: u32, values: &[&str]) -> Outcomes {
        let mut message = Message::new();
        for value in values {
            message.push_framed(value.to_string()).unwrap();
        }
        Outcomes::new(message, first, values.len() as u32)
    }

    fn values(taken: Option<(u32, Message)>) -> Vec<String> {
        let (count, message) = taken.unwrap();
        let mut reader = message.reader();
        (0..count).map(|_| reader.read_framed().unwrap()).collect()
    }

    #[test]
    fn each_job_is_given_its_own() {
        let mut outcomes = outcomes(3, &["three", "", "five", "six"]);
        assert!(outcomes.take(4, 1).is_none());
        assert_eq!(values(outcomes.take(3, 1)), ["three"]);
        assert_eq!(values(outcomes.take(4, 2)), ["", "five"]);
        assert_eq!(values(outcomes.take(6, 9)), ["six"]);
        assert!(outcomes.take(7, 1).is_none());
    }

    #[test]
    fn what_was_taken_before_is_left_out() {
        let mut outcomes = outcomes(0, &["zero", "one", "two"]);
        outcomes.skip_to(2);
        assert_eq!(values(outcomes.take(2, 5)), ["two"]);
        outcomes.skip_to(100);
        assert!(outcomes.take(100, 1).is_none());
    }

    #[test]
    fn lies_are_no_harm() {
        let mut message = Message::new();
        message.push_framed(7u8).unwrap();
        let mut outcomes = Outcomes::new(message, 0, 1000);
        outcomes.skip_to(500);
        assert!(outcomes.take(500, 1).is_none());
    }
}
