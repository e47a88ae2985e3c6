//! Where the kernel puts what comes beside the bytes of a packet.
#![allow(unsafe_code)] // Takes a descriptor out of a kind of message that rustix skips.

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::CONTROL_SPACE;

/// Begins where a header may begin, so that the first one is there. The bytes are 0 until the kernel writes them.
#[repr(C, align(8))]
pub(super) struct Space([MaybeUninit<u8>; CONTROL_SPACE]);

/// `cmsg(3)`: the length with the header, the level and the type; the next one begins at a multiple of 8.
const HEADER: usize = 16;

impl Space {
    pub(super) fn new() -> Self {
        Space([MaybeUninit::new(0); CONTROL_SPACE])
    }

    /// For one call.
    pub(super) fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.0
    }

    /// Takes the descriptor of the sender's process, which comes with each packet where `SO_PASSPIDFD` (Linux 6.5)
    /// was set on the receiving socket: by whoever had that before. Nobody asked for it, but it is open.
    pub(super) fn take_pidfd(&mut self) -> Option<OwnedFd> {
        const SCM_PIDFD: i32 = 4;
        let mut at = 0;
        loop {
            let header = self.bytes(at, HEADER)?;
            let (len, kind) = header.split_at(8);
            let len = usize::from_ne_bytes(len.try_into().ok()?);
            let (level, kind) = kind.split_at(4);
            let level = i32::from_ne_bytes(level.try_into().ok()?);
            let kind = i32::from_ne_bytes(kind.try_into().ok()?);
            if len < HEADER {
                return None;
            }
            if level == libc::SOL_SOCKET && kind == SCM_PIDFD {
                let number = self.bytes(at + HEADER, size_of::<RawFd>())?;
                let number = RawFd::from_ne_bytes(number.try_into().ok()?);
                // Not twice.
                self.0[at..at + HEADER].fill(MaybeUninit::new(0));
                // A process that is gone has an error's number instead.
                // SAFETY: the kernel has opened it for this call, and nobody else has been told.
                return (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) });
            }
            at = at.checked_add(len)?.checked_next_multiple_of(8)?;
        }
    }

    fn bytes(&self, at: usize, len: usize) -> Option<&[u8]> {
        let bytes = self.0.get(at..at.checked_add(len)?)?;
        // SAFETY: they have been written when this was made, and since then by the kernel alone.
        Some(unsafe { bytes.assume_init_ref() })
    }
}
