//! `cargo xtask test`: all tests, and how many there were.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;

/// Far more than all tests take, and less than anybody should wait for one that hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs the tests and prints their number as the last line.
pub(crate) fn run() -> Result<()> {
    let (counts, outcome) = run_and_count()?;
    println!("\n{counts}");
    outcome
}

/// Runs the tests; returns their number and whether all went well.
pub(crate) fn run_and_count() -> Result<(Counts, Result<()>)> {
    // The programs and the benchmarks have no tests, and many libraries; `cargo xtask demos` runs the former.
    let line =
        "test --workspace --exclude multiproc-examples --exclude multiproc-bench --no-fail-fast";
    let mut cargo = command::cargo(line);
    let mut child = command::spawn(cargo.stdout(Stdio::piped()))?;
    let output = child.stdout.take().context("the output of cargo is not piped")?;
    // The limit is kept by the waiter, since a test that hangs prints nothing.
    let waiter = std::thread::spawn(move || command::wait_within(child, LIMIT));
    let counts = pass_on(output, io::stdout())?;
    let ended = waiter.join().expect("the waiter does not panic");
    let outcome = ended.and_then(|()| match counts.failed {
        0 => Ok(()),
        failed => bail!("{failed} tests failed"),
    });
    Ok((counts, outcome))
}

/// How many tests were run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Copies the output line by line as it comes, and adds up the results that it states.
fn pass_on(output: impl Read, mut to: impl Write) -> io::Result<Counts> {
    let mut output = BufReader::new(output);
    let mut counts = Counts::default();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        if let Some(result) = parse(&String::from_utf8_lossy(&line)) {
            counts.passed += result.passed;
            counts.failed += result.failed;
            counts.skipped += result.skipped;
        }
        line.clear();
    }
    Ok(counts)
}

/// Reads a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`.
fn parse(line: &str) -> Option<Counts> {
    // A test may have printed something before it on the same line.
    let (_, result) = line.split_once("test result: ")?;
    let (_, numbers) = result.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split(';') {
        match part.trim().split_once(' ') {
            Some((number, "passed")) => counts.passed = number.parse().ok()?,
            Some((number, "failed")) => counts.failed = number.parse().ok()?,
            Some((number, "ignored")) => counts.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; \
        7 filtered out; finished in 0.12s";
    const FAILED: &str = "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; \
        0 filtered out; finished in 1.00s";

    #[test]
    fn results_are_read() {
        assert_eq!(parse(OK), Some(Counts { passed: 3, failed: 0, skipped: 1 }));
        assert_eq!(parse(FAILED), Some(Counts { passed: 10, failed: 2, skipped: 0 }));
        let after_output = format!("no line break{OK}");
        assert_eq!(parse(&after_output), parse(OK));
        let coloured = OK.replace("ok", "\x1b[32mok\x1b[m");
        assert_eq!(parse(&coloured), parse(OK));
    }

    #[test]
    fn other_lines_are_not() {
        for line in ["", "running 3 tests", "test a_test ... ok", "test result: ", "3 passed"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn output_is_passed_on_and_added_up() {
        let output = format!("running\n\n{OK}\nnot \u{fffd} text\n{FAILED}");
        let mut copy = Vec::new();
        let counts = pass_on(output.as_bytes(), &mut copy).unwrap();
        assert_eq!(String::from_utf8(copy).unwrap(), output);
        assert_eq!(counts.to_string(), "13 passed, 2 failed, 1 skipped");
        assert_eq!(Counts { skipped: 0, ..counts }.to_string(), "13 passed, 2 failed");
    }
}
