//! A task as the agent's pool runs it: the function of the driver's program and its encoded argument.

use std::time::Instant;

use multiproc_os::image::{ENTRY_SIZE, Entry, ForeignFunction};
use multiproc_wire::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::message::Owned;

/// What a worker of the agent's pool is given: the function as it travels, and the argument behind it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task(pub(crate) Owned);

/// What it returns: the encoded value, or why there is none.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub(crate) nanos: u64,
    pub(crate) value: Result<Owned, String>,
}

type TaskEntry = Entry<Message, Ran>;

/// The form in which a function travels.
pub(crate) fn entry<A: DeserializeOwned, R: Serialize>(
    function: fn(A) -> R,
) -> Result<[u8; ENTRY_SIZE], ForeignFunction> {
    Ok(TaskEntry::new(function, run::<A, R>)?.encode())
}

/// Runs a task. It is the one function that the agent's pool is given.
pub(crate) fn execute(Task(Owned(bytes)): Task) -> Ran {
    match bytes.first_chunk::<ENTRY_SIZE>().and_then(TaskEntry::decode) {
        Some(entry) => entry.call(Message::from_bytes(bytes)),
        None => failed("its function is none of this program".into()),
    }
}

/// The code that knows the types of a task.
fn run<A: DeserializeOwned, R: Serialize>(function: fn(A) -> R, task: Message) -> Ran {
    let mut reader = task.reader();
    let argument = reader.read::<[u8; ENTRY_SIZE]>().and_then(|_function| reader.read::<A>());
    let argument = match argument.and_then(|argument| reader.finish().map(|()| argument)) {
        Ok(argument) => argument,
        Err(error) => return failed(format!("its argument: {error}")),
    };
    drop(task);
    let start = Instant::now();
    let value = function(argument);
    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let value = match multiproc_wire::encode(&value) {
        Ok(message) if message.has_fds() => Err("its value has a handle in it (a lock, a queue, \
             shared memory, a file), which has no meaning on another machine"
            .into()),
        Ok(message) => Ok(Owned(message.bytes().to_vec())),
        Err(error) => Err(format!("its value: {error}")),
    };
    Ran { nanos, value }
}

fn failed(reason: String) -> Ran {
    Ran { nanos: 0, value: Err(reason) }
}
