//! Bytes that nobody can change any more.
#![allow(unsafe_code)] // Maps a file as `&[u8]`, once nothing can change it any more.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use memmap2::{Mmap, MmapOptions};
use rustix::fs::{SealFlags, fcntl_add_seals, fstat};
use rustix::io::Errno;

use super::{Mapping, Memory, invalid, memfd, reserve, size, verify};

/// Bytes in memory that nobody can change: not their writer, not their reader.
///
/// # Examples
///
/// ```
/// use multiproc_os::memory::SealedBytes;
///
/// let fd = SealedBytes::write(&[b"one ", b"text"])?;
/// let bytes = SealedBytes::open(fd, 8)?;
/// assert_eq!(&*bytes, b"one text");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SealedBytes {
    map: Mmap,
}

impl SealedBytes {
    const SEALS: SealFlags =
        SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

    /// Writes the parts, one after the other, and seals them.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or memory left.
    pub fn write(parts: &[&[u8]]) -> io::Result<OwnedFd> {
        let unsealed = Unsealed::new()?;
        unsealed.write(parts)?;
        Ok(unsealed.file.into())
    }

    /// Maps bytes that came from elsewhere.
    ///
    /// # Errors
    ///
    /// As [`SealedFile::check`].
    pub fn open(fd: OwnedFd, max_len: u64) -> io::Result<Self> {
        SealedFile::check(fd, max_len)?.map()
    }
}

/// Where bytes can still be written, once: for a descriptor that is on its way before they are known.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsFd;
/// use multiproc_os::memory::{SealedFile, Unsealed};
///
/// let unsealed = Unsealed::new()?;
/// let fd = unsealed.as_fd().try_clone_to_owned()?;
/// unsealed.write(&[b"one ", b"text"])?;
/// assert_eq!(SealedFile::check(fd, 8)?.to_vec()?, b"one text");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Unsealed {
    file: File,
}

impl Unsealed {
    /// Makes memory without bytes.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Unsealed { file: memfd("multiproc-message")?.into() })
    }

    /// Writes the parts, one after the other, and seals them.
    ///
    /// # Errors
    ///
    /// The system has no memory left.
    pub fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            (&self.file).write_all(part)?;
        }
        Ok(retry_while_pinned(|| fcntl_add_seals(&self.file, SealedBytes::SEALS))?)
    }
}

impl AsFd for Unsealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The same bytes, not mapped: whoever wants a copy of them has it sooner by a call.
///
/// # Examples
///
/// ```
/// use multiproc_os::memory::{SealedBytes, SealedFile};
///
/// let file = SealedFile::check(SealedBytes::write(&[b"text"])?, 4)?;
/// assert_eq!(file.to_vec()?, b"text");
/// let mut buffer = [0; 4];
/// file.read(&mut buffer)?;
/// assert_eq!(&buffer, b"text");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SealedFile {
    file: File,
    len: usize,
}

impl SealedFile {
    /// Checks a descriptor that came from elsewhere.
    ///
    /// # Errors
    ///
    /// It is not of a memfd with all the seals, or it claims to be longer than `max_len` or than the
    /// memory that stands behind it.
    pub fn check(fd: OwnedFd, max_len: u64) -> io::Result<Self> {
        const BLOCK: u64 = 512;
        verify(fd.as_fd(), SealedBytes::SEALS)?;
        let stat = fstat(&fd)?;
        let len = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if len > max_len {
            return Err(invalid(format!("{len} bytes where {max_len} were announced")));
        }
        // What is sparse costs its sender nothing, and its receiver memory once it is read.
        let backed = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK);
        if backed < len {
            return Err(invalid(format!("{len} bytes that only {backed} stand behind")));
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        Ok(SealedFile { file: fd.into(), len })
    }

    /// How many bytes there are.
    #[allow(clippy::len_without_is_empty)] // One that is empty is like any other.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Maps the bytes.
    ///
    /// # Errors
    ///
    /// The process has no address space left.
    pub fn map(&self) -> io::Result<SealedBytes> {
        Ok(SealedBytes { map: read_only(&self.file, 0, self.len)? })
    }

    /// Copies the bytes.
    ///
    /// # Errors
    ///
    /// The system has no memory left (`OutOfMemory`).
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Copies the bytes to the end of others.
    ///
    /// # Errors
    ///
    /// As [`to_vec`](Self::to_vec).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_os::memory::{SealedBytes, SealedFile};
    ///
    /// let file = SealedFile::check(SealedBytes::write(&[b"text"])?, 4)?;
    /// let mut bytes = b"one ".to_vec();
    /// file.append_to(&mut bytes)?;
    /// assert_eq!(bytes, b"one text");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn append_to(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let start = bytes.len();
        reserve(bytes, self.len)?;
        while bytes.len() < start + self.len {
            let at = (bytes.len() - start) as u64;
            let room = rustix::buffer::spare_capacity(bytes);
            if rustix::io::pread(&self.file, room, at)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        bytes.truncate(start + self.len);
        Ok(())
    }

    /// Copies the first bytes to where they just fit.
    ///
    /// # Errors
    ///
    /// There are fewer bytes than room.
    pub fn read(&self, room: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(room, 0)
    }
}

impl Deref for SealedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl fmt::Debug for SealedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedBytes").field("len", &self.len()).finish()
    }
}

/// A part of memory that nobody can change, neither by a mapping nor by a call.
///
/// It may be sparse, other than [`SealedBytes`].
///
/// # Examples
///
/// ```
/// use multiproc_os::memory::{Frozen, Memory};
///
/// let memory = Memory::create("example", 4096)?;
/// let mapping = memory.map(0, 4096)?;
/// mapping.write(0, b"text");
/// let frozen = Frozen::freeze(memory, mapping).map_err(|(error, ..)| error)?;
/// assert_eq!(&frozen[..4], b"text");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Frozen<F = OwnedFd> {
    fd: F,
    map: Mmap,
}

impl<F: AsFd> Frozen<F> {
    const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK);

    /// Seals memory against writing, whose only mapping this is.
    ///
    /// # Errors
    ///
    /// Somebody else maps it too (`ResourceBusy`): here, or in another process. It comes back, with
    /// a new mapping if there was one to be had.
    pub fn freeze(
        memory: Memory<F>,
        mapping: Mapping,
    ) -> Result<Self, (io::Error, Memory<F>, Option<Mapping>)> {
        let len = mapping.len();
        // A copy-on-write mapping does not count as one that could write.
        let map = match read_only(&memory, 0, len) {
            Ok(map) => map,
            Err(error) => return Err((error, memory, Some(mapping))),
        };
        drop(mapping);
        match retry_while_pinned(|| fcntl_add_seals(&memory, Self::SEALS)) {
            Ok(()) => Ok(Frozen { fd: memory.into_fd(), map }),
            Err(error) => {
                let mapping = memory.map(0, len).ok();
                Err((error.into(), memory, mapping))
            }
        }
    }

    /// Makes memory that is a copy of the bytes, and seals it.
    ///
    /// # Errors
    ///
    /// The system has no descriptor, memory or address space left.
    pub fn copy(name: &str, bytes: &[u8]) -> io::Result<Self>
    where
        F: From<OwnedFd>,
    {
        let mut file = File::from(memfd(name)?);
        file.write_all(bytes)?;
        retry_while_pinned(|| fcntl_add_seals(&file, Self::SEALS | SealFlags::GROW))?;
        Self::open(F::from(file.into()), 0, bytes.len())
    }

    /// Maps a part of memory that came from elsewhere.
    ///
    /// # Errors
    ///
    /// The descriptor is not of a memfd with the seals, or the part is not within it; or the process
    /// has no address space left.
    pub fn open(fd: F, offset: u64, len: usize) -> io::Result<Self> {
        verify(fd.as_fd(), Self::SEALS)?;
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        let there = size(fd.as_fd())?;
        if end.is_none_or(|end| end > there) {
            return Err(invalid(format!("{len} bytes at {offset} are not within the {there}")));
        }
        let map = read_only(&fd, offset, len)?;
        Ok(Frozen { fd, map })
    }

    /// Who holds the descriptor.
    pub fn fd(&self) -> &F {
        &self.fd
    }
}

/// To be read once the file is sealed against writing and shrinking.
fn read_only(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Mmap> {
    let fd = fd.as_fd().as_raw_fd();
    // Kernels before 6.7 refuse to map as shared what is sealed against writing.
    //
    // SAFETY: it is read by the callers only once the file has seals that can not be taken off:
    // 1. `WRITE`: no mapping or call of any process can change the bytes;
    // 2. `SHRINK`: all of the part, which is within the file, stays within it.
    unsafe { MmapOptions::new().offset(offset).len(len).map_copy_read_only(fd) }
}

impl<F> Deref for Frozen<F> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl<F> fmt::Debug for Frozen<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Seals once the kernel itself has let go of the pages.
///
/// Sealing against writing fails with `EBUSY` while anything holds a page, for whatever reason. With
/// no mapping and no other holder of the descriptor, that is the kernel at work (a page being
/// migrated, a list not yet drained), which passes; each call waits for it 150 ms at most.
fn retry_while_pinned(mut seal: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    const ATTEMPTS: u32 = 60;
    for _ in 1..ATTEMPTS {
        match seal() {
            Err(Errno::BUSY) => {}
            result => return result,
        }
    }
    seal()
}

#[cfg(test)]
mod tests {
    use rustix::fs::ftruncate;

    use super::*;

    #[test]
    fn sealed_bytes_are_read_back_and_cannot_be_written() {
        let fd = SealedBytes::write(&[b"a", b"", b"bc"]).unwrap();
        assert!(rustix::io::write(&fd, b"x").is_err());
        assert!(ftruncate(&fd, 1).is_err());
        assert_eq!(&*SealedBytes::open(fd, 3).unwrap(), b"abc");

        let file = SealedFile::check(SealedBytes::write(&[&[7; 9000]]).unwrap(), 9000).unwrap();
        assert_eq!(file.to_vec().unwrap(), [7; 9000]);
        assert!(file.read(&mut [0; 9000]).is_ok());
        assert!(file.read(&mut [0; 9001]).is_err());

        let empty = SealedBytes::write(&[]).unwrap();
        assert!(SealedBytes::open(empty, 0).unwrap().is_empty());
    }

    #[test]
    fn sealing_outlasts_a_page_that_is_held_for_a_while() {
        let mut file = File::from(memfd("held").unwrap());
        file.write_all(&[1; 4096]).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let flags = rustix::pipe::SpliceFlags::empty();
        let mut offset = 0;
        rustix::pipe::splice(&file, Some(&mut offset), &writer, None, 4096, flags).unwrap();

        let mut pipe = Some((reader, writer));
        let mut refused = 0;
        retry_while_pinned(|| {
            let result = fcntl_add_seals(&file, SealedBytes::SEALS);
            if result == Err(Errno::BUSY) {
                refused += 1;
                // With its ends, the pipe lets go of the page.
                pipe = None;
            }
            result
        })
        .unwrap();
        assert_eq!(refused, 1);
    }

    #[test]
    fn bytes_that_are_sparse_unsealed_or_too_long_are_refused() {
        let sparse = memfd("sparse").unwrap();
        ftruncate(&sparse, 1 << 40).unwrap();
        fcntl_add_seals(&sparse, SealedBytes::SEALS).unwrap();
        let error = SealedBytes::open(sparse, u64::MAX).unwrap_err();
        assert!(error.to_string().contains("only 0 stand behind"), "{error}");

        let unsealed = memfd("unsealed").unwrap();
        assert!(SealedBytes::open(unsealed, 0).unwrap_err().to_string().contains("not sealed"));

        let long = SealedBytes::write(&[&[1; 5000]]).unwrap();
        assert!(SealedBytes::open(long, 4999).is_err());

        let (pipe, _writer) = io::pipe().unwrap();
        assert!(SealedBytes::open(pipe.into(), 1).is_err());
        for path in ["/proc/self/exe", "/dev/zero", "/dev"] {
            let file = File::open(path).unwrap();
            let error = SealedBytes::open(file.into(), u64::MAX).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{path}: {error}");
        }
    }

    #[test]
    fn what_is_mapped_elsewhere_is_not_frozen() {
        let memory = Memory::create("test", 5000).unwrap();
        let (mapping, other) = (memory.map(0, 5000).unwrap(), memory.map(0, 1).unwrap());
        mapping.write(4990, b"x").unwrap();
        let (error, memory, mapping) = Frozen::freeze(memory, mapping).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let mut read = [0];
        mapping.as_ref().unwrap().read(4990, &mut read).unwrap();
        assert_eq!(read, *b"x");

        drop(other);
        let frozen = Frozen::freeze(memory, mapping.unwrap()).unwrap();
        assert_eq!((frozen.len(), frozen[4990]), (5000, b'x'));
        assert!(rustix::io::write(frozen.fd(), b"y").is_err());
        assert!(rustix::fs::ftruncate(frozen.fd(), 0).is_err());
        let again = frozen.fd().try_clone().unwrap();
        assert_eq!(*Frozen::open(again, 4989, 3).unwrap(), *b"\0x\0");
    }

    #[test]
    fn what_could_still_change_is_not_opened() {
        let memory = Memory::create("test", 10).unwrap();
        let error = Frozen::open(memory.into_fd(), 0, 10).unwrap_err();
        assert!(error.to_string().contains("WRITE"), "{error}");
        let copy = Frozen::<OwnedFd>::copy("test", b"0123456789").unwrap();
        for (offset, len) in [(0, 11), (10, 1), (u64::MAX, 1), (1, usize::MAX), (1 << 40, 0)] {
            let fd = copy.fd().try_clone().unwrap();
            assert!(Frozen::open(fd, offset, len).is_err(), "{len} at {offset}");
        }
        assert!(Frozen::<OwnedFd>::copy("test", b"").unwrap().is_empty());
    }
}
