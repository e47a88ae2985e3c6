//! Memory that is found by its name: POSIX shared memory, which on Linux is the files in `/dev/shm`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use memmap2::MmapOptions;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, fallocate, fstat, fstatvfs, ftruncate,
    linkat, open, stat, unlink,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::system::sysinfo;
use rustix::thread::{NanosleepRelativeResult, nanosleep};

use super::{Mapping, invalid, verify};
use crate::deadline::Deadline;

const DIRECTORY: &str = "/dev/shm";

/// The longest name that the directory takes, in bytes.
pub const NAME_MAX: usize = 255;

/// Memory that has a name, or had one. Whoever may open it may write to it, and may cut it short:
/// then, to touch what is gone is a `SIGBUS`.
///
/// `shm_open(O_CREAT)` would show others an empty segment before it has its size. Instead, it gets
/// its size, its memory and its contents before it gets its name. A creator that is killed before
/// that leaves nothing behind.
///
/// # Examples
///
/// ```
/// use multiproc_os::memory::named::{self, Named};
///
/// let name = format!("multiproc-example-{}", std::process::id());
/// let memory = Named::create(100)?;
/// memory.map()?.write(0, b"text");
/// memory.publish(&name)?;
///
/// let mut text = [0; 4];
/// Named::open(&name)?.map()?.read(0, &mut text);
/// assert_eq!(&text, b"text");
/// named::remove(&name)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Named<F = OwnedFd> {
    fd: F,
}

impl Named {
    /// Makes memory of `len` zero bytes that has no name yet. Only this user may open it later.
    ///
    /// # Errors
    ///
    /// There is not so much memory for the file system (`StorageFull`), or it is not there.
    pub fn create(len: u64) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = open(DIRECTORY, flags, Mode::RUSR | Mode::WUSR)?;
        allocate(fd.as_fd(), len)?;
        Ok(Named { fd })
    }

    /// Opens the memory of this name, and waits 200 ms at the most until it has a size.
    ///
    /// # Errors
    ///
    /// There is none (`NotFound`), or it may not be opened, or it gets no size (`TimedOut`).
    pub fn open(name: &str) -> io::Result<Self> {
        let path = path(name)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = retry_on_intr(|| open(&*path, flags, Mode::empty()))?;
        let deadline = Deadline::after(Duration::from_millis(200));
        while len(fd.as_fd())? == 0 {
            if deadline.has_passed() {
                let text = "it has no size: its creator has not come to that, or was killed before; \
                            if so, unlink it and create it again";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            pause();
        }
        Ok(Named { fd })
    }
}

impl<F: AsFd> Named<F> {
    /// Takes a descriptor that came from elsewhere.
    ///
    /// # Errors
    ///
    /// It is not of shared memory, or of some that is empty.
    pub fn from_fd(fd: F) -> io::Result<Self> {
        verify(fd.as_fd(), rustix::fs::SealFlags::empty())?;
        if len(fd.as_fd())? == 0 {
            return Err(invalid("the memory is empty".to_owned()));
        }
        Ok(Named { fd })
    }

    /// Gives the memory a name.
    ///
    /// # Errors
    ///
    /// There is one of that name (`AlreadyExists`), or it can be none (`InvalidInput`).
    pub fn publish(&self, name: &str) -> io::Result<()> {
        let file = format!("/proc/self/fd/{}", self.fd.as_fd().as_raw_fd());
        Ok(linkat(CWD, &*file, CWD, &*path(name)?, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Maps all of it, as long as it is now.
    ///
    /// # Errors
    ///
    /// The process has no address space left.
    pub fn map(&self) -> io::Result<Mapping> {
        let fd = self.fd.as_fd();
        let len = usize::try_from(len(fd)?).map_err(io::Error::other)?;
        Ok(Mapping { map: MmapOptions::new().len(len).map_raw(fd.as_raw_fd())? })
    }

    /// Gives up the memory for its descriptor.
    pub fn into_fd(self) -> F {
        self.fd
    }
}

/// Tells whether a name stands for the memory of this descriptor now.
pub fn is_at(name: &str, fd: impl AsFd) -> io::Result<bool> {
    let (this, there) = match (fstat(fd)?, stat(&*path(name)?)) {
        (_, Err(Errno::NOENT)) => return Ok(false),
        (this, there) => (this, there?),
    };
    Ok((this.st_dev, this.st_ino) == (there.st_dev, there.st_ino))
}

/// Takes a name away. The memory stays until nobody uses it any more.
///
/// # Errors
///
/// There is none of that name (`NotFound`).
pub fn remove(name: &str) -> io::Result<()> {
    Ok(unlink(&*path(name)?)?)
}

/// Takes memory for all of the file, so that to touch it later can not fail.
fn allocate(fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    /// A signal undoes what one call has done: each has to be short.
    const STEP: u64 = 64 << 20;
    // Rather than to fill it up first.
    if len > space(fd)? {
        return Err(Errno::NOSPC.into());
    }
    ftruncate(fd, len)?;
    let mut done = 0;
    while done < len {
        let step = STEP.min(len - done);
        retry_on_intr(|| fallocate(fd, FallocateFlags::empty(), done, step))?;
        done += step;
    }
    Ok(())
}

/// How many bytes there are to be had, at the most.
fn space(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let system = fstatvfs(fd)?;
    if system.f_blocks > 0 {
        return Ok(system.f_bavail.saturating_mul(system.f_frsize));
    }
    // It has no limit of its own.
    let machine = sysinfo();
    let all = machine.totalram.saturating_add(machine.totalswap);
    Ok(all.saturating_mul(u64::from(machine.mem_unit)))
}

fn path(name: &str) -> io::Result<String> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) || name.len() > NAME_MAX {
        let text = format!("{name:?} is no name: 1 to {NAME_MAX} bytes, without a slash");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(format!("{DIRECTORY}/{name}"))
}

fn len(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(invalid("it is not shared memory".to_owned()));
    }
    u64::try_from(stat.st_size).map_err(io::Error::other)
}

/// Nothing tells when a file gets its size.
fn pause() {
    let time = rustix::time::Timespec { tv_sec: 0, tv_nsec: 200_000 };
    let _: NanosleepRelativeResult = nanosleep(&time);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn name(what: &str) -> String {
        format!("multiproc-os-test-{what}-{}", std::process::id())
    }

    #[test]
    fn what_is_published_is_whole_and_allocated_and_of_one_user() {
        let name = name("published");
        let memory = Named::create(10_000).unwrap();
        assert!(!is_at(&name, &memory.fd).unwrap());
        memory.publish(&name).unwrap();
        let file = std::fs::metadata(path(&name).unwrap()).unwrap();
        assert_eq!((file.len(), file.permissions().mode() & 0o777), (10_000, 0o600));
        assert!(file.blocks() * 512 >= 10_000);

        assert!(is_at(&name, &memory.fd).unwrap());
        let second = Named::create(1).unwrap();
        assert_eq!(second.publish(&name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!is_at(&name, &second.fd).unwrap());
        remove(&name).unwrap();
        assert_eq!(remove(&name).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Named::open(&name).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_has_no_size_yet_is_waited_for_but_not_for_ever() {
        let name = name("empty");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file =
            File::from(open(&*path(&name).unwrap(), flags, Mode::RUSR | Mode::WUSR).unwrap());
        let error = Named::open(&name).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waiting = std::thread::spawn({
            let name = name.clone();
            move || Named::open(&name).and_then(|memory| memory.map()).map(|map| map.len())
        });
        file.set_len(10).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), 10);
        remove(&name).unwrap();
    }

    #[test]
    fn what_does_not_fit_leaves_nothing() {
        let before = fstatvfs(File::open(DIRECTORY).unwrap()).unwrap();
        if before.f_blocks > 0 {
            let error = Named::create(before.f_blocks * before.f_frsize + 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        }
        assert!(Named::create(i64::MAX as u64).is_err());
        assert!(Named::create(u64::MAX).is_err());
    }

    #[test]
    fn names_are_of_one_component() {
        let long = "x".repeat(NAME_MAX + 1);
        for bad in ["", ".", "..", "a/b", "/a", "../a", "a\0b", &long] {
            for result in [Named::open(bad).map(drop), remove(bad)] {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{bad:?}");
            }
        }
    }

    #[test]
    fn links_and_what_is_no_memory_are_refused() {
        let name = name("link");
        let memory = Named::create(10).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", path(&name).unwrap()).unwrap();
        assert!(Named::open(&name).is_err());
        assert!(!is_at(&name, &memory.fd).unwrap());
        remove(&name).unwrap();

        let (pipe, _writer) = io::pipe().unwrap();
        assert!(Named::from_fd(OwnedFd::from(pipe)).is_err());
        assert!(Named::from_fd(File::open("/proc/self/exe").unwrap()).is_err());
        assert!(Named::from_fd(File::open("/dev/null").unwrap()).is_err());
        assert!(Named::from_fd(memory.into_fd()).is_ok());
    }
}
