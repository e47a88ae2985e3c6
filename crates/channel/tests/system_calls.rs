//! Counts system calls: none for what a loaded queue puts and gets, one for what a pipe sends or
//! receives.

mod common;

use common::{spawn, traced};
use multiproc_channel::{JoinableQueue, Queue, pipe};

multiproc_process::init_before_main!();

const MANY: usize = 200;

/// How many system calls an act makes.
fn count(act: impl FnOnce()) -> usize {
    let calls = traced(act).system_calls().len();
    calls - traced(|| ()).system_calls().len()
}

#[test]
fn a_loaded_queue_needs_none() {
    // In a process with one thread, which can fork.
    let counted = spawn(
        |()| {
            let queue = Queue::bounded(2 * MANY).unwrap();
            let fill = |queue: &Queue<[u64; 8]>| (0..MANY).for_each(|_| queue.put([7; 8]).unwrap());
            fill(&queue);
            let both = count(|| {
                for _ in 0..MANY {
                    queue.put([7; 8]).unwrap();
                    queue.get().unwrap();
                }
            });
            let put = count(|| fill(&queue));
            // What was traced has put them in.
            assert_eq!(queue.len(), 2 * MANY);
            let get = count(|| (0..MANY).for_each(|_| _ = queue.get().unwrap()));
            (both, put, get)
        },
        (),
    );
    assert_eq!(counted.join().unwrap(), (0, 0, 0));
}

#[test]
fn a_joinable_queue_needs_none() {
    let counted = spawn(
        |()| {
            let queue = JoinableQueue::new().unwrap();
            queue.put(0u64).unwrap();
            count(|| {
                for number in 0..MANY as u64 {
                    queue.put(number).unwrap();
                    drop(queue.get_task().unwrap());
                }
            })
        },
        (),
    );
    assert_eq!(counted.join().unwrap(), 0usize);
}

#[test]
fn a_growing_queue_needs_few() {
    let counted = spawn(
        |()| {
            let queue = Queue::new().unwrap();
            // It doubles eight times, from 64 KiB to 16 MiB, and gives the memory back once.
            count(|| {
                (0..1 << 17).for_each(|_| queue.put([u64::MAX; 10]).unwrap());
                (0..1 << 17).for_each(|_| _ = queue.get().unwrap());
            })
        },
        (),
    );
    let calls: usize = counted.join().unwrap();
    assert!((8..100).contains(&calls), "{calls} calls");
}

#[test]
fn a_pipe_needs_one_to_send_and_one_to_receive() {
    let counted = spawn(
        |()| {
            let (here, there) = pipe::<[u64; 8]>().unwrap();
            // Each end has its buffers.
            here.send([7; 8]).unwrap();
            there.recv().unwrap();
            let send = count(|| (0..MANY).for_each(|_| here.send([7; 8]).unwrap()));
            let receive = count(|| (0..MANY).for_each(|_| _ = there.recv().unwrap()));
            (send, receive)
        },
        (),
    );
    assert_eq!(counted.join().unwrap(), (MANY, MANY));
}
