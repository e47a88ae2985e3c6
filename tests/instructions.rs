//! Has valgrind count the instructions of what needs no other process, and compares them with bounds: a
//! guard against code that grows, which no busy machine disturbs. Where there is no valgrind it says so.
//!
//! Called with the name of an operation and a number it just does that so many times.

use std::hint::black_box;
use std::process::{Command, ExitCode};

use multiproc::{Lock, Queue, RLock, RwLock, Semaphore, Value, pipe};

type Operation = (&'static str, fn(u64), f64);

/// A name, what it does so many times, and how many instructions each may take in user space. The bounds
/// are some 12 % above what was counted, for other versions of the compiler and of libc.
const OPERATIONS: [Operation; 9] = [
    ("lock", lock, 98.0),
    ("lock-again", lock_again, 180.0),
    ("read-lock", read_lock, 248.0),
    ("write-lock", write_lock, 400.0),
    ("semaphore", semaphore, 57.0),
    ("value", value, 126.0),
    ("queue", queue, 1450.0),
    ("pipe", pipe_of_values, 1250.0),
    ("pipe-of-bytes", pipe_of_bytes, 840.0),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [name, times] = &words[..] {
        let operation = OPERATIONS.iter().find(|(known, ..)| known == name);
        let (_, act, _) = operation.expect("there is no such operation");
        act(times.parse().expect("the second word is a number"));
        return ExitCode::SUCCESS;
    }
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|it| it.status.success()) {
        println!("skipped: instructions are not counted, since valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    println!("{:<16}{:>14}{:>8}", "instructions", "each", "bound");
    for (name, _, bound) in OPERATIONS {
        const TIMES: u64 = 2000;
        // What comes before and after is there in both.
        let [many, twice] = [TIMES, 2 * TIMES].map(|times| instructions(name, times));
        let each = (twice - many) as f64 / TIMES as f64;
        let verdict = if each > bound { "  TOO MANY" } else { "" };
        println!("{name:<16}{each:>14.1}{bound:>8}{verdict}");
        failed += u64::from(each > bound);
    }
    println!("\n{} passed, {failed} failed", OPERATIONS.len() as u64 - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many instructions a run of this program takes.
fn instructions(name: &str, times: u64) -> u64 {
    let program = std::env::current_exe().expect("the program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &times.to_string()])
        .output()
        .expect("valgrind starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} fails under valgrind:\n{text}");
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, number) = collected.unwrap_or_else(|| panic!("valgrind counts nothing:\n{text}"));
    number.trim().parse().expect("what valgrind counts is a number")
}

fn lock(times: u64) {
    let lock = Lock::new().unwrap();
    (0..times).for_each(|_| drop(black_box(&lock).lock().unwrap()));
}

fn lock_again(times: u64) {
    let lock = RLock::new().unwrap();
    let _held = lock.lock().unwrap();
    (0..times).for_each(|_| drop(black_box(&lock).lock().unwrap()));
}

fn read_lock(times: u64) {
    let lock = RwLock::new().unwrap();
    (0..times).for_each(|_| drop(black_box(&lock).read().unwrap()));
}

/// It looks at the place of each reader.
fn write_lock(times: u64) {
    let lock = RwLock::new().unwrap();
    (0..times).for_each(|_| drop(black_box(&lock).write().unwrap()));
}

fn semaphore(times: u64) {
    let semaphore = Semaphore::new(1).unwrap();
    for _ in 0..times {
        black_box(&semaphore).acquire().unwrap();
        black_box(&semaphore).release();
    }
}

fn value(times: u64) {
    let value = Value::new(0u64).unwrap();
    (0..times).for_each(|_| *black_box(&value).lock().unwrap() += 1);
    assert_eq!(value.get().unwrap(), times);
}

/// A loaded queue: one in, one out.
fn queue(times: u64) {
    let queue = Queue::new().unwrap();
    (0..100).for_each(|_| queue.put([7.0f64; 8]).unwrap());
    for _ in 0..times {
        queue.put(black_box([7.0; 8])).unwrap();
        black_box(queue.get().unwrap());
    }
}

fn pipe_of_values(times: u64) {
    let (here, there) = pipe::<[f64; 8]>().unwrap();
    for _ in 0..times {
        here.send(black_box([7.0; 8])).unwrap();
        black_box(there.recv().unwrap());
    }
}

fn pipe_of_bytes(times: u64) {
    let (here, there) = pipe::<()>().unwrap();
    let mut buffer = [0; 64];
    for _ in 0..times {
        here.send_bytes(black_box(&[7; 64])).unwrap();
        there.recv_bytes_into(&mut buffer).unwrap();
    }
}
