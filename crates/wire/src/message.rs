use std::any::type_name;
use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use multiproc_os::{memory, octets};
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::error::{Error, Kind};
use crate::explain;
use crate::fd::Descriptor;
use crate::table::{Attached, Building, Reading};

mod framed;
mod series;

pub use framed::framed_len;
pub use series::Series;

/// One value, or several one after the other, encoded together with the descriptors in them.
///
/// # Examples
///
/// ```
/// use multiproc_wire::Message;
///
/// let mut message = Message::new();
/// message.push(&"first")?;
/// message.push(&2u64)?;
///
/// let mut reader = message.reader();
/// assert_eq!(reader.read::<String>()?, "first");
/// assert_eq!(reader.read::<u64>()?, 2);
/// reader.finish()?;
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Message {
    bytes: Vec<u8>,
    fds: Vec<Attached>,
}

/// Encodes one value that keeps no handle with a single owner, or whose owner sees to it.
///
/// # Errors
///
/// The value's `Serialize` failed: the error has its text.
///
/// # Examples
///
/// ```
/// let message = multiproc_wire::encode(&(1u8, "one"))?;
/// assert_eq!(multiproc_wire::decode::<(u8, String)>(message)?, (1, "one".to_string()));
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Message, Error> {
    let mut message = Message { bytes: Vec::with_capacity(SHORT), fds: Vec::new() };
    message.push(value)?;
    Ok(message)
}

/// Most values are no longer, and cost one allocation.
const SHORT: usize = 128;

thread_local! {
    /// The room of a message that was sent, for the next one: see [`Moved`].
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[inline]
fn take_spare() -> Vec<u8> {
    // At the thread's very end there is none.
    let spare = SPARE.try_with(Cell::take).unwrap_or_default();
    if spare.capacity() == 0 { Vec::with_capacity(SHORT) } else { spare }
}

#[inline]
fn keep_spare(mut bytes: Vec<u8>) {
    const KEPT: usize = 4 << 10;

    if (1..=KEPT).contains(&bytes.capacity()) {
        bytes.clear();
        let _ended = SPARE.try_with(|spare| spare.set(bytes));
    }
}

/// Encodes a value that is to leave this process, handles with a single owner among it.
///
/// # Errors
///
/// The value's `Serialize` failed, or a handle with a single owner in it is still referenced from
/// elsewhere. The value comes back with the error.
///
/// # Examples
///
/// ```
/// use multiproc_wire::encode_move;
///
/// let moved = encode_move(vec![1, 2, 3]).map_err(|rejected| rejected.error)?;
/// assert!(!moved.message().is_empty());
/// // Nothing was sent: the value can be had back.
/// assert_eq!(moved.into_value(), Some(vec![1, 2, 3]));
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
pub fn encode_move<T: Serialize + DeserializeOwned>(value: T) -> Result<Moved<T>, Rejected<T>> {
    let mut moved = Moved::new(value);
    match moved.encode() {
        Ok(()) => Ok(moved),
        Err(error) => Err(Rejected { error, value: moved.into_value() }),
    }
}

/// Reads the one value that the message has.
///
/// # Errors
///
/// The message is not a value of this type, or not only that.
///
/// # Examples
///
/// ```
/// let message = multiproc_wire::encode(&[1u8, 2])?;
/// assert_eq!(multiproc_wire::decode::<[u8; 2]>(message)?, [1, 2]);
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
pub fn decode<T: DeserializeOwned>(message: Message) -> Result<T, Error> {
    let mut reader = message.reader();
    let value = reader.read()?;
    reader.finish()?;
    Ok(value)
}

impl Message {
    /// Makes an empty one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(multiproc_wire::Message::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that were encoded before, of values without handles.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_wire::{Message, decode, encode};
    ///
    /// let bytes = encode("text")?.bytes().to_vec();
    /// assert_eq!(decode::<String>(Message::from_bytes(bytes))?, "text");
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Message { bytes, fds: Vec::new() }
    }

    /// Adds a value. If it fails, the message is as it was before.
    ///
    /// # Errors
    ///
    /// The value's `Serialize` failed: the error has its text.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::Message::new();
    /// message.push("text")?;
    /// assert_eq!(multiproc_wire::decode::<String>(message)?, "text");
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if let Some(bytes) = octets::of(value) {
            return self.push_bytes(bytes);
        }
        let (len, fds) = (self.bytes.len(), self.fds.len());
        let building = Building::begin(&mut self.fds);
        let result = postcard::serialize_with_flavor(value, Append(&mut self.bytes));
        building.end();
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                self.cut_back(len, fds);
                Err(explain::encode_error(value, &error))
            }
        }
    }

    /// Adds what a vector of these bytes is as a value.
    fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        postcard::serialize_with_flavor(&Bytes(bytes), Append(&mut self.bytes))
            .map_err(|error| explain::encode_error(bytes, &error))
    }

    /// Adds a value and drops it. If it fails, the message is as it was before.
    ///
    /// # Errors
    ///
    /// The value's `Serialize` failed, or a handle with a single owner in it is still referenced from
    /// elsewhere.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_wire::{Endpoint, Message};
    ///
    /// let (here, _there) = Endpoint::pair()?;
    /// let mut message = Message::new();
    /// message.push_move(here)?;
    /// assert!(message.has_fds());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn push_move<T: Serialize>(&mut self, value: T) -> Result<(), Error> {
        let (len, fds) = (self.bytes.len(), self.fds.len());
        let pushed = self.push(&value);
        drop(value);
        let released = pushed.and_then(|()| self.check_released_from::<T>(fds));
        if released.is_err() {
            self.cut_back(len, fds);
        }
        released
    }

    /// Adds a value behind its length, so that one that cannot be read hides none that follow, and
    /// drops it. If it fails, the message is as it was before.
    ///
    /// # Errors
    ///
    /// The value's `Serialize` failed, or a handle with a single owner in it is still referenced from
    /// elsewhere.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::Message::new();
    /// message.push_framed("not a number")?;
    /// message.push_framed(7u64)?;
    ///
    /// let mut reader = message.reader();
    /// assert!(reader.read_framed::<[u64; 9]>().is_err());
    /// assert_eq!(reader.read_framed::<u64>()?, 7);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn push_framed<T: Serialize>(&mut self, value: T) -> Result<(), Error> {
        let (start, fds) = (self.bytes.len(), self.fds.len());
        self.bytes.push(0);
        let pushed = self.push_move(value);
        let end = self.bytes.len();
        let framed =
            pushed.and_then(|()| framed::write(&mut self.bytes, start, framed::SHORT, end));
        match framed {
            Ok(_) => Ok(()),
            Err(error) => {
                self.cut_back(start, fds);
                Err(error)
            }
        }
    }

    /// Takes off what was added since there was so much of it.
    #[cold]
    fn cut_back(&mut self, len: usize, fds: usize) {
        self.bytes.truncate(len);
        self.fds.truncate(fds);
    }

    /// Takes off the values from byte `at` on, and all handles: those before it must have none.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::Message::new();
    /// message.push(&1u8)?;
    /// let at = message.bytes().len();
    /// message.push("rest")?;
    /// let rest = message.split_off(at);
    /// assert_eq!(multiproc_wire::decode::<String>(rest)?, "rest");
    /// assert_eq!(multiproc_wire::decode::<u8>(message)?, 1);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn split_off(&mut self, at: usize) -> Self {
        Message { bytes: self.bytes.split_off(at), fds: std::mem::take(&mut self.fds) }
    }

    /// Takes off the bytes that were added since there were `len`, as by a `Serialize` that panicked:
    /// that also costs the message its handles.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::Message::new();
    /// message.push(&1u8)?;
    /// let len = message.bytes().len();
    /// message.push("more")?;
    /// message.truncate(len);
    /// assert_eq!(multiproc_wire::decode::<u8>(message)?, 1);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Takes everything out and keeps the room.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::encode("text")?;
    /// message.clear();
    /// assert!(message.is_empty());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fds.clear();
    }

    /// Drops what owners of handles have [left](crate::UniqueFd::leave) to the message, before it is
    /// dropped itself: for one that is kept after it was sent.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, _there) = multiproc_wire::Endpoint::pair()?;
    /// let mut message = multiproc_wire::Message::new();
    /// message.push_move(here)?;
    /// message.let_go();
    /// assert!(message.has_fds());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn let_go(&mut self) {
        let descriptors = self.fds.iter_mut().filter_map(|attached| Arc::get_mut(&mut attached.fd));
        descriptors.for_each(Descriptor::let_go);
    }

    /// The encoded values.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_wire::encode(&7u8)?.bytes(), [7]);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded values, to be changed in place: for a field of fixed size whose value is known
    /// only when the message is sent.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::encode(&7u8)?;
    /// message.bytes_mut()[0] = 8;
    /// assert_eq!(multiproc_wire::decode::<u8>(message)?, 8);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Tells whether nothing was encoded.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_wire::encode(&7u8)?.is_empty());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.fds.is_empty()
    }

    /// The descriptors of the handles in the message.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, _there) = multiproc_wire::Endpoint::pair()?;
    /// assert_eq!(multiproc_wire::encode(&here)?.fds().len(), 1);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        if self.fds.is_empty() {
            return Vec::new();
        }
        self.fds.iter().map(|attached| attached.fd.as_fd()).collect()
    }

    /// Tells whether the message carries descriptors.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiproc_wire::encode(&7u8)?.has_fds());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn has_fds(&self) -> bool {
        !self.fds.is_empty()
    }

    /// Reads what was encoded.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = multiproc_wire::encode(&7u8)?;
    /// assert_eq!(message.reader().read::<u8>()?, 7);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn reader(&self) -> Reader<'_> {
        let fds = self.fds.iter().map(|attached| Some(Arc::clone(&attached.fd))).collect();
        Reader { bytes: &self.bytes, fds }
    }

    #[inline]
    fn has_owners(&self) -> bool {
        self.fds.iter().any(|attached| attached.unique)
    }

    /// Checks that nothing but the message holds the descriptors of single-owner handles, from this
    /// index on.
    fn check_released_from<T>(&self, first: usize) -> Result<(), Error> {
        let held = |attached: &Attached| attached.unique && Arc::strong_count(&attached.fd) != 1;
        if self.fds[first..].iter().any(held) {
            return Err(Kind::InUse { type_name: type_name::<T>() }.into());
        }
        Ok(())
    }
}

/// A message that took its value along.
///
/// # Examples
///
/// It stays where it is made, which costs less than [`encode_move`]:
///
/// ```
/// use multiproc_wire::Moved;
///
/// let mut moved = Moved::new("text".to_string());
/// moved.encode()?;
/// assert!(!moved.message().is_empty());
/// assert_eq!(moved.into_value().as_deref(), Some("text"));
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Debug)]
pub struct Moved<T> {
    message: Message,
    /// `None` if the value had to be dropped, since it owned a handle: then the message rebuilds it.
    value: Option<T>,
}

impl<T> Moved<T> {
    /// Takes a value that is to be [encoded](Moved::encode).
    ///
    /// # Examples
    ///
    /// ```
    /// let moved = multiproc_wire::Moved::new(7u8);
    /// assert_eq!(moved.into_value(), Some(7));
    /// ```
    #[inline]
    pub fn new(value: T) -> Self {
        Moved { message: Message { bytes: take_spare(), fds: Vec::new() }, value: Some(value) }
    }
}

impl<T: Serialize> Moved<T> {
    /// Encodes the value, once, and drops it if there are handles with a single owner in it.
    ///
    /// # Errors
    ///
    /// As [`encode_move`], but that the value stays in here.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut moved = multiproc_wire::Moved::new(7u8);
    /// moved.encode()?;
    /// assert_eq!(moved.message().bytes(), [7]);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn encode(&mut self) -> Result<(), Error> {
        let Some(value) = &self.value else { return Ok(()) };
        self.message.push(value)?;
        if self.message.has_owners() { self.release() } else { Ok(()) }
    }

    #[cold]
    fn release(&mut self) -> Result<(), Error> {
        self.value = None;
        self.message.check_released_from::<T>(0)
    }
}

impl<T: DeserializeOwned> Moved<T> {
    /// What is to be sent.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut moved = multiproc_wire::Moved::new(7u8);
    /// assert!(moved.message().is_empty());
    /// moved.encode()?;
    /// assert!(!moved.message().is_empty());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What is to be sent, to be changed in place.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut moved = multiproc_wire::Moved::new(7u8);
    /// moved.encode()?;
    /// moved.message_mut().bytes_mut()[0] = 8;
    /// assert_eq!(moved.message().bytes(), [8]);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn message_mut(&mut self) -> &mut Message {
        &mut self.message
    }

    /// Gives the message up to be kept, and drops the value.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut moved = multiproc_wire::Moved::new(7u8);
    /// moved.encode()?;
    /// assert_eq!(multiproc_wire::decode::<u8>(moved.into_message())?, 7);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn into_message(mut self) -> Message {
        std::mem::take(&mut self.message)
    }

    /// Gives the value back, for a message that was not sent.
    ///
    /// `None` if it owned a handle and its type cannot read what it has itself written.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut moved = multiproc_wire::Moved::new("text".to_string());
    /// moved.encode()?;
    /// assert_eq!(moved.into_value().as_deref(), Some("text"));
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn into_value(mut self) -> Option<T> {
        self.value.take().or_else(|| decode(std::mem::take(&mut self.message)).ok())
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        keep_spare(std::mem::take(&mut self.message.bytes));
    }
}

/// A value that was not sent, and why.
///
/// # Examples
///
/// ```
/// use multiproc_wire::{Rejected, encode_move};
///
/// let sent = encode_move(7u8).map_err(|Rejected { error, .. }| error)?;
/// assert_eq!(sent.message().bytes(), [7]);
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
pub struct Rejected<T> {
    /// Why.
    pub error: Error,
    /// The value, as far as it could be kept: see [`Moved::into_value`].
    pub value: Option<T>,
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Reads values one after the other out of a message.
///
/// # Examples
///
/// ```
/// let mut message = multiproc_wire::encode(&1u8)?;
/// message.push("one")?;
/// let mut reader = message.reader();
/// assert_eq!(reader.read::<u8>()?, 1);
/// assert_eq!(reader.read::<String>()?, "one");
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    fds: Vec<Option<Arc<Descriptor>>>,
}

impl<'a> Reader<'a> {
    /// Reads a message that came as these bytes and descriptors.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut reader = multiproc_wire::Reader::new(&[7], Vec::new());
    /// assert_eq!(reader.read::<u8>()?, 7);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn new(bytes: &'a [u8], fds: Vec<OwnedFd>) -> Self {
        // Collecting nothing costs as much as reading a small value.
        if fds.is_empty() {
            return Reader { bytes, fds: Vec::new() };
        }
        Reader { bytes, fds: fds.into_iter().map(|fd| Some(Descriptor::new(fd))).collect() }
    }

    /// Reads the next value.
    ///
    /// # Errors
    ///
    /// What comes next is not a value of this type, or a handle in it could not be made.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = multiproc_wire::encode("text")?;
    /// assert_eq!(message.reader().read::<String>()?, "text");
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let (value, rest) = read_from(self.bytes, &mut self.fds)?;
        self.bytes = rest;
        Ok(value)
    }

    /// Reads the next value, one that stands behind its length: see [`Message::push_framed`].
    ///
    /// # Errors
    ///
    /// It is not a value of this type. What follows can still be read.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::Message::new();
    /// message.push_framed("text")?;
    /// assert_eq!(message.reader().read_framed::<String>()?, "text");
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn read_framed<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let value = self.next_framed()?;
        self.read_all(value)
    }

    /// Takes off the next value that stands behind its length, to be read by
    /// [`read_all`](Reader::read_all).
    ///
    /// # Errors
    ///
    /// It is cut short.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut message = multiproc_wire::Message::new();
    /// message.push_framed((7u8, "seven"))?;
    /// let mut reader = message.reader();
    /// let text: String = match reader.next_framed()?.split_first() {
    ///     Some((7, rest)) => reader.read_all(rest)?,
    ///     _ => String::new(),
    /// };
    /// assert_eq!(text, "seven");
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn next_framed(&mut self) -> Result<&'a [u8], Error> {
        let (value, rest) = framed::split(self.bytes).ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(value)
    }

    /// Reads a value that all of these bytes of the message are.
    ///
    /// # Errors
    ///
    /// They are not a value of this type, or not only that.
    #[inline(always)]
    pub fn read_all<T: DeserializeOwned>(&mut self, bytes: &[u8]) -> Result<T, Error> {
        let (value, rest) = read_from(bytes, &mut self.fds)?;
        if rest.is_empty() { Ok(value) } else { Err(left_over()) }
    }

    /// Tells whether there are descriptors that were not read yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = multiproc_wire::encode(&7u8)?;
    /// assert!(!message.reader().has_fds());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn has_fds(&self) -> bool {
        self.fds.iter().any(Option::is_some)
    }

    /// The bytes that were not read yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = multiproc_wire::encode(&(1u8, 2u8))?;
    /// let mut reader = message.reader();
    /// assert_eq!(reader.read::<u8>()?, 1);
    /// assert_eq!(reader.rest(), [2]);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Keeps what was not read yet, as a message of its own.
    ///
    /// # Errors
    ///
    /// A handle was read already, so that the indices of the others would not be right any more.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = multiproc_wire::encode(&(1u8, 2u8))?;
    /// let mut reader = message.reader();
    /// assert_eq!(reader.read::<u8>()?, 1);
    /// assert_eq!(multiproc_wire::decode::<u8>(reader.into_message()?)?, 2);
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn into_message(self) -> Result<Message, Error> {
        let attach = |fd| Some(Attached { fd: fd?, unique: false });
        let fds: Option<Vec<_>> = self.fds.into_iter().map(attach).collect();
        let fds = fds.ok_or_else(|| Error::corrupt("a handle stands where none may be"))?;
        Ok(Message { bytes: self.bytes.to_vec(), fds })
    }

    /// Reads the one value that there is.
    #[inline]
    pub(crate) fn read_only<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        let value = self.read()?;
        self.finish()?;
        Ok(value)
    }

    /// Checks that all that there is is a `T`, which is a vector of bytes, and tells how many bytes stand
    /// ahead of those.
    pub(crate) fn finish_vector<T: DeserializeOwned>(mut self) -> Result<usize, Error> {
        let len = self.bytes.len();
        let (bytes, rest) = take_bytes::<T>(self.bytes)?;
        self.bytes = rest;
        self.finish()?;
        Ok(len - bytes.len())
    }

    /// Checks that all was read.
    ///
    /// # Errors
    ///
    /// Bytes or descriptors are left over.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = multiproc_wire::encode(&7u8)?;
    /// let mut reader = message.reader();
    /// assert!(message.reader().finish().is_err());
    /// assert_eq!(reader.read::<u8>()?, 7);
    /// reader.finish()?;
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    #[inline]
    pub fn finish(self) -> Result<(), Error> {
        if !self.bytes.is_empty() {
            return Err(left_over());
        }
        if self.fds.iter().any(Option::is_some) {
            return Err(Error::corrupt("descriptors are left over after the value"));
        }
        Ok(())
    }
}

/// Reads the value that these bytes start with. Gives those behind it as well.
#[inline(always)]
fn read_from<'b, T: DeserializeOwned>(
    bytes: &'b [u8],
    fds: &mut Vec<Option<Arc<Descriptor>>>,
) -> Result<(T, &'b [u8]), Error> {
    if octets::is_vector::<T>() {
        return read_bytes(bytes);
    }
    let mut deserializer = postcard::Deserializer::from_bytes(bytes);
    let reading = Reading::begin(fds);
    let result = T::deserialize(&mut deserializer);
    let reason = reading.end();
    match result.and_then(|value| Ok((value, deserializer.finalize()?))) {
        Ok(read) => Ok(read),
        Err(error) => Err(explain::decode_error::<T>(reason, &error)),
    }
}

/// The same for a vector of bytes.
fn read_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Error> {
    let (bytes, rest) = take_bytes::<T>(bytes)?;
    let mut vector = Vec::new();
    memory::reserve(&mut vector, bytes.len()).map_err(|error| Error::io("read", error.into()))?;
    vector.extend_from_slice(bytes);
    let value = octets::into(vector).map_err(|_| Error::corrupt("it is no vector of bytes"))?;
    Ok((value, rest))
}

fn take_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    postcard::take_from_bytes(bytes).map_err(|error| explain::decode_error::<T>(None, &error))
}

/// Bytes that are not taken for values one after the other.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[cold]
fn cut_short() -> Error {
    Error::corrupt("it is cut short")
}

#[cold]
fn left_over() -> Error {
    Error::corrupt("bytes are left over after the value")
}

/// So many bytes at once deserve that their room is looked after.
const MANY: usize = 1 << 20;

/// postcard's output, appended to a vector.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if bytes.len() > MANY {
            let more = bytes.len().max(self.0.len());
            memory::reserve(self.0, more).map_err(|_| postcard::Error::SerializeBufferFull)?;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
