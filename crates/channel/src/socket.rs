//! Listeners and clients: connections between programs that were started apart.

mod address;
#[cfg(feature = "tokio")]
mod asynchronous;
mod client;
mod codec;
mod connection;
mod file;
mod frame;
mod handshake;
mod listener;
mod options;
mod outgoing;
#[cfg(feature = "pickle")]
mod pickle;
mod proof;
mod stream;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use interprocess::local_socket::{Name, ToFsName, ToNsName};
use interprocess::os::unix::local_socket::{AbstractNsUdSocket, FilesystemUdSocket};

pub use address::Address;
pub use client::Client;
pub use codec::Codec;
pub use connection::{Credentials, SocketConnection};
pub use handshake::Digest;
pub use listener::Listener;
pub use options::SocketOptions;

fn local_name(address: &Address) -> io::Result<Name<'_>> {
    match address {
        Address::Path(path) => path.as_os_str().to_fs_name::<FilesystemUdSocket>(),
        Address::Abstract(name) => OsStr::from_bytes(name).to_ns_name::<AbstractNsUdSocket>(),
        Address::Tcp(_) => Err(io::ErrorKind::InvalidInput.into()),
    }
}
