//! Proves that whoever is killed, at whatever instruction of an operation on a queue, the others go
//! on: nothing is doubled, reordered or lost but what was in the hands of the dead, nobody sleeps
//! while there is something for them, and no descriptor stays behind.
//!
//! A victim runs instruction by instruction and is killed after the first, the second, and so on; of
//! these deaths each run of a test takes a sample, another each time.

mod common;

use std::fs::File;
use std::io::{PipeWriter, Read, Write, pipe};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use common::{end_with_parent, spawn, traced, wait_asleep};
use multiproc_channel::Queue;
use multiproc_os::fork::fork;
use multiproc_wire::{Fd, encode};
use serde::{Deserialize, Serialize};

multiproc_process::init_before_main!();

/// How many deaths each test samples.
const SAMPLES: u64 = 25;

/// What happens around a death.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Story {
    victim: Act,
    /// Somebody else, who is asleep before the victim starts.
    bystander: Option<Act>,
    /// Another victim, who dies after as many instructions, before anybody has found the first.
    second: Option<Act>,
    /// How many items are in the queue.
    waiting: u32,
    /// How many were in it before them.
    before: u32,
    /// Whether one of those was large.
    large: bool,
    bound: Option<usize>,
    /// Whether the items have handles.
    handles: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Act {
    Put,
    Get,
    Close,
}

/// Nobody else, and nothing in the queue.
fn alone(victim: Act) -> Story {
    Story {
        victim,
        bystander: None,
        second: None,
        waiting: 0,
        before: 0,
        large: false,
        bound: None,
        handles: false,
    }
}

#[test]
fn put() {
    tell(Story { waiting: 3, ..alone(Act::Put) });
}

#[test]
fn put_that_wakes() {
    tell(Story { bystander: Some(Act::Get), ..alone(Act::Put) });
}

#[test]
fn put_that_doubles_the_ring() {
    // With one item more the ring is full. What is in it goes round its end.
    tell(Story { before: 5461, waiting: 2730, ..alone(Act::Put) });
}

#[test]
fn put_that_waits() {
    tell(Story { waiting: 2, bound: Some(2), ..alone(Act::Put) });
}

#[test]
fn put_that_waits_in_front_of_another() {
    tell(Story { waiting: 2, bound: Some(2), bystander: Some(Act::Put), ..alone(Act::Put) });
}

#[test]
fn put_with_handles() {
    tell(Story { handles: true, waiting: 2, ..alone(Act::Put) });
}

#[test]
fn put_with_handles_into_an_empty_queue() {
    tell(Story { handles: true, ..alone(Act::Put) });
}

#[test]
fn put_with_handles_that_wakes() {
    tell(Story { handles: true, bystander: Some(Act::Get), ..alone(Act::Put) });
}

#[test]
fn get() {
    tell(Story { waiting: 3, ..alone(Act::Get) });
}

#[test]
fn get_that_wakes() {
    tell(Story { waiting: 2, bound: Some(2), bystander: Some(Act::Put), ..alone(Act::Get) });
}

#[test]
fn get_that_gives_memory_back() {
    tell(Story { waiting: 1, before: 1, large: true, ..alone(Act::Get) });
}

#[test]
fn get_that_waits() {
    tell(alone(Act::Get));
}

#[test]
fn get_that_waits_with_another() {
    tell(Story { bystander: Some(Act::Get), ..alone(Act::Get) });
}

#[test]
fn get_with_handles() {
    tell(Story { handles: true, waiting: 3, ..alone(Act::Get) });
}

#[test]
fn get_of_the_last_with_handles() {
    tell(Story { handles: true, waiting: 1, ..alone(Act::Get) });
}

#[test]
fn put_and_then_get() {
    tell(Story { second: Some(Act::Get), waiting: 3, ..alone(Act::Put) });
}

#[test]
fn get_and_then_put_with_a_bound() {
    tell(Story { second: Some(Act::Put), waiting: 2, bound: Some(3), ..alone(Act::Get) });
}

#[test]
fn put_and_then_get_of_a_single_one() {
    tell(Story { second: Some(Act::Get), bound: Some(1), ..alone(Act::Put) });
}

#[test]
fn close_with_a_consumer_asleep() {
    tell(Story { bystander: Some(Act::Get), ..alone(Act::Close) });
}

#[test]
fn close_with_a_producer_asleep() {
    tell(Story { waiting: 1, bound: Some(1), bystander: Some(Act::Put), ..alone(Act::Close) });
}

/// Tells the story with one death after the other, in a process that has one thread and so can fork.
fn tell(story: Story) {
    let deaths = spawn(
        |story: Story| {
            let length = story.live(u64::MAX).expect("the victim does not end");
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            let stride = (length / SAMPLES).max(1);
            let deaths = (u64::from(now) % stride..length).step_by(stride as usize);
            deaths.inspect(|after| _ = story.live(*after)).count()
        },
        story,
    );
    let deaths = deaths.join().unwrap();
    assert!(deaths >= SAMPLES as usize, "{deaths} deaths prove little");
}

#[derive(Serialize, Deserialize)]
struct Item {
    number: u32,
    bytes: Vec<u8>,
    handle: Option<Fd<PipeWriter>>,
}

// From when on the items are numbered, by who puts them in. (All numbers are encoded in two bytes.)
const WAITING: u32 = 1000;
const VICTIM: u32 = 8000;
const BYSTANDER: u32 = 9000;
const SURVIVOR: u32 = 10_000;
/// More instructions than most acts have.
const LONGEST: u64 = 4000;
/// What is reported by those who find the queue closed.
const CLOSED: u32 = u32::MAX;

impl Story {
    /// Has the victim die after so many instructions, and looks at what it leaves behind. Tells how
    /// many instructions there were if it did not die before it had done all.
    fn live(self, after: u64) -> Option<u64> {
        let (mut handles_left, handle) = pipe().unwrap();
        let item = |number| Item {
            number,
            bytes: vec![7; 8],
            handle: self.handles.then(|| handle.try_clone().unwrap().into()),
        };
        let queue = self.queue(item);

        let (mut reports, reporter) = pipe().unwrap();
        let bystander = self.bystander.map(|act| {
            let run = || {
                end_with_parent();
                let number = perform(&queue, act, || item(BYSTANDER));
                (&reporter).write_all(&number.to_le_bytes()).unwrap();
                0
            };
            let forked = fork(run).unwrap();
            wait_asleep(forked.pid);
            forked
        });
        let [head, tail] = positions(&queue);
        let mut taken = Vec::new();
        let mut expected: Vec<u32> = (0..self.waiting).map(|i| WAITING + i).collect();
        let mut helped = 0..;
        let mut kill = |victim: Act, after: u64| {
            let act = || {
                perform(&queue, victim, || item(VICTIM));
            };
            traced(act).run(after, || match victim {
                Act::Put => taken.push(queue.get().unwrap().number),
                Act::Get => queue.put(item(SURVIVOR + helped.next().unwrap())).unwrap(),
                Act::Close => panic!("close waits"),
            })
        };
        let length = kill(self.victim, after);
        let mut victims = vec![(self.victim, length.is_some())];
        if let Some(second) = self.second {
            // Somewhere else, so that all sorts of pairs come about.
            victims.push((second, kill(second, after.wrapping_mul(31) % LONGEST).is_some()));
        }
        expected.extend(victims.iter().any(|(act, _)| *act == Act::Put).then_some(VICTIM));
        expected.extend((0..helped.start).map(|i| SURVIVOR + i));

        let mut report = || {
            let mut number = [0; 4];
            reports.read_exact(&mut number).unwrap();
            u32::from_le_bytes(number)
        };
        // Nobody has touched the queue since: what was done must have woken the bystander by itself.
        let [head_after, tail_after] = positions(&queue);
        match (self.victim, self.bystander) {
            (Act::Close, bystander) => {
                assert!(queue.is_closed() || length.is_none());
                if !queue.is_closed() {
                    queue.close();
                }
                assert!(bystander.is_none() || report() == CLOSED);
            }
            (_, Some(Act::Get)) => {
                if tail_after == tail {
                    expected.push(SURVIVOR + 500);
                    queue.put(item(SURVIVOR + 500)).unwrap();
                }
                taken.push(report());
            }
            (_, Some(Act::Put)) => {
                expected.push(BYSTANDER);
                if head_after == head {
                    taken.push(queue.get().unwrap().number);
                }
                assert_eq!(report(), 0);
            }
            _ => {}
        }
        if let Some(bystander) = bystander {
            bystander.pidfd.wait_end(multiproc_os::deadline::Deadline::NEVER).unwrap();
            bystander.pidfd.reap().unwrap();
        }
        let len = queue.len();
        let rest: Vec<u32> =
            std::iter::from_fn(|| queue.try_get().ok().flatten()).map(|item| item.number).collect();
        assert_eq!(len, rest.len(), "the length is not exact");
        taken.extend(rest);
        self.check(taken, expected, &victims);

        if !queue.is_closed() {
            queue.put(item(SURVIVOR + 999)).unwrap();
            assert_eq!(queue.get().unwrap().number, SURVIVOR + 999);
        }
        drop(handle);
        assert_eq!(handles_left.read(&mut [0]).unwrap(), 0, "a handle was left behind");
        length
    }

    fn queue(self, item: impl Fn(u32) -> Item) -> Queue<Item> {
        let queue = self.bound.map_or_else(Queue::new, Queue::bounded).unwrap();
        for i in 0..self.before {
            let len = if self.large { 5 << 20 } else { 8 };
            queue.put(Item { bytes: vec![7; len], handle: None, ..item(WAITING + i) }).unwrap();
            if !self.large {
                queue.get().unwrap();
            }
        }
        (0..self.waiting).for_each(|i| queue.put(item(WAITING + i)).unwrap());
        if self.large {
            queue.get().unwrap();
        }
        queue
    }

    /// In order, each once, and missing at most what was in the hands of the victims.
    fn check(self, mut taken: Vec<u32>, expected: Vec<u32>, victims: &[(Act, bool)]) {
        if self.bystander == Some(Act::Put) && self.victim == Act::Put {
            // Either may have been first.
            taken.sort();
        }
        let mut missing = expected.clone();
        missing.retain(|number| !taken.contains(number));
        let present = expected.iter().filter(|number| taken.contains(number));
        assert!(taken.iter().eq(present), "{taken:?} of {expected:?}");
        let count = |act| victims.iter().filter(|victim| **victim == act).count();
        // What was taken and not passed on is missing; what may not have been put in can be.
        let least = count((Act::Get, true));
        let most = least + count((Act::Get, false));
        if count((Act::Put, false)) > 0 && missing.len() > least {
            missing.retain(|number| *number != VICTIM);
        }
        assert!((least..=most).contains(&missing.len()), "{missing:?} with {victims:?}");
    }
}

/// Where the first record is, and where the last one ends, read without the lock: whoever takes it
/// after a death wakes those who sleep.
fn positions(queue: &Queue<Item>) -> [u64; 2] {
    const TAIL: u64 = 192;
    const HEAD: u64 = 320;
    let message = encode(queue).unwrap();
    let memory = File::from(message.fds()[0].try_clone_to_owned().unwrap());
    [HEAD, TAIL].map(|at| {
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, at).unwrap();
        u64::from_le_bytes(word)
    })
}

/// Gives the number of the item, or `CLOSED`.
fn perform(queue: &Queue<Item>, act: Act, item: impl FnOnce() -> Item) -> u32 {
    match act {
        Act::Put => queue.put(item()).map_or(CLOSED, |()| 0),
        Act::Get => queue.get().map_or(CLOSED, |item| item.number),
        Act::Close => {
            queue.close();
            0
        }
    }
}
