//! What came of one task, as it travels from the worker: a byte that says what it is, and the value,
//! the panic, or the reason. All framed, so that one that cannot be read hides none behind it.

use multiproc_process::__private::catch;
use multiproc_process::Panic;
use multiproc_wire::{Reader, Series};
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

    #[cold]
    fn push(self, series: &mut Series) {
        // It is text, which serialises.
        let _serialises = match *self.0 {
            Reason::Panicked(panic) => series.push((PANICKED, panic)),
            Reason::Failed(reason) => series.push((FAILED, reason)),
        };
    }
}

/// Adds an outcome, or why it cannot be sent. One that panics when it is written leaves nothing.
#[inline]
pub(crate) fn push<R: Serialize>(series: &mut Series, outcome: Result<R, Trouble>) {
    let trouble = match outcome {
        Ok(value) => match series.push((RETURNED, value)) {
            Ok(()) => return,
            Err(error) => Trouble::failed(format!("its value: {error}")),
        },
        Err(trouble) => trouble,
    };
    trouble.push(series);
}

/// Reads the next outcome.
pub(crate) fn read<R: DeserializeOwned>(reader: &mut Reader<'_>) -> Result<R, TaskError> {
    let mut outcome = Err(TaskKind::Value("there is none".into()).into());
    read_each(reader, 1, |read| outcome = read);
    outcome
}

/// Reads so many outcomes, each of which is given to `take`, which must not panic.
#[inline]
pub(crate) fn read_each<R: DeserializeOwned>(
    reader: &mut Reader<'_>,
    count: usize,
    mut take: impl FnMut(Result<R, TaskError>),
) {
    let mut left = count;
    while left > 0 {
        let all = catch(|| {
            while left > 0 {
                left -= 1;
                take(match next(reader) {
                    Ok((RETURNED, value)) => reader.read_all(value).map_err(unreadable),
                    other => {
                        Err(other.and_then(|next| trouble(reader, next)).unwrap_or_else(unreadable))
                    }
                });
            }
        });
        // One that panics costs none beside it.
        if let Err(panic) = all {
            take(Err(TaskKind::Value(format!("panicked: {panic}")).into()));
        }
    }
}

/// Takes off the next outcome: what it is, and the bytes of what goes with that.
#[inline]
fn next<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), multiproc_wire::Error> {
    let framed = reader.next_framed()?;
    Ok(framed.split_first().map_or((u8::MAX, framed), |(kind, rest)| (*kind, rest)))
}

/// Reads what is no value.
#[cold]
fn trouble(
    reader: &mut Reader<'_>,
    (kind, bytes): (u8, &[u8]),
) -> Result<TaskError, multiproc_wire::Error> {
    let kind = match kind {
        PANICKED => TaskKind::Panicked(reader.read_all(bytes)?),
        FAILED => TaskKind::Failed(reader.read_all(bytes)?),
        other => TaskKind::Value(format!("there is no outcome {other}")),
    };
    Ok(kind.into())
}

#[cold]
fn unreadable(error: multiproc_wire::Error) -> TaskError {
    TaskKind::Value(error.to_string()).into()
}
