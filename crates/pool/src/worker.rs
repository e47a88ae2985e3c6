//! What a worker process does.

use std::time::Instant;

use multiproc_os::deadline::Deadline;
use multiproc_os::image::{ENTRY_SIZE, Entry};
use multiproc_process::__private::{be_quiet, catch};
use multiproc_shm::Array;
use multiproc_wire::{Endpoint, Message, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::outbox;
use crate::outcome::Outcome;

/// The argument of a worker process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) line: Endpoint,
    pub(crate) outbox: Array<u8>,
}

/// To the worker: run these tasks. The framed arguments follow.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) entry: [u8; ENTRY_SIZE],
    /// The number of the first task, within its job.
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// From the worker: the results of these tasks. The framed outcomes follow. With no tasks at all: it
/// is there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// With the last results of an assignment: how long all of it took, in nanoseconds.
    pub(crate) done: Option<u64>,
}

/// A task function with the code that knows its types.
pub(crate) type TaskEntry = Entry<Chunk, ()>;

/// An assignment as it is run.
pub(crate) struct Chunk {
    place: &'static Place,
    first: u32,
    count: u32,
    arguments: Message,
}

/// Runs assignments until the pool lets go of the line.
pub(crate) fn run(place: Place) -> Result<(), String> {
    be_quiet();
    let place: &'static Place = Box::leak(Box::new(place));
    Results { place, single: true, first: 0, count: 0, message: Message::new() }.send(None);
    loop {
        let received = place.line.recv_with(Deadline::NEVER, |mut reader| {
            let assignment: Assignment = reader.read()?;
            Ok::<_, multiproc_wire::Error>((assignment, reader.into_message()?))
        });
        let (assignment, arguments) = match received {
            Ok(Some(Ok(received))) => received,
            Ok(None) => continue,
            Err(error) if error.is_closed() => return Ok(()),
            Ok(Some(Err(error))) | Err(error) => return Err(format!("its assignment: {error}")),
        };
        let Some(entry) = TaskEntry::decode(&assignment.entry) else {
            return Err("its assignment names no function of this program".into());
        };
        let Assignment { first, count, .. } = assignment;
        entry.call(Chunk { place, first, count, arguments });
    }
}

/// The code that knows a task function's types.
pub(crate) fn run_chunk<A: DeserializeOwned, R: Serialize>(function: fn(A) -> R, chunk: Chunk) {
    let start = Instant::now();
    let mut arguments = chunk.arguments.reader();
    let mut results = Results::new(&chunk);
    for _ in 0..chunk.count {
        let outcome = match catch(|| arguments.read_framed::<A>()) {
            Ok(Ok(argument)) => match catch(|| function(argument)) {
                Ok(value) => Outcome::Returned(value),
                Err(panic) => Outcome::Panicked(panic),
            },
            Ok(Err(error)) => Outcome::Failed(format!("its argument: {error}")),
            Err(panic) => Outcome::Panicked(panic),
        };
        results.add(outcome);
    }
    results.send(Some(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)));
}

/// Results that were not sent yet.
struct Results {
    place: &'static Place,
    /// A chunk of one task has no use for the outbox: its result goes out at once.
    single: bool,
    first: u32,
    count: u32,
    message: Message,
}

impl Results {
    fn new(chunk: &Chunk) -> Self {
        let single = chunk.count == 1;
        if !single {
            outbox::reset(&chunk.place.outbox, chunk.first);
        }
        Results {
            place: chunk.place,
            single,
            first: chunk.first,
            count: 0,
            message: Message::new(),
        }
    }

    fn add<R: Serialize>(&mut self, outcome: Outcome<R>) {
        let start = self.message.bytes().len();
        match catch(|| self.message.push_framed(outcome)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.add_failure(Outcome::Failed(format!("its value: {error}"))),
            Err(panic) => {
                self.message.truncate(start);
                self.add_failure(Outcome::Panicked(panic));
            }
        }
        self.count += 1;
        if self.message.has_fds() || self.message.bytes().len() > outbox::CAPACITY {
            self.send(None);
        } else if !self.single {
            outbox::append(&self.place.outbox, &self.message.bytes()[start..]);
        }
    }

    fn add_failure(&mut self, outcome: Outcome<()>) {
        // It is text, which serialises.
        let _serialises = self.message.push_framed(outcome);
    }

    fn send(&mut self, done: Option<u64>) {
        let report = encode(&Report { first: self.first, count: self.count, done });
        let header = report.unwrap_or_default();
        let parts = [header.bytes(), self.message.bytes()];
        // A pool that is gone has no use for results; the next receive ends this worker.
        let _gone = self.place.line.send_parts(parts, &self.message.fds(), Deadline::NEVER);
        self.message.clear();
        self.first += self.count;
        self.count = 0;
        if !self.single && done.is_none() {
            outbox::reset(&self.place.outbox, self.first);
        }
    }
}
