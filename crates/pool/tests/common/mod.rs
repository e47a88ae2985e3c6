//! What the tests of the pool share.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use multiproc_wire::Fd;
use rustix::process::{Pid, Signal, kill_process};

/// Ends the test binary if it runs for too long.
pub(crate) fn watchdog() {
    watchdog_of(Duration::from_secs(120));
}

/// Ends the test binary if it runs for longer than this. The first call counts.
pub(crate) fn watchdog_of(time: Duration) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(move || {
            #[allow(clippy::disallowed_methods)] // The one thing that waits for time itself.
            std::thread::sleep(time);
            eprintln!("the watchdog ends this test: it hangs");
            std::process::abort();
        });
    });
}

/// Waits for something that has no event. The watchdog sees to it that this ends.
pub(crate) fn eventually(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
}

/// Says why a test does not run.
pub(crate) fn skipped(why: impl std::fmt::Display) {
    let line = format!("skipped: {why}\n");
    // The harness captures what is printed by macros.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Sends `SIGKILL`.
pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).unwrap();
    let _gone = kill_process(pid, signal);
}

/// The children of a process.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{of}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| {
            line.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

/// The argument of a task that says when it runs, and the end where that is heard.
pub(crate) fn task_that_waits() -> (Fd<File>, Running) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(writer)).into(), Running(reader))
}

pub(crate) struct Running(PipeReader);

impl Running {
    pub(crate) fn wait(mut self) {
        self.wait_for(1);
    }

    /// Waits until so many have said it.
    pub(crate) fn wait_for(&mut self, count: usize) {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
    }
}

/// Says that it runs, and never returns.
pub(crate) fn wait_for_ever<R>(says: &Fd<File>) -> R {
    say(says);
    hang()
}

/// Says that it runs.
pub(crate) fn say(says: &Fd<File>) {
    let mut file: &File = says;
    file.write_all(b"r").unwrap();
}

/// Never returns.
pub(crate) fn hang<R>() -> R {
    loop {
        std::thread::park();
    }
}

/// Where tasks wait until they are let through.
pub(crate) fn gate() -> (Fd<File>, Gate) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(reader)).into(), Gate(writer))
}

/// Opens the gate for all when it is dropped.
pub(crate) struct Gate(PipeWriter);

impl Gate {
    /// Lets so many tasks through.
    pub(crate) fn let_through(&self, count: usize) {
        (&self.0).write_all(&vec![b'g'; count]).unwrap();
    }
}

/// Waits at a gate.
pub(crate) fn pass(gate: &Fd<File>) {
    let mut file: &File = gate;
    let _passed = file.read(&mut [0]).unwrap();
}

/// A file to which several processes append, and which all can count.
pub(crate) struct Log(File);

pub(crate) fn log() -> (Fd<File>, Log) {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let writer = File::options().append(true).open(&path).unwrap();
    (writer.into(), Log(File::open(&path).unwrap()))
}

/// Appends a line.
pub(crate) fn note(log: &Fd<File>, line: impl std::fmt::Display) {
    let mut file: &File = log;
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

impl Log {
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Numbers that look random, the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    /// With the seed that the environment names, or one of its own; says which.
    pub(crate) fn new() -> Self {
        let named = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let own = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64) | 1;
        let seed = named.unwrap_or_else(own);
        println!("SEED={seed}");
        Dice(seed)
    }

    /// With a seed that is not zero.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Dice(seed)
    }

    /// Less than `bound`.
    pub(crate) fn roll(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}
