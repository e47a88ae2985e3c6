//! A connected socket, whatever its kind.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use multiproc_os::deadline::Deadline;
use multiproc_os::poll;

/// It never blocks by itself: it stays in the process that made it, so that nobody else minds.
#[derive(Debug)]
pub(crate) enum Stream {
    Local(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(crate) fn local(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Stream::Local(stream))
    }

    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Messages are written whole: there is nothing to wait for.
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }

    /// Reads what is there, once something is; 0 at the end. `None` if the deadline passed first.
    pub(crate) fn read(&self, into: &mut [u8], deadline: Deadline) -> io::Result<Option<usize>> {
        loop {
            let read = unless_blocked(|| match self {
                Stream::Local(stream) => (&*stream).read(into),
                Stream::Tcp(stream) => (&*stream).read(into),
            })?;
            if read.is_some() || !poll::readable([self.as_fd()], deadline)?[0] {
                return Ok(read);
            }
        }
    }

    /// Writes as much as there is room for. `None` if there is none.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        unless_blocked(|| match self {
            Stream::Local(stream) => (&*stream).write(bytes),
            Stream::Tcp(stream) => (&*stream).write(bytes),
        })
    }

    /// Writes all, however long it takes.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes)? {
                Some(written) => bytes = &bytes[written..],
                None => _ = poll::writable(self, Deadline::NEVER)?,
            }
        }
        Ok(())
    }
}

fn unless_blocked(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            result => return result.map(Some),
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
