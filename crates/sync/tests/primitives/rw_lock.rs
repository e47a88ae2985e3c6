use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use multiproc_harness::{Child, eventually};
use multiproc_sync::RwLock;

use crate::{Board, Tests, asleep, ended, in_vain, join_all, panic_with};

pub(crate) const TESTS: Tests = &[
    ("rw_lock_all_forms", all_forms),
    ("rw_lock_readers_share_and_writers_do_not", readers_share_and_writers_do_not),
    ("rw_lock_the_most_readers", the_most_readers),
    ("rw_lock_dead_readers_block_nobody", dead_readers_block_nobody),
    ("rw_lock_dead_writer_poisons", dead_writer_poisons),
    ("rw_lock_panic_of_a_writer_poisons", panic_of_a_writer_poisons),
    ("rw_lock_death_of_a_waiting_writer_is_none", death_of_a_waiting_writer_is_none),
    (
        "rw_lock_writer_gets_in_though_readers_keep_coming",
        writer_gets_in_though_readers_keep_coming,
    ),
    ("rw_lock_holders_do_not_wait_for_themselves", holders_do_not_wait_for_themselves),
];

fn all_forms() {
    let lock = RwLock::new().unwrap();
    let timed = |result: Result<(), multiproc_sync::LockError>| match result {
        Err(error) if error.is_timeout() => false,
        result => result.is_ok(),
    };
    let read = |time| timed(lock.read_timeout(time).map(drop));
    let write = |time| timed(lock.write_timeout(time).map(drop));

    let reading = lock.read().unwrap();
    Child::fork(|| {
        assert!(lock.try_read().unwrap().is_some());
        assert!(read(Duration::ZERO));
        assert!(lock.try_write().unwrap().is_none());
        in_vain(write);
    })
    .join();
    let mut waiters = asleep(1, || drop(lock.write().unwrap()));
    waiters.extend(asleep(1, || drop(lock.write_anyway().unwrap())));
    waiters.extend(asleep(1, || assert!(write(Duration::MAX))));
    drop(reading);
    join_all(waiters);

    let writing = lock.write().unwrap();
    Child::fork(|| {
        assert!(lock.try_read().unwrap().is_none());
        in_vain(read);
        assert!(lock.try_write().unwrap().is_none());
        in_vain(write);
    })
    .join();
    let mut waiters = asleep(1, || drop(lock.read().unwrap()));
    waiters.extend(asleep(1, || drop(lock.read_anyway().unwrap())));
    waiters.extend(asleep(1, || assert!(read(Duration::MAX))));
    waiters.extend(asleep(1, || drop(lock.write().unwrap())));
    drop(writing);
    join_all(waiters);
    assert!(lock.try_write().unwrap().is_some());
    drop((lock.read_timeout(Duration::ZERO).unwrap(), lock.try_read().unwrap().unwrap()));
    drop(lock.write_timeout(Duration::ZERO).unwrap());
}

fn readers_share_and_writers_do_not() {
    const READERS: usize = 0;
    const WRITERS: usize = 1;
    let (lock, board) = (RwLock::new().unwrap(), Board::new());
    // At once.
    let readers: Vec<Child> =
        (0..5).map(|_| Child::fork_and_stay(|| lock.read().unwrap())).collect();
    assert!(lock.try_write().unwrap().is_none());
    drop(readers);
    let children: Vec<Child> = (0..4)
        .map(|place| {
            let (lock, board) = (&lock, &board);
            Child::fork(move || {
                for i in 0..3_000 {
                    if (place + i) % 4 == 0 {
                        let _writing = lock.write().unwrap();
                        assert_eq!(board.count(WRITERS), 0, "two write");
                        assert_eq!(board.get(READERS), 0, "one reads and another writes");
                        board.uncount(WRITERS);
                    } else {
                        let _reading = lock.read().unwrap();
                        board.count(READERS);
                        assert_eq!(board.get(WRITERS), 0, "one writes and another reads");
                        board.uncount(READERS);
                    }
                }
            })
        })
        .collect();
    join_all(children);
}

/// As many as can read do; who comes then gets in as soon as any of them goes.
fn the_most_readers() {
    let lock = RwLock::new().unwrap();
    for leaves in [0, 1, 17, 40, 63] {
        let mut readers: Vec<_> = (0..RwLock::MAX_READERS).map(|_| lock.read().unwrap()).collect();
        Child::fork(|| {
            assert!(lock.try_read().unwrap().is_none());
            in_vain(|time| lock.read_timeout(time).is_ok());
        })
        .join();
        let waiter = asleep(1, || drop(lock.read().unwrap()));
        drop(readers.swap_remove(leaves));
        join_all(waiter);
        readers.push(lock.read().unwrap());
        let waiters = asleep(3, || drop(lock.read().unwrap()));
        drop(readers);
        join_all(waiters);
    }
    drop(lock.try_write().unwrap().unwrap());
}

fn dead_readers_block_nobody() {
    let lock = RwLock::new().unwrap();
    let mut readers: Vec<Child> =
        (0..3).map(|_| Child::fork_and_stay(|| lock.read().unwrap())).collect();
    let writers = asleep(2, || drop(lock.write().unwrap()));
    // They stand in line behind the writers.
    let more_readers = asleep(2, || drop(lock.read().unwrap()));
    for reader in readers.drain(..) {
        assert!(writers.iter().all(|writer| !writer.has_ended()));
        reader.kill();
    }
    join_all(writers);
    join_all(more_readers);
    assert!(!lock.is_poisoned());
    drop(lock.try_write().unwrap().unwrap());
}

fn dead_writer_poisons() {
    let lock = RwLock::new().unwrap();
    let poisoned = |error: multiproc_sync::LockError| assert!(error.is_poisoned(), "{error}");
    for waiters in [0, 2] {
        let writer = Child::fork_and_stay(|| lock.write().unwrap());
        assert!(!lock.is_poisoned());
        let mut sleepers = asleep(waiters, || poisoned(lock.read().unwrap_err()));
        sleepers.extend(asleep(waiters, || poisoned(lock.write().unwrap_err())));
        writer.kill();
        join_all(sleepers);
        assert!(lock.is_poisoned());
        poisoned(lock.try_read().unwrap_err());
        poisoned(lock.try_write().unwrap_err());
        poisoned(lock.read_timeout(Duration::MAX).unwrap_err());
        poisoned(lock.write_timeout(Duration::ZERO).unwrap_err());
        drop((lock.read_anyway().unwrap(), lock.read_anyway().unwrap()));
        assert!(lock.is_poisoned());
        let repairing = lock.write_anyway().unwrap();
        lock.clear_poison();
        assert!(!lock.is_poisoned());
        drop(repairing);
        drop(lock.read().unwrap());
        drop(lock.write().unwrap());
    }
}

fn panic_of_a_writer_poisons() {
    let lock = RwLock::new().unwrap();
    panic_with(lock.read().unwrap());
    assert!(!lock.is_poisoned());
    panic_with(lock.write().unwrap());
    assert!(lock.is_poisoned());
    Child::fork(|| assert!(lock.read().unwrap_err().is_poisoned())).join();
    lock.clear_poison();
    drop(lock.write().unwrap());
}

fn death_of_a_waiting_writer_is_none() {
    let lock = RwLock::new().unwrap();
    let reading = lock.read().unwrap();
    let writers = asleep(2, || drop(lock.write().unwrap()));
    let readers = asleep(2, || drop(lock.read().unwrap()));
    writers.into_iter().for_each(Child::kill);
    // Nobody waits to write any more.
    join_all(readers);
    drop(reading);
    assert!(!lock.is_poisoned());
    drop(lock.try_write().unwrap().unwrap());
}

fn writer_gets_in_though_readers_keep_coming() {
    let (lock, board) = (RwLock::new().unwrap(), Board::new());
    let readers: Vec<Child> = (0..3)
        .map(|_| {
            Child::fork(|| {
                let mut held = lock.read().unwrap();
                loop {
                    board.count(0);
                    // Somebody reads at any time, so that no writer ever finds the lock free.
                    drop(held);
                    held = lock.read().unwrap();
                }
            })
        })
        .collect();
    eventually("readers", || board.get(0) > 1_000);
    for _ in 0..200 {
        drop(lock.write().unwrap());
    }
    let before = board.get(0);
    eventually("readers", || board.get(0) > before + 100);
    drop(readers);

    // Two who read in turns, one of them at any time.
    let one = lock.read().unwrap();
    let writer = asleep(1, || drop(lock.write().unwrap()));
    assert!(lock.try_read().unwrap().is_none(), "a reader has overtaken a writer that waits");
    drop(one);
    assert!(ended(writer, 1).is_empty());
}

fn holders_do_not_wait_for_themselves() {
    let lock = RwLock::new().unwrap();
    let reading = lock.read().unwrap();
    assert!(lock.write().unwrap_err().is_deadlock());
    assert!(lock.try_write().unwrap_err().is_deadlock());
    // Nor does it matter who else reads, whichever place a reader is in.
    let (all_read, turn) = (Barrier::new(8), Mutex::new(()));
    let readers = || {
        let _reading = lock.read().unwrap();
        all_read.wait();
        let one_at_a_time = turn.lock().unwrap();
        assert!(lock.try_write().unwrap_err().is_deadlock());
        drop(one_at_a_time);
        all_read.wait();
    };
    thread::scope(|scope| {
        (0..8).for_each(|_| _ = scope.spawn(readers));
    });
    drop(reading);
    let writing = lock.write().unwrap();
    assert!(lock.write().unwrap_err().is_deadlock());
    assert!(lock.read().unwrap_err().is_deadlock());
    assert!(lock.try_read().unwrap_err().is_deadlock());
    drop(writing);
    drop(lock.write().unwrap());
}
