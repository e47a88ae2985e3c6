use std::io;

use multiproc_sync::{LockError, MemoryError};

/// Why shared memory could not be made, or was not taken from a message.
///
/// # Examples
///
/// ```
/// use multiproc_shm::Array;
///
/// let error = Array::<u64>::zeroed(usize::MAX).unwrap_err();
/// assert!(error.is_too_long());
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Kind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Lock(LockError),
    #[error("cannot make shared memory: the length overflows")]
    TooLong,
    #[error("{0} wants to be aligned to more than 4096 bytes, which shared memory is not")]
    Alignment(&'static str),
    #[error("cannot use the shared memory: it does not hold {0}")]
    Foreign(&'static str),
    #[error(
        "cannot take the slice from its message: it was taken already, or its owner has not let go \
         of it"
    )]
    NotOffered,
    #[error("the slice belongs to the process that this one was forked from")]
    Forked,
    #[error("the parts are not one slice: {0}")]
    Join(&'static str),
    #[error("cannot freeze the slice: it is only a part of its memory, join it with the others")]
    Partial,
    #[error("cannot freeze the slice: somebody else has its memory mapped, or holds pages of it")]
    InUse,
    #[error("cannot make shared memory of no bytes: ask for one at least")]
    Empty,
    #[error("cannot {operation} the shared memory {name:?}: {source}")]
    Named { operation: &'static str, name: String, source: io::Error },
    #[error("the shared memory {name:?} has {len} bytes where {wanted} were asked for")]
    Length { name: String, len: usize, wanted: usize },
    #[error("cannot unlink the shared memory {0:?}: the name is that of other memory, or of none")]
    NotAt(String),
    #[error("cannot unlink the shared memory: it has no name")]
    Nameless,
    #[error("{len} bytes at {offset} are not within the {size} bytes of shared memory")]
    Bounds { offset: usize, len: usize, size: usize },
    #[error("the shared memory holds no list, or not yet: {0}")]
    NoList(&'static str),
    #[error("there is no item {index} in a list of {len}")]
    Index { index: usize, len: usize },
    #[error("item {index} can not be read: {why}")]
    NoItem { index: usize, why: &'static str },
    #[error("{len} bytes of text are too long for item {index}, which has room for {room}")]
    ItemTooLong { index: usize, len: usize, room: usize },
    #[error("cannot {operation} shared memory: {source}")]
    System { operation: &'static str, source: io::Error },
}

impl Error {
    /// Tells whether more was asked for than an address space can hold, or than an item of a list has
    /// room for.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShareableList;
    ///
    /// let list = ShareableList::new([1.into()])?;
    /// assert!(list.set(0, "more than eight bytes").unwrap_err().is_too_long());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_too_long(&self) -> bool {
        match &self.0 {
            Kind::TooLong | Kind::ItemTooLong { .. } => true,
            Kind::Memory(error) => error.is_too_long(),
            _ => false,
        }
    }

    /// Tells whether there is no memory of a name.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::SharedMemory;
    ///
    /// assert!(SharedMemory::open("there is none").unwrap_err().is_not_found());
    /// ```
    pub fn is_not_found(&self) -> bool {
        matches!(&self.0, Kind::Named { source, .. } if source.kind() == io::ErrorKind::NotFound)
            || matches!(self.0, Kind::NotAt(_))
    }

    /// Tells whether there is memory of a name already.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::SharedMemory;
    ///
    /// let memory = SharedMemory::create_unique(1)?;
    /// let name = memory.name().unwrap_or_default();
    /// assert!(SharedMemory::create(name, 1).unwrap_err().is_already_exists());
    /// memory.unlink()?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_already_exists(&self) -> bool {
        let exists = io::ErrorKind::AlreadyExists;
        matches!(&self.0, Kind::Named { source, .. } if source.kind() == exists)
    }

    /// Tells whether something was to be read or written that is not within the memory or the list.
    ///
    /// # Examples
    ///
    /// ```
    /// let memory = multiproc_shm::SharedMemory::new(1)?;
    /// assert!(memory.write(0, b"ab").unwrap_err().is_out_of_bounds());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_out_of_bounds(&self) -> bool {
        matches!(self.0, Kind::Bounds { .. } | Kind::Index { .. })
    }

    /// Tells whether memory, of a name or from a message, does not hold what it should.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::{ShareableList, SharedMemory};
    ///
    /// let zeros = SharedMemory::new(100)?;
    /// assert!(ShareableList::from_memory(zeros).unwrap_err().is_foreign());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_foreign(&self) -> bool {
        match &self.0 {
            Kind::Foreign(_) | Kind::NoList(_) | Kind::NoItem { .. } => true,
            Kind::Memory(error) => error.is_foreign(),
            _ => false,
        }
    }

    /// Tells whether a slice in a message has another owner: the message was read twice, or its sender
    /// has kept the slice.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShmBox;
    /// use multiproc_wire::encode;
    ///
    /// let slice = ShmBox::from_slice(&[1, 2, 3])?;
    /// let message = encode(&slice)?;
    /// // It is still owned here.
    /// let error = message.reader().read::<ShmBox<[i32]>>().unwrap_err();
    /// assert!(error.to_string().contains("let go"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_taken(&self) -> bool {
        matches!(self.0, Kind::NotOffered)
    }
}

impl Error {
    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }
}

impl Kind {
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Kind {
        move |source| Kind::System { operation, source }
    }

    pub(crate) fn named(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> Kind {
        move |source| Kind::Named { operation, name: name.to_owned(), source }
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Error(error.into())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.0 {
            Kind::Memory(error) => return error.into(),
            Kind::Lock(error) => return error.into(),
            Kind::TooLong => io::ErrorKind::OutOfMemory,
            Kind::Alignment(_) => io::ErrorKind::InvalidInput,
            Kind::Foreign(_) | Kind::NotOffered => io::ErrorKind::InvalidData,
            Kind::Forked => io::ErrorKind::PermissionDenied,
            Kind::Join(_) | Kind::Empty | Kind::Nameless => io::ErrorKind::InvalidInput,
            Kind::Bounds { .. } | Kind::Index { .. } => io::ErrorKind::InvalidInput,
            Kind::NoList(_) | Kind::NoItem { .. } => io::ErrorKind::InvalidData,
            Kind::ItemTooLong { .. } => io::ErrorKind::InvalidInput,
            Kind::Partial => io::ErrorKind::InvalidInput,
            Kind::InUse => io::ErrorKind::ResourceBusy,
            Kind::Length { .. } => io::ErrorKind::InvalidData,
            Kind::NotAt(_) => io::ErrorKind::NotFound,
            Kind::Named { ref source, .. } => source.kind(),
            Kind::System { ref source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}
