//! Locks that a C program keeps in named shared memory are joined: both sides count under them, and no
//! count is lost; each sees what the other holds.
#![allow(unsafe_code)] // Joins locks of another program, and counts beside it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use multiproc_os::memory::named::{self, Named};
use multiproc_sync::posix::{Mutex, RwLock};

const ROUNDS: i64 = 50_000;

#[test]
fn a_program_in_c_is_joined() {
    multiproc_harness::watchdog();
    let mut peer = Peer::start();
    // SAFETY: the peer has initialised them, and leaves them there until it ends.
    let (mutex, rwlock) =
        unsafe { (Mutex::open(&peer.name, 0).unwrap(), RwLock::open(&peer.name, 64).unwrap()) };
    let mapping = Named::open(&peer.name).unwrap().map().unwrap();
    let count = |offset| {
        // SAFETY: the two counters are within the mapping, and used under their locks only.
        unsafe {
            let count = mapping.as_ptr().add(offset).cast::<i64>();
            count.write_volatile(count.read_volatile() + 1);
        }
    };

    peer.tell("count");
    for _ in 0..ROUNDS {
        let held = mutex.lock().unwrap();
        count(128);
        drop(held);
        let held = rwlock.write().unwrap();
        count(136);
        drop(held);
    }
    assert_eq!(peer.says(), "counted");
    peer.tell("hold");
    assert_eq!(peer.says(), "holding");
    assert!(mutex.try_lock().unwrap().is_none());
    assert!(rwlock.try_write().unwrap().is_none());
    assert!(rwlock.try_read().unwrap().is_some());
    drop(rwlock.read().unwrap());

    peer.tell("release");
    assert_eq!(peer.says(), "released");
    assert!(mutex.try_lock().unwrap().is_some());
    assert!(rwlock.try_write().unwrap().is_some());

    peer.tell("end");
    assert_eq!(peer.says(), format!("{0} {0}", 2 * ROUNDS));
    assert!(peer.child.wait().unwrap().success());
}

#[test]
fn what_is_no_lock_is_refused() {
    let name = format!("multiproc-no-lock-{}", std::process::id());
    // SAFETY: there is nothing of that name.
    assert!(unsafe { Mutex::open(&name, 0) }.is_err());
    Named::create(100).unwrap().publish(&name).unwrap();
    for offset in [4, 64, 100, usize::MAX, usize::MAX - 7] {
        // SAFETY: none can be there.
        let error = unsafe { Mutex::open(&name, offset) }.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{offset}: {error}");
    }
    named::remove(&name).unwrap();
}

/// The program in C, which runs until it is told to end.
struct Peer {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = directory.join("posix-peer");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posix/peer.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let compiled = Command::new(compiler)
            .args(["-O1", "-pthread", "-o"])
            .args([&program, &source])
            .arg("-lrt")
            .status()
            .expect("this test needs a C compiler");
        assert!(compiled.success());

        let name = format!("multiproc-posix-{}", std::process::id());
        let mut child = Command::new(program)
            .args([&name, &ROUNDS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Peer { name, child, input, output };
        assert_eq!(peer.says(), "ready");
        peer
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _gone = named::remove(&self.name);
        let _ended = self.child.kill();
    }
}
