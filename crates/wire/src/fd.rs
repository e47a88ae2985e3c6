use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::table;

const OUTSIDE: &str = "a handle can travel only inside a message: as an argument or a result, or \
                       through a pipe or a queue";

/// A descriptor that several handles share.
///
/// Serialising attaches it to the message being built; deserialising takes it out again.
///
/// # Examples
///
/// ```
/// use multiproc_wire::{SharedFd, decode, encode};
///
/// let (reader, _writer) = std::io::pipe()?;
/// let fd = SharedFd::from(std::os::fd::OwnedFd::from(reader));
/// let message = encode(&(fd.clone(), "its label"))?;
/// let (_again, label): (SharedFd, String) = decode(message)?;
/// assert_eq!(label, "its label");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SharedFd(Arc<Descriptor>);

/// The descriptor of a handle that has a single owner.
///
/// A message that holds one is sent only after the value that it came from was dropped, and only
/// if nothing else holds it then: see [`encode_move`](crate::encode_move).
///
/// # Examples
///
/// ```
/// use std::os::fd::OwnedFd;
/// use multiproc_wire::{UniqueFd, encode_move};
///
/// let (_reader, writer) = std::io::pipe()?;
/// let handle = UniqueFd::from(OwnedFd::from(writer));
/// let moved = encode_move(handle).map_err(|rejected| rejected.error).unwrap();
/// assert!(moved.message().has_fds());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct UniqueFd(Arc<Descriptor>);

/// What handles and messages share.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    /// What a single owner has left to the messages: see [`UniqueFd::leave`].
    left: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// A foreign type around a descriptor, such as a [`File`](std::fs::File) or a
/// [`TcpStream`](std::net::TcpStream), that travels in messages.
///
/// The receiver gets a duplicate: both refer to the same open file, with one position and one set of
/// flags.
///
/// # Examples
///
/// ```
/// use std::fs::File;
/// use std::io::Read;
/// use multiproc_wire::{Fd, decode, encode};
///
/// let message = encode(&Fd::from(File::open("/proc/self/comm")?))?;
/// let mut file: Fd<File> = decode(message)?;
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert!(!text.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fd<T>(T);

impl<T> Fd<T> {
    /// Gives the foreign type back.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_wire::Fd;
    ///
    /// let (reader, _writer) = std::io::pipe()?;
    /// let handle = Fd::from(reader);
    /// let _reader: std::io::PipeReader = handle.into_inner();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Fd<T> {
    fn from(inner: T) -> Self {
        Fd(inner)
    }
}

impl<T> Deref for Fd<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Fd<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: AsFd> AsFd for Fd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> Serialize for Fd<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let duplicate = self.0.as_fd().try_clone_to_owned().map_err(ser::Error::custom)?;
        attach(&Descriptor::new(duplicate), false, serializer)
    }
}

impl<'de, T: From<OwnedFd>> Deserialize<'de> for Fd<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fd = take(deserializer)?;
        let fd = match Arc::try_unwrap(fd) {
            Ok(descriptor) => descriptor.fd,
            // A message that is read in the process that built it: the sender's table holds it too.
            Err(shared) => shared.fd.try_clone().map_err(table::fail)?,
        };
        Ok(Fd(T::from(fd)))
    }
}

impl SharedFd {
    /// Tells how many handles in this process share the descriptor.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::OwnedFd;
    /// use multiproc_wire::SharedFd;
    ///
    /// let (_reader, writer) = std::io::pipe()?;
    /// let handle = SharedFd::from(OwnedFd::from(writer));
    /// let another = handle.clone();
    /// assert_eq!(another.handles(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> Self {
        SharedFd(Descriptor::new(fd))
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Serialize for SharedFd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        attach(&self.0, false, serializer)
    }
}

impl<'de> Deserialize<'de> for SharedFd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        take(deserializer).map(SharedFd)
    }
}

impl UniqueFd {
    /// Leaves something behind, for an owner that is about to be dropped. It is dropped with the last
    /// message that holds the descriptor, which is after that was sent; at once, if none does.
    ///
    /// So what takes long to be taken down keeps no receiver waiting. What is left by a second owner
    /// is dropped at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::OwnedFd;
    /// use std::sync::Arc;
    /// use multiproc_wire::{UniqueFd, encode};
    ///
    /// let (reader, _writer) = std::io::pipe()?;
    /// let fd = UniqueFd::from(OwnedFd::from(reader));
    /// let message = encode(&fd)?;
    ///
    /// let heavy = Arc::new([0u8; 4096]);
    /// fd.leave(heavy.clone());
    /// drop(fd);
    /// assert_eq!(Arc::strong_count(&heavy), 2);
    /// drop(message);
    /// assert_eq!(Arc::strong_count(&heavy), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn leave(&self, what: Arc<dyn Any + Send + Sync>) {
        let _second = self.0.left.set(what);
    }
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> Arc<Self> {
        Arc::new(Descriptor { fd, left: OnceLock::new() })
    }

    /// Drops what was left.
    pub(crate) fn let_go(&mut self) {
        self.left.take();
    }
}

// What was left is never looked at, only dropped.
impl UnwindSafe for Descriptor {}
impl RefUnwindSafe for Descriptor {}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for UniqueFd {
    fn from(fd: OwnedFd) -> Self {
        UniqueFd(Descriptor::new(fd))
    }
}

impl AsFd for UniqueFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Serialize for UniqueFd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        attach(&self.0, true, serializer)
    }
}

impl<'de> Deserialize<'de> for UniqueFd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        take(deserializer).map(UniqueFd)
    }
}

fn attach<S: Serializer>(
    fd: &Arc<Descriptor>,
    unique: bool,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match table::attach(fd, unique) {
        Some(index) => serializer.serialize_u32(index),
        None => Err(ser::Error::custom(OUTSIDE)),
    }
}

fn take<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Descriptor>, D::Error> {
    let index = u32::deserialize(deserializer)?;
    match table::take(index) {
        Ok(Some(fd)) => Ok(fd),
        Ok(None) => Err(table::fail(Missing { index })),
        Err(()) => Err(de::Error::custom(OUTSIDE)),
    }
}

/// The index of a descriptor that the message does not have.
#[derive(Debug)]
struct Missing {
    index: u32,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has no descriptor {} (or names it twice)", self.index)
    }
}

impl std::error::Error for Missing {}
