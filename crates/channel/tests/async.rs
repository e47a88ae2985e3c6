//! Proves that the async forms get and give what the blocking forms of other processes give and get, that
//! a future which is dropped loses nothing, and that no task sleeps while there is something for it.

mod common;

use std::pin::pin;

use common::tasks::{next, once, run};
use common::{file, number, spawn, wait_asleep};
use multiproc_channel::{
    Connection, JoinableQueue, Queue, Receiver, Sender, Waitable, pipe, wait_async,
};
use multiproc_wire::Fd;

multiproc_process::init_before_main!();

#[test]
fn tasks_share_a_queue_with_processes() {
    const EACH: u64 = 2000;
    let queue = Queue::bounded(4).unwrap();
    let results = Queue::<u64>::new().unwrap();
    let producer =
        spawn(|queue: Queue<u64>| (1..=EACH).for_each(|i| queue.put(i).unwrap()), queue.clone());
    let consumer = spawn(
        |(queue, results): (Queue<u64>, Queue<u64>)| {
            results.put(queue.iter().map(Result::unwrap).sum()).unwrap();
        },
        (queue.clone(), results.clone()),
    );
    let sum = run(async {
        let consume = async || {
            let mut sum = 0;
            while let Ok(item) = queue.get_async().await {
                sum += item;
            }
            sum
        };
        let produce = async {
            for i in 1..=EACH {
                queue.put_async(i).await.unwrap();
            }
            while producer.is_alive() {
                tokio::task::yield_now().await;
            }
            queue.close();
        };
        let (one, two, ()) = tokio::join!(consume(), consume(), produce);
        one + two
    });
    consumer.join().unwrap();
    producer.join().unwrap();
    assert_eq!(sum + results.get().unwrap(), EACH * (EACH + 1));
}

#[test]
fn a_long_message_is_sent_though_its_receiver_was_stopped_while_it_looked() {
    const SIGCONT: i32 = 18;
    const SIGSTOP: i32 = 19;
    const LEN: usize = 70_000;
    for _ in 0..50 {
        let (here, there) = pipe::<Vec<u8>>().unwrap();
        let child = spawn(
            |there: Connection<Vec<u8>>| {
                there.send(Vec::new()).unwrap();
                // Where it is stopped, if not in between.
                loop {
                    if let Some(message) = there.try_recv().unwrap() {
                        return message.len();
                    }
                }
            },
            there,
        );
        here.recv().unwrap();
        child.send_signal(SIGSTOP).unwrap();
        run(async {
            let mut send = pin!(here.send_async(vec![7; LEN]));
            let sent = once(send.as_mut()).await;
            child.send_signal(SIGCONT).unwrap();
            match sent {
                Some(sent) => sent.unwrap(),
                None => send.await.unwrap(),
            }
        });
        assert_eq!(child.join().unwrap(), LEN);
    }
}

#[test]
fn a_future_that_is_dropped_loses_no_message() {
    const MANY: u64 = 2000;
    let (queue, room) = (Queue::new().unwrap(), Queue::bounded(1).unwrap());
    let (sender, receiver) = pipe::one_way::<u64>().unwrap();
    let child = spawn(
        |(queue, room, sender): (Queue<u64>, Queue<u64>, Sender<u64>)| {
            for i in 0..MANY {
                queue.put(i).unwrap();
                sender.send(i).unwrap();
                assert_eq!(room.get().unwrap(), i);
            }
        },
        (queue.clone(), room.clone(), sender),
    );
    run(async {
        for i in 0..MANY {
            let got = loop {
                if let Some(got) = once(queue.get_async()).await {
                    break got.unwrap();
                }
                tokio::task::yield_now().await;
            };
            let received = loop {
                if let Some(received) = once(receiver.recv_async()).await {
                    break received.unwrap();
                }
                tokio::task::yield_now().await;
            };
            assert_eq!((got, received), (i, i));
            while once(room.put_async(i)).await.is_none() {
                tokio::task::yield_now().await;
            }
        }
    });
    child.join().unwrap();
    assert!(receiver.recv().unwrap_err().is_closed() && queue.is_empty() && room.is_empty());
}

#[test]
fn a_full_pipe_is_waited_for() {
    let (sender, receiver) = pipe::one_way::<Vec<u8>>().unwrap();
    let child = spawn(
        |receiver: Receiver<Vec<u8>>| {
            receiver.iter().map(|bytes| bytes.unwrap().len()).sum::<usize>()
        },
        receiver,
    );
    run(async {
        for _ in 0..200 {
            sender.send_async(vec![7; 50_000]).await.unwrap();
        }
    });
    drop(sender);
    assert_eq!(child.join().unwrap(), 10_000_000usize);
}

#[test]
fn the_end_and_handles_are_told_and_carried() {
    let queue = Queue::<Fd<std::fs::File>>::bounded(1).unwrap();
    let (sender, receiver) = pipe::one_way().unwrap();
    run(async {
        queue.put_async(file(3)).await.unwrap();
        assert_eq!(number(&queue.get_async().await.unwrap()), 3);
        sender.send_async(file(4)).await.unwrap();
        assert_eq!(number(&receiver.recv_async().await.unwrap()), 4);
        queue.put_async(file(5)).await.unwrap();
        queue.close();
        let error = queue.put_async(file(6)).await.unwrap_err();
        assert!(error.is_closed() && error.into_inner().is_some_and(|file| number(&file) == 6));
        assert!(queue.get_async().await.is_ok());
        assert!(queue.get_async().await.unwrap_err().is_closed());
        drop(receiver);
        assert!(sender.send_async(file(7)).await.unwrap_err().is_closed());
    });
}

#[test]
fn streams_end() {
    let queue = Queue::new().unwrap();
    let (sender, receiver) = pipe::one_way::<u64>().unwrap();
    let child = spawn(
        |(queue, sender): (Queue<u64>, Sender<u64>)| {
            for i in 0..500 {
                queue.put(i).unwrap();
                sender.send(i).unwrap();
            }
            queue.close();
        },
        (queue.clone(), sender),
    );
    run(async {
        let (mut items, mut values) = (queue.stream(), receiver.stream());
        for i in 0..500 {
            assert_eq!(next(&mut items).await.unwrap().unwrap(), i);
            assert_eq!(next(&mut values).await.unwrap().unwrap(), i);
        }
        assert!(next(&mut items).await.is_none() && next(&mut values).await.is_none());
        assert!(next(&mut items).await.is_none());
    });
    child.join().unwrap();
}

#[test]
fn whatever_becomes_ready_is_told() {
    let (queue, joinable) = (Queue::<u64>::new().unwrap(), JoinableQueue::<u64>::new().unwrap());
    let (sender, receiver) = pipe::one_way::<u64>().unwrap();
    let (go, wait) = pipe::one_way::<u64>().unwrap();
    let child = spawn(
        |(queue, joinable, sender, wait): (_, JoinableQueue<u64>, Sender<u64>, Receiver<u64>)| {
            let queue: Queue<u64> = queue;
            for step in &wait {
                match step.unwrap() % 3 {
                    0 => queue.put(1).unwrap(),
                    1 => joinable.put(1).unwrap(),
                    _ => sender.send(1).unwrap(),
                }
            }
        },
        (queue.clone(), joinable.clone(), sender, wait),
    );
    run(async {
        assert!(wait_async(&[]).await.unwrap().is_empty());
        for step in 0..300 {
            let objects: [&(dyn Waitable + Sync); 3] = [&queue, &joinable, &receiver];
            let mut waits = pin!(wait_async(&objects));
            assert!(once(waits.as_mut()).await.is_none());
            go.send(step).unwrap();
            assert_eq!(waits.await.unwrap(), [step as usize % 3]);
            match step % 3 {
                0 => queue.get().unwrap(),
                1 => joinable.get().unwrap(),
                _ => receiver.recv().unwrap(),
            };
        }
        drop(go);
        // The end of the process, which closes its end of the pipe before that.
        assert_eq!(wait_async(&[&child]).await.unwrap(), [0]);
    });
    child.join().unwrap();
}

#[test]
fn tasks_and_processes_join_and_all_are_let_go_though_the_next_item_follows_at_once() {
    let queue = JoinableQueue::new().unwrap();
    let (go, wait) = pipe::one_way::<()>().unwrap();
    let worker = spawn(
        |(queue, wait): (JoinableQueue<u32>, Receiver<()>)| {
            for step in &wait {
                step.unwrap();
                queue.get_task().map(drop).unwrap();
                queue.put(1).unwrap();
            }
        },
        (queue.clone(), wait),
    );
    queue.put(0).unwrap();
    for _ in 0..30 {
        let joiner = spawn(|queue: JoinableQueue<u32>| queue.join().unwrap(), queue.clone());
        wait_asleep(joiner.pid());
        run(async {
            let (mut one, mut two) = (pin!(queue.join_async()), pin!(queue.join_async()));
            assert!(once(one.as_mut()).await.is_none() && once(two.as_mut()).await.is_none());
            go.send(()).unwrap();
            one.await.unwrap();
            // The next item is there, and who joins now waits for that.
            while queue.is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(once(queue.join_async()).await.is_none());
            two.await.unwrap();
        });
        joiner.join().unwrap();
    }
    drop(go);
    worker.join().unwrap();
    run(async {
        let (task, joined) = tokio::join!(
            async { drop(queue.get_task_async().await.unwrap()) },
            queue.join_async(),
        );
        joined.unwrap();
        assert_eq!(task, ());
    });
}
