//! The descriptors of the message that this thread is building or reading.
//!
//! serde gives a handle no way to reach the message around it, so the table stands in a thread
//! local for the length of one `Serialize` or `Deserialize` call. A scope puts back what was there
//! before, also while unwinding: a value whose `Serialize` builds another message is no harm, and
//! nothing is left for the next message.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use crate::fd::Descriptor;

/// Records why a handle could not be deserialised, and makes the error that serde wants.
///
/// postcard's errors carry no text; what is recorded here is what the user reads.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Deserializer};
///
/// #[derive(Debug)]
/// struct Even(u64);
///
/// impl<'de> Deserialize<'de> for Even {
///     fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
///         let value = u64::deserialize(deserializer)?;
///         if value % 2 == 0 { Ok(Even(value)) } else { Err(multiproc_wire::fail(std::fmt::Error)) }
///     }
/// }
///
/// let message = multiproc_wire::encode(&3u64)?;
/// assert!(multiproc_wire::decode::<Even>(message).is_err());
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
pub fn fail<E: serde::de::Error>(error: impl Into<Box<dyn StdError + Send + Sync>>) -> E {
    let error = error.into();
    let custom = E::custom(&error);
    TABLE.with_borrow_mut(|table| {
        if let Table::In(incoming) = &mut **table {
            incoming.error = Some(error);
        }
    });
    custom
}

/// A descriptor in a message that is being built.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) fd: Arc<Descriptor>,
    /// The handle has a single owner, which must be gone when the message is sent.
    pub(crate) unique: bool,
}

/// What is left when a message was read.
#[derive(Default)]
pub(crate) struct In {
    /// `None` where a handle took it.
    pub(crate) fds: Vec<Option<Arc<Descriptor>>>,
    /// What a handle recorded with [`fail`].
    pub(crate) error: Option<Box<dyn StdError + Send + Sync>>,
}

enum Table {
    None,
    Out(Vec<Attached>),
    In(In),
}

thread_local! {
    /// Every scope puts back what it found, so that a thread ends with `None`, which needs no drop;
    /// a thread local that needs none is reached faster.
    static TABLE: RefCell<ManuallyDrop<Table>> =
        const { RefCell::new(ManuallyDrop::new(Table::None)) };
}

/// Runs `build` with the table of the message that it adds to.
#[inline]
pub(crate) fn building<R>(fds: Vec<Attached>, build: impl FnOnce() -> R) -> (R, Vec<Attached>) {
    let scope = Scope::enter(Table::Out(fds));
    let result = build();
    match scope.leave() {
        Table::Out(fds) => (result, fds),
        // Scopes nest, so what is left is what was entered.
        _ => (result, Vec::new()),
    }
}

/// Runs `read` with the descriptors that came with the message.
#[inline]
pub(crate) fn reading<R>(fds: Vec<Option<Arc<Descriptor>>>, read: impl FnOnce() -> R) -> (R, In) {
    let scope = Scope::enter(Table::In(In { fds, error: None }));
    let result = read();
    match scope.leave() {
        Table::In(incoming) => (result, incoming),
        _ => (result, In::default()),
    }
}

/// Puts a descriptor into the message being built and gives its index. `None` outside a message.
pub(crate) fn attach(fd: &Arc<Descriptor>, unique: bool) -> Option<u32> {
    TABLE.with_borrow_mut(|table| match &mut **table {
        Table::Out(fds) => {
            let index = u32::try_from(fds.len()).ok()?;
            fds.push(Attached { fd: Arc::clone(fd), unique });
            Some(index)
        }
        _ => None,
    })
}

/// Takes a descriptor out of the message being read.
///
/// `Err` outside a message; `Ok(None)` if the message has none at this index, or it was taken before.
pub(crate) fn take(index: u32) -> Result<Option<Arc<Descriptor>>, ()> {
    TABLE.with_borrow_mut(|table| match &mut **table {
        Table::In(incoming) => Ok(incoming.fds.get_mut(index as usize).and_then(|fd| fd.take())),
        _ => Err(()),
    })
}

struct Scope {
    before: Option<Table>,
}

impl Scope {
    #[inline]
    fn enter(table: Table) -> Self {
        Scope { before: Some(replace(table)) }
    }

    #[inline]
    fn leave(mut self) -> Table {
        replace(self.before.take().unwrap_or(Table::None))
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            // The table of a message that failed by a panic.
            let _failed = replace(before);
        }
    }
}

#[inline]
fn replace(table: Table) -> Table {
    ManuallyDrop::into_inner(TABLE.replace(ManuallyDrop::new(table)))
}
