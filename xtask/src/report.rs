//! The tables that close a run of several things.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};

/// What was run, how long each took, and how it ended.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, Duration, Option<Error>)>,
}

impl Report {
    /// Runs `work` and notes how it ended; returns whether it went well.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        let started = Instant::now();
        let error = work().err();
        let well = error.is_none();
        self.rows.push((name.to_string(), started.elapsed(), error));
        well
    }

    /// Returns the names of what failed.
    pub(crate) fn failed(&self) -> Vec<&str> {
        let failed = self.rows.iter().filter(|(_, _, error)| error.is_some());
        failed.map(|(name, ..)| name.as_str()).collect()
    }

    /// Returns the table, without a final line break.
    pub(crate) fn table(&self) -> String {
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        let lines = self.rows.iter().map(|(name, time, error)| {
            let end = match error {
                None => "ok".to_string(),
                Some(error) => format!("failed: {error:#}"),
            };
            format!("  {name:width$}  {:>7.2} s  {end}", time.as_secs_f64())
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_failed() {
        let mut report = Report::default();
        assert!(report.run("good", || Ok(())));
        assert!(!report.run("very bad", || anyhow::bail!("exited with 3")));
        assert_eq!(report.failed(), ["very bad"]);
        let table = report.table();
        assert_eq!(
            table,
            "  good         0.00 s  ok\n  very bad     0.00 s  failed: exited with 3"
        );
    }
}
