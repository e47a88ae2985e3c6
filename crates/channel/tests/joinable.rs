//! Proves that a joinable queue counts each item once, that `join` waits for the last of them and no
//! longer, and that no death makes the count wrong or leaves anybody asleep.

mod common;

use std::io::{Write, pipe};
use std::time::{Duration, SystemTime};

use common::tasks::run;
use common::{end_with_parent, is_asleep, is_in_epoll, spawn, traced, wait_asleep};
use multiproc_channel::{JoinableQueue, Queue};
use multiproc_os::deadline::Deadline;
use multiproc_os::fork::fork;
use multiproc_wire::{decode, encode};

multiproc_process::init_before_main!();

#[test]
fn join_waits_for_the_last_item_of_many_consumers() {
    let queue = JoinableQueue::bounded(10).unwrap();
    let done = Queue::new().unwrap();
    let consumers = [(); 3].map(|()| {
        let consume = |(queue, done): (JoinableQueue<u32>, Queue<u32>)| {
            while let Ok(task) = queue.get_task() {
                done.put(*task).unwrap();
            }
        };
        spawn(consume, (queue.clone(), done.clone()))
    });
    for round in 1..=20 {
        for item in 0..50 {
            queue.put(item).unwrap();
        }
        queue.join().unwrap();
        assert_eq!(done.len(), 50 * round);
        assert_eq!(queue.unfinished().unwrap(), 0);
    }
    queue.close();
    consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
}

#[test]
fn done_more_often_than_put_in_is_an_error() {
    let queue = JoinableQueue::new().unwrap();
    assert!(queue.task_done().unwrap_err().to_string().contains("done already"));
    queue.join().unwrap();
    queue.put("one".to_string()).unwrap();
    assert!(!queue.join_timeout(Duration::ZERO).unwrap());
    assert!(!queue.join_timeout(Duration::from_millis(20)).unwrap());
    // As in Python: whoever has not taken it may say so too.
    queue.task_done().unwrap();
    assert!(queue.join_timeout(Duration::MAX).unwrap());
    assert!(queue.task_done().is_err());
    assert_eq!(queue.len(), 1);
}

#[test]
fn an_item_that_is_no_value_and_a_panic_are_done() {
    let queue = JoinableQueue::<String>::new().unwrap();
    let numbers: JoinableQueue<u8> = decode(encode(&queue).unwrap()).unwrap();
    numbers.put(200).unwrap();
    assert!(queue.get_task().unwrap_err().is_decode());
    queue.join().unwrap();
    queue.put("text".to_string()).unwrap();
    let panics = std::panic::AssertUnwindSafe(|| {
        let _task = queue.get_task().unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    queue.join().unwrap();
}

#[test]
fn a_queue_is_not_taken_for_a_joinable_one() {
    let message = encode(&Queue::<u8>::new().unwrap()).unwrap();
    let error = decode::<JoinableQueue<u8>>(message).unwrap_err();
    assert!(error.to_string().contains("not joinable") || error.is_decode(), "{error}");
    let joinable = JoinableQueue::<u8>::new().unwrap();
    let queue: Queue<u8> = decode(encode(&joinable).unwrap()).unwrap();
    queue.put(1).unwrap();
    assert_eq!(joinable.unfinished().unwrap(), 1);
}

#[test]
fn an_item_in_the_hands_of_the_dead_stays_unfinished() {
    let queue = JoinableQueue::new().unwrap();
    let (taken, tell) = multiproc_channel::pipe::one_way().unwrap();
    queue.put(1).unwrap();
    let consumer = spawn(
        |(queue, taken): (JoinableQueue<u32>, multiproc_channel::Sender<u32>)| {
            let task = queue.get_task().unwrap();
            taken.send(*task).unwrap();
            queue.join().unwrap();
        },
        (queue.clone(), taken),
    );
    assert_eq!(tell.recv().unwrap(), 1);
    wait_asleep(consumer.pid());
    consumer.kill().unwrap();
    consumer.join().unwrap_err();
    assert_eq!(queue.unfinished().unwrap(), 1);
    assert!(!queue.join_timeout(Duration::from_millis(10)).unwrap());
    queue.task_done().unwrap();
    queue.join().unwrap();
}

#[test]
fn many_join_and_all_are_let_go_though_the_next_item_follows_at_once() {
    let queue = JoinableQueue::new().unwrap();
    for _ in 0..30 {
        queue.put(0).unwrap();
        let joiners = [(); 3].map(|()| {
            let joiner = spawn(|queue: JoinableQueue<u8>| queue.join().unwrap(), queue.clone());
            wait_asleep(joiner.pid());
            joiner
        });
        queue.get().unwrap();
        queue.task_done().unwrap();
        queue.put(1).unwrap();
        joiners.into_iter().for_each(|joiner| joiner.join().unwrap());
        queue.get().unwrap();
        queue.task_done().unwrap();
    }
}

/// What the victim does, with two items unfinished of which it has taken one, or with one.
#[derive(Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
enum Act {
    Put,
    DoneOfTwo,
    DoneOfOne,
    Join,
}

#[test]
fn killed_while_it_puts() {
    tell(Act::Put);
}

#[test]
fn killed_while_it_marks_one_of_two() {
    tell(Act::DoneOfTwo);
}

#[test]
fn killed_while_it_marks_the_last() {
    tell(Act::DoneOfOne);
}

#[test]
fn killed_while_it_joins() {
    tell(Act::Join);
}

/// One death after the other, in a process that has one thread and so can fork.
fn tell(act: Act) {
    const SAMPLES: u64 = 25;
    let deaths = spawn(
        |act: Act| {
            let length = live(act, u64::MAX).expect("the victim does not end");
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            let stride = (length / SAMPLES).max(1);
            let deaths = (u64::from(now) % stride..length).step_by(stride as usize);
            deaths.inspect(|after| _ = live(act, *after)).count()
        },
        act,
    );
    let deaths = deaths.join().unwrap();
    assert!(deaths >= SAMPLES as usize, "{deaths} deaths prove little");
}

/// Has the victim die after so many instructions while another process joins, and a task of a third. Gives how many there were
/// if it came to the end.
fn live(act: Act, after: u64) -> Option<u64> {
    let queue = JoinableQueue::new().unwrap();
    queue.put(0u32).unwrap();
    if act == Act::DoneOfTwo {
        queue.put(0).unwrap();
    }
    let before = queue.unfinished().unwrap();
    let (mut left, joined) = pipe().unwrap();
    let joiners = [false, true].map(|in_task| {
        let joiner = fork(|| {
            end_with_parent();
            if in_task { run(queue.join_async()) } else { queue.join() }.unwrap();
            (&joined).write_all(&[1]).unwrap();
            0
        });
        let joiner = joiner.unwrap();
        let sleeps = if in_task { is_in_epoll } else { is_asleep };
        while !sleeps(joiner.pid) {
            std::thread::yield_now();
        }
        joiner
    });
    let mut helped = 0;
    let length = traced(|| match act {
        Act::Put => queue.put(1).unwrap(),
        Act::DoneOfTwo | Act::DoneOfOne => queue.task_done().unwrap(),
        Act::Join => queue.join().unwrap(),
    })
    .run(after, || {
        // It may not have woken from the first one yet.
        if helped == 0 {
            queue.task_done().unwrap();
        }
        helped = 1;
    });
    let ended = length.is_some();
    let unfinished = queue.unfinished().unwrap();
    let after_all = match act {
        Act::Put => before + 1,
        Act::DoneOfTwo | Act::DoneOfOne => before - 1,
        Act::Join => before - helped,
    };
    assert!(unfinished == after_all || !ended && unfinished == before, "{unfinished}");
    if act == Act::Put {
        // The count is that of the items.
        assert_eq!(unfinished, queue.len() as u64);
    }
    (0..unfinished).for_each(|_| queue.task_done().unwrap());
    assert!(queue.task_done().is_err());
    // Nobody but who was let go by the last.
    std::io::Read::read_exact(&mut left, &mut [0; 2]).unwrap();
    for joiner in joiners {
        joiner.pidfd.wait_end(Deadline::NEVER).unwrap();
        joiner.pidfd.reap().unwrap();
    }
    queue.put(9).unwrap();
    assert_eq!(queue.unfinished().unwrap(), 1);
    length
}
