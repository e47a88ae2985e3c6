//! Running other programs.

use std::io::{self, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Returns the top of the repository.
pub(crate) fn root() -> PathBuf {
    // As `cargo run` says: what was compiled in is another checkout's if they share a target directory.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let own = own.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    own.parent().expect("xtask stands in the workspace").to_path_buf()
}

/// Returns the directory that holds the `debug` and `release` directories of this build.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).context("xtask was not started by cargo")?;
    Ok(target.to_path_buf())
}

/// Returns a cargo command whose arguments are the words of `line`.
pub(crate) fn cargo(line: &str) -> Command {
    // Inside `cargo run` this names the cargo, and so the toolchain, that started us.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(line.split_whitespace()).current_dir(root());
    // `cargo run` set these for us; build scripts that watch them would run again and again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `command` to its end; anything but success is an error that says how it ended.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("cannot start {program:?}"))?;
    if !status.success() {
        bail!("{}", describe(status));
    }
    Ok(())
}

/// Starts `command` so that [`wait_within`] can end it with all its children.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    // Before a keyboard it stays in our group, or Ctrl-C would not reach it.
    if !io::stdin().is_terminal() {
        command.process_group(0);
    }
    let program = command.get_program().to_owned();
    command.spawn().with_context(|| format!("cannot start {program:?}"))
}

/// Waits for `child`; kills it once `limit` has passed.
pub(crate) fn wait_within(mut child: Child, limit: Duration) -> Result<()> {
    let pid = child.id();
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || _ = ended.send(child.wait()));
    let status = match end.recv_timeout(limit) {
        Ok(status) => status?,
        Err(_) => {
            kill(pid)?;
            _ = waiter.join();
            bail!("killed: it ran for more than {} s", limit.as_secs());
        }
    };
    if !status.success() {
        bail!("{}", describe(status));
    }
    Ok(())
}

fn kill(pid: u32) -> Result<()> {
    let target = if io::stdin().is_terminal() { pid.to_string() } else { format!("-{pid}") };
    // std can kill no group, and every system that runs us has a shell.
    run({
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("kill -s KILL -- {target}"));
        shell
    })
}

/// Says how a program ended.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn the_end_of_a_program_is_named() {
        let end = |script| run(shell(script)).map_err(|error| error.to_string());
        assert_eq!(end("exit 0"), Ok(()));
        assert_eq!(end("exit 3"), Err("exited with 3".into()));
        assert_eq!(end("kill -s KILL $$"), Err("killed by signal 9".into()));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let child = spawn(&mut shell("sleep 100")).unwrap();
        let error = wait_within(child, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().starts_with("killed:"), "{error}");
    }
}
