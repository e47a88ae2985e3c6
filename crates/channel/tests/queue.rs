//! Proves that a queue gives each item once and in order, whoever puts and gets, that its bound, its
//! end and its timeouts are exact, and that it gives its memory back.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{METHODS, spawn, wait_asleep, watchdog};
use multiproc_channel::{Connection, Error, Queue, pipe};
use multiproc_process::{Process, StartMethod};
use multiproc_wire::{decode, encode};
use serde::{Deserialize, Serialize};

multiproc_process::init_before_main!();

#[test]
fn one_producer_and_one_consumer_under_each_start_method() {
    fn round(method: StartMethod) {
        let (there, back) = (Queue::new().unwrap(), Queue::bounded(100).unwrap());
        let echo = |(there, back): (Queue<u64>, Queue<u64>)| {
            there.iter().for_each(|item| back.put(item.unwrap()).unwrap());
            back.close();
        };
        let child = Process::builder()
            .daemon(true)
            .start_method(method)
            .spawn(echo, (there.clone(), back.clone()))
            .unwrap();
        (0..10_000).for_each(|i| there.put(i).unwrap());
        there.close();
        assert!(back.iter().map(Result::unwrap).eq(0..10_000));
        child.join().unwrap();
    }
    for method in METHODS {
        round(method);
    }
    // A process with threads cannot fork.
    spawn(|()| round(StartMethod::Fork), ()).join().unwrap();
}

#[test]
fn four_producers_and_four_consumers_share_every_item() {
    const EACH: u64 = 20_000;
    for bound in [None, Some(1), Some(50)] {
        let queue = bound.map_or_else(Queue::new, Queue::bounded).unwrap();
        let each = if bound == Some(1) { EACH / 10 } else { EACH };
        let consumers = [(); 4].map(|()| {
            let consume =
                |queue: Queue<(u64, u64)>| queue.iter().collect::<Result<Vec<_>, _>>().unwrap();
            spawn(consume, queue.clone())
        });
        let producers = [0, 1, 2, 3].map(|producer| {
            let produce = |(queue, producer, each): (Queue<(u64, u64)>, u64, u64)| {
                (0..each).for_each(|i| queue.put((producer, i)).unwrap());
            };
            spawn(produce, (queue.clone(), producer, each))
        });
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        queue.close();
        let mut all = Vec::new();
        for consumer in consumers {
            let items = consumer.join().unwrap();
            // One consumer sees the items of one producer in order.
            for producer in 0..4 {
                assert!(items.iter().filter(|(p, _)| *p == producer).is_sorted());
            }
            all.extend(items);
        }
        all.sort();
        let expected = (0..4).flat_map(|producer| (0..each).map(move |i| (producer, i)));
        assert!(all.into_iter().eq(expected), "bound {bound:?}");
        assert!(queue.is_empty());
    }
}

#[test]
fn one_consumer_sees_the_order_in_which_items_were_put_in() {
    let queue = Queue::new().unwrap();
    let turn = Queue::new().unwrap();
    // Each producer puts in what it took from the other queue before it gives the turn away.
    let producers = [(); 3].map(|()| {
        let produce = |(queue, turn): (Queue<u64>, Queue<u64>)| {
            while let Ok(next) = turn.get() {
                if next == 3000 {
                    queue.close();
                    turn.close();
                } else {
                    queue.put(next).unwrap();
                    turn.put(next + 1).unwrap();
                }
            }
        };
        spawn(produce, (queue.clone(), turn.clone()))
    });
    turn.put(0).unwrap();
    assert!(queue.iter().map(Result::unwrap).eq(0..3000));
    producers.into_iter().for_each(|producer| producer.join().unwrap());
}

#[test]
fn a_bound_blocks_and_wakes() {
    let queue = Queue::bounded(2).unwrap();
    queue.put(0).unwrap();
    assert!(!queue.is_full());
    queue.put(1).unwrap();
    assert!(queue.is_full() && queue.len() == 2);
    assert!(queue.try_put(9).unwrap_err().is_full());
    let child =
        spawn(|queue: Queue<u64>| (2..100).for_each(|i| queue.put(i).unwrap()), queue.clone());
    wait_asleep(child.pid());
    assert_eq!(queue.len(), 2);
    for i in 0..100 {
        assert_eq!(queue.get().unwrap(), i);
        assert!(queue.len() <= 2);
    }
    child.join().unwrap();
    assert!(Queue::<u8>::bounded(0).unwrap_err().to_string().contains("at least one"));
}

#[test]
fn timeouts_are_exact() {
    let queue = Queue::bounded(1).unwrap();
    let timeout = Duration::from_millis(30);
    for waits in [Duration::ZERO, timeout] {
        let start = Instant::now();
        assert_eq!(queue.get_timeout(waits).unwrap(), None);
        assert!(start.elapsed() >= waits);
    }
    assert_eq!(queue.try_get().unwrap(), None);
    queue.put_timeout("one".to_string(), Duration::ZERO).unwrap();
    for waits in [Duration::ZERO, timeout] {
        let start = Instant::now();
        let error = queue.put_timeout("two".to_string(), waits).unwrap_err();
        assert!(start.elapsed() >= waits);
        assert!(error.is_timeout() && !error.is_full() && !error.is_closed());
        assert_eq!(error.into_inner().unwrap(), "two");
    }
    let error = queue.try_put("two".to_string()).unwrap_err();
    assert!(error.is_full() && !error.is_timeout() && error.into_inner().unwrap() == "two");
    assert_eq!(queue.get_timeout(Duration::ZERO).unwrap().unwrap(), "one");
    queue.put_timeout("three".to_string(), Duration::MAX).unwrap();
    assert_eq!(queue.get_timeout(Duration::MAX).unwrap().unwrap(), "three");
}

#[test]
fn the_longest_timeouts_wait() {
    let (queue, back) = (Queue::bounded(1).unwrap(), Queue::new().unwrap());
    let child = spawn(
        |(queue, back): (Queue<u8>, Queue<u8>)| {
            back.put(queue.get_timeout(Duration::MAX).unwrap().unwrap()).unwrap();
            queue.put(2).unwrap();
            queue.put_timeout(3, Duration::MAX).unwrap();
        },
        (queue.clone(), back.clone()),
    );
    wait_asleep(child.pid());
    queue.put(1).unwrap();
    assert_eq!(back.get().unwrap(), 1);
    wait_asleep(child.pid());
    assert_eq!(queue.get().unwrap(), 2);
    child.join().unwrap();
    assert_eq!(queue.get().unwrap(), 3);
}

#[test]
fn close_ends_everybody() {
    let queue = Queue::bounded(3).unwrap();
    (0..3).for_each(|i| queue.put(i).unwrap());
    let producers = [(); 3].map(|()| {
        let produce = |queue: Queue<u32>| {
            let error = queue.put(100).unwrap_err();
            assert!(error.is_closed());
            error.into_inner().unwrap()
        };
        spawn(produce, queue.clone())
    });
    producers.iter().for_each(|producer| wait_asleep(producer.pid()));
    queue.close();
    assert_eq!(producers.map(|producer| producer.join().unwrap()), [100; 3]);
    assert!(queue.is_closed());
    assert!(queue.try_put(7).unwrap_err().is_closed());
    assert!(queue.put_timeout(7, Duration::ZERO).unwrap_err().is_closed());

    assert_eq!(queue.get().unwrap(), 0);
    assert_eq!(queue.iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
    assert!(queue.get().unwrap_err().is_closed());
    assert!(queue.try_get().unwrap_err().is_closed());
    assert!(queue.get_timeout(Duration::MAX).unwrap_err().is_closed());
    queue.close();

    let queue = Queue::<u32>::new().unwrap();
    let consumers =
        [(); 5].map(|()| spawn(|queue: Queue<u32>| queue.iter().count(), queue.clone()));
    consumers.iter().for_each(|consumer| wait_asleep(consumer.pid()));
    queue.put(1).unwrap();
    queue.close();
    assert_eq!(consumers.map(|consumer| consumer.join().unwrap()).iter().sum::<usize>(), 1);
}

#[test]
fn a_million_items_wait_and_their_memory_comes_back() {
    wait_in_a_queue(1_000_000);
}

#[test]
#[ignore = "takes half a minute"]
fn ten_million_items_wait_and_their_memory_comes_back() {
    wait_in_a_queue(10_000_000);
}

fn wait_in_a_queue(items: u64) {
    let queue = Queue::new().unwrap();
    // The producer has ended before the first item is taken.
    let produce =
        |(queue, items): (Queue<u64>, u64)| (0..items).for_each(|i| queue.put(i).unwrap());
    spawn(produce, (queue.clone(), items)).join().unwrap();
    assert_eq!(queue.len() as u64, items);
    let full = blocks(&queue);
    assert!(full > items * 16 / 512, "{full} blocks");
    let consume = |(queue, items): (Queue<u64>, u64)| {
        (0..items - 1).for_each(|i| assert_eq!(queue.get().unwrap(), i));
        queue.get().unwrap()
    };
    assert_eq!(spawn(consume, (queue.clone(), items)).join().unwrap(), items - 1);
    assert!(queue.is_empty());
    let empty = blocks(&queue);
    assert!(empty <= (256 << 10) / 512, "{empty} blocks of {full} are left");
    // And it is as good as new.
    (0..10).for_each(|i| queue.put(i).unwrap());
    (0..10).for_each(|i| assert_eq!(queue.get().unwrap(), i));
}

/// How much memory stands behind the queue, in blocks of 512 bytes.
fn blocks(queue: &Queue<u64>) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // The descriptors of the queue, and not those of another test, are in its message.
    let message = encode(queue).unwrap();
    let blocks = message.fds().into_iter().map(|fd| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let is_memory = fs::read_link(&path).unwrap().to_str().unwrap().contains("memfd");
        if is_memory { fs::metadata(&path).unwrap().blocks() } else { 0 }
    });
    blocks.sum()
}

#[test]
fn items_of_any_size() {
    const LENGTHS: [usize; 10] = [0, 1, 7, 8, 65_520, 65_536, 65_537, 1 << 20, 20 << 20, 3];
    for bound in [None, Some(1)] {
        let queue = bound.map_or_else(Queue::new, Queue::bounded).unwrap();
        let produce = |queue: Queue<Vec<u8>>| {
            for (i, len) in (0..).zip(LENGTHS) {
                queue.put(vec![i; len]).unwrap();
            }
        };
        let child = spawn(produce, queue.clone());
        for (i, len) in (0..).zip(LENGTHS) {
            let item = queue.get().unwrap();
            assert!(item.len() == len && item.iter().all(|byte| *byte == i), "{len}");
        }
        child.join().unwrap();
    }
    let units = Queue::new().unwrap();
    (0..10_000).for_each(|_| units.put(()).unwrap());
    units.close();
    assert_eq!(units.len(), 10_000);
    assert_eq!(units.iter().map(Result::unwrap).count(), 10_000);
}

#[test]
fn an_item_that_cannot_be_read_is_gone_and_no_other() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Text(Option<String>);

    let bytes = Queue::<Vec<u8>>::new().unwrap();
    // The same queue, as one of something else.
    let texts: Queue<Text> = decode(encode(&bytes).unwrap()).unwrap();
    bytes.put(vec![]).unwrap();
    bytes.put(vec![2, b'h']).unwrap();
    bytes.put(vec![3]).unwrap();
    bytes.put(vec![]).unwrap();
    bytes.close();
    let read: Vec<_> =
        texts.iter().map(|item| item.map_err(|error: Error| error.is_decode())).collect();
    assert_eq!(read, [Ok(Text(None)), Err(true), Err(true), Ok(Text(None))]);
    assert!(texts.get().unwrap_err().is_closed());
}

#[test]
fn threads_and_processes_mix() {
    const EACH: u64 = 5000;
    watchdog();
    let (queue, results) = (Queue::bounded(10).unwrap(), Queue::new().unwrap());
    let work = |(queue, results): (Queue<u64>, Queue<u64>)| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| queue.iter().for_each(|item| results.put(item.unwrap()).unwrap()));
            }
        });
    };
    let children = [(); 2].map(|()| spawn(work, (queue.clone(), results.clone())));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let queue = queue.clone();
            scope.spawn(move || (0..EACH).for_each(|i| queue.put(thread * EACH + i).unwrap()));
        }
    });
    queue.close();
    children.into_iter().for_each(|child| child.join().unwrap());
    results.close();
    let mut all: Vec<u64> = results.iter().map(Result::unwrap).collect();
    all.sort();
    assert!(all.into_iter().eq(0..4 * EACH));
}

#[test]
fn the_last_handle_of_another_process_is_enough() {
    let (here, there) = pipe::<Queue<String>>().unwrap();
    let child = spawn(
        |there: Connection<Queue<String>>| {
            let queue = Queue::new().unwrap();
            queue.put("kept".to_string()).unwrap();
            there.send(queue).unwrap();
        },
        there,
    );
    let queue = here.recv().unwrap();
    child.join().unwrap();
    assert_eq!(queue.get().unwrap(), "kept");
}

#[test]
fn queues_and_errors_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Queue<std::cell::Cell<u8>>>();
    shared::<Connection<std::cell::Cell<u8>>>();
    shared::<Error>();
}
