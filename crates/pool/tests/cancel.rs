//! What is cancelled, or takes too long, ends alone; what dies is tried again as often as was said.

mod common;

use std::fs::File;
use std::time::Duration;

use common::{
    gate, hang, kill, log, note, pass, say, signal, task_that_waits, wait_for_ever, watchdog,
};
use multiproc_pool::Pool;
use multiproc_process::init_before_main;
use multiproc_wire::Fd;
use rustix::process::Signal;

init_before_main!();

/// Much longer than anything takes here but what hangs, on a machine that has other work as well.
const TIMEOUT: Duration = Duration::from_millis(500);

#[test]
fn a_task_that_takes_too_long_is_the_only_one_to_fail() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let task = |x: u32| if x % 20 == 13 { hang() } else { x };
    for chunk in [1, 7, 100] {
        let timed = pool.with_timeout(TIMEOUT).with_chunk_size(chunk);
        let outcomes = timed.try_map(task, 0..100).unwrap();
        for (x, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(value) => assert!(value == x as u32 && x % 20 != 13),
                Err(error) => assert!(x % 20 == 13 && error.is_timeout(), "{x}: {error}"),
            }
        }
    }
    // Tasks without a timeout are not touched by that of others.
    let (entry, gate) = gate();
    let slow = pool.apply_async(|gate: Fd<File>| pass(&gate), entry).unwrap();
    assert!(pool.with_timeout(TIMEOUT).apply(|()| hang::<()>(), ()).unwrap_err().is_timeout());
    drop(gate);
    slow.get().unwrap();
}

#[test]
fn what_is_not_done_at_the_deadline_of_a_call_fails() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let limited = pool.with_deadline(Duration::from_millis(300)).with_chunk_size(1);
    let outcomes = limited.try_map(|x: u32| if x < 4 { x } else { hang() }, 0..50).unwrap();
    for (x, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(value) => assert_eq!(value, x as u32),
            Err(error) => assert!(error.is_timeout(), "{x}: {error}"),
        }
    }
    assert_eq!(pool.apply(|x: u32| x, 5).unwrap(), 5);
    // One that is over before it began.
    let late = pool.with_deadline(Duration::ZERO).try_map(|x: u32| x, 0..10).unwrap();
    assert!(late.iter().all(|outcome| outcome.as_ref().is_ok_and(|_| true)
        || outcome.as_ref().is_err_and(|error| error.is_timeout())));
}

#[test]
fn a_task_that_waits_is_cancelled_without_being_begun() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let (entry, gate) = gate();
    let (says, running) = task_that_waits();
    let first = pool.apply_async(
        |(says, gate): (Fd<File>, Fd<File>)| {
            say(&says);
            pass(&gate);
        },
        (says, entry),
    );
    running.wait();
    let (writer, log) = log();
    let second = pool.apply_async(|log: Fd<File>| note(&log, "begun"), writer).unwrap();
    second.cancel();
    assert!(second.get().unwrap_err().is_cancelled());
    drop(gate);
    first.unwrap().get().unwrap();
    pool.apply(|()| (), ()).unwrap();
    assert!(log.lines().is_empty());
    assert_eq!(pool.statistics().died, 0);
}

#[test]
fn a_task_that_runs_is_cancelled_with_its_worker_and_no_other() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    for _ in 0..20 {
        let (entry, gate) = gate();
        let (says_one, one_runs) = task_that_waits();
        let (says_two, two_runs) = task_that_waits();
        let other = pool
            .apply_async(
                |(says, gate): (Fd<File>, Fd<File>)| {
                    say(&says);
                    pass(&gate);
                    std::process::id()
                },
                (says_one, entry),
            )
            .unwrap();
        let endless = pool.apply_async(|says| wait_for_ever::<u32>(&says), says_two).unwrap();
        one_runs.wait();
        two_runs.wait();
        endless.cancel();
        assert!(endless.get().unwrap_err().is_cancelled());
        drop(gate);
        other.get().unwrap();
    }
    assert_eq!(pool.map(|x: u32| x, 0..10).unwrap().len(), 10);
}

#[test]
fn a_map_is_cancelled_and_what_was_done_stands() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap().with_chunk_size(1);
    let (says, running) = task_that_waits();
    let says = std::sync::Mutex::new(Some(says));
    let items = (0..20).map(|x| (x, (x == 5).then(|| says.lock().unwrap().take().unwrap())));
    let task = |(x, says): (u32, Option<Fd<File>>)| says.map_or(x, |says| wait_for_ever(&says));
    let mut handle = pool.map_async(task, items).unwrap();
    running.wait();
    assert!(!handle.ready());
    handle.cancel();
    for (x, outcome) in handle.outcomes().into_iter().enumerate() {
        match outcome {
            Ok(value) => assert!(value == x as u32 && x < 5),
            Err(error) => assert!(x >= 5 && error.is_cancelled(), "{x}: {error}"),
        }
    }
    // Its neighbours in the queue are not.
    assert_eq!(pool.map(|x: u32| x, 0..10).unwrap().len(), 10);
}

#[test]
fn a_task_that_is_done_cannot_be_cancelled_any_more() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap();
    let mut handle = pool.apply_async(|x: u32| x + 1, 1).unwrap();
    assert!(handle.wait(Duration::MAX));
    handle.cancel();
    assert_eq!(handle.get().unwrap(), 2);
}

#[test]
fn a_task_is_tried_again_as_often_as_was_said() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    for retries in [0, 1, 3] {
        let (writer, log) = log();
        let error = pool
            .with_retries(retries)
            .apply(
                |log: Fd<File>| {
                    note(&log, "try");
                    kill(std::process::id());
                },
                writer,
            )
            .unwrap_err();
        assert_eq!(error.deaths(), retries + 1);
        assert_eq!(log.lines().len(), retries as usize + 1);
    }
    // The second try succeeds.
    let (writer, log) = log();
    let second = pool.with_retries(1).apply(
        |log: Fd<File>| {
            note(&log, "try");
            if log.metadata().unwrap().len() < 5 {
                kill(std::process::id());
            }
            7
        },
        writer,
    );
    assert_eq!(second.unwrap(), 7);
    assert_eq!(log.lines().len(), 2);
    // A panic is a result.
    let panics = pool.with_retries(5).apply(|()| -> () { panic!("once") }, ()).unwrap_err();
    assert_eq!(panics.deaths(), 0);
}

#[test]
fn a_worker_that_is_stopped_in_a_task_with_a_timeout_is_killed() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap().with_timeout(Duration::from_millis(300));
    let stop = |_: u32| signal(std::process::id(), Signal::STOP);
    let outcomes = pool.try_map(stop, 0..2).unwrap();
    assert!(outcomes.iter().all(|o| o.as_ref().is_err_and(|e| e.is_timeout())), "{outcomes:?}");
    assert_eq!(pool.apply(|x: u32| x, 5).unwrap(), 5);
}

#[test]
fn a_worker_that_is_stopped_while_it_is_idle_costs_no_task() {
    watchdog();
    // Alone, it is killed; beside others, they take over.
    for workers in [1, 2] {
        let pool = Pool::builder().workers(workers).build().unwrap();
        pool.map(|x: u32| x, 0..100).unwrap();
        let stopped = pool.worker_pids()[0];
        signal(stopped, Signal::STOP);
        let timed = pool.with_timeout(Duration::from_secs(5));
        let timed = if workers == 1 { timed.with_timeout(TIMEOUT) } else { timed };
        assert_eq!(timed.map(|x: u32| x + 1, 0..20).unwrap().len(), 20);
        drop(timed);
        drop(pool);
        // Its parent, the fork server, takes leave of it in its own time; the watchdog does not wait
        // for ever.
        while std::path::Path::new(&format!("/proc/{stopped}")).exists() {
            std::thread::yield_now();
        }
    }
}

/// Regression: the time of a task that was assigned before its worker was ready counted from then on,
/// so that workers were killed as soon as they were ready.
#[test]
fn a_worker_may_take_longer_to_start_than_a_task_may_take() {
    watchdog();
    for _ in 0..3 {
        let (entry, gate) = gate();
        let pool = Pool::builder()
            .workers(1)
            .initializer(|gate: Fd<File>| pass(&gate), entry)
            .build()
            .unwrap();
        let later = pool.with_timeout(TIMEOUT).apply_async(|x: u32| x, 1).unwrap();
        // Longer than the task may take. Another worker would not get through the gate.
        std::thread::park_timeout(TIMEOUT * 2);
        gate.let_through(1);
        assert_eq!(later.get().unwrap(), 1);
    }
}

#[test]
fn no_time_at_all_is_a_timeout_and_no_endless_loop() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap().with_timeout(Duration::ZERO);
    for outcome in pool.try_map(|x: u32| x, 0..5).unwrap() {
        assert!(outcome.is_ok() || outcome.is_err_and(|error| error.is_timeout()));
    }
    assert!(pool.apply(|()| hang::<()>(), ()).unwrap_err().is_timeout());
}

#[test]
fn an_imap_that_is_dropped_lets_the_pool_go_on() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap().with_chunk_size(5);
    let mut results = pool.imap(|x: u64| x, 0..);
    assert_eq!(results.next().unwrap().unwrap(), 0);
    drop(results);
    assert_eq!(pool.map(|x: u64| x, 0..100).unwrap().len(), 100);
    pool.join().unwrap();
}

#[test]
fn an_imap_that_is_dropped_has_no_more_tasks_begun() {
    watchdog();
    let (writer, log) = log();
    let (entry, gate) = gate();
    let handles = |handles: (Fd<File>, Fd<File>)| handles;
    let pool = Pool::builder().workers(1).state(handles, (writer, entry)).build().unwrap();
    let task = |(log, gate): &mut (Fd<File>, Fd<File>), x: u32| {
        note(log, x);
        if x == 1 {
            pass(gate);
        }
        x
    };
    let mut results = pool.with_chunk_size(5).imap(task, 0..);
    // It is found in the outbox: the others of its chunk wait at the gate.
    assert_eq!(results.next().unwrap().unwrap(), 0);
    drop(results);
    gate.let_through(1);
    pool.join().unwrap();
    assert_eq!(log.lines(), ["0", "1"]);
}
