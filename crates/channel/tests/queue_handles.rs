//! Proves that items with handles keep their order among the others, however many of them wait, and
//! that a full socket holds up nobody else.

mod common;

use std::fs::File;
use std::time::{Duration, Instant};

use common::{METHODS, Numbers, file, number, spawn, spawn_by, watchdog};
use multiproc_channel::{Connection, Queue, pipe};
use multiproc_wire::Fd;
use serde::{Deserialize, Serialize};

multiproc_process::init_before_main!();

#[derive(Serialize, Deserialize)]
enum Item {
    Plain(u64),
    File(Fd<File>),
    Files(Vec<Fd<File>>),
}

impl Item {
    fn number(&self) -> u64 {
        match self {
            Item::Plain(number) => *number,
            Item::File(file) => number(file),
            Item::Files(files) => {
                let first = number(&files[0]);
                assert!(files.iter().all(|file| number(file) == first));
                first
            }
        }
    }
}

#[test]
fn items_with_and_without_handles_keep_their_order() {
    for method in METHODS {
        let queue = Queue::new().unwrap();
        let child = spawn_by(
            method,
            |queue: Queue<Item>| {
                queue.iter().map(|item| item.unwrap().number()).collect::<Vec<_>>()
            },
            queue.clone(),
        );
        for i in 0..2000 {
            queue
                .put(match i % 7 {
                    0 => Item::File(file(i)),
                    // More than one packet takes.
                    3 if i % 500 == 3 => {
                        let one = file(i);
                        Item::Files((0..260).map(|_| one.try_clone().unwrap().into()).collect())
                    }
                    _ => Item::Plain(i),
                })
                .unwrap();
        }
        queue.close();
        assert!(child.join().unwrap().into_iter().eq(0..2000));
    }
}

#[test]
fn hundreds_wait_and_a_full_socket_blocks_only_items_with_handles() {
    let queue = Queue::new().unwrap();
    let one = file(0);
    let mut put = 0;
    let error = loop {
        match queue.try_put(Item::File(one.try_clone().unwrap().into())) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
    };
    assert!(put >= 100, "only {put}");
    assert!(error.is_full() && matches!(error.into_inner(), Some(Item::File(_))));
    let (start, timeout) = (Instant::now(), Duration::from_millis(30));
    let file = Item::File(one.try_clone().unwrap().into());
    assert!(queue.put_timeout(file, timeout).unwrap_err().is_timeout());
    assert!(start.elapsed() >= timeout);
    let file = Item::File(one.try_clone().unwrap().into());
    assert!(queue.put_timeout(file, Duration::ZERO).unwrap_err().is_timeout());

    // One waits for room in the socket; the other does not wait.
    assert_eq!(queue.len(), put);
    std::thread::scope(|scope| {
        watchdog();
        let waiter = scope.spawn(|| queue.put(Item::File(one.try_clone().unwrap().into())));
        (0..1000).for_each(|i| queue.put(Item::Plain(i)).unwrap());
        assert_eq!(queue.len(), put + 1000);
        (0..put).for_each(|_| assert!(matches!(queue.get().unwrap(), Item::File(_))));
        waiter.join().unwrap().unwrap();
    });
    let rest: Vec<_> = std::iter::from_fn(|| queue.try_get().unwrap()).collect();
    let files = rest.iter().filter(|item| matches!(item, Item::File(_))).count();
    assert_eq!((files, rest.len()), (1, 1001));
}

#[test]
fn a_producer_without_handles_does_not_wait_behind_a_full_socket() {
    // The queue is full, and so is its socket: two producers wait, for different things.
    let queue = Queue::bounded(10_000).unwrap();
    let one = file(0);
    (0..2).for_each(|i| queue.put(Item::Plain(i)).unwrap());
    while queue.try_put(Item::File(one.try_clone().unwrap().into())).is_ok() {}
    while queue.try_put(Item::Plain(1)).is_ok() {}
    let with_handle = |(queue, file): (Queue<Item>, Fd<File>)| queue.put(Item::File(file)).unwrap();
    let first = spawn(with_handle, (queue.clone(), one.try_clone().unwrap().into()));
    common::wait_asleep(first.pid());
    let plain = |queue: Queue<Item>| queue.put(Item::Plain(2)).unwrap();
    let second = spawn(plain, queue.clone());
    common::wait_asleep(second.pid());
    // Room for two more in the queue, for none in the socket.
    (0..2).for_each(|i| assert_eq!(queue.get().unwrap().number(), i));
    second.join().unwrap();
    while queue.try_get().unwrap().is_some() {}
    first.join().unwrap();
}

#[test]
fn many_producers_and_consumers_of_handles() {
    const EACH: u64 = 300;
    let (queue, results) = (Queue::bounded(40).unwrap(), Queue::new().unwrap());
    let consumers = [(); 3].map(|()| {
        let consume = |(queue, results): (Queue<Item>, Queue<u64>)| {
            queue.iter().for_each(|item| results.put(item.unwrap().number()).unwrap());
        };
        spawn(consume, (queue.clone(), results.clone()))
    });
    let producers = [0, 1, 2].map(|producer| {
        let produce = |(queue, producer): (Queue<Item>, u64)| {
            let mut random = Numbers::from(producer);
            for i in producer * EACH..(producer + 1) * EACH {
                let item = if random.below(2) == 0 { Item::Plain(i) } else { Item::File(file(i)) };
                queue.put(item).unwrap();
            }
        };
        spawn(produce, (queue.clone(), producer))
    });
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    queue.close();
    consumers.into_iter().for_each(|consumer| consumer.join().unwrap());
    results.close();
    let mut all: Vec<u64> = results.iter().map(Result::unwrap).collect();
    all.sort();
    assert!(all.into_iter().eq(0..3 * EACH));
}

#[test]
fn a_queue_travels_through_a_queue_and_through_itself() {
    #[derive(Serialize, Deserialize)]
    struct Nested(Option<Box<Queue<Nested>>>, u32);

    let outer = Queue::new().unwrap();
    let inner = Queue::new().unwrap();
    let child = spawn(
        |outer: Queue<Nested>| {
            let Nested(inner, one) = outer.get().unwrap();
            inner.unwrap().put(Nested(None, one + 1)).unwrap();
        },
        outer.clone(),
    );
    outer.put(Nested(Some(Box::new(inner.clone())), 1)).unwrap();
    assert_eq!(inner.get().unwrap().1, 2);
    child.join().unwrap();

    outer.put(Nested(Some(Box::new(outer.clone())), 3)).unwrap();
    let Nested(again, three) = outer.get().unwrap();
    again.unwrap().put(Nested(None, three)).unwrap();
    assert_eq!(outer.get().unwrap().1, 3);
}

#[test]
fn a_handle_with_one_owner_moves_into_the_queue_and_out() {
    let queue = Queue::<(u8, Connection<u32>)>::bounded(1).unwrap();
    let (kept, sent) = pipe().unwrap();
    queue.put((1, sent)).unwrap();
    let (_other, second) = pipe().unwrap();
    let back = queue.try_put((2, second)).unwrap_err();
    assert!(back.is_full());
    let (two, back) = back.into_inner().unwrap();
    assert_eq!(two, 2);
    back.send(9).unwrap();
    assert_eq!(_other.recv().unwrap(), 9);
    drop(back);
    assert!(_other.recv().unwrap_err().is_closed());
    let child = spawn(
        |queue: Queue<(u8, Connection<u32>)>| queue.get().unwrap().1.send(5).unwrap(),
        queue.clone(),
    );
    assert_eq!(kept.recv().unwrap(), 5);
    child.join().unwrap();
    assert!(kept.recv().unwrap_err().is_closed());
}

#[test]
fn handles_of_an_item_that_cannot_be_read_are_closed() {
    let queue = Queue::<(Connection<u32>, Vec<u8>)>::new().unwrap();
    let other: Queue<(Connection<u32>, Vec<bool>)> =
        multiproc_wire::decode(multiproc_wire::encode(&queue).unwrap()).unwrap();
    for bytes in [vec![1], vec![7], vec![0]] {
        let (kept, sent) = pipe().unwrap();
        let readable = bytes != [7];
        queue.put((sent, bytes)).unwrap();
        match other.get() {
            Ok((connection, _)) => connection.send(1).unwrap(),
            Err(error) => assert!(error.is_decode() && !readable),
        }
        assert_eq!(kept.recv().is_ok(), readable);
        assert!(kept.recv().unwrap_err().is_closed());
    }
}
