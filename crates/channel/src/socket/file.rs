//! A socket's file: claimed by one listener at a time, taken over from the dead.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The file of a socket that somebody listens at. Removed when dropped, if it is still the same.
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Listens at the path. A socket that is there and at which nobody listens is replaced; that is looked
    /// at and done under a lock, so that two who come at once do not take it from each other.
    pub(crate) fn claim<L>(
        path: &Path,
        listen: impl FnOnce() -> io::Result<L>,
    ) -> io::Result<(L, Self)> {
        let _lock = Lock::take(path)?;
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                let text = "there is a file of that name that is no socket";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let text = "another process listens there";
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = listen()?;
        let inode = inode(&fs::symlink_metadata(path)?);
        Ok((listener, SocketFile { path: path.to_owned(), inode }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|there| inode(&there) == self.inode);
        if same {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// A file beside the socket's that is locked. Removed when dropped.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(socket: &Path) -> io::Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock()?;
            // Whoever had it before may have removed it.
            let there = fs::symlink_metadata(&path);
            if there
                .is_ok_and(|there| file.metadata().is_ok_and(|file| inode(&file) == inode(&there)))
            {
                return Ok(Lock { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked: whoever waits for it then looks again.
        let _gone = fs::remove_file(&self.path);
    }
}

fn inode(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
