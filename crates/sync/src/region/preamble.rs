use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use multiproc_os::robust::FUTEX_OFFSET;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::Header;
use crate::error::Reason;
use crate::raw_lock::RawLock;

/// "mprocmem" with a byte that no text has.
const MAGIC: u64 = u64::from_le_bytes(*b"mprocme\xed");
/// To be raised with every change to what stands in shared memory.
const VERSION: u32 = 1;

/// Where the header is.
pub(super) const HEADER_AT: usize = 128;
const _: () = assert!(size_of::<Preamble>() == HEADER_AT);
/// How long a header can be.
pub(super) const LONGEST_HEADER: usize = 1 << 30;
/// The size of a page on some machines, and a divisor of it on all others.
pub(super) const PAGE: u64 = 4096;

/// What each region starts with: who can use it, and where its bytes are.
///
/// It is written before the region is shared. All of it is atomic even so, since it is read before
/// it is known to be what it claims to be.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Preamble {
    magic: AtomicU64,
    kind: AtomicU64,
    version: AtomicU32,
    /// The C library's place of a robust mutex's word, as a signed number.
    futex_offset: AtomicU32,
    /// Thread ids mean nothing in another one.
    pid_namespace: AtomicU64,
    header_len: AtomicU32,
    growable: AtomicU32,
    bytes_at: AtomicU64,
    /// How many bytes there are. Changes only while the lock is held, and never falls.
    len: AtomicU64,
    reserved: AtomicU64,
    /// Guards the bytes.
    pub(super) lock: RawLock,
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) header_len: usize,
    pub(super) at: u64,
    /// How many there were when the region was made or opened.
    pub(super) len: u64,
    pub(super) growable: bool,
}

impl Extent {
    pub(super) fn fixed(header_len: usize, len: usize) -> Self {
        const LINE: u64 = 64;
        let len = len as u64;
        let alignment = if len == 0 { LINE } else { (1 << len.trailing_zeros()).clamp(LINE, PAGE) };
        let at = Self::header_end(header_len).next_multiple_of(alignment);
        Extent { header_len, at, len, growable: false }
    }

    /// The bytes are mapped apart from the header, so they start a page.
    pub(super) fn growable(header_len: usize, len: usize) -> Self {
        const LONGEST_PAGE: u64 = PAGE << 4;
        let at = Self::header_end(header_len).next_multiple_of(LONGEST_PAGE);
        Extent { header_len, at, len: len as u64, growable: true }
    }

    fn header_end(header_len: usize) -> u64 {
        (HEADER_AT + header_len) as u64
    }

    pub(super) fn end(self) -> Result<u64, Reason> {
        let end = self.at.checked_add(self.len).filter(|end| *end <= isize::MAX as u64);
        end.ok_or(Reason::TooLong)
    }

    /// How much is mapped for good: the bytes too if they do not grow.
    pub(super) fn head(self) -> usize {
        let end =
            if self.growable { Self::header_end(self.header_len) } else { self.at + self.len };
        end as usize
    }
}

impl Preamble {
    pub(super) fn write<H: Header>(&self, extent: Extent) -> io::Result<()> {
        self.kind.store(u64::from_le_bytes(H::KIND), Relaxed);
        self.version.store(VERSION, Relaxed);
        self.futex_offset.store(FUTEX_OFFSET as u32, Relaxed);
        self.pid_namespace.store(pid_namespace()?, Relaxed);
        self.header_len.store(extent.header_len as u32, Relaxed);
        self.growable.store(extent.growable.into(), Relaxed);
        self.bytes_at.store(extent.at, Relaxed);
        self.len.store(extent.len, Relaxed);
        self.magic.store(MAGIC, Release);
        Ok(())
    }

    /// Checks that this process can use the region, whose header may be of any kind.
    pub(super) fn check(&self) -> Result<Extent, Reason> {
        let foreign = |text: String| Err(Reason::Foreign(text));
        if self.magic.load(Acquire) != MAGIC {
            return foreign("memory of something else".to_owned());
        }
        let version = self.version.load(Relaxed);
        if version != VERSION {
            return foreign(format!(
                "of version {version}, and this program has version {VERSION}"
            ));
        }
        if self.futex_offset.load(Relaxed) != FUTEX_OFFSET as u32 {
            return foreign("of a program with another C library".to_owned());
        }
        if self.pid_namespace.load(Relaxed) != pid_namespace()? {
            return foreign("of another pid namespace, where thread ids mean others".to_owned());
        }
        let header_len = self.header_len.load(Relaxed) as usize;
        let len = usize::try_from(self.len.load(Relaxed)).unwrap_or(usize::MAX);
        let extent = match self.growable.load(Relaxed) {
            0 => Extent::fixed(header_len, len),
            _ => Extent::growable(header_len, len),
        };
        if extent.at != self.bytes_at.load(Relaxed)
            || extent.end().is_err()
            || header_len > LONGEST_HEADER
        {
            return foreign("damaged".to_owned());
        }
        Ok(extent)
    }

    /// Checks that the header is an `H`.
    pub(super) fn check_kind<H: Header>(&self) -> Result<(), Reason> {
        let kind = self.kind();
        if kind != H::KIND || self.header_len.load(Relaxed) as usize != size_of::<H>() {
            let name = |kind: [u8; 8]| kind.escape_ascii().to_string();
            let text = format!("memory of {:?}, not of {:?}", name(kind), name(H::KIND));
            return Err(Reason::Foreign(text));
        }
        Ok(())
    }

    /// What the header is.
    pub(super) fn kind(&self) -> [u8; 8] {
        self.kind.load(Relaxed).to_le_bytes()
    }

    /// How many bytes there are. Exact for whoever holds the lock.
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.len.load(Relaxed)
    }

    /// For whoever holds the lock.
    pub(super) fn set_len(&self, len: u64) {
        self.len.store(len, Relaxed);
    }
}

fn pid_namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}
