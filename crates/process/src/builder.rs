use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::changes::Changes;
use crate::error::Error;
use crate::limit::Limit;
use crate::process::Process;
use crate::spawn;
use crate::start_method::StartMethod;

/// Says how a process is to be started: see [`Process::builder`].
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, StartMethod, init};
///
/// init();
/// let builder = Process::builder().name("adder").daemon(true).start_method(StartMethod::Spawn);
/// // It can start several.
/// let processes = [1, 2].map(|x: u64| builder.clone().spawn(|x| x + 1, x));
/// for (process, expected) in processes.into_iter().zip([2, 3]) {
///     assert_eq!(process?.join()?, expected);
/// }
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it starts nothing before `spawn`"]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
    start_method: StartMethod,
    changes: Changes,
    kill_on_drop: bool,
    /// Standard input, output and error.
    piped: [bool; 3],
}

impl Builder {
    /// Names the process, for errors and for [`current_process`](crate::current_process). The name is
    /// `Process-N` without.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, current_process, init};
    ///
    /// init();
    /// let name = |()| current_process().name().to_string();
    /// assert_eq!(Process::builder().name("reader").spawn(name, ())?.join()?, "reader");
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the process ends with this one, however this one ends, `SIGKILL` included. It
    /// does not, without.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, current_process, init};
    ///
    /// init();
    /// let process = Process::builder().daemon(true).spawn(|()| current_process().is_daemon(), ())?;
    /// assert!(process.join()?);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets how the process comes into being: as [`StartMethod::default`] says, without.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, StartMethod, init};
    ///
    /// init();
    /// let parent = |()| std::os::unix::process::parent_id();
    /// let process = Process::builder().start_method(StartMethod::Spawn).spawn(parent, ())?;
    /// assert_eq!(process.join()?, std::process::id());
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn start_method(mut self, start_method: StartMethod) -> Self {
        self.start_method = start_method;
        self
    }

    /// Sets a variable of the process's environment, which is as this process's without.
    ///
    /// The process itself sets it, before its function runs. What its constructors read before
    /// [`init`](crate::init) is this process's environment.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::builder()
    ///     .env("GREETING", "hello")
    ///     .env_remove("PATH")
    ///     .spawn(|()| (std::env::var("GREETING").ok(), std::env::var("PATH").ok()), ())?;
    /// assert_eq!(process.join()?, (Some("hello".to_string()), None));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.changes.set(name.as_ref(), Some(value.as_ref()));
        self
    }

    /// Sets several variables: see [`env`](Builder::env).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::builder()
    ///     .envs([("A", "1"), ("B", "2")])
    ///     .spawn(|()| (std::env::var("A").unwrap(), std::env::var("B").unwrap()), ())?;
    /// assert_eq!(process.join()?, ("1".to_string(), "2".to_string()));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        variables.into_iter().fold(self, |builder, (name, value)| builder.env(name, value))
    }

    /// Has the process's environment lack a variable: see [`env`](Builder::env), which has an example.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.changes.set(name.as_ref(), None);
        self
    }

    /// Empties the process's environment, but for what is set later: see [`env`](Builder::env).
    ///
    /// What the process starts in its turn has no more either: a program that needs `LD_LIBRARY_PATH`
    /// to find its libraries needs it set again.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let count: fn(()) -> usize = |()| std::env::vars_os().count();
    /// let process = Process::builder().env_clear().env("ONLY", "this").spawn(count, ())?;
    /// assert_eq!(process.join()?, 1);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn env_clear(mut self) -> Self {
        self.changes.clear();
        self
    }

    /// Sets the directory that the process works in, which is this process's without. A relative one
    /// is relative to that.
    ///
    /// The process itself enters it, before its function runs. If it cannot, `join` says so.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process =
    ///     Process::builder().current_dir("/").spawn(|()| std::env::current_dir().unwrap(), ())?;
    /// assert_eq!(process.join()?.to_str(), Some("/"));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    #[doc(alias = "cwd")]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.changes.enter(directory.as_ref().as_os_str());
        self
    }

    /// Sets the numbers of the processors that the process may run on, which are this process's without.
    ///
    /// The process itself sees to it, before its function runs. If none of them is there for it, `join`
    /// says so.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, cpu_count, init};
    ///
    /// init();
    /// let process = Process::builder().cpu_affinity([0]).spawn(|()| cpu_count(), ())?;
    /// # let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
    /// # let allowed = allowed.split("Cpus_allowed_list:").nth(1).unwrap().trim_start().starts_with('0');
    /// # if !allowed { return Ok::<(), multiproc_process::Error>(()) }
    /// assert_eq!(process.join()?, 1);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    #[doc(alias = "sched_setaffinity")]
    pub fn cpu_affinity(mut self, cpus: impl IntoIterator<Item = u32>) -> Self {
        self.changes.run_on(cpus.into_iter().collect());
        self
    }

    /// Sets what the process reads as its standard input, which is this process's without: a file, a
    /// pipe's end, `/dev/null` opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Write, pipe, read_to_string, stdin};
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let (reader, mut writer) = pipe()?;
    /// let process =
    ///     Process::builder().stdin(reader).spawn(|()| read_to_string(stdin()).unwrap(), ())?;
    /// writer.write_all(b"hello")?;
    /// drop(writer);
    /// assert_eq!(process.join()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stdin(self, from: impl Into<OwnedFd>) -> Self {
        self.redirect(0, from.into())
    }

    /// Sets where the process's standard output goes, which is where this process's does without: a
    /// file, a pipe's end, `/dev/null` opened.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{pipe, read_to_string};
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let (reader, writer) = pipe()?;
    /// let process = Process::builder().stdout(writer).spawn(|()| print!("hello"), ())?;
    /// // The process and the builder, gone by now, had all the writing ends.
    /// assert_eq!(read_to_string(reader)?, "hello");
    /// process.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stdout(self, to: impl Into<OwnedFd>) -> Self {
        self.redirect(1, to.into())
    }

    /// Sets where the process's standard error goes: see [`stdout`](Builder::stdout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let nowhere = File::options().write(true).open("/dev/null")?;
    /// Process::builder().stderr(nowhere).spawn(|()| eprintln!("unseen"), ())?.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stderr(self, to: impl Into<OwnedFd>) -> Self {
        self.redirect(2, to.into())
    }

    fn redirect(mut self, stream: usize, fd: OwnedFd) -> Self {
        self.piped[stream] = false;
        self.changes.redirect(stream, fd);
        self
    }

    /// Joins the process's standard input to a pipe: see [`Process::stdin`] for the end to write to.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{Write, read_to_string, stdin};
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let copy: fn(()) -> () = |()| print!("{}", read_to_string(stdin()).unwrap());
    /// let mut process = Process::builder().stdin_piped().stdout_piped().spawn(copy, ())?;
    /// process.stdin.take().unwrap().write_all(b"hello")?;
    /// assert_eq!(read_to_string(process.stdout.take().unwrap())?, "hello");
    /// process.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stdin_piped(self) -> Self {
        self.pipe(0)
    }

    /// Joins the process's standard output to a pipe: see [`Process::stdout`] for the end to read
    /// from. A process that is not read from stops when the pipe is full, which it is at 64 KiB.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::read_to_string;
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let mut process = Process::builder().stdout_piped().spawn(|()| print!("hello"), ())?;
    /// assert_eq!(read_to_string(process.stdout.take().unwrap())?, "hello");
    /// process.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "piped")]
    pub fn stdout_piped(self) -> Self {
        self.pipe(1)
    }

    /// Joins the process's standard error to a pipe: see [`Process::stderr`] for the end to read
    /// from, and [`stdout_piped`](Builder::stdout_piped) for what a full one does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::read_to_string;
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let mut process = Process::builder().stderr_piped().spawn(|()| eprint!("no such file"), ())?;
    /// assert_eq!(read_to_string(process.stderr.take().unwrap())?, "no such file");
    /// process.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stderr_piped(self) -> Self {
        self.pipe(2)
    }

    fn pipe(mut self, stream: usize) -> Self {
        self.piped[stream] = true;
        self
    }

    /// Sets how much the process gives way to others: from -20, not at all, to 19. It is as this
    /// process's without.
    ///
    /// Another number is an error of `spawn`. Less than this process's takes a privilege; without it,
    /// `join` says so.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let sum = Process::builder().niceness(19).spawn(|n: u64| (0..n).sum::<u64>(), 1000)?;
    /// assert_eq!(sum.join()?, 499_500);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    #[doc(alias = "nice")]
    #[doc(alias = "priority")]
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.changes.be_nice(niceness);
        self
    }

    /// Sets how much the process may use of a resource, at most: see [`Limit`] for what happens then.
    /// It is as much as this process may, without.
    ///
    /// The process itself sees to it, before it reads its argument. What it starts has the limit too,
    /// and none of them can raise it. More than this process can have takes a privilege; without it,
    /// `join` says so.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use multiproc_process::{Limit, Process, init};
    ///
    /// init();
    /// let process = Process::builder().limit(Limit::OpenFiles, 20).spawn(
    ///     |()| {
    ///         let files: Vec<_> = (0..20).map_while(|_| File::open("/dev/null").ok()).collect();
    ///         files.len()
    ///     },
    ///     (),
    /// )?;
    /// assert!(process.join()? < 20);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    #[doc(alias = "rlimit")]
    #[doc(alias = "ulimit")]
    pub fn limit(mut self, limit: Limit, most: u64) -> Self {
        self.changes.limit(limit, most);
        self
    }

    /// Sets the process group that the process joins, as `std::os::unix::process::CommandExt` has it: 0
    /// is a new one of its own. It is this process's, without.
    ///
    /// Ctrl-C at a terminal does not reach a group of its own, and such a process is stopped when it
    /// reads from the terminal.
    ///
    /// The process itself joins it, before its function runs. If it cannot, `join` says so. A negative
    /// number is an error of `spawn`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::builder().process_group(0).spawn(|x: u64| x + 1, 1)?;
    /// assert_eq!(process.join()?, 2);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    #[doc(alias = "setpgid")]
    pub fn process_group(mut self, group: i32) -> Self {
        self.changes.join_group(group);
        self
    }

    /// Sets whether the process ignores `SIGINT`, as of Ctrl-C, or is ended by it. It ignores it if this
    /// process does, without.
    ///
    /// A process started by [`StartMethod::Spawn`] or [`StartMethod::Fork`] sees to it itself, before
    /// its function runs, and may be ended by a `SIGINT` that comes earlier.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let forever = |()| std::thread::sleep(std::time::Duration::MAX);
    /// let process = Process::builder().ignore_interrupt(true).spawn(forever, ())?;
    /// process.interrupt()?;
    /// process.terminate()?;
    /// assert_eq!(process.join().unwrap_err().signal(), Some(15));
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn ignore_interrupt(mut self, ignore: bool) -> Self {
        self.changes.set_ignore_interrupt(ignore);
        self
    }

    /// Sets whether the process is killed when its handle is dropped. It runs on, without.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, active_children, init};
    ///
    /// init();
    /// let forever = |()| std::thread::sleep(std::time::Duration::MAX);
    /// let process = Process::builder().kill_on_drop(true).spawn(forever, ())?;
    /// drop(process);
    /// while !active_children()?.is_empty() {
    ///     std::thread::yield_now();
    /// }
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn kill_on_drop(mut self, kill: bool) -> Self {
        self.kill_on_drop = kill;
        self
    }

    /// Starts the process: see [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`], and if a variable cannot stand in an environment, or there is no such
    /// niceness or process group. What only the process itself finds out is an error of `join`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, init};
    ///
    /// init();
    /// let process = Process::builder().name("adder").spawn(|(a, b): (u64, u64)| a + b, (2, 3))?;
    /// assert_eq!(process.join()?, 5);
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    pub fn spawn<A, R>(self, function: fn(A) -> R, argument: A) -> Result<Process<R>, Error>
    where
        A: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
    {
        spawn::spawn(self.into_settings(), function, argument)
    }

    pub(crate) fn into_settings(self) -> Settings {
        Settings {
            name: self.name.unwrap_or_else(next_name),
            daemon: self.daemon,
            start_method: self.start_method,
            changes: self.changes,
            kill_on_drop: self.kill_on_drop,
            piped: self.piped,
        }
    }
}

/// A finished [`Builder`].
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) start_method: StartMethod,
    pub(crate) changes: Changes,
    pub(crate) kill_on_drop: bool,
    pub(crate) piped: [bool; 3],
}

fn next_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("Process-{}", NEXT.fetch_add(1, Relaxed))
}
