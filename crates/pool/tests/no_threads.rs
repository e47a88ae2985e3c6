//! Functions are called with results also where no thread can be started for that. Alone in its binary:
//! it limits the memory of a whole process.

mod common;

use std::sync::mpsc;
use std::thread;

use common::watchdog;
use multiproc_pool::Pool;
use multiproc_process::{Process, init_before_main};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

init_before_main!();

fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// Leaves too little room for the stack of another thread.
fn leave_no_room() {
    let limit = Rlimit { current: Some(address_space() + (1 << 20)), ..getrlimit(Resource::As) };
    setrlimit(Resource::As, limit).unwrap();
    // Stacks of threads that have ended are used again.
    let started = (0..100).find(|_| thread::Builder::new().spawn(thread::park).is_err());
    assert!(started.is_some(), "the limit does not bite");
}

#[test]
fn a_callback_is_called_where_no_thread_can_be_started() {
    watchdog();
    let child = |()| {
        let pool = Pool::builder().workers(1).build().unwrap();
        assert_eq!(pool.apply(|x: u32| x + 1, 1).unwrap(), 2);
        let before = getrlimit(Resource::As);
        leave_no_room();
        let (sender, receiver) = mpsc::channel();
        for round in 0..3 {
            if round == 2 {
                setrlimit(Resource::As, before).unwrap();
            }
            let sender = sender.clone();
            let called = move |result| sender.send((result, thread::current().id())).unwrap();
            pool.apply_async(|x: u32| x + 1, round).unwrap().on_done(called);
            let (result, caller) = receiver.recv().unwrap();
            assert_eq!(result.ok(), Some(round + 1));
            assert_eq!(caller == thread::current().id(), round < 2, "round {round}");
        }
        // One that panics harms nobody.
        pool.apply_async(|x: u32| x + 1, 1).unwrap().on_done(|_| panic!("callback"));
        assert_eq!(pool.apply(|x: u32| x + 1, 1).unwrap(), 2);
    };
    Process::spawn(child, ()).unwrap().join().unwrap();
}
