mod pipes;
mod progress;

use std::io::{self, PipeReader, PipeWriter};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::pidfd::ExitInfo;
use multiproc_wire::{Endpoint, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::{Builder, Settings};
use crate::child;
use crate::children::{Tracked, let_go, register};
use crate::error::{Error, Kind};
use crate::fork;
use crate::fork_server::ForkServer;
use crate::reaper::reap_later;
use crate::spawn;
use crate::start_method::StartMethod;
use crate::trace;

pub(crate) use pipes::Pipes;

/// A function that runs in a child process.
///
/// Dropping it detaches: the process runs on, and is reaped by the library when it ends. With
/// [`kill_on_drop`](Builder::kill_on_drop) it is killed instead.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, init};
///
/// init();
/// let process = Process::spawn(|(a, b): (u64, u64)| a + b, (2, 3))?;
/// println!("{} runs as {}", process.name(), process.pid());
/// assert_eq!(process.join()?, 5);
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(Debug)]
pub struct Process<R = ()> {
    /// What the process reads as its standard input, if the builder said
    /// [`stdin_piped`](Builder::stdin_piped). `join` closes it.
    pub stdin: Option<PipeWriter>,
    /// What the process writes as its standard output, if the builder said
    /// [`stdout_piped`](Builder::stdout_piped).
    pub stdout: Option<PipeReader>,
    /// What the process writes as its standard error, if the builder said
    /// [`stderr_piped`](Builder::stderr_piped).
    pub stderr: Option<PipeReader>,
    name: String,
    kill_on_drop: bool,
    child: Child,
    /// No report comes any more.
    line_closed: bool,
    ended: bool,
    /// Set once it has ended and whoever has adopted it is to reap it: no longer than until then.
    orphaned: Option<Deadline>,
    /// `None` if it has not ended, or nobody knows how.
    status: Option<ExitStatus>,
    outcome: Option<Result<R, Error>>,
    taken: bool,
    returns: PhantomData<fn() -> R>,
}

/// The process behind the handle.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) tracked: Arc<Tracked>,
    pub(crate) line: Endpoint,
    pub(crate) said_hello: bool,
    pub(crate) reaped: Reaped,
}

/// Who reaps the process and so knows how it ended.
#[derive(Debug)]
pub(crate) enum Reaped {
    /// This process: it is the parent.
    Here,
    /// The fork server, which tells over the line.
    ByServer(Arc<ForkServer>),
}

impl Child {
    /// Sends it what it needs to know. If that cannot be sent, the process is ended.
    pub(crate) fn tell<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a Message>,
    ) -> io::Result<()> {
        spawn::tell(&self.line, messages).inspect_err(|_| {
            let _ended = self.tracked.send_signal(SIGKILL);
            reap_later(self.tracked.as_fd());
        })
    }
}

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

impl Process<()> {
    /// Runs `function` with `argument` in a new process.
    ///
    /// Functions and closures that capture nothing will do; what the function needs travels as its
    /// argument, several as a tuple. The process is started by the default method: see
    /// [`StartMethod::default`].
    ///
    /// # Errors
    ///
    /// [`init`](crate::init) was not called, the argument does not serialise (nothing was started
    /// then), or the system has no process, memory or descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// fn area((width, height): (f64, f64)) -> f64 {
    ///     width * height
    /// }
    ///
    /// init();
    /// let process = Process::spawn(area, (2.0, 1.5))?;
    /// assert_eq!(process.join()?, 3.0);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn spawn<A, R>(function: fn(A) -> R, argument: A) -> Result<Process<R>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        Self::builder().spawn(function, argument)
    }

    /// Sets name, start method and more before the process is started.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, StartMethod, init};
    ///
    /// init();
    /// let process = Process::builder()
    ///     .name("adder")
    ///     .daemon(true)
    ///     .start_method(StartMethod::Spawn)
    ///     .spawn(|x: u64| x + 1, 1)?;
    /// assert_eq!(process.name(), "adder");
    /// assert_eq!(process.join()?, 2);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Copies this process and runs `function` in the copy. It may capture what it needs.
    ///
    /// The copy ends by `_exit`: no exit handlers run, no destructor of what it was copied from.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Process::spawn), and if this process has more than one thread: the copy would
    /// have one, with the locks of the others locked for ever. A [`Pool`] and a detached child of the
    /// other methods keep a thread in this process.
    ///
    /// [`Pool`]: https://docs.rs/multiproc-pool
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let table: Vec<u64> = (0..1_000_000).collect();
    /// // The copy finds the table where it is: nothing is sent.
    /// let sum = Process::fork(|| table.iter().sum::<u64>())?;
    /// assert_eq!(sum.join()?, 499_999_500_000);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn fork<R>(function: impl FnOnce() -> R + Send) -> Result<Process<R>, Error>
    where
        R: Serialize + DeserializeOwned,
    {
        let settings = Self::builder().start_method(StartMethod::Fork).into_settings();
        let identity = spawn::check(&settings)?;
        fork::fork(settings, Pipes::default(), identity, None, |_| child::outcome(function))
    }
}

impl<R> Process<R> {
    pub(crate) fn new(settings: Settings, child: Child, pipes: Pipes) -> Self {
        register(&child.tracked);
        trace::started(&settings.name, child.tracked.pid, settings.start_method);
        Process {
            stdin: pipes.stdin,
            stdout: pipes.stdout,
            stderr: pipes.stderr,
            name: settings.name,
            kill_on_drop: settings.kill_on_drop,
            child,
            line_closed: false,
            ended: false,
            orphaned: None,
            status: None,
            outcome: None,
            taken: false,
            returns: PhantomData,
        }
    }

    /// The name that it was given, or `Process-N`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.tracked.pid
    }

    /// Tells whether it has not ended yet.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::spawn(|()| std::thread::sleep(std::time::Duration::MAX), ())?;
    /// assert!(process.is_alive());
    /// process.kill()?;
    /// while process.is_alive() {
    ///     std::thread::yield_now();
    /// }
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn is_alive(&self) -> bool {
        !self.ended && !self.child.tracked.wait_end(Deadline::now()).unwrap_or(true)
    }

    /// Asks it to end: sends `SIGTERM`. One that has ended already is no error.
    ///
    /// # Errors
    ///
    /// It runs as another user by now.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::spawn(|()| std::thread::sleep(std::time::Duration::MAX), ())?;
    /// process.terminate()?;
    /// assert_eq!(process.join().unwrap_err().signal(), Some(15));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn terminate(&self) -> Result<(), Error> {
        self.signal("terminate", SIGTERM)
    }

    /// Ends it at once: sends `SIGKILL`. One that has ended already is no error.
    ///
    /// # Errors
    ///
    /// It runs as another user by now.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::spawn(|()| std::thread::sleep(std::time::Duration::MAX), ())?;
    /// process.kill()?;
    /// assert_eq!(process.join().unwrap_err().signal(), Some(9));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn kill(&self) -> Result<(), Error> {
        self.signal("kill", SIGKILL)
    }

    /// Interrupts it as Ctrl-C does: sends `SIGINT`. One that has ended already is no error.
    ///
    /// A child ignores it if this process did when it started the child.
    ///
    /// # Errors
    ///
    /// It runs as another user by now.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::spawn(|()| std::thread::sleep(std::time::Duration::MAX), ())?;
    /// process.interrupt()?;
    /// # process.terminate()?;
    /// assert!(process.join().unwrap_err().signal().is_some());
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn interrupt(&self) -> Result<(), Error> {
        self.signal("interrupt", SIGINT)
    }

    /// Sends it the signal of this number, one of those that have names: real-time signals are
    /// refused. A process that has ended already is no error.
    ///
    /// # Errors
    ///
    /// There is no such signal, or the process runs as another user by now.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// const SIGUSR1: i32 = 10;
    ///
    /// init();
    /// let process = Process::spawn(|()| std::thread::sleep(std::time::Duration::MAX), ())?;
    /// process.send_signal(SIGUSR1)?;
    /// assert_eq!(process.join().unwrap_err().signal(), Some(SIGUSR1));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn send_signal(&self, signal: i32) -> Result<(), Error> {
        self.signal("send a signal to", signal)
    }

    fn signal(&self, operation: &'static str, signal: i32) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        self.child.tracked.send_signal(signal).map_err(|error| self.io(operation, error))
    }

    fn io(&self, operation: &'static str, source: io::Error) -> Error {
        Kind::Io { operation, name: self.name.clone(), source }.into()
    }
}

impl<R: DeserializeOwned> Process<R> {
    /// Waits until the process has ended, and gives what its function returned.
    ///
    /// When it returns, the process is gone and reaped. The pipe to its standard input is closed
    /// first, if there is one, as by `std::process::Child::wait`; what it writes to a pipe must be
    /// read before or by another thread, if it is more than a pipe holds.
    ///
    /// # Errors
    ///
    /// The function panicked, or the process ended in another way before it returned a value: the
    /// error says how.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let divide: fn(u32) -> u32 = |divisor| 100 / divisor;
    /// assert_eq!(Process::spawn(divide, 4)?.join()?, 25);
    /// let error = Process::spawn(divide, 0)?.join().unwrap_err();
    /// assert!(error.to_string().contains("panicked: attempt to divide by zero"));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn join(mut self) -> Result<R, Error> {
        drop(self.stdin.take());
        self.wait(Deadline::NEVER)?;
        self.take_outcome()
    }

    /// Waits as [`join`](Process::join) does, for a limited time. `None` if that passed.
    ///
    /// # Errors
    ///
    /// As [`join`](Process::join). The value is given once; a later join says so.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let mut process = Process::spawn(|()| std::thread::sleep(Duration::MAX), ())?;
    /// if process.join_timeout(Duration::from_millis(10))?.is_none() {
    ///     process.terminate()?;
    /// }
    /// assert_eq!(process.join().unwrap_err().signal(), Some(15));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<Option<R>, Error> {
        if !self.wait(Deadline::after(timeout))? {
            return Ok(None);
        }
        self.take_outcome().map(Some)
    }

    /// Gives what the function returned if the process has ended, as [`join`](Process::join) does.
    /// `None` if it has not.
    ///
    /// # Errors
    ///
    /// As [`join_timeout`](Process::join_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let mut process = Process::spawn(|x: u64| x + 1, 1)?;
    /// let value = loop {
    ///     match process.try_join()? {
    ///         Some(value) => break value,
    ///         None => std::thread::yield_now(),
    ///     }
    /// };
    /// assert_eq!(value, 2);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn try_join(&mut self) -> Result<Option<R>, Error> {
        self.join_timeout(Duration::ZERO)
    }

    /// How it ended, if it has. `None` while it runs, and if nobody can know: see the crate's
    /// documentation of kernel versions. If the fork server was killed, whoever has adopted the process
    /// has to reap it before its status is known.
    ///
    /// # Errors
    ///
    /// The system refused to tell.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let mut process = Process::spawn(|code: i32| -> () { std::process::exit(code) }, 3)?;
    /// // That it gave no value is an error; its status can be asked for all the same.
    /// process.join_timeout(Duration::MAX).unwrap_err();
    /// assert_eq!(process.exit_status()?.and_then(|status| status.code()), Some(3));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.wait(Deadline::now())? && self.status.is_none() {
            // Its adopter may have reaped it since.
            if let ExitInfo::Known(status) = self.child.tracked.exit_info() {
                self.status = Some(status);
            }
        }
        Ok(self.status)
    }

    fn take_outcome(&mut self) -> Result<R, Error> {
        let name = || self.name.clone();
        if self.taken {
            return Err(Kind::Taken { name: name() }.into());
        }
        self.taken = true;
        if let Some(outcome) = self.outcome.take() {
            return outcome;
        }
        Err(match self.status {
            Some(status) if !self.child.said_hello => Kind::NoHello { name: name(), status },
            Some(status) => Kind::Ended { name: name(), status },
            None => Kind::Unknown { name: name() },
        }
        .into())
    }
}

impl<R> AsFd for Process<R> {
    /// The process's pidfd, which is readable once the process has ended: Python's `sentinel`. It can be
    /// waited for together with sockets.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.tracked.as_fd()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        let ours = match &self.child.reaped {
            Reaped::Here => true,
            // It is a child of this process only if this process has adopted it.
            Reaped::ByServer(server) => server.has_ended(),
        };
        if self.kill_on_drop && !self.ended {
            let _ended = self.child.tracked.send_signal(SIGKILL);
        }
        let_go(&self.child.tracked, self.ended);
        if ours && !self.ended {
            reap_later(self.child.tracked.as_fd());
        }
    }
}
