//! Results are had in every way that a handle offers: waited for, asked for, called back, polled.

mod common;

use std::fs::File;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use common::{gate, kill, pass, watchdog};
use multiproc_pool::{Pool, as_completed};
use multiproc_process::init_before_main;
use multiproc_wire::Fd;

init_before_main!();

fn pool(workers: usize) -> Pool {
    Pool::builder().workers(workers).build().unwrap()
}

fn pass_and_give((gate, x): (Fd<File>, u32)) -> u32 {
    pass(&gate);
    x
}

/// Runs a future in this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_handle_tells_how_far_its_task_is() {
    watchdog();
    let pool = pool(1);
    let (entry, gate) = gate();
    let mut later = pool.apply_async(pass_and_give, (entry, 5)).unwrap();
    assert!(!later.ready());
    assert_eq!(later.successful(), None);
    assert!(!later.wait(Duration::from_millis(1)));
    let mut later = later.get_timeout(Duration::from_millis(1)).unwrap_err();
    gate.let_through(1);
    assert!(later.wait(Duration::MAX));
    assert!(later.ready());
    assert_eq!(later.successful(), Some(true));
    assert_eq!(later.get_timeout(Duration::ZERO).unwrap().unwrap(), 5);
    let mut fails = pool.map_async(|x: u32| 6 / x, [3, 0, 2]).unwrap();
    assert!(fails.wait(Duration::MAX));
    assert_eq!(fails.successful(), Some(false));
    let outcomes = fails.get().unwrap_err().into_outcomes();
    assert_eq!(outcomes.iter().filter_map(|o| o.as_ref().ok()).collect::<Vec<_>>(), [&2, &3]);
}

#[test]
fn a_callback_is_given_the_value_or_the_error() {
    watchdog();
    let pool = pool(2);
    let (sender, receiver) = mpsc::channel();
    let send = |tag: &'static str| {
        let sender = sender.clone();
        move |result: Result<u32, multiproc_pool::TaskError>| {
            sender.send((tag, result.map_err(|error| error.to_string()))).unwrap();
        }
    };
    pool.apply_async(|x: u32| x + 1, 1).unwrap().on_done(send("value"));
    pool.apply_async(|x: u32| 6 / x, 0).unwrap().on_done(send("panic"));
    pool.apply_async(
        |x: u32| {
            kill(std::process::id());
            x
        },
        0,
    )
    .unwrap()
    .on_done(send("death"));
    let mut seen: Vec<_> = receiver.iter().take(3).collect();
    seen.sort();
    assert_eq!(seen[2], ("value", Ok(2)));
    assert!(seen[1].0 == "panic" && seen[1].1.as_ref().unwrap_err().contains("divide by zero"));
    assert!(seen[0].0 == "death" && seen[0].1.as_ref().unwrap_err().contains("SIGKILL"));
    let (sender, receiver) = mpsc::channel();
    let map = pool.map_async(|x: u32| x * 2, 0..100).unwrap();
    map.on_done(move |result| sender.send(result.unwrap().len()).unwrap());
    assert_eq!(receiver.recv().unwrap(), 100);
}

#[test]
fn a_callback_that_panics_costs_nobody_else_anything() {
    watchdog();
    let pool = pool(2);
    let (sender, receiver) = mpsc::channel();
    for x in 0..200u32 {
        let sender = sender.clone();
        pool.apply_async(|x: u32| x, x).unwrap().on_done(move |result| {
            assert!(!x.is_multiple_of(3), "meant to panic");
            sender.send(result.unwrap()).unwrap();
        });
    }
    drop(sender);
    let mut seen: Vec<u32> = receiver.iter().collect();
    seen.sort();
    assert!(seen.into_iter().eq((0..200u32).filter(|x| !x.is_multiple_of(3))));
    assert_eq!(pool.apply(|x: u32| x, 1).unwrap(), 1);
}

#[test]
fn a_callback_uses_the_pool_and_may_drop_its_last_handle() {
    watchdog();
    let (sender, receiver) = mpsc::channel();
    let pool = pool(1);
    let again = pool.clone();
    pool.apply_async(|x: u32| x + 1, 1).unwrap().on_done(move |result| {
        let sum = again.apply(|x: u32| x + 10, result.unwrap()).unwrap();
        drop(again);
        sender.send(sum).unwrap();
    });
    drop(pool);
    assert_eq!(receiver.recv().unwrap(), 12);
}

#[test]
fn results_come_in_the_order_in_which_tasks_end() {
    watchdog();
    let pool = pool(3);
    let (entries, gates): (Vec<_>, Vec<_>) = (0..3).map(|_| gate()).unzip();
    let later: Vec<_> = entries
        .into_iter()
        .zip(0..)
        .map(|(entry, x)| pool.apply_async(pass_and_give, (entry, x)).unwrap())
        .collect();
    let mut results = as_completed(later);
    assert_eq!(results.len(), 3);
    for next in [2, 0, 1] {
        gates[next].let_through(1);
        let (place, result) = results.next().unwrap();
        assert_eq!((place, result.unwrap()), (next, next as u32));
    }
    assert!(results.next().is_none());
    assert!(as_completed::<u32>([]).next().is_none());
}

#[test]
fn a_handle_is_a_future_on_any_executor() {
    watchdog();
    let pool = pool(2);
    for x in 0..200 {
        assert_eq!(block_on(pool.apply_async(|x: u32| x + 1, x).unwrap()).unwrap(), x + 1);
    }
    assert_eq!(block_on(pool.map_async(|x: u32| x, 0..1_000).unwrap()).unwrap().len(), 1_000);
    assert!(block_on(pool.apply_async(|x: u32| 1 / x, 0).unwrap()).is_err());
}

#[test]
fn handles_are_futures_on_tokio() {
    watchdog();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pool = pool(2);
    let sum = runtime.block_on(async {
        let tasks: Vec<_> =
            (0..100u32).map(|x| tokio::spawn(pool.apply_async(|x: u32| x, x).unwrap())).collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap().unwrap();
        }
        sum
    });
    assert_eq!(sum, 4950);
}

#[test]
fn dropping_the_borrow_of_a_handle_that_was_polled_loses_nothing() {
    watchdog();
    let pool = pool(1);
    let (entry, gate) = gate();
    let mut later = pool.map_async(pass_and_give, {
        let copies = |x| (Fd::from(entry.try_clone().unwrap()), x);
        (0..5).map(copies).collect::<Vec<_>>()
    });
    let later = later.as_mut().unwrap();
    for round in 0..5 {
        // Polled once, and dropped.
        let once = poll_fn(|context| Poll::Ready(Pin::new(&mut *later).poll(context).is_ready()));
        assert!(!block_on(once), "round {round}");
        gate.let_through(1);
    }
    assert_eq!(block_on(later).unwrap(), [0, 1, 2, 3, 4]);
}

/// Regression: a waker that panicked took the pool's thread with it.
#[test]
fn a_waker_that_panics_costs_nobody_else_anything() {
    struct Panics(AtomicUsize);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
            panic!("a waker");
        }
    }
    watchdog();
    let pool = pool(1);
    let (entry, gate) = gate();
    let mut later = pool.apply_async(pass_and_give, (entry, 1)).unwrap();
    let panics = Arc::new(Panics(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&panics));
    assert!(Pin::new(&mut later).poll(&mut Context::from_waker(&waker)).is_pending());
    gate.let_through(1);
    common::eventually(|| panics.0.load(SeqCst) == 1);
    assert_eq!(pool.apply(|x: u32| x, 3).unwrap(), 3);
    assert_eq!(later.get().unwrap(), 1);
}

/// Asks the pool something, in the thread that wakes it.
struct Asks {
    pool: Pool,
    answer: mpsc::Sender<usize>,
}

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let _later = self.pool.apply_async(|x: u32| x + 1, 1).unwrap();
        self.answer.send(self.pool.workers()).unwrap();
    }
}

/// Regression: it was woken while the pool's state was locked, and waited for itself.
#[test]
fn a_waker_may_use_the_pool() {
    watchdog();
    let pool = pool(2);
    let (answer, answers) = mpsc::channel();
    for x in 0..20 {
        let (entry, gate) = gate();
        let mut later = pool.apply_async(pass_and_give, (entry, x)).unwrap();
        let waker = Waker::from(Arc::new(Asks { pool: pool.clone(), answer: answer.clone() }));
        assert!(Pin::new(&mut later).poll(&mut Context::from_waker(&waker)).is_pending());
        gate.let_through(1);
        assert_eq!(answers.recv().unwrap(), 2);
        assert_eq!(later.get().unwrap(), x);
    }
}

/// Keeps a pool until it is woken, or not needed any more.
struct Keeps(#[allow(dead_code)] Pool);

impl Wake for Keeps {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_be_the_last_to_have_the_pool() {
    watchdog();
    for x in 0..20 {
        let pool = pool(1);
        let (entry, gate) = gate();
        let mut later = pool.apply_async(pass_and_give, (entry, x)).unwrap();
        let waker = Waker::from(Arc::new(Keeps(pool)));
        assert!(Pin::new(&mut later).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        gate.let_through(1);
        assert_eq!(later.get().unwrap(), x);
    }
}
