use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// Where a [`Listener`](super::Listener) listens.
///
/// # Examples
///
/// ```
/// use multiproc_channel::Address;
///
/// let file = Address::path("/run/example.sock");
/// let name = Address::abstract_name("example");
/// let tcp = Address::tcp("127.0.0.1:6000")?;
/// # assert_eq!(tcp.to_string(), "127.0.0.1:6000");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A socket file, of at most 107 bytes. Only its user may connect (mode 0600).
    Path(PathBuf),
    /// A name of at most 107 bytes in Linux's abstract namespace, without a file: Python's `"\0name"`.
    /// Every process of the network namespace may connect.
    Abstract(Vec<u8>),
    /// A port of an IP address. Everybody who reaches it may connect.
    Tcp(SocketAddr),
}

impl Address {
    /// The address of a socket file.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::Address;
    ///
    /// assert_eq!(Address::path("/run/example.sock").to_string(), "/run/example.sock");
    /// ```
    pub fn path(path: impl AsRef<Path>) -> Self {
        Address::Path(path.as_ref().to_owned())
    }

    /// An address without a file.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::Address;
    ///
    /// assert_eq!(Address::abstract_name("example").to_string(), "@example");
    /// ```
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        Address::Abstract(name.as_ref().to_owned())
    }

    /// A TCP address, the first one that a name resolves to. Port 0 lets the system choose one.
    ///
    /// # Errors
    ///
    /// The name does not resolve.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_channel::Address;
    ///
    /// let address = Address::tcp("127.0.0.1:6000")?;
    /// assert_eq!(address.to_string(), "127.0.0.1:6000");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn tcp(address: impl ToSocketAddrs) -> io::Result<Self> {
        let first = address.to_socket_addrs()?.next();
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
        first.map(Address::Tcp).ok_or_else(none)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Address::path(path)
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Address::Path(path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => path.display().fmt(f),
            Address::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            Address::Tcp(address) => address.fmt(f),
        }
    }
}
