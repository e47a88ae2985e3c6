//! Contenders in Python.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use multiproc_report::PYTHON;
use rustix::process::{Pid, Signal, kill_process_group};

/// A file of the directory `python`. For each line that it reads it prints two numbers: nanoseconds on
/// the clock and, of all processors together, `-` where it does not know.
#[derive(Clone, Copy)]
pub struct Script {
    /// The name of the file, without its end.
    pub file: &'static str,
    /// The module that it needs.
    pub module: &'static str,
}

impl Script {
    /// Tells whether it can run here.
    pub fn runs(self) -> bool {
        static KNOWN: Mutex<Vec<(&str, bool)>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap();
        if let Some((_, runs)) = known.iter().find(|(module, _)| *module == self.module) {
            return *runs;
        }
        let import = format!("import {}", self.module);
        let output = Command::new(interpreter()).args(["-c", &import]).output();
        let runs = output.is_ok_and(|output| output.status.success());
        if !runs {
            println!("\nskipped: {} has no {}", interpreter(), self.module);
        }
        known.push((self.module, runs));
        runs
    }

    /// Starts it; the number of units is its last argument.
    pub fn start(self, arguments: &[String], units: u64) -> Running {
        let path = format!("{}/python/{}.py", env!("CARGO_MANIFEST_DIR"), self.file);
        let mut command = Command::new(interpreter());
        command.arg(path).args(arguments).arg(units.to_string()).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Running { child, asks, answers }
    }
}

/// A script that has started, and has what it needs. Between its rounds it is stopped with all its
/// processes, so that it takes nothing from others.
pub struct Running {
    child: Child,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Running {
    /// Has it do all its units once. Gives the numbers that it prints.
    pub fn round(&mut self) -> Vec<f64> {
        self.signal(Signal::CONT);
        let mut line = String::new();
        self.asks.as_ref().unwrap().write_all(b"\n").unwrap();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "a script fails");
        self.signal(Signal::STOP);
        line.split_whitespace().map(|word| word.parse().unwrap_or(f64::NAN)).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        drop(self.asks.take());
        assert!(self.child.wait().unwrap().success(), "a script fails");
    }
}

/// Returns a script for Python alone.
pub const fn standard(file: &'static str) -> Script {
    Script { file, module: "multiprocessing" }
}

fn interpreter() -> String {
    std::env::var(PYTHON).unwrap_or_else(|_| "python3".into())
}
