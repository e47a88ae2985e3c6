//! Who is at the other end of a local socket.

use std::io;
use std::os::fd::AsFd;

/// The process, user and group that connected, or that listened: as they were then.
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
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    let pid = peer.pid.as_raw_nonzero().get().unsigned_abs();
    Ok((pid, peer.uid.as_raw(), peer.gid.as_raw()))
}
