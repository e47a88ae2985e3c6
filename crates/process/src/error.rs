use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use multiproc_os::image::ForeignFunction;
use serde::{Deserialize, Serialize};

/// Why a process could not be started, or did not return a value.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, init};
///
/// init();
/// let process = Process::spawn(|code: i32| -> () { std::process::exit(code) }, 3)?;
/// let error = process.join().unwrap_err();
/// assert_eq!(error.exit_code(), Some(3));
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Box<Kind>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error(
        "this program has not called multiproc::init(): make `multiproc::init();` the first line of \
         main, or write `multiproc::init_before_main!();` once in a test or library without a main"
    )]
    NotInitialised,
    #[error(
        "process {name}: this process was itself started as a child and has not reached \
         multiproc::init(): make it the first line of main"
    )]
    InsideUninitialisedChild { name: String },
    #[error(
        "process {name}: {depth} processes started each other one inside the other: is this meant?"
    )]
    TooDeep { name: String, depth: u32 },
    #[error("process {name}: {source}")]
    Function { name: String, source: ForeignFunction },
    #[error("process {name}: its argument: {source}")]
    Argument { name: String, source: multiproc_wire::Error },
    #[error("cannot start process {name}: {source}")]
    Start { name: String, source: io::Error },
    #[error("process {name} panicked: {panic}")]
    Panicked { name: String, panic: Panic },
    #[error("process {name} could not run its function or report its value: {reason}")]
    Failed { name: String, reason: String },
    #[error("process {name} {} before it returned a value", describe(*.status))]
    Ended { name: String, status: ExitStatus },
    #[error(
        "process {name} {} before it said hello: is `multiproc::init();` the first line of main?",
        describe(*.status)
    )]
    NoHello { name: String, status: ExitStatus },
    #[error(
        "process {name} ended before it returned a value, and how cannot be known: its fork server was \
         killed, and this kernel keeps no exit status of others' children (Linux 6.15 does)"
    )]
    Unknown { name: String },
    #[error("the value of process {name}: {source}")]
    Value { name: String, source: multiproc_wire::Error },
    #[error("the value of process {name} was taken by an earlier join")]
    Taken { name: String },
    #[error("cannot {operation} process {name}: {source}")]
    Io { operation: &'static str, name: String, source: io::Error },
}

/// The text, which is what one wants to see of an error that was unwrapped; not the backtrace.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Error(Box::new(kind))
    }
}

impl Error {
    /// Tells whether the program has not called [`init`](crate::init) where it must.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use multiproc_process::Process;
    ///
    /// // `init` was not called.
    /// let error = Process::spawn(|x: u64| x + 1, 1).unwrap_err();
    /// assert!(error.is_not_initialised());
    /// ```
    pub fn is_not_initialised(&self) -> bool {
        matches!(*self.0, Kind::NotInitialised | Kind::InsideUninitialisedChild { .. })
    }

    /// Tells whether the child ended before it had taken over and could run the function.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, StartMethod, init};
    ///
    /// init();
    /// let process = Process::builder().start_method(StartMethod::Spawn).spawn(|x: u64| x + 1, 1)?;
    /// match process.join() {
    ///     Err(error) if error.is_no_hello() => panic!("is init() behind something that ended? {error}"),
    ///     result => assert_eq!(result?, 2),
    /// }
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn is_no_hello(&self) -> bool {
        matches!(*self.0, Kind::NoHello { .. })
    }

    /// The panic that ended the function.
    pub fn panic(&self) -> Option<&Panic> {
        match &*self.0 {
            Kind::Panicked { panic, .. } => Some(panic),
            _ => None,
        }
    }

    /// How the process ended, where that is the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::spawn(|code: i32| -> () { std::process::exit(code) }, 3)?;
    /// let status = process.join().unwrap_err().exit_status();
    /// assert_eq!(status.map(|status| status.to_string()), Some("exit status: 3".to_string()));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match *self.0 {
            Kind::Ended { status, .. } | Kind::NoHello { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The code with which the process ended, where that is the error.
    pub fn exit_code(&self) -> Option<i32> {
        self.exit_status().and_then(|status| status.code())
    }

    /// Tells whether the process left a core dump, where that is the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Limit, Process, init};
    ///
    /// init();
    /// let builder = Process::builder().limit(Limit::CoreDump, 0);
    /// let process = builder.spawn(|()| -> () { std::process::abort() }, ())?;
    /// assert!(!process.join().unwrap_err().core_dumped(), "it was not allowed any");
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn core_dumped(&self) -> bool {
        self.exit_status().is_some_and(|status| status.core_dumped())
    }

    /// The signal that ended the process, where that is the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::spawn(|()| -> () { std::process::abort() }, ())?;
    /// assert_eq!(process.join().unwrap_err().signal(), Some(6));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn signal(&self) -> Option<i32> {
        self.exit_status().and_then(|status| status.signal())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &*error.0 {
            Kind::Start { source, .. } | Kind::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// A panic in another process.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, init};
///
/// init();
/// let process = Process::spawn(|divisor: i32| 1 / divisor, 0)?;
/// let error = process.join().unwrap_err();
/// let panic = error.panic().expect("it panicked");
/// assert_eq!(panic.message(), "attempt to divide by zero");
/// assert!(panic.location().is_some_and(|location| location.contains(".rs:")));
/// if let Some(backtrace) = panic.backtrace() {
///     eprintln!("{backtrace}");
/// }
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
    pub(crate) backtrace: Option<String>,
}

impl Panic {
    /// What was panicked with, if it was text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// File, line and column, as `src/main.rs:3:5`.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// The calls that led there, if `RUST_BACKTRACE` asks for it.
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{}, at {location}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panic")
            .field("message", &self.message)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// Says in words how a process ended.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            match signal_name(signal) {
                Some(name) => format!("was killed by {name}{core}"),
                None => format!("was killed by signal {signal}{core}"),
            }
        }
        (None, None) => "ended".into(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal).ok()?.checked_sub(1).and_then(|index| names.get(index).copied())
}
