//! Proves that Ctrl-C at a terminal ends a program and its children as a shell's user expects: no
//! traceback is printed, and nobody is left.
#![allow(unsafe_code)] // A terminal of its own.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::ptr;

use common::{METHODS, hang};
use multiproc_process::{Process, StartMethod};

const PART: &str = "TEST_PART";

fn main() {
    common::init();
    if std::env::var_os(PART).is_some() {
        return be_a_program();
    }
    common::run(&[("an_interrupt_at_a_terminal_ends_all", an_interrupt_ends_all)]);
}

/// Children of all kinds, daemons and others, one inside the other, until it is interrupted.
fn be_a_program() {
    common::watchdog();
    let mut all = Vec::new();
    for method in METHODS {
        for daemon in [true, false] {
            let builder = Process::builder().daemon(daemon).start_method(method).stdout_piped();
            let nest = |index: usize| -> () {
                common::watchdog();
                let inner = Process::builder().start_method(METHODS[index]).stdout_piped();
                let ready = |()| -> () {
                    common::watchdog();
                    println!("ready");
                    hang()
                };
                let mut inner = inner.spawn(ready, ()).unwrap();
                inner.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
                println!("ready");
                // It is interrupted in here as well.
                let _error = inner.join();
            };
            let index = METHODS.iter().position(|other| *other == method).unwrap();
            let mut process = builder.spawn(nest, index).unwrap();
            process.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
            all.push(process);
        }
    }
    let server = StartMethod::ForkServer;
    Process::builder().start_method(server).spawn(|()| (), ()).unwrap().join().unwrap();
    println!("ready");
    hang()
}

/// The user's end and the program's.
fn terminal() -> (File, File) {
    let (mut user, mut program) = (-1, -1);
    // SAFETY: writes two new descriptors, which nobody else owns.
    unsafe {
        let name = ptr::null_mut();
        assert_eq!(libc::openpty(&mut user, &mut program, name, ptr::null(), ptr::null()), 0);
        libc::fcntl(user, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(program, libc::F_SETFD, libc::FD_CLOEXEC);
        let own = |fd| File::from(OwnedFd::from_raw_fd(fd));
        (own(user), own(program))
    }
}

/// The processes of a session: number and state.
fn members(session: u32) -> Vec<String> {
    let mut members = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(stat) = std::fs::read_to_string(entry.unwrap().path().join("stat")) else {
            continue;
        };
        let mut fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
        let state = fields.next().unwrap();
        // Whoever has adopted a zombie reaps it in its own time.
        if fields.nth(2).unwrap().parse() == Ok(session) && state != "Z" {
            members.push(stat);
        }
    }
    members
}

fn an_interrupt_ends_all() {
    for _ in 0..5 {
        let (mut user, program) = terminal();
        let mut command = Command::new("/proc/self/exe");
        command.env(PART, "1").stdin(program.try_clone().unwrap());
        command.stdout(program.try_clone().unwrap()).stderr(program);
        let attach = || {
            // What was started in the background ignores it.
            // SAFETY: sets the disposition of this process.
            unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
            // SAFETY: makes the standard input the terminal of a new session.
            match unsafe { libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) != -1 } {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: makes three system calls and allocates nothing.
        unsafe { command.pre_exec(attach) };
        let mut shell = command.spawn().unwrap();
        // It has descriptors of the terminal.
        drop(command);
        let mut output = Vec::new();
        let mut byte = [0];
        while !output.ends_with(b"ready\r\n") {
            user.read_exact(&mut byte).unwrap();
            output.push(byte[0]);
        }
        assert!(members(shell.id()).len() > 12, "the program, its children, their servers");
        user.write_all(&[3]).unwrap();
        // Linux says EIO when nobody has the other end any more.
        while user.read_exact(&mut byte).is_ok() {
            output.push(byte[0]);
        }
        assert_eq!(String::from_utf8(output).unwrap(), "ready\r\n^C");
        assert_eq!(shell.wait().unwrap().signal(), Some(libc::SIGINT));
        common::eventually("the end of all", || members(shell.id()).is_empty());
    }
}
