//! `cargo xtask bench`: the comparisons with our peers, and the report on them.

use std::ffi::OsString;

use anyhow::Result;

use crate::command;

/// Passes the words on. The report is a program of its own, so that only those who want it wait for the
/// libraries that it draws with.
pub(crate) fn run(args: Vec<OsString>) -> Result<()> {
    let mut cargo = command::cargo("run --quiet --release --package multiproc-report --");
    cargo.args(args);
    command::run(cargo)
}
