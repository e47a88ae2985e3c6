//! Proves that a setuid program takes orders from nobody: whoever runs it chooses its environment
//! and its standard input, which is all that a child is recognised by.

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use multiproc_os::deadline::Deadline;
use multiproc_process::Process;
use multiproc_wire::Endpoint;

const PART: &str = "TEST_PART";

fn main() {
    let setuid = std::env::var_os(PART).is_some();
    multiproc_process::init();
    if setuid {
        let error = Process::spawn(|()| (), ()).unwrap_err();
        println!("reached main; {error}");
        return;
    }
    common::run(&[("a_setuid_program_takes_over_for_nobody", takes_over_for_nobody)]);
}

fn takes_over_for_nobody() {
    if !rustix::process::geteuid().is_root() {
        println!("    skipped: only root can make a program of root's setuid");
        return;
    }
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("program");
    fs::copy("/proc/self/exe", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();

    for role in ["spawned", "fork-server"] {
        let (here, there) = Endpoint::pair().unwrap();
        let inode = {
            let fd = there.as_fd().try_clone_to_owned().unwrap();
            fs::File::from(fd).metadata().unwrap().ino()
        };
        let mut command = Command::new(&program);
        command.uid(65534).gid(65534).current_dir("/").env_clear().env(PART, "1");
        command.env("MULTIPROC_CHILD", format!("{role}:{inode}"));
        command.stdin(Stdio::from(there.as_fd().try_clone_to_owned().unwrap()));
        drop(there);
        let output = command.output().unwrap();
        // It has kept the socket.
        drop(command);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("reached main; "), "{role}: {text}");
        assert!(text.contains("setuid"), "{text}");
        assert!(here.recv::<u8>(Deadline::NEVER).unwrap_err().is_closed(), "it said something");
    }
}
