use std::fmt;
use std::time::Duration;

use async_nats::ConnectOptions;
use multiproc_pool::Builder;

use crate::error::{Error, Kind};
use crate::key::{self, Key};

/// Says how driver and agents work together: see [`Pool::connect`](crate::Pool::connect) and
/// [`agent`](crate::agent).
///
/// Both are given the same, as a rule; what concerns the other only is ignored.
///
/// # Examples
///
/// ```
/// use multiproc_nats::{ConnectOptions, Options};
///
/// let login = ConnectOptions::with_user_and_password("lab".into(), "a password".into());
/// let options = Options::new(b"sixteen bytes or more").connection(login).name("lab");
/// assert!(!format!("{options:?}").contains("password"));
/// ```
#[must_use]
pub struct Options {
    pub(crate) key: Vec<u8>,
    pub(crate) name: String,
    pub(crate) connection: ConnectOptions,
    pub(crate) attempts: u32,
    pub(crate) ack_wait: Duration,
    pub(crate) lease: Duration,
    pub(crate) window: Option<usize>,
    pub(crate) replicas: usize,
    pub(crate) workers: Option<Builder>,
}

impl Options {
    /// Takes the key that the driver and all agents share, of at least 16 bytes. Who knows it can have
    /// agents run any code of the program.
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        Options {
            key: key.as_ref().to_vec(),
            name: "multiproc".into(),
            // A link that is cut makes no sound.
            connection: ConnectOptions::new().ping_interval(Duration::from_secs(5)),
            attempts: 3,
            ack_wait: Duration::from_secs(30),
            lease: Duration::from_secs(60),
            window: None,
            replicas: 1,
            workers: None,
        }
    }

    /// Sets the name that driver and agents find each other by, `multiproc` without: letters, digits,
    /// `-` and `_`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how to connect: TLS, a credentials file, user and password, an nkey, and more.
    pub fn connection(mut self, connection: ConnectOptions) -> Self {
        self.connection = connection;
        self
    }

    /// Sets how many workers may die of a task before it fails; 3 without. For the driver.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets for how long an agent may give no sign of life before what it runs goes to another; 30 s
    /// without. It gives one every third of that, however long a task takes. For agents, which must all
    /// have the same.
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = ack_wait.max(Duration::from_millis(100));
        self
    }

    /// Sets for how long a driver may give no sign of life before its tasks are removed; 60 s without,
    /// and 1 s at least. Driver and agents must have the same.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// Sets how many chunks of tasks may be in flight; without, four for each worker of the agents that
    /// are known, 16 at least and 256 at most. For the driver.
    pub fn window(mut self, chunks: usize) -> Self {
        self.window = Some(chunks.max(1));
        self
    }

    /// Sets how many servers of a cluster keep each message; 1 without.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas.max(1);
        self
    }

    /// Sets how the agent's pool is made: how many workers it has, their limits, their initializer.
    /// Without, it has one for each processor. For agents.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_nats::Options;
    /// use multiproc_pool::Pool;
    ///
    /// let workers = Pool::builder().workers(4).memory_limit(4 << 30);
    /// let options = Options::new(b"sixteen bytes or more").workers(workers);
    /// ```
    pub fn workers(mut self, workers: Builder) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Checks what was said.
    pub(crate) fn key(&self) -> Result<Key, Error> {
        if self.key.len() < key::LEAST {
            return Err(Kind::ShortKey(self.key.len()).into());
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.name.is_empty() || !self.name.chars().all(allowed) {
            return Err(Kind::Name(self.name.clone()).into());
        }
        Ok(Key::new(&self.key))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is secret, or may be.
        f.debug_struct("Options").field("name", &self.name).finish_non_exhaustive()
    }
}
