//! Proves that the async forms get and give what the blocking forms of other processes give and get, that
//! a future which is dropped loses nothing, and that no task sleeps while there is something for it.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use common::{file, number, spawn, watchdog};
use futures_core::Stream;
use multiproc_channel::{Address, Client, Listener, Queue, Receiver, Sender, pipe};
use multiproc_wire::Fd;

multiproc_process::init_before_main!();

/// Runs a future on a runtime with one thread.
fn run<T>(future: impl Future<Output = T>) -> T {
    watchdog();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

/// Polls a future once and drops it.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn next<S: Stream + Unpin>(mut stream: S) -> Option<S::Item> {
    poll_fn(|context| pin!(&mut stream).poll_next(context)).await
}

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
fn what_has_come_of_a_message_is_kept() {
    let listener = Listener::bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    let client = Client::connect(listener.address().clone()).unwrap();
    let connection = listener.accept().unwrap();
    run(async {
        assert!(once(connection.recv_bytes_async()).await.is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| client.send_bytes(&[7; 10 << 20]).unwrap());
            // Large enough to come in many parts.
            loop {
                let mut future = pin!(once(connection.recv_bytes_async()));
                let polled = futures_poll(future.as_mut());
                if let Some(bytes) = polled {
                    assert!(bytes.unwrap() == [7; 10 << 20]);
                    break;
                }
                std::thread::yield_now();
            }
        });
    });
}

/// The value of a future that is ready at once.
fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("it is polled once"),
    }
}
