//! What was measured on, and with which versions.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The peers whose versions are told, as cargo names them.
const CRATES: [&str; 7] = [
    "crossbeam-channel",
    "iceoryx2",
    "ipc-channel",
    "parking_lot",
    "procspawn",
    "raw_sync",
    "rayon",
];

/// And as pip does.
const PACKAGES: [&str; 3] = ["loky", "mpire", "pillow"];

/// The machine, its kernel, and the versions of all that took part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, and how many may be used.
    pub processor: String,
    /// The kernel's release, and whether it runs on another.
    pub kernel: String,
    /// The memory in mebibytes.
    pub memory: u64,
    /// How many processes wanted to run in the minute before.
    pub load: String,
    /// The state of this repository.
    pub revision: String,
    /// Names and versions.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// Asks this one. `root` is the top of the repository, `python` the interpreter if there is one.
    pub fn look(root: &Path, python: Option<&Path>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = field(&cpuinfo, "model name").unwrap_or("a processor without a name");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let guest = field(&cpuinfo, "flags").is_some_and(|flags| flags.contains("hypervisor"));
        let kibibytes = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|size| size.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0);
        let mut versions = Vec::new();
        let mut add = |name: &str, version: Option<String>| {
            versions.extend(version.map(|version| (name.to_string(), version)));
        };
        let word = |text: String| text.split_whitespace().nth(1).map(String::from);
        add("rustc", output(Command::new("rustc").arg("--version")).and_then(word));
        let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
        for name in CRATES {
            add(name, locked(&lock, name).map(String::from));
        }
        if let Some(python) = python {
            add("Python", output(Command::new(python).arg("--version")).and_then(word));
            let list = ["-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"];
            let list = output(Command::new(python).args(list)).unwrap_or_default();
            for name in PACKAGES {
                let version = list.lines().find_map(|line| {
                    let (package, version) = line.split_once("==")?;
                    package.eq_ignore_ascii_case(name).then(|| version.to_string())
                });
                add(name, version);
            }
        }
        let git = |words: &str| {
            output(Command::new("git").arg("-C").arg(root).args(words.split_whitespace()))
        };
        let changed = git("status --porcelain").is_some_and(|changes| !changes.is_empty());
        let revision = git("rev-parse --short HEAD").unwrap_or("an unknown state".into());
        Machine {
            processor: format!("{model}, {cores} cores"),
            kernel: format!(
                "Linux {}{}",
                read("/proc/sys/kernel/osrelease").trim(),
                if guest { ", in a virtual machine" } else { "" }
            ),
            memory: kibibytes / 1024,
            load: read("/proc/loadavg").split_whitespace().next().unwrap_or("").into(),
            revision: if changed { format!("{revision} and changes") } else { revision },
            versions,
        }
    }

    /// All of it as lines of text.
    pub fn lines(&self) -> [String; 3] {
        let versions: Vec<_> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        [
            format!("{}, {} MiB of memory", self.processor, self.memory),
            format!("{}; load {} at the start; revision {}", self.kernel, self.load, self.revision),
            versions.join(", "),
        ]
    }
}

/// The value behind `name` and a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// The version of a package in `Cargo.lock`; of several, the one that the benchmarks use.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, ours) = lock.split_once("name = \"multiproc-bench\"\n")?;
    let (ours, _) = ours.split_once("\n]")?;
    let exact = ours.split('"').find_map(|word| word.strip_prefix(name)?.strip_prefix(' '));
    exact.or_else(|| {
        let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        package.split('"').next()
    })
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_versions_are_found() {
        assert_eq!(field("a\t: 1\nmodel name\t: X 2: Y\n", "model name"), Some("X 2: Y"));
        assert_eq!(field("", "model name"), None);
        let package = |name: &str, version: &str, others: &str| {
            let name = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
            format!("{name}dependencies = [\n{others}]\n")
        };
        let lock = package("ipc", "1.1.0", "")
            + &package("ipc", "1.2.0", "")
            + &package("multiproc-bench", "0.1.0", " \"ipc 1.2.0\",\n \"rayon\",\n")
            + &package("rayon", "1.2.3", "");
        assert_eq!(locked(&lock, "rayon"), Some("1.2.3"));
        assert_eq!(locked(&lock, "ipc"), Some("1.2.0"));
        assert_eq!(locked(&lock, "ray"), None);
    }
}
