//! A parent that is killed takes its workers along within a second, whatever they do.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::{hang, watchdog};
use multiproc_os::deadline::Deadline;
use multiproc_os::pidfd::PidFd;
use multiproc_pool::Pool;
use multiproc_process::{Process, init_before_main};
use multiproc_wire::Fd;

init_before_main!();

const WORKERS: usize = 4;

/// Has workers that never end, each of which writes its number to the pipe.
fn keep_busy((says, nested): (Fd<File>, bool)) {
    let pool = Pool::builder().workers(WORKERS).build().unwrap();
    let task = |(mut says, nested): (Fd<File>, bool)| {
        if nested {
            keep_busy((says, false));
        } else {
            says.write_all(&std::process::id().to_ne_bytes()).unwrap();
            // Busy, not asleep.
            loop {
                std::hint::black_box(0);
            }
        }
    };
    let copies = (0..WORKERS).map(|_| (Fd::from(says.try_clone().unwrap()), nested));
    let _running = pool.map_async(task, copies).unwrap();
    hang()
}

fn killed_parents_take_all(nested: bool, workers: usize) {
    watchdog();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let says = Fd::from(File::from(OwnedFd::from(writer)));
    let parent = Process::spawn(keep_busy, (says, nested)).unwrap();
    let workers: Vec<PidFd> = (0..workers)
        .map(|_| {
            let mut pid = [0; 4];
            reader.read_exact(&mut pid).unwrap();
            PidFd::open(u32::from_ne_bytes(pid)).unwrap()
        })
        .collect();
    assert!(workers.iter().all(|worker| !worker.wait_end(Deadline::now()).unwrap()));
    parent.kill().unwrap();
    assert!(parent.join().is_err());
    let bound = Deadline::after(Duration::from_secs(1));
    for worker in workers {
        assert!(worker.wait_end(bound).unwrap(), "it is there a second after its parent");
    }
}

#[test]
fn a_killed_parent_takes_its_busy_workers_along() {
    killed_parents_take_all(false, WORKERS);
}

#[test]
fn workers_of_workers_go_too() {
    killed_parents_take_all(true, WORKERS * WORKERS);
}
