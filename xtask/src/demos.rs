//! `cargo xtask demos`: the programs of the tutorial, in its order.

use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::report::Report;

/// No demo takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(300);

/// How they are compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    /// As the tests are: soon compiled, most libraries long since, and slow.
    Dev,
    /// As a user's program is.
    Release,
}

impl Profile {
    fn build(self, what: &str) -> Command {
        let release = match self {
            Profile::Dev => "",
            Profile::Release => "--release",
        };
        command::cargo(&format!("build {release} --package multiproc-examples {what}"))
    }

    fn directory(self) -> &'static str {
        match self {
            Profile::Dev => "debug/examples",
            Profile::Release => "release/examples",
        }
    }
}

/// Runs all of them and prints how each went.
pub(crate) fn run_all(profile: Profile) -> Result<()> {
    let demos = all()?;
    command::run(profile.build("--examples")).context("the demos do not build")?;
    let mut report = Report::default();
    for demo in &demos {
        println!("\n=== {}: {}", demo.name, demo.shows);
        report.run(&demo.name, || demo.run(profile, vec![]));
    }
    println!("\nDemos:\n{}", report.table());
    match report.failed() {
        failed if failed.is_empty() => Ok(()),
        failed => bail!("{} of {} demos failed: {}", failed.len(), demos.len(), failed.join(", ")),
    }
}

/// Runs one of them with `args`.
pub(crate) fn run_one(name: &str, args: Vec<OsString>) -> Result<()> {
    let demos = all()?;
    let Some(demo) = demos.iter().find(|demo| demo.name == name) else {
        let names: Vec<_> = demos.iter().map(|demo| demo.name.as_str()).collect();
        bail!("there is no demo {name:?}; there are {}", names.join(", "));
    };
    let profile = Profile::Release;
    let build = profile.build(&format!("--quiet --example {name}"));
    command::run(build).with_context(|| format!("demo {name} does not build"))?;
    demo.run(profile, args).with_context(|| format!("demo {name}"))
}

/// Prints the name of each and what it shows.
pub(crate) fn list() -> Result<()> {
    let demos = all()?;
    let width = demos.iter().map(|demo| demo.name.len()).max().unwrap_or(0);
    for Demo { name, shows } in demos {
        println!("{name:width$}  {shows}");
    }
    Ok(())
}

struct Demo {
    name: String,
    shows: String,
}

impl Demo {
    fn run(&self, profile: Profile, args: Vec<OsString>) -> Result<()> {
        let program = command::target_dir()?.join(profile.directory()).join(&self.name);
        let child = command::spawn(Command::new(program).args(args))?;
        command::wait_within(child, LIMIT)
    }
}

/// The manifest gives the names and their order, the first line of each file what it shows.
fn all() -> Result<Vec<Demo>> {
    let folder = command::root().join("examples");
    let read = |file: &str| {
        let path = folder.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let manifest = read("Cargo.toml")?;
    names(&manifest)
        .map(|name| {
            let source = read(&format!("{name}.rs"))?;
            let shows = first_doc_line(&source)
                .with_context(|| format!("examples/{name}.rs does not begin with //!"))?;
            Ok(Demo { name: name.to_string(), shows: shows.to_string() })
        })
        .collect()
}

/// Returns the names of the `[[example]]` entries.
fn names(manifest: &str) -> impl Iterator<Item = &str> {
    let entries = manifest.split("[[example]]").skip(1);
    entries.filter_map(|entry| entry.split_once("name = \"")?.1.split('"').next())
}

fn first_doc_line(source: &str) -> Option<&str> {
    source.lines().next()?.strip_prefix("//!").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_the_manifest() {
        let manifest = "[package]\nname = \"all\"\n\n\
            [[example]]\nname = \"b\"\npath = \"b.rs\"\n\n[[example]]\nname = \"a\"\npath = \"a.rs\"\n";
        assert_eq!(names(manifest).collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn the_first_line_says_what_a_demo_shows() {
        assert_eq!(first_doc_line("//! A queue.\n//! More.\n"), Some("A queue."));
        assert_eq!(first_doc_line("fn main() {}\n"), None);
        assert_eq!(first_doc_line(""), None);
    }

    #[test]
    fn every_demo_can_be_listed() {
        let demos = all().unwrap();
        assert!(!demos.is_empty());
        assert!(demos.iter().all(|demo| !demo.shows.is_empty()));
    }
}
