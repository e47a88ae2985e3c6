//! A NATS server, agents and drivers as processes of their own. Each test binary is all of them: see
//! [`run`].
#![allow(dead_code)] // Each test binary uses a part of it.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use async_nats::jetstream;
use multiproc_nats::{Options, Pool};
use multiproc_pool::Pool as Workers;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) use multiproc_harness::eventually;

pub(crate) const KEY: &[u8] = b"the key of the tests";

/// A result that is late by so much hangs. The harness's watchdog is behind it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// What a test binary does: it is an agent, a server or a driver if it is called so, else it runs tests.
pub(crate) fn run(tests: &[(&str, fn())], driver: fn(&[String])) {
    multiproc_process::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--agent") => {
            multiproc_harness::end_with_parent();
            let name = &arguments[2];
            let ack_wait = Duration::from_millis(arguments[3].parse().unwrap());
            let workers = Workers::builder().workers(arguments[4].parse().unwrap());
            let options = options(name).ack_wait(ack_wait).workers(workers);
            if let Err(error) = multiproc_nats::agent(&arguments[1], options) {
                eprintln!("{error}");
                std::process::exit(3);
            }
        }
        Some("--server") => {
            multiproc_harness::end_with_parent();
            panic!("{}", Command::new("nats-server").args(&arguments[1..]).exec());
        }
        Some("--driver") => {
            multiproc_harness::end_with_parent();
            multiproc_harness::watchdog();
            driver(&arguments[1..]);
        }
        _ if !has_server() => {
            println!("skipped: nats-server is not installed (Debian package nats-server)");
        }
        _ => multiproc_harness::run(tests),
    }
}

/// For binaries without drivers of their own.
pub(crate) fn no_driver(_: &[String]) {}

fn has_server() -> bool {
    let version = Command::new("nats-server").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// What all drivers and agents of the tests have.
pub(crate) fn options(name: &str) -> Options {
    Options::new(KEY).name(name).lease(Duration::from_secs(2))
}

/// A process that is killed when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Running(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends `SIGKILL`, and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ended = self.0.kill();
        self.0.wait().unwrap();
    }

    pub(crate) fn terminate(&self) {
        signal(self.pid(), Signal::TERM);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server with a directory and a port of its own.
pub(crate) struct Server {
    dir: TempDir,
    port: u16,
    more: Vec<String>,
    running: Running,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// One that is given these arguments as well.
    pub(crate) fn with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let more: Vec<String> = more.iter().map(|&word| word.to_owned()).collect();
        let running = Self::run(dir.path(), port, &more);
        Server { dir, port, more, running }
    }

    fn run(dir: &Path, port: u16, more: &[String]) -> Running {
        let mut command = Command::new(exe());
        command.args(["--server", "-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]);
        command.arg(dir.join("store")).arg("-l").arg(dir.join("log")).args(more);
        let running = Running::start(&mut command);
        eventually("a server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        running
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.running.kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.running = Self::run(self.dir.path(), self.port, &self.more);
    }

    /// Has it forget everything. It must not run.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.dir.path().join("store")).unwrap();
    }

    pub(crate) fn connect(&self) -> Pool {
        Pool::connect(&self.url(), options("test")).unwrap()
    }

    /// An agent with two workers.
    pub(crate) fn agent(&self) -> Running {
        self.agent_with(Duration::from_secs(30), 2)
    }

    pub(crate) fn agent_with(&self, ack_wait: Duration, workers: usize) -> Running {
        Running::start(&mut agent_command(exe(), &self.url(), ack_wait, workers))
    }

    /// A process that runs this binary's `driver`.
    pub(crate) fn driver(&self, arguments: &[&str]) -> Running {
        Running::start(Command::new(exe()).arg("--driver").arg(self.url()).args(arguments))
    }

    /// What is in a stream: the number of messages, and that of the last.
    pub(crate) fn messages(&self, stream: &str) -> (u64, u64) {
        messages_at(&self.url(), stream)
    }

    /// Asks the server something without the library.
    pub(crate) fn ask<R>(&self, ask: impl AsyncFnOnce(jetstream::Context) -> R) -> R {
        ask_at(&self.url(), ask)
    }
}

/// Asks the server at `url` something without the library.
pub(crate) fn ask_at<R>(url: &str, ask: impl AsyncFnOnce(jetstream::Context) -> R) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        ask(jetstream::new(client)).await
    })
}

/// What is in a stream: the number of messages, and that of the last.
pub(crate) fn messages_at(url: &str, stream: &str) -> (u64, u64) {
    let stream = stream.to_owned();
    ask_at(url, async move |context| {
        let mut stream = context.get_stream(stream).await.unwrap();
        let state = &stream.info().await.unwrap().state;
        (state.messages, state.last_sequence)
    })
}

pub(crate) fn agent_command(
    program: PathBuf,
    url: &str,
    ack_wait: Duration,
    workers: usize,
) -> Command {
    let mut command = Command::new(program);
    command.args(["--agent", url, "test", &ack_wait.as_millis().to_string()]);
    command.arg(workers.to_string());
    command
}

pub(crate) fn exe() -> PathBuf {
    std::env::current_exe().unwrap()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let _gone = kill_process(Pid::from_raw(pid as i32).unwrap(), signal);
}

/// Tells whether a process runs.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Appends a line to a file. Tasks have no other way to be heard of, on whatever host they are.
pub(crate) fn note(path: &str, line: impl std::fmt::Display) {
    use std::io::Write;
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

pub(crate) fn lines(path: &str) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Makes a file, unless it is there. Returns whether it did.
pub(crate) fn is_first(path: &str) -> bool {
    File::options().write(true).create_new(true).open(path).is_ok()
}

/// Waits in a task until a file is there.
pub(crate) fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Works for about so long.
pub(crate) fn work(time: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < time {
        std::thread::park_timeout(time - start.elapsed());
    }
}

/// A task that says who runs it, and never returns.
pub(crate) fn hang(log: String) {
    note(&log, std::process::id());
    loop {
        std::thread::park();
    }
}

/// The agent, in a task of one.
pub(crate) fn parent() -> u32 {
    multiproc_process::parent_process().unwrap().unwrap().pid()
}
