//! The `PIDFD_GET_INFO` request, which neither rustix nor libc has yet.
#![allow(unsafe_code)] // One ioctl.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// `struct pidfd_info` of `linux/pidfd.h`, as far as its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`: direction, size, type, number.
const PIDFD_GET_INFO: libc::Ioctl =
    ((3u64 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xff << 8) | 11) as libc::Ioctl;

/// What the kernel says of the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitInfo {
    /// It has ended and was reaped.
    Known(ExitStatus),
    /// It was not reaped yet. Linux 6.13 and 6.14 never say more.
    NotReaped,
    /// The kernel keeps no status.
    Unknown,
}

pub(crate) fn exit_info(pidfd: BorrowedFd<'_>) -> ExitInfo {
    // The kernel looks for the status, and then for the process: one that is reaped between the two is
    // gone for it (`ESRCH`), and its status is there from then on.
    match ask(pidfd) {
        ExitInfo::Unknown => ask(pidfd),
        known => known,
    }
}

fn ask(pidfd: BorrowedFd<'_>) -> ExitInfo {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..Default::default() };
    // SAFETY: the request writes at most the size that it encodes, which is that of `info`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    match (result, info.mask & PIDFD_INFO_EXIT) {
        (0, 0) => ExitInfo::NotReaped,
        (0, _) => ExitInfo::Known(ExitStatus::from_raw(info.exit_code)),
        _ => ExitInfo::Unknown,
    }
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);
