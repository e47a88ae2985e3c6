use std::borrow::Cow;
use std::io;

/// Why a message could not be built, sent, received or read.
///
/// # Examples
///
/// ```
/// let message = multiproc_wire::encode("text")?;
/// let error = multiproc_wire::decode::<[u64; 4]>(message).unwrap_err();
/// assert!(error.is_decode());
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("cannot serialise {type_name}: {reason}")]
    Encode { type_name: &'static str, reason: String },
    #[error("cannot read the message as {type_name}: {reason}")]
    Decode { type_name: &'static str, reason: String },
    #[error(
        "cannot serialise {type_name}: a handle in it is still in use here: drop every other reference to it before it is sent"
    )]
    InUse { type_name: &'static str },
    #[error("corrupt message: {0}")]
    Corrupt(Cow<'static, str>),
    #[error("the other end is closed")]
    Closed,
    #[error("cannot {operation} a message: {source}")]
    Io { operation: &'static str, source: io::Error },
}

impl From<Kind> for Error {
    #[cold]
    fn from(kind: Kind) -> Self {
        // Small: what seldom happens is not to make large what is returned for each message.
        Error(Box::new(kind))
    }
}

impl Error {
    pub(crate) fn corrupt(what: impl Into<Cow<'static, str>>) -> Self {
        Kind::Corrupt(what.into()).into()
    }

    pub(crate) fn closed() -> Self {
        Kind::Closed.into()
    }

    pub(crate) fn io(operation: &'static str, source: io::Error) -> Self {
        if multiproc_os::socket::is_closed(&source) {
            return Self::closed();
        }
        Kind::Io { operation, source }.into()
    }

    /// Tells whether the other end is closed: nothing more will come, nothing more can be sent.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::deadline::Deadline;
    /// use multiproc_wire::Endpoint;
    ///
    /// let (here, there) = Endpoint::pair()?;
    /// drop(there);
    /// assert!(here.send_bytes(b"hello", Deadline::NEVER).unwrap_err().is_closed());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        matches!(*self.0, Kind::Closed)
    }

    /// Tells whether the value could not be serialised.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_wire::{Endpoint, encode_move};
    ///
    /// let (here, _there) = Endpoint::pair()?;
    /// let here = std::sync::Arc::new(here);
    /// // It has a single owner, who does not let go of it.
    /// struct Kept(std::sync::Arc<Endpoint>);
    /// impl serde::Serialize for Kept {
    ///     fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
    ///         self.0.serialize(serializer)
    ///     }
    /// }
    /// let mut message = multiproc_wire::Message::new();
    /// assert!(message.push_move(Kept(here.clone())).unwrap_err().is_encode());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn is_encode(&self) -> bool {
        matches!(*self.0, Kind::Encode { .. } | Kind::InUse { .. })
    }

    /// Tells whether a message came that is not a value of the expected type.
    ///
    /// # Examples
    ///
    /// ```
    /// let message = multiproc_wire::encode("text")?;
    /// assert!(multiproc_wire::decode::<[u64; 9]>(message).unwrap_err().is_decode());
    /// # Ok::<(), multiproc_wire::Error>(())
    /// ```
    pub fn is_decode(&self) -> bool {
        matches!(*self.0, Kind::Decode { .. } | Kind::Corrupt(_))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &*error.0 {
            Kind::Encode { .. } | Kind::InUse { .. } => io::ErrorKind::InvalidInput,
            Kind::Decode { .. } | Kind::Corrupt(_) => io::ErrorKind::InvalidData,
            Kind::Closed => io::ErrorKind::BrokenPipe,
            Kind::Io { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}
