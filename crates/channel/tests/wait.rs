//! Proves that `wait` tells of whatever it is given, that no poller sleeps while there is something for
//! it, whoever is killed, and that a queue which nobody polls is not slowed down.

mod common;

use std::io::{Write, pipe};
use std::time::{Duration, Instant, SystemTime};

use common::{end_with_parent, is_in_poll, spawn, traced, watchdog};
use multiproc_channel::{
    Address, Client, JoinableQueue, Listener, Queue, Receiver, Waitable, wait,
};
use multiproc_os::deadline::Deadline;
use multiproc_os::fork::fork;

multiproc_process::init_before_main!();

#[test]
fn each_kind_is_told_of_by_its_index() {
    watchdog();
    let (here, there) = multiproc_channel::pipe::<u32>().unwrap();
    let (sender, receiver) = multiproc_channel::pipe::one_way::<u32>().unwrap();
    let queue = Queue::new().unwrap();
    let joinable = JoinableQueue::bounded(2).unwrap();
    let listener = Listener::bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    let (held, end) = multiproc_channel::pipe::one_way::<()>().unwrap();
    let child = spawn(|end: Receiver<()>| assert!(end.recv().is_err()), end);
    assert_eq!(wait(&[&child], Some(Duration::ZERO)).unwrap(), []);
    let (foreign, mut writer) = pipe().unwrap();
    let objects: [&dyn Waitable; 6] = [&here, &receiver, &queue, &joinable, &listener, &foreign];
    let now = |objects: &[&dyn Waitable]| wait(objects, Some(Duration::ZERO)).unwrap();
    assert_eq!(now(&objects), []);
    there.send(1).unwrap();
    assert_eq!(wait(&objects, None).unwrap(), [0]);
    sender.send(2).unwrap();
    queue.put("item".to_string()).unwrap();
    assert_eq!(wait(&objects, None).unwrap(), [0, 1, 2]);
    joinable.put(3).unwrap();
    let _client = Client::connect(listener.address().clone()).unwrap();
    writer.write_all(b"x").unwrap();
    assert_eq!(wait(&objects, None).unwrap(), [0, 1, 2, 3, 4, 5]);
    here.recv().unwrap();
    queue.get().unwrap();
    joinable.get().unwrap();
    assert_eq!(now(&objects), [1, 4, 5]);
    queue.close();
    drop(there);
    assert_eq!(now(&objects), [0, 1, 2, 4, 5]);
    drop(held);
    assert_eq!(wait(&[&child], None).unwrap(), [0]);
    child.join().unwrap();
}

#[test]
fn nothing_to_wait_for_and_a_timeout() {
    assert_eq!(wait(&[], None).unwrap(), []);
    let queue = Queue::<u8>::new().unwrap();
    for objects in [&[][..], &[&queue as &dyn Waitable, &queue]] {
        let (start, timeout) = (Instant::now(), Duration::from_millis(30));
        assert_eq!(wait(objects, Some(timeout)).unwrap(), []);
        assert!(start.elapsed() >= timeout);
    }
    queue.put(1).unwrap();
    assert_eq!(wait(&[&queue, &queue], Some(Duration::MAX)).unwrap(), [0, 1]);
}

#[test]
fn pollers_and_consumers_share_every_item() {
    const EACH: u32 = 3000;
    let queue = Queue::bounded(5).unwrap();
    let other = Queue::<u32>::new().unwrap();
    let polling = |(queue, other): (Queue<u32>, Queue<u32>)| {
        let mut sum = 0u64;
        loop {
            wait(&[&other, &queue], None).unwrap();
            match queue.try_get() {
                Ok(item) => sum += u64::from(item.unwrap_or(0)),
                Err(error) => break assert!(error.is_closed()),
            }
        }
        sum
    };
    let blocking =
        |queue: Queue<u32>| queue.iter().map(|item| u64::from(item.unwrap())).sum::<u64>();
    let pollers = [(); 2].map(|()| spawn(polling, (queue.clone(), other.clone())));
    let consumer = spawn(blocking, queue.clone());
    let producers = [(); 2].map(|()| {
        let produce = |queue: Queue<u32>| (1..=EACH).for_each(|item| queue.put(item).unwrap());
        spawn(produce, queue.clone())
    });
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    queue.close();
    let sums = pollers.into_iter().chain([consumer]).map(|process| process.join().unwrap());
    assert_eq!(sums.sum::<u64>(), 2 * u64::from(EACH) * u64::from(EACH + 1) / 2);
}

/// What the victim does.
#[derive(Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
enum Act {
    Put,
    Close,
    /// With nothing there.
    Poll,
    /// What another put in has made the signal readable, and is taken.
    PollAfterWake,
}

#[test]
fn killed_while_it_puts_before_pollers() {
    tell(Act::Put);
}

#[test]
fn killed_while_it_closes_before_pollers() {
    tell(Act::Close);
}

#[test]
fn killed_while_it_polls() {
    tell(Act::Poll);
}

#[test]
fn killed_while_it_polls_a_signal_that_is_out_of_step() {
    tell(Act::PollAfterWake);
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

/// Has the victim die after so many instructions while two others poll. Gives how many there were if it
/// came to the end.
fn live(act: Act, after: u64) -> Option<u64> {
    let queue = Queue::new().unwrap();
    let pollers = [(); 2].map(|()| {
        let poller = fork(|| {
            end_with_parent();
            assert_eq!(wait(&[&queue], None).unwrap(), [0]);
            0
        });
        let poller = poller.unwrap();
        while !is_in_poll(poller.pid) {
            std::thread::yield_now();
        }
        poller
    });
    let mut pollers = Some(pollers);
    let mut end_pollers = || {
        for poller in pollers.take().into_iter().flatten() {
            poller.pidfd.wait_end(Deadline::NEVER).unwrap();
            poller.pidfd.reap().unwrap();
        }
    };
    if act == Act::PollAfterWake {
        queue.put(0u32).unwrap();
        end_pollers();
        queue.get().unwrap();
    }
    let length = traced(|| match act {
        Act::Put => queue.put(1).unwrap(),
        Act::Close => queue.close(),
        Act::Poll | Act::PollAfterWake => _ = wait(&[&queue], None).unwrap(),
    })
    .sleeping_as(is_in_poll)
    .run(after, || {
        if queue.is_empty() {
            queue.put(2).unwrap();
        }
    });
    // A put that was committed, or a close, must have woken the others by itself.
    let is_there = || !queue.is_empty() || queue.is_closed();
    assert!(length.is_none() || is_there());
    if !is_there() {
        queue.put(3).unwrap();
    }
    end_pollers();
    if queue.is_closed() {
        return length;
    }
    while queue.try_get().unwrap().is_some() {}
    assert_eq!(wait(&[&queue], Some(Duration::ZERO)).unwrap(), []);
    queue.put(4).unwrap();
    assert_eq!(wait(&[&queue], None).unwrap(), [0]);
    length
}
