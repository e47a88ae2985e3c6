//! Who is at the other end of a local socket.
#![allow(unsafe_code)] // rustix takes the peer's number for one that is never 0.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The process, user and group that connected, or that listened: as they were then. The process is
/// 0 if it is outside this pid namespace.
///
/// # Errors
///
/// It is no local socket.
///
/// # Examples
///
/// ```
/// use std::os::unix::net::UnixStream;
///
/// let (one, _other) = UnixStream::pair()?;
/// let (pid, ..) = multiproc_os::peer::credentials(&one)?;
/// assert_eq!(pid, std::process::id());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn credentials(socket: impl AsFd) -> io::Result<(u32, u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: writes at most `size` bytes to `peer`, for which any bytes are a valid value.
    let result = unsafe {
        let (fd, peer) = (socket.as_fd().as_raw_fd(), (&raw mut peer).cast());
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, peer, &mut size)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((peer.pid.unsigned_abs(), peer.uid, peer.gid))
}
