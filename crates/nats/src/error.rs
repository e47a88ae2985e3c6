use async_nats::ConnectErrorKind;

/// Why there is no connection, or an agent has ended.
///
/// Neither its text nor its sources have a password in them.
///
/// # Examples
///
/// ```
/// use multiproc_nats::{Options, Pool};
///
/// multiproc_process::init();
/// let error = Pool::connect("nats://127.0.0.1:1", Options::new(b"too short")).unwrap_err();
/// assert_eq!(error.to_string(), "the key has 9 bytes: it needs at least 16");
/// assert!(!error.is_refused() && !error.is_unreachable());
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Kind);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("the key has {0} bytes: it needs at least {least}", least = crate::key::LEAST)]
    ShortKey(usize),
    #[error("{0:?} is no name: letters, digits, `-` and `_` are allowed")]
    Name(String),
    #[error("cannot connect to {server}: {kind}")]
    Connect { server: String, kind: ConnectErrorKind },
    #[error("{server} has no JetStream for this program's use: {reason}")]
    JetStream { server: String, reason: String },
    #[error("cannot read the program's own file, which is its identity: {0}")]
    Build(#[source] std::io::Error),
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
    #[error("the agent's pool: {0}")]
    Pool(#[source] multiproc_pool::Error),
}

impl Error {
    /// Tells whether the server has refused the password, or whatever else was to prove who connects.
    pub fn is_refused(&self) -> bool {
        use ConnectErrorKind::{Authentication, AuthorizationViolation};
        matches!(self.0, Kind::Connect { kind: Authentication | AuthorizationViolation, .. })
    }

    /// Tells whether the server could not be reached in time.
    pub fn is_unreachable(&self) -> bool {
        use ConnectErrorKind::{Dns, Io, MaxReconnects, TimedOut};
        matches!(self.0, Kind::Connect { kind: Dns | Io | MaxReconnects | TimedOut, .. })
    }
}
