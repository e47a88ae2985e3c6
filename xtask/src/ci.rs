//! `cargo xtask ci`: what must pass before a change is merged, the quickest first.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::demos::Profile;
use crate::report::Report;
use crate::test::Counts;
use crate::{command, demos, test};

/// Runs every step; stops at the first that fails, and says how to repeat it.
pub(crate) fn run() -> Result<()> {
    let mut report = Report::default();
    let mut counts = Counts::default();
    let outcome = steps(&mut report, &mut counts);
    println!("\nSteps:\n{}\n\n{counts}", report.table());
    outcome
}

fn steps(report: &mut Report, counts: &mut Counts) -> Result<()> {
    let mut step = |name: &str, repeat: &str, work: &mut dyn FnMut() -> Result<()>| {
        println!("\n### {name}: {repeat}");
        if !report.run(name, work) {
            bail!("{name} failed; to repeat it: {repeat}");
        }
        Ok(())
    };
    let cargo = |line: &str| command::run(command::cargo(line));

    let line = "fmt --all -- --check";
    step("formatting", &format!("cargo {line}"), &mut || cargo(line))?;
    // All targets: the benchmarks are compiled here too.
    let line = "clippy --workspace --all-targets -- -D warnings";
    step("clippy", &format!("cargo {line}"), &mut || cargo(line))?;
    let line = "doc --workspace --all-features --no-deps";
    step("rustdoc", &format!("RUSTDOCFLAGS='-D warnings' cargo {line}"), &mut || {
        let mut cargo = command::cargo(line);
        cargo.env("RUSTDOCFLAGS", "-D warnings");
        command::run(cargo)
    })?;
    // One at a time, so that none leans on a feature that a sibling switched on.
    for name in crates()? {
        let line = format!("check --package {name}");
        step(&format!("{name} alone"), &format!("cargo {line}"), &mut || cargo(&line))?;
    }
    step("tests", "cargo xtask test", &mut || {
        let (ran, outcome) = test::run_and_count()?;
        *counts = ran;
        outcome
    })?;
    step("demos", "cargo xtask demos --dev", &mut || demos::run_all(Profile::Dev))?;
    let line = "run --release --package multiproc-tests --example instructions";
    step("instructions", &format!("cargo {line}"), &mut || cargo(line))
}

/// Returns the names of the packages under `crates`, sorted.
fn crates() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(command::root().join("crates"))? {
        let manifest = entry?.path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        let name = package_name(&text)
            .with_context(|| format!("{} names no package", manifest.display()))?;
        names.push(name.to_string());
    }
    names.sort();
    Ok(names)
}

fn package_name(manifest: &str) -> Option<&str> {
    let (_, package) = manifest.split_once("[package]")?;
    package.split_once("name = \"")?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_package() {
        let manifest = "[[bench]]\nname = \"b\"\n\n[package]\nname = \"multiproc-os\"\n";
        assert_eq!(package_name(manifest), Some("multiproc-os"));
        assert_eq!(package_name("[workspace]\n"), None);
    }

    #[test]
    fn the_umbrella_is_among_the_crates() {
        assert!(crates().unwrap().contains(&"multiproc".to_string()));
    }
}
