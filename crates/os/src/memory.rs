//! Memory that processes share by descriptor: memfds, their seals, their mappings.
//!
//! A memfd leaves nothing behind when its last user dies, and its seals keep a peer from cutting it
//! short under a mapping. What a descriptor claims to be is checked before it is mapped.

pub mod named;
pub mod ticket;

mod racing;
mod room;
mod sealed;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    fstatfs, ftruncate,
};
use rustix::io::Errno;

pub use room::reserve;
pub use sealed::{Frozen, SealedBytes, SealedFile, Unsealed};

/// `f_type` of the file system in which memfds live, other than those of huge pages.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Memory of a memfd that never gets shorter.
///
/// `F` is who holds the descriptor: an `OwnedFd` or a handle around one.
///
/// # Examples
///
/// ```
/// use multiproc_os::memory::Memory;
///
/// let memory = Memory::create("example", 4096)?;
/// let mapping = memory.map(0, 4096)?;
/// assert_eq!(mapping.len(), 4096);
/// assert!(memory.map(4096, 1).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Memory<F = OwnedFd> {
    fd: F,
}

impl Memory {
    /// Makes memory of `len` zero bytes, for good. The name shows in `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left, or no file can be that long.
    pub fn create(name: &str, len: u64) -> io::Result<Self> {
        Self::with_seals(name, len, SealFlags::SHRINK | SealFlags::GROW)
    }

    /// Makes memory of `len` zero bytes that [`grow`](Memory::grow) can make longer.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn create_growable(name: &str, len: u64) -> io::Result<Self> {
        Self::with_seals(name, len, SealFlags::SHRINK)
    }

    fn with_seals(name: &str, len: u64, seals: SealFlags) -> io::Result<Self> {
        let fd = memfd(name)?;
        ftruncate(&fd, len)?;
        fcntl_add_seals(&fd, seals)?;
        Ok(Memory { fd })
    }
}

impl<F: AsFd> Memory<F> {
    /// Takes a descriptor that came from elsewhere.
    ///
    /// # Errors
    ///
    /// It is not a memfd, or one that could be made shorter under a mapping.
    pub fn from_fd(fd: F) -> io::Result<Self> {
        verify(fd.as_fd(), SealFlags::SHRINK)?;
        Ok(Memory { fd })
    }

    /// Its length now, in bytes.
    pub fn len(&self) -> io::Result<u64> {
        size(self.fd.as_fd())
    }

    /// Tells whether it has no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes it `len` bytes long, unless it is that long already. What is new is zero.
    ///
    /// # Errors
    ///
    /// It was not created growable (`EPERM`), or no file can be that long.
    pub fn grow(&self, len: u64) -> io::Result<()> {
        // Asked for less, ftruncate would fail by the seal: another process may have grown it more.
        if self.len()? >= len {
            return Ok(());
        }
        match ftruncate(&self.fd, len) {
            Err(Errno::PERM) if self.len()? >= len => Ok(()),
            result => Ok(result?),
        }
    }

    /// Makes a part of it zero, and gives the memory behind whole pages back to the system.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::io::retry_on_intr(|| fallocate(&self.fd, flags, offset, len))?)
    }

    /// Maps a part of it, to be shared with whoever else maps it.
    ///
    /// # Errors
    ///
    /// The part is not within the memory, which would be a `SIGBUS` later; or the process has no
    /// address space left.
    pub fn map(&self, offset: u64, len: usize) -> io::Result<Mapping> {
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        let memory = self.len()?;
        if end.is_none_or(|end| end > memory) {
            let text = format!("{len} bytes at {offset} are not within the shared memory");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let fd = self.fd.as_fd().as_raw_fd();
        Ok(Mapping { map: MmapOptions::new().offset(offset).len(len).map_raw(fd)? })
    }

    /// Who holds the descriptor.
    pub fn fd(&self) -> &F {
        &self.fd
    }

    /// Gives up the memory for its descriptor.
    pub fn into_fd(self) -> F {
        self.fd
    }
}

impl<F: AsFd> AsFd for Memory<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Readable and writable shared memory in this process's address space, until dropped.
///
/// Others may write to it at any time, so that it gives a pointer and no slice.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Where it starts. Aligned to a page if it was mapped from the start of one.
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Tells whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the mapping out of children that are forked off: they have nothing at its place.
    pub fn keep_from_forks(&self) -> io::Result<()> {
        self.map.advise(Advice::DontFork)
    }
}

fn memfd(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Hardened systems want it said that it is not to be executed; kernels before 6.3 do not know how.
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create(name, flags)?),
        result => Ok(result?),
    }
}

fn verify(fd: BorrowedFd<'_>, wanted: SealFlags) -> io::Result<()> {
    // The length of huge pages is rounded in ways that unmapping does not forgive.
    #[allow(clippy::unnecessary_cast)] // The field's type differs between architectures.
    if fstatfs(fd)?.f_type as i64 != TMPFS_MAGIC {
        return Err(invalid("the descriptor is not shared memory".to_owned()));
    }
    let seals = match fcntl_get_seals(fd) {
        // A device or a pipe of that file system.
        Err(Errno::INVAL) => SealFlags::empty(),
        seals => seals?,
    };
    if !seals.contains(wanted) {
        let missing = wanted.difference(seals);
        return Err(invalid(format!("the memory is not sealed: {missing:?} is missing")));
    }
    Ok(())
}

fn size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    u64::try_from(fstat(fd)?.st_size).map_err(io::Error::other)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The size of a page, in bytes.
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)] // Reads and writes a mapping.

    use super::*;

    #[test]
    fn memory_cannot_be_cut_short_under_a_mapping() {
        let memory = Memory::create("test", 10).unwrap();
        let fd = memory.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(ftruncate(&fd, 9), Err(Errno::PERM));
        assert!(memory.grow(10).is_ok());
        assert!(memory.grow(11).is_err());
        assert_eq!(Memory::from_fd(fd).unwrap().len().unwrap(), 10);

        let unsealed = memfd("unsealed").unwrap();
        assert!(Memory::from_fd(unsealed).is_err());
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(Memory::from_fd(OwnedFd::from(pipe)).is_err());
    }

    #[test]
    fn growable_memory_grows_and_keeps_what_it_has() {
        let memory = Memory::create_growable("test", 4096).unwrap();
        let before = memory.map(0, 4096).unwrap();
        // SAFETY: within the mapping, which nobody else knows of.
        unsafe { before.as_ptr().write(7) };
        memory.grow(3 * 4096).unwrap();
        memory.grow(4096).unwrap();
        assert_eq!(memory.len().unwrap(), 3 * 4096);
        let after = memory.map(0, 3 * 4096).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { after.as_ptr().read() }, 7);
        memory.discard(0, 4096).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { after.as_ptr().read() }, 0);
        assert_eq!(memory.len().unwrap(), 3 * 4096);
    }

    #[test]
    fn awkward_lengths_are_an_error_or_work() {
        let empty = Memory::create("test", 0).unwrap();
        assert!(empty.map(0, 0).unwrap().is_empty());
        assert!(empty.map(0, 1).is_err());
        assert!(empty.map(u64::MAX, usize::MAX).is_err());
        assert!(Memory::create("test", u64::MAX).is_err());
        assert!(Memory::create("test", i64::MAX as u64 + 1).is_err());
        assert!(Memory::create("a\0b", 1).is_err());

        let sparse = Memory::create("test", 4 << 30).unwrap();
        assert_eq!(sparse.map(4096, (4 << 30) - 4096).unwrap().len(), (4 << 30) - 4096);
    }
}
