//! Proves that a receiver without a free descriptor gives a clear error and keeps nothing, and that
//! a sender waits while as many descriptors are under way as its user may have.
//!
//! Limits concern the whole process, so that this is one test in a program of its own. They do not
//! concern root, so that a part of it runs as the user nobody.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_wire::{Endpoint, SharedFd, encode, encode_move};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PART: &str = "TEST_PART";

fn main() {
    watchdog();
    if std::env::var_os(PART).is_some() {
        return as_nobody();
    }
    no_descriptor_for_what_comes();
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("/proc/self/exe");
        command.env(PART, "1").current_dir("/").uid(65534).gid(65534);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    } else {
        as_nobody();
    }
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

#[allow(unsafe_code)] // alarm(2).
fn watchdog() {
    // SAFETY: starts a timer of this process, which ends it.
    unsafe { libc::alarm(60) };
}

fn set_files(soft: u64) {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), ..before }).unwrap();
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Opens files until only `left` more can be opened.
fn leave(left: usize) -> Vec<File> {
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    files.truncate(files.len() - left);
    files
}

fn no_descriptor_for_what_comes() {
    let before = getrlimit(Resource::Nofile);
    set_files(600);
    let null = SharedFd::from(OwnedFd::from(File::open("/dev/null").unwrap()));
    let (here, there) = Endpoint::pair().unwrap();
    let open = open_files();
    for (count, len, needed) in
        [(1, 1, 1), (5, 1, 5), (3, 100_000, 4), (300, 1, 301), (0, 100_000, 1)]
    {
        for left in 0..needed + 2 {
            let message = encode(&(vec![&null; count], vec![0u8; len])).unwrap();
            here.send(&message, Deadline::NEVER).unwrap();
            drop(message);
            let files = leave(left);
            let result = there.recv::<(Vec<SharedFd>, Vec<u8>)>(Deadline::now());
            drop(files);
            match result {
                Ok(Some((fds, bytes))) => {
                    assert!(left >= needed, "{count} descriptors into {left}");
                    assert_eq!((fds.len(), bytes.len()), (count, len));
                }
                Ok(None) => panic!("nothing came"),
                Err(error) => {
                    assert!(left < needed, "{count} descriptors into {left}: {error}");
                    assert!(error.to_string().contains("Too many open files"), "{error}");
                    assert!(!error.is_closed() && !error.is_decode());
                }
            }
            assert_eq!(open_files(), open, "{count} descriptors into {left}");
            // What was lost does not harm what follows.
            here.send(&encode(&7).unwrap(), Deadline::NEVER).unwrap();
            assert_eq!(there.recv(Deadline::now()).unwrap(), Some(7));
        }
    }
    // A sender that has none left for the memory of a large message says so, and can go on.
    let files = leave(0);
    let message = encode(&vec![0u8; 100_000]).unwrap();
    let error = here.send(&message, Deadline::NEVER).unwrap_err();
    drop(files);
    assert!(error.to_string().contains("Too many open files"), "{error}");
    assert!(here.send(&message, Deadline::NEVER).unwrap());
    // Two for the ends' socket, one for the memory that they share.
    for left in 0..4 {
        let files = leave(left);
        let pair = Endpoint::pair_with_memory();
        drop(files);
        match pair {
            Ok(_) => assert!(left >= 3, "{left}"),
            Err(error) => {
                assert!(left < 3 && error.to_string().contains("Too many open files"), "{error}");
            }
        }
    }
    assert_eq!(open_files(), open);
    // An end that cannot be received with both of its own leaves none.
    for left in 0..3 {
        let (end, _other) = Endpoint::pair_with_memory().unwrap();
        let moved = encode_move(end).unwrap();
        here.send(moved.message(), Deadline::NEVER).unwrap();
        drop(moved);
        let files = leave(left);
        let received = there.recv::<Endpoint>(Deadline::now());
        drop(files);
        assert_eq!(received.is_ok(), left >= 2, "{left}: {received:?}");
    }
    assert_eq!(open_files(), open);
    setrlimit(Resource::Nofile, before).unwrap();
}

/// As a user whom limits concern.
fn as_nobody() {
    const LIMIT: usize = 300;
    set_files(LIMIT as u64);
    let null = SharedFd::from(OwnedFd::from(File::open("/dev/null").unwrap()));
    let (here, there) = Endpoint::pair().unwrap();
    let hundred = encode(&vec![&null; 100]).unwrap();
    let mut under_way = 0;
    while here.send(&hundred, Deadline::now()).unwrap() {
        under_way += 1;
        assert!(under_way < 20, "the limit does not bite");
    }
    assert!(under_way >= 3);
    // It counts as a full socket.
    let soon = Deadline::after(Duration::from_millis(5));
    assert!(!here.send(&hundred, soon).unwrap());
    // So it does for a message with a courier, which is not too large in itself.
    let many = encode(&vec![&null; 280]).unwrap();
    assert!(!here.send(&many, soon).unwrap());
    // What needs no descriptor goes at any time.
    assert!(here.send(&encode(&1).unwrap(), Deadline::now()).unwrap());

    // A sender that waits goes on once some were taken out.
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| here.send(&many, Deadline::NEVER));
        for _ in 0..under_way {
            let fds: Vec<SharedFd> = there.recv(Deadline::NEVER).unwrap().unwrap();
            assert_eq!(fds.len(), 100);
        }
        assert_eq!(there.recv::<i32>(Deadline::NEVER).unwrap(), Some(1));
        let fds: Vec<SharedFd> = there.recv(Deadline::NEVER).unwrap().unwrap();
        assert_eq!(fds.len(), 280);
        assert!(sender.join().unwrap().unwrap());
    });

    // More than can ever be under way is an error, not a wait without end.
    let error = here.send(&encode(&vec![&null; 2000]).unwrap(), Deadline::NEVER).unwrap_err();
    assert!(error.to_string().contains("too many for one message"), "{error}");
    assert!(here.send(&hundred, Deadline::now()).unwrap());
}
