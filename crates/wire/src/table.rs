//! The descriptors of the message that this thread is building or reading.
//!
//! serde gives a handle no way to reach the message around it, so the table stands in thread locals
//! for the length of one `Serialize` or `Deserialize` call. A scope puts back what was there before,
//! also while unwinding: a value whose `Serialize` builds another message is no harm, and nothing is
//! left for the next message.
//!
//! Most values have no handles. They cost two stores of one word: the tables are touched only once
//! there is something in them.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::mem::{self, ManuallyDrop};
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
    if matches!(OPEN.get(), Open::Reading | Open::Taking) {
        OPEN.set(Open::Taking);
        TABLES.with_borrow_mut(|tables| tables.incoming.error = Some(error));
    }
    custom
}

/// A descriptor in a message that is being built.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) fd: Arc<Descriptor>,
    /// The handle has a single owner, which must be gone when the message is sent.
    pub(crate) unique: bool,
}

/// What came with a message that is being read.
#[derive(Default)]
struct In {
    /// `None` where a handle took it.
    fds: Vec<Option<Arc<Descriptor>>>,
    /// What a handle recorded with [`fail`].
    error: Option<Box<dyn StdError + Send + Sync>>,
}

/// What this thread does to a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    Nothing,
    Building,
    Reading,
    // From here on its table has something in it.
    Attaching,
    Taking,
}

/// The tables of one message.
#[derive(Default)]
struct Tables {
    outgoing: Vec<Attached>,
    incoming: In,
    /// Those of the message within whose scope this one's is, if those have anything in them.
    around: Option<Box<Tables>>,
}

thread_local! {
    static OPEN: Cell<Open> = const { Cell::new(Open::Nothing) };
    /// Every scope puts back what it found, so that a thread ends with nothing in here, which needs no
    /// drop; a thread local that needs none can be used to the thread's very end.
    static TABLES: RefCell<ManuallyDrop<Tables>> = const {
        let incoming = In { fds: Vec::new(), error: None };
        RefCell::new(ManuallyDrop::new(Tables { outgoing: Vec::new(), incoming, around: None }))
    };
}

/// For as long as it lives, this thread adds to the message with this table.
///
/// It borrows the table, which is moved only if there is something in it: a small structure that is
/// moved right after it was written costs more than many a value.
pub(crate) struct Building<'a> {
    scope: Scope,
    fds: &'a mut Vec<Attached>,
}

impl<'a> Building<'a> {
    #[inline]
    pub(crate) fn begin(fds: &'a mut Vec<Attached>) -> Self {
        let scope = Scope::enter(Open::Building);
        if !fds.is_empty() {
            Self::lend_table(fds);
        }
        Building { scope, fds }
    }

    #[cold]
    fn lend_table(fds: &mut Vec<Attached>) {
        OPEN.set(Open::Attaching);
        TABLES.with_borrow_mut(|tables| mem::swap(&mut tables.outgoing, fds));
    }

    #[inline]
    pub(crate) fn end(mut self) {
        if self.scope.has_table() {
            self.take_table();
        }
    }

    #[cold]
    fn take_table(&mut self) {
        TABLES.with_borrow_mut(|tables| *self.fds = mem::take(&mut tables.outgoing));
    }
}

/// For as long as it lives, this thread reads the message that came with these descriptors.
pub(crate) struct Reading<'a> {
    scope: Scope,
    fds: &'a mut Vec<Option<Arc<Descriptor>>>,
}

impl<'a> Reading<'a> {
    #[inline]
    pub(crate) fn begin(fds: &'a mut Vec<Option<Arc<Descriptor>>>) -> Self {
        let scope = Scope::enter(Open::Reading);
        if !fds.is_empty() {
            Self::lend_table(fds);
        }
        Reading { scope, fds }
    }

    #[cold]
    fn lend_table(fds: &mut Vec<Option<Arc<Descriptor>>>) {
        OPEN.set(Open::Taking);
        TABLES.with_borrow_mut(|tables| mem::swap(&mut tables.incoming.fds, fds));
    }

    /// Gives back what was not taken, and what a handle recorded with [`fail`].
    #[inline]
    pub(crate) fn end(mut self) -> Option<Box<dyn StdError + Send + Sync>> {
        if self.scope.has_table() { self.take_table() } else { None }
    }

    #[cold]
    fn take_table(&mut self) -> Option<Box<dyn StdError + Send + Sync>> {
        let incoming = TABLES.with_borrow_mut(|tables| mem::take(&mut tables.incoming));
        *self.fds = incoming.fds;
        incoming.error
    }
}

/// Puts a descriptor into the message being built and gives its index. `None` outside a message.
pub(crate) fn attach(fd: &Arc<Descriptor>, unique: bool) -> Option<u32> {
    if !matches!(OPEN.get(), Open::Building | Open::Attaching) {
        return None;
    }
    OPEN.set(Open::Attaching);
    TABLES.with_borrow_mut(|tables| {
        let fds = &mut tables.outgoing;
        let index = u32::try_from(fds.len()).ok()?;
        fds.push(Attached { fd: Arc::clone(fd), unique });
        Some(index)
    })
}

/// Takes a descriptor out of the message being read.
///
/// `Err` outside a message; `Ok(None)` if the message has none at this index, or it was taken before.
pub(crate) fn take(index: u32) -> Result<Option<Arc<Descriptor>>, ()> {
    match OPEN.get() {
        Open::Reading => Ok(None),
        Open::Taking => Ok(TABLES.with_borrow_mut(|tables| {
            tables.incoming.fds.get_mut(index as usize).and_then(|fd| fd.take())
        })),
        _ => Err(()),
    }
}

/// For as long as it lives, this thread does something to one message.
struct Scope {
    before: Open,
}

impl Scope {
    #[inline]
    fn enter(open: Open) -> Self {
        let before = OPEN.replace(open);
        if before.has_table() {
            set_aside();
        }
        Scope { before }
    }

    /// Whether the message's table has something in it.
    #[inline]
    fn has_table(&self) -> bool {
        OPEN.get().has_table()
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        if OPEN.get().has_table() || self.before.has_table() {
            put_back();
        }
        OPEN.set(self.before);
    }
}

impl Open {
    #[inline]
    fn has_table(self) -> bool {
        self >= Open::Attaching
    }
}

/// Makes room for the tables of a message within another's scope.
#[cold]
fn set_aside() {
    TABLES.with_borrow_mut(|tables| {
        let around = mem::take(&mut **tables);
        tables.around = Some(Box::new(around));
    });
}

/// Puts those of the other message back.
#[cold]
fn put_back() {
    let left = TABLES.with_borrow_mut(|tables| {
        let around = tables.around.take().map_or_else(Tables::default, |around| *around);
        mem::replace(&mut **tables, around)
    });
    // There is something in them only if the message failed by a panic.
    drop(left);
}
