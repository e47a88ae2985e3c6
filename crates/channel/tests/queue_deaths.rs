//! Proves that a queue outlives its users: whoever is killed, whenever, nothing is doubled, nothing is
//! lost but at most one item for each consumer that was killed, the order of each producer stays, the
//! length is exact, and nobody hangs.

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use common::{Numbers, file, number, spawn};
use multiproc_channel::Queue;
use multiproc_process::Process;
use multiproc_wire::Fd;
use serde::{Deserialize, Serialize};

multiproc_process::init_before_main!();

const KILLS: usize = 200;

/// An item says who has put it in, and which one it is.
#[derive(Serialize, Deserialize)]
struct Item {
    producer: u64,
    number: u64,
    /// A file that says who the producer is.
    handle: Option<Fd<File>>,
    filling: Vec<u8>,
}

#[test]
fn of_a_queue_with_much_room() {
    // Enough to make the ring grow, and the consumers are slower than the producers.
    chaos(Queue::bounded(5000).unwrap(), false);
}

#[test]
fn of_a_queue_with_little_room() {
    chaos(Queue::bounded(3).unwrap(), false);
}

#[test]
fn of_a_queue_with_handles() {
    chaos(Queue::bounded(30).unwrap(), true);
}

/// Puts items in until it is killed, and notes how many it has.
fn produce((queue, producer, handles, note): (Queue<Item>, u64, bool, Fd<File>)) {
    let mut random = Numbers::from(producer);
    let own = handles.then(|| file(producer));
    for number in 0.. {
        let handle = own.as_ref().filter(|_| random.below(2) == 0);
        let handle = handle.map(|file| file.try_clone().unwrap().into());
        // Now and then one that makes the ring grow.
        let len = if random.below(500) == 0 { 100_000 } else { random.below(100) };
        let filling = vec![number as u8; len as usize];
        queue.put(Item { producer, number, handle, filling }).unwrap();
        note.write_all_at(&(number + 1).to_le_bytes(), 0).unwrap();
    }
}

/// Takes items out until it is killed or the queue ends, and notes each.
fn consume((queue, mut note): (Queue<Item>, Fd<File>)) {
    for item in &queue {
        let Item { producer, number, handle, filling } = item.unwrap();
        assert!(filling.iter().all(|byte| *byte == number as u8));
        if let Some(handle) = handle {
            assert_eq!(self::number(&handle), producer);
        }
        let both = [producer.to_le_bytes(), number.to_le_bytes()];
        note.write_all(both.as_flattened()).unwrap();
    }
}

/// A process and what it notes.
struct Worker {
    process: Process<()>,
    note: File,
}

impl Worker {
    fn start(queue: &Queue<Item>, producer: Option<(u64, bool)>) -> Self {
        let note = tempfile::tempfile().unwrap();
        let (queue, copy) = (queue.clone(), note.try_clone().unwrap().into());
        let process = match producer {
            Some((producer, handles)) => spawn(produce, (queue, producer, handles, copy)),
            None => spawn(consume, (queue, copy)),
        };
        Worker { process, note }
    }

    /// Kills it and gives its notes.
    fn kill(self) -> Vec<u64> {
        self.process.kill().unwrap();
        self.process.join().expect_err("it ended before it was killed");
        read(self.note)
    }
}

fn read(mut note: File) -> Vec<u64> {
    let mut bytes = Vec::new();
    note.rewind().unwrap();
    note.read_to_end(&mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number)).collect()
}

fn chaos(queue: Queue<Item>, handles: bool) {
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let mut random = Numbers::from(seed);
    // By producer, how many it says it has put in; and what each consumer has taken.
    let (mut put, mut taken) = (HashMap::new(), Vec::new());
    let mut producers = 0..;
    let mut start_producer = || {
        let producer = producers.next().unwrap();
        (producer, Worker::start(&queue, Some((producer, handles))))
    };
    let mut at_work_producers: Vec<_> = (0..2).map(|_| start_producer()).collect();
    let mut at_work_consumers: Vec<_> = (0..2).map(|_| Worker::start(&queue, None)).collect();
    let mut killed_consumers = 0;
    for _ in 0..KILLS {
        // A yield may take some milliseconds where everybody has something to do.
        for _ in 0..random.below(6) {
            std::thread::yield_now();
        }
        let victim = random.below(2) as usize;
        if random.below(2) == 0 {
            let (producer, worker) = at_work_producers.swap_remove(victim);
            put.insert(producer, worker.kill().first().copied().unwrap_or(0));
            at_work_producers.push(start_producer());
        } else {
            taken.push(at_work_consumers.swap_remove(victim).kill());
            killed_consumers += 1;
            at_work_consumers.push(Worker::start(&queue, None));
        }
    }
    for (producer, worker) in at_work_producers {
        put.insert(producer, worker.kill().first().copied().unwrap_or(0));
    }
    // One consumer is killed with nobody else there, so that the length can be told from outside.
    let last = at_work_consumers.pop().unwrap();
    for worker in at_work_consumers {
        taken.push(worker.kill());
        killed_consumers += 1;
    }
    taken.push(last.kill());
    killed_consumers += 1;
    let len = queue.len();
    queue.close();
    let worker = Worker::start(&queue, None);
    worker.process.join().unwrap();
    let rest = read(worker.note);
    assert_eq!(rest.len() / 2, len, "the length is not exact");
    assert!(queue.is_empty());
    taken.push(rest);

    let mut by_producer: HashMap<u64, Vec<u64>> = HashMap::new();
    for notes in taken {
        let mut last: HashMap<u64, u64> = HashMap::new();
        for [producer, number] in notes.as_chunks().0 {
            let before = last.insert(*producer, *number);
            assert!(before < Some(*number), "{number} of {producer} came after {before:?}");
            by_producer.entry(*producer).or_default().push(*number);
        }
    }
    let (mut lost, mut items) = (0, 0);
    for (producer, count) in put {
        let mut numbers = by_producer.remove(&producer).unwrap_or_default();
        items += numbers.len();
        numbers.sort();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{producer}: something came twice");
        // It may have been killed before it could note the last one.
        assert!(numbers.last().is_none_or(|last| *last <= count));
        lost += count - numbers.iter().filter(|number| **number < count).count() as u64;
    }
    assert!(by_producer.is_empty());
    assert!(lost <= killed_consumers, "{lost} lost, {killed_consumers} consumers killed");
    assert!(items > KILLS, "{items} items prove little");
}
