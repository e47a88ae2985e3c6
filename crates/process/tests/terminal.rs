//! Proves that Ctrl-C at a terminal ends a program and its children as a shell's user expects: no
//! traceback is printed, and nobody is left.
//!
//! The shell must stay when its program ends. If it were the program itself that leads the session,
//! its end would hang up the terminal, which ends whoever an interrupt has not.
#![allow(unsafe_code)] // A terminal of its own.

mod common;

use std::fs::File;
use std::io::{Read, Write, stdout};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::ptr;

use common::{METHODS, hang};
use multiproc_process::{Process, StartMethod};

const PART: &str = "TEST_PART";
const PROGRAM: &str = "TEST_PROGRAM";

fn main() {
    common::init();
    match std::env::var(PART).as_deref() {
        Ok("shell") => be_a_shell(),
        Ok("nest") => nest(),
        Ok("spawn") => spawn_many(),
        _ => common::run(&[
            ("an_interrupt_ends_all", an_interrupt_ends_all),
            ("an_interrupt_amid_spawns_ends_all", an_interrupt_amid_spawns),
        ]),
    }
}

/// Children of all kinds, daemons and others, one inside the other, until it is interrupted.
fn nest() {
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

/// Starts children that are no daemons, one after the other, until it is interrupted.
fn spawn_many() {
    const ENOUGH: u32 = 100;
    common::watchdog();
    for _ in 0..ENOUGH {
        let hangs = |()| -> () {
            common::watchdog();
            hang()
        };
        Process::builder().start_method(StartMethod::ForkServer).spawn(hangs, ()).unwrap();
        print!(".");
        stdout().flush().unwrap();
    }
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

/// Who else is in the session that this process leads, as `/proc` describes them.
fn others() -> Vec<String> {
    let own = std::process::id();
    let mut others = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Ok(stat) = std::fs::read_to_string(entry.unwrap().path().join("stat")) else {
            continue;
        };
        let Some((process, fields)) = stat.rsplit_once(')') else { continue };
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next().unwrap();
        // Whoever has adopted a zombie reaps it in its own time.
        let lives = fields.nth(2).unwrap().parse() == Ok(own) && state != "Z";
        if lives && !process.starts_with(&format!("{own} ")) {
            others.push(stat);
        }
    }
    others
}

/// Runs the program in the foreground and sees that nobody is left of it.
fn be_a_shell() {
    common::watchdog();
    let mut command = Command::new("/proc/self/exe");
    command.env(PART, std::env::var(PROGRAM).unwrap()).process_group(0);
    let to_foreground = || {
        // SAFETY: sets dispositions, and the terminal's group, which stops one in the background.
        let result = unsafe {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGTTOU, libc::SIG_IGN);
            let result = libc::tcsetpgrp(0, libc::getpid());
            libc::signal(libc::SIGTTOU, libc::SIG_DFL);
            result
        };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: makes five system calls and allocates nothing.
    unsafe { command.pre_exec(to_foreground) };
    let status = command.spawn().unwrap().wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT));
    common::eventually("the end of all", || others().is_empty());
}

/// What the program has written for a user who starts it from a shell and interrupts it after that.
fn interrupt(program: &str, after: &str) -> String {
    let (mut user, theirs) = terminal();
    let mut command = Command::new("/proc/self/exe");
    command.env(PART, "shell").env(PROGRAM, program).stdin(theirs.try_clone().unwrap());
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let attach = || {
        // SAFETY: makes the standard input the terminal of a new session.
        match unsafe { libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) != -1 } {
            true => Ok(()),
            false => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: makes two system calls and allocates nothing.
    unsafe { command.pre_exec(attach) };
    let mut shell = command.spawn().unwrap();
    // It has descriptors of the terminal.
    drop(command);
    let mut output = Vec::new();
    let mut byte = [0];
    while !output.ends_with(after.as_bytes()) {
        user.read_exact(&mut byte).unwrap();
        output.push(byte[0]);
    }
    user.write_all(&[3]).unwrap();
    // Linux says EIO when nobody has the other end any more.
    while user.read_exact(&mut byte).is_ok() {
        output.push(byte[0]);
    }
    let output = String::from_utf8(output).unwrap();
    assert!(shell.wait().unwrap().success(), "{output}");
    // The terminal's own echo, which is lost if all have ended before it.
    output.replace("^C", "")
}

fn an_interrupt_ends_all() {
    for _ in 0..5 {
        assert_eq!(interrupt("nest", "ready\r\n"), "ready\r\n");
    }
}

fn an_interrupt_amid_spawns() {
    for children in 1..=20 {
        let output = interrupt("spawn", &".".repeat(children));
        assert_eq!(output.replace('.', ""), "");
    }
}
