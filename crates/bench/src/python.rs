//! Contenders in Python.

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use crate::PYTHON;
use crate::rounds::Cost;

/// A file of the directory `python`, which prints two numbers: nanoseconds on the clock and, of all
/// processors together, `-` where it does not know.
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

    /// Runs it.
    pub fn run(self, arguments: &[String], units: u64) -> Cost {
        let numbers = self.numbers(arguments, units);
        let [wall, cpu] = [0, 1].map(|at| numbers[at]);
        let time = |nanos: f64| Duration::from_nanos(nanos as u64);
        let cost = Cost::of(time(wall), time(cpu), units);
        Cost { cpu: if cpu.is_nan() { cpu } else { cost.cpu }, ..cost }
    }

    /// Runs it. Gives the numbers that it prints.
    pub fn numbers(self, arguments: &[String], units: u64) -> Vec<f64> {
        let path = format!("{}/python/{}.py", env!("CARGO_MANIFEST_DIR"), self.file);
        let mut command = Command::new(interpreter());
        let output = command.arg(path).args(arguments).arg(units.to_string()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().map(|word| word.parse().unwrap_or(f64::NAN)).collect()
    }
}

/// Returns a script for Python alone.
pub const fn standard(file: &'static str) -> Script {
    Script { file, module: "multiprocessing" }
}

fn interpreter() -> String {
    std::env::var(PYTHON).unwrap_or_else(|_| "python3".into())
}
