//! What is told to whoever subscribes to the events of the `tracing` crate: the one place that knows
//! of it. Without the feature these functions are empty.
#![cfg_attr(not(feature = "tracing"), expect(unused_variables))]

use std::process::ExitStatus;

use crate::start_method::StartMethod;

/// As the umbrella names this crate.
#[cfg(feature = "tracing")]
const TARGET: &str = "multiproc::process";

pub(crate) fn started(name: &str, pid: u32, method: StartMethod) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: TARGET, name, pid, ?method, "started");
}

pub(crate) fn ended(name: &str, pid: u32, status: Option<ExitStatus>) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: TARGET, name, pid, status = status.map(tracing::field::display), "ended");
}

pub(crate) fn signalled(name: &str, pid: u32, signal: i32) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: TARGET, name, pid, signal, "signalled");
}
