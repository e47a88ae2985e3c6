//! What came of one task, as it travels from the worker: a byte that says what it is, and the value,
//! the panic, or the reason. All framed, so that one that cannot be read hides none behind it.

use multiproc_process::__private::catch;
use multiproc_process::Panic;
use multiproc_wire::{Message, Reader};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{TaskError, TaskKind};

const RETURNED: u8 = 0;
const PANICKED: u8 = 1;
const FAILED: u8 = 2;

/// Why a task has not returned a value. Small, since it is moved as often as the values are.
pub(crate) struct Trouble(Box<Reason>);

enum Reason {
    Panicked(Panic),
    /// The argument could not be read, or the value could not be sent.
    Failed(String),
}

impl Trouble {
    #[cold]
    pub(crate) fn panicked(panic: Panic) -> Self {
        Trouble(Box::new(Reason::Panicked(panic)))
    }

    #[cold]
    pub(crate) fn failed(reason: String) -> Self {
        Trouble(Box::new(Reason::Failed(reason)))
    }
}

/// Adds an outcome to a message, or why it cannot be sent.
#[inline]
pub(crate) fn push<R: Serialize>(message: &mut Message, outcome: Result<R, Trouble>) {
    let start = message.bytes().len();
    let trouble = match outcome {
        Ok(value) => match catch(|| message.push_framed((RETURNED, value))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Trouble::failed(format!("its value: {error}")),
            Err(panic) => {
                message.truncate(start);
                Trouble::panicked(panic)
            }
        },
        Err(trouble) => trouble,
    };
    // It is text, which serialises.
    let _serialises = match *trouble.0 {
        Reason::Panicked(panic) => message.push_framed((PANICKED, panic)),
        Reason::Failed(reason) => message.push_framed((FAILED, reason)),
    };
}

/// Reads the next outcome.
#[inline]
pub(crate) fn read<R: DeserializeOwned>(reader: &mut Reader<'_>) -> Result<R, TaskError> {
    let outcome = catch(|| {
        reader.read_framed_by(|reader| match reader.read()? {
            RETURNED => reader.read().map(Ok),
            PANICKED => reader.read().map(|panic| Err(TaskKind::Panicked(panic).into())),
            FAILED => reader.read().map(|reason| Err(TaskKind::Failed(reason).into())),
            other => Ok(Err(TaskKind::Value(format!("there is no outcome {other}")).into())),
        })
    });
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Err(TaskKind::Value(error.to_string()).into()),
        // Or those beside it would be lost with it.
        Err(panic) => Err(TaskKind::Value(format!("panicked: {panic}")).into()),
    }
}
