use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::changes::Changes;
use crate::error::Error;
use crate::process::Process;
use crate::spawn;
use crate::start_method::StartMethod;

/// Says how a process is to be started: see [`Process::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "it starts nothing before `spawn`"]
pub struct Builder {
    name: Option<String>,
    daemon: bool,
    start_method: StartMethod,
    changes: Changes,
}

impl Builder {
    /// Names the process, for errors and for [`current_process`](crate::current_process). The name is
    /// `Process-N` without.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the process ends with this one, however this one ends, `SIGKILL` included. It
    /// does not, without.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets how the process comes into being: as [`StartMethod::default`] says, without.
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
        self.changes.redirect(stream, fd);
        self
    }

    /// Starts the process: see [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`], and if a variable cannot stand in an environment.
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
}

fn next_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("Process-{}", NEXT.fetch_add(1, Relaxed))
}
