//! Plain bytes that processes share, by name or by message.

mod handle;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use multiproc_os::memory::Mapping;
use multiproc_os::memory::named;
use multiproc_wire::SharedFd;

use crate::error::{Error, Kind};
use crate::unique::new_id;

/// Bytes that processes share, by their name or by a message: Python's
/// `multiprocessing.shared_memory.SharedMemory`.
///
/// Named memory is POSIX shared memory, the same that Python and `shm_open` in C see. It stays until
/// [`unlink`](Self::unlink) is called or the machine is restarted, whoever dies. Memory without a name
/// is gone with its last user.
///
/// There is no lock, and other programs write to it at any time. So it gives no slice: bytes are
/// copied by [`read`](Self::read) and [`write`](Self::write), which check the bounds. Use a lock
/// of your own where several bytes belong together.
///
/// A clone, and what another process reads from a message, is the same memory.
///
/// # Cut short by others
///
/// Whoever may open named memory can also truncate it. To touch what is gone ends this process by
/// `SIGBUS`. Only its user may open what [`create`](Self::create) makes (mode 0600). Memory without a
/// name is sealed against that.
///
/// What `create` makes is allocated. Other programs, Python among them, only set the size of theirs: to
/// write where nobody has written before is a `SIGBUS` too if `/dev/shm` is full by then.
///
/// # Examples
///
/// ```
/// use multiproc_shm::SharedMemory;
///
/// let name = format!("example-{}", std::process::id());
/// let memory = SharedMemory::create(&name, 4096)?;
/// memory.write(0, b"hello")?;
///
/// // In any program:
/// let same = SharedMemory::open(&name)?;
/// let mut text = [0; 5];
/// same.read(0, &mut text)?;
/// assert_eq!(&text, b"hello");
///
/// memory.unlink()?;
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
///
/// ```compile_fail,E0308
/// // Others may write meanwhile: there is no `&[u8]`.
/// let memory = multiproc_shm::SharedMemory::new(4096)?;
/// let bytes: &[u8] = &memory;
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
///
/// ```compile_fail,E0608
/// let memory = multiproc_shm::SharedMemory::new(4096)?;
/// let byte = &memory[7];
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedMemory {
    inner: Arc<Inner>,
}

struct Inner {
    fd: SharedFd,
    mapping: Mapping,
    name: Option<String>,
}

impl SharedMemory {
    /// Makes `len` zero bytes that have no name: others get them in a message. Memory is taken for
    /// them once they are written.
    ///
    /// # Errors
    ///
    /// `len` is zero or overflows, or the system has no descriptor or address space left.
    ///
    /// # Examples
    ///
    /// ```
    /// let memory = multiproc_shm::SharedMemory::new(100)?;
    /// assert_eq!((memory.len(), memory.name()), (100, None));
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn new(len: usize) -> Result<Self, Error> {
        Self::anonymous(len)
    }

    /// Makes `len` zero bytes of this name, which only programs of this user can open.
    ///
    /// The name is that of `SharedMemory(name=...)` in Python, and after a slash that of `shm_open`
    /// in C. The memory is allocated before it gets the name, so that nobody sees it half made, and
    /// a creator that is killed leaves nothing half made behind.
    ///
    /// # Errors
    ///
    /// - [`is_already_exists`](Error::is_already_exists): there is memory of this name;
    /// - `len` is zero or overflows, or there is not so much memory in `/dev/shm`;
    /// - the name is empty, has a slash, or more than 255 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::SharedMemory;
    ///
    /// let name = format!("example-create-{}", std::process::id());
    /// let memory = SharedMemory::create(&name, 100)?;
    /// assert!(SharedMemory::create(&name, 100).unwrap_err().is_already_exists());
    /// memory.unlink()?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[doc(alias = "shm_open")]
    pub fn create(name: &str, len: usize) -> Result<Self, Error> {
        Self::create_filled(name, len, |_| Ok(()))
    }

    /// Makes `len` zero bytes of a name that no other memory has.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create), but for the name.
    ///
    /// # Examples
    ///
    /// ```
    /// let memory = multiproc_shm::SharedMemory::create_unique(100)?;
    /// println!("SharedMemory(name={:?})", memory.name());
    /// memory.unlink()?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn create_unique(len: usize) -> Result<Self, Error> {
        Self::create(&unique_name(), len)
    }

    /// Opens the memory of this name, all of it.
    ///
    /// Other programs may make their memory in two steps. If it has no size yet, it is waited for:
    /// for 200 ms at the most.
    ///
    /// # Errors
    ///
    /// - [`is_not_found`](Error::is_not_found): there is none;
    /// - it may not be opened, or its creator gives it no size.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::SharedMemory;
    ///
    /// assert!(SharedMemory::open("there is none").unwrap_err().is_not_found());
    /// ```
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::open_named(name)
    }

    /// Opens the memory of this name, or makes it if there is none.
    ///
    /// # Errors
    ///
    /// There is memory of this name that has another length; else as for [`open`](Self::open) and
    /// [`create`](Self::create).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::SharedMemory;
    ///
    /// let name = format!("example-either-{}", std::process::id());
    /// let first = SharedMemory::open_or_create(&name, 100)?;
    /// let second = SharedMemory::open_or_create(&name, 100)?;
    /// first.write(99, b"!")?;
    /// let mut last = [0];
    /// second.read(99, &mut last)?;
    /// assert_eq!(&last, b"!");
    /// first.unlink()?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn open_or_create(name: &str, len: usize) -> Result<Self, Error> {
        /// For others that create and unlink it all the time.
        const ATTEMPTS: u32 = 100;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::open(name) {
                Err(error) if error.is_not_found() => {}
                Ok(memory) if memory.len() != len => {
                    let name = name.to_owned();
                    return Err(Kind::Length { name, len: memory.len(), wanted: len }.into());
                }
                result => return result,
            }
            match Self::create(name, len) {
                Err(error) if error.is_already_exists() && attempt < ATTEMPTS => {}
                result => return result,
            }
        }
    }

    /// Copies bytes out of the memory, from `offset` on.
    ///
    /// What others write meanwhile is seen in part: whole are only the words of eight bytes at
    /// multiples of eight.
    ///
    /// # Errors
    ///
    /// [`is_out_of_bounds`](Error::is_out_of_bounds): they are not all within the memory. Nothing is
    /// read.
    ///
    /// # Examples
    ///
    /// ```
    /// let memory = multiproc_shm::SharedMemory::new(100)?;
    /// let mut byte = [1];
    /// memory.read(99, &mut byte)?;
    /// assert_eq!(byte, [0]);
    /// assert!(memory.read(100, &mut byte).unwrap_err().is_out_of_bounds());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[doc(alias = "buf")]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), Error> {
        let len = bytes.len();
        match self.mapping().read(offset, bytes) {
            Some(()) => Ok(()),
            None => Err(Kind::Bounds { offset, len, size: self.len() }.into()),
        }
    }

    /// Copies bytes into the memory, from `offset` on.
    ///
    /// Others may see some of them before the rest, and a writer that is killed has written some of
    /// them.
    ///
    /// # Errors
    ///
    /// [`is_out_of_bounds`](Error::is_out_of_bounds): they are not all within the memory. Nothing is
    /// written.
    ///
    /// # Examples
    ///
    /// ```
    /// let memory = multiproc_shm::SharedMemory::new(100)?;
    /// memory.write(95, b"hello")?;
    /// assert!(memory.write(96, b"hello").unwrap_err().is_out_of_bounds());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[doc(alias = "buf")]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        match self.mapping().write(offset, bytes) {
            Some(()) => Ok(()),
            None => Err(Kind::Bounds { offset, len: bytes.len(), size: self.len() }.into()),
        }
    }

    /// Where the bytes start in this process: at the start of a page. They stay there as long as there
    /// is a clone of this.
    ///
    /// Through it, others' writes are data races in Rust's sense unless both sides use atomic
    /// operations or a lock. [`read`](Self::read) and [`write`](Self::write) use atomic operations on
    /// `u64`s.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// let memory = multiproc_shm::SharedMemory::new(4096)?;
    /// // SAFETY: it is within the memory, which is aligned to a page and outlives the reference.
    /// let flag = unsafe { AtomicU64::from_ptr(memory.as_ptr().cast()) };
    /// flag.store(1, Ordering::Release);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping().as_ptr()
    }

    /// How many bytes there are: never zero.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_shm::SharedMemory::new(100)?.len(), 100);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[allow(clippy::len_without_is_empty)] // It never is.
    #[doc(alias = "size")]
    pub fn len(&self) -> usize {
        self.mapping().len()
    }

    /// The name by which other programs find it, if it was made or opened by one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_shm::SharedMemory::new(100)?.name(), None);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// Takes the name away. Whoever has opened the memory keeps it; it is gone with the last of them.
    ///
    /// # Errors
    ///
    /// It has no name, or that is the name of other memory by now, or of none
    /// ([`is_not_found`](Error::is_not_found)).
    ///
    /// # Examples
    ///
    /// ```
    /// let memory = multiproc_shm::SharedMemory::create_unique(100)?;
    /// memory.unlink()?;
    /// assert!(memory.unlink().unwrap_err().is_not_found());
    /// memory.write(0, b"still there")?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn unlink(&self) -> Result<(), Error> {
        let name = self.name().ok_or(Kind::Nameless)?;
        if !named::is_at(name, self).map_err(Kind::named("unlink", name))? {
            return Err(Kind::NotAt(name.to_owned()).into());
        }
        Self::unlink_name(name)
    }

    /// Takes a name away, of whatever memory: what is left after a crash, or has no size.
    ///
    /// # Errors
    ///
    /// [`is_not_found`](Error::is_not_found): there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::SharedMemory;
    ///
    /// let name = format!("example-left-{}", std::process::id());
    /// drop(SharedMemory::create(&name, 100)?);
    /// SharedMemory::unlink_name(&name)?;
    /// assert!(SharedMemory::open(&name).is_err());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[doc(alias = "shm_unlink")]
    pub fn unlink_name(name: &str) -> Result<(), Error> {
        Ok(named::remove(name).map_err(Kind::named("unlink", name))?)
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.inner.mapping
    }
}

/// A name that no other memory has.
pub(crate) fn unique_name() -> String {
    format!("multiproc-{:032x}", new_id())
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory")
            .field("name", &self.inner.name)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
