//! A connected socket, whatever its kind.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use multiproc_os::deadline::Deadline;
use multiproc_os::poll;

#[derive(Debug)]
pub(crate) enum Stream {
    Local(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        // Messages are written whole: there is nothing to wait for.
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }

    /// Reads what is there, once something is; 0 at the end. `None` if the deadline passed first.
    pub(crate) fn read(&self, into: &mut [u8], deadline: Deadline) -> io::Result<Option<usize>> {
        loop {
            if !deadline.is_never() && !poll::readable([self.as_fd()], deadline)?[0] {
                return Ok(None);
            }
            let read = match self {
                Stream::Local(stream) => (&*stream).read(into),
                Stream::Tcp(stream) => (&*stream).read(into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map(Some),
            }
        }
    }

    pub(crate) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Local(stream) => (&*stream).write_all(bytes),
            Stream::Tcp(stream) => (&*stream).write_all(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Local(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }
}
