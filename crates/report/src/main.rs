//! Runs the benchmarks and makes a report of what they measure: `cargo xtask bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use multiproc_report::machine::Machine;
use multiproc_report::report::Report;
use multiproc_report::{PYTHON, QUICK, ROWS};

const USAGE: &str = "\
usage: cargo xtask bench [--quick] [--again] [--front-page] [NAME...]

  --quick       fewer rounds and units: less than five minutes
  --again       no measurements: the report of the last ones
  --front-page  put the plot and the table into the README
  NAME          run these benchmarks only: spawn, lock, contention, pipe, queue, shm, pool, work";

/// In the order in which they are run.
const ALL: [&str; 8] = ["spawn", "lock", "contention", "pipe", "queue", "shm", "pool", "work"];

/// The peers that are written in Python, and what blurs there.
const PACKAGES: [&str; 3] = ["loky", "mpire", "pillow"];

/// Where the README has the plot and the table.
const MARKS: [&str; 2] = ["<!-- side by side -->\n", "<!-- end of side by side -->"];

fn main() -> Result<()> {
    let (mut quick, mut again, mut front_page, mut names) = (false, false, false, Vec::new());
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("quick") => quick = true,
            Long("again") => again = true,
            Long("front-page") => front_page = true,
            Short('h') | Long("help") => {
                println!("{USAGE}");
                return Ok(());
            }
            Value(name) if ALL.iter().any(|known| name == *known) => {
                names.push(name.to_string_lossy().into_owned());
            }
            other => bail!("{}\n\n{USAGE}", other.unexpected()),
        }
    }
    if names.is_empty() {
        names.extend(ALL.map(String::from));
    }
    // As `cargo run` says: what was compiled in is another checkout's if they share a target directory.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let own = own.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = own.join("../..").canonicalize()?;
    let dir = output_dir()?;
    let report = if again {
        let json = fs::read_to_string(dir.join("report.json")).context("there is no report")?;
        serde_json::from_str(&json)?
    } else {
        measure(&root, &dir, quick, &names)?
    };
    report.write(&dir)?;
    println!("{}", report.terminal()?);
    println!("The report, its figures and its plots: {}", dir.display());
    if front_page {
        put_on_front_page(&report, &root, &dir)?;
    }
    Ok(())
}

/// Runs the benchmarks of these names.
fn measure(root: &Path, dir: &Path, quick: bool, names: &[String]) -> Result<Report> {
    let python = python(dir);
    let machine = Machine::look(root, python.as_deref());
    println!("{}", machine.lines().join("\n"));
    let rows = dir.join("rows.jsonl");
    if rows.exists() {
        fs::remove_file(&rows)?;
    }
    for name in ALL.iter().filter(|name| names.iter().any(|wanted| wanted == *name)) {
        println!("\n### {name}");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["bench", "--quiet", "--package", "multiproc-bench", "--bench", name]);
        cargo.current_dir(root).env(ROWS, &rows);
        if let Some(python) = &python {
            cargo.env(PYTHON, python);
        }
        if quick {
            cargo.env(QUICK, "1");
        }
        let status = cargo.status().context("cannot start cargo")?;
        if !status.success() {
            bail!("the benchmark {name} failed: {status}");
        }
    }
    Report::read(&rows, machine, quick)
}

/// Makes `target/bench`.
fn output_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).context("it was not started by cargo")?;
    let dir = target.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The interpreter of a virtual environment that has the peers, or the plain one, or none.
fn python(dir: &Path) -> Option<PathBuf> {
    let plain = Path::new("python3");
    if !succeeds(Command::new(plain).arg("--version")) {
        println!("There is no python3: its rows are skipped.");
        return None;
    }
    let venv = dir.join("venv");
    let python = venv.join("bin/python");
    let import = ["-c", "import loky, mpire, PIL"];
    if succeeds(Command::new(&python).args(import)) {
        return Some(python);
    }
    println!("Making {} with {} ...", venv.display(), PACKAGES.join(", "));
    if !succeeds(Command::new(plain).args(["-m", "venv"]).arg(&venv)) {
        println!("No virtual environment can be made: what needs it is skipped.");
        return Some(plain.into());
    }
    for package in PACKAGES {
        if !succeeds(Command::new(&python).args(["-m", "pip", "install", "--quiet", package])) {
            println!("pip cannot install {package}: it is skipped.");
        }
    }
    Some(python)
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Copies the plot to where the README shows it from, and writes the table there.
fn put_on_front_page(report: &Report, root: &Path, dir: &Path) -> Result<()> {
    const PLOT: &str = "crates/bench/overview.svg";
    fs::copy(dir.join("overview.svg"), root.join(PLOT))?;
    let path = root.join("README.md");
    let text = fs::read_to_string(&path)?;
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some((before, after))
    });
    let (before, after) = parts.context("the README has no place for the table")?;
    let [begin, end] = MARKS;
    fs::write(&path, format!("{before}{begin}{}{end}{after}", report.front_page(PLOT)?))?;
    Ok(())
}
