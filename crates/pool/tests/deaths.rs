//! A worker that dies, wherever it is, costs the one task that it ran, and nothing hangs.

mod common;

use std::time::Duration;

use common::{eventually, kill, task_that_waits, watchdog};
use multiproc_os::deadline::Deadline;
use multiproc_os::poll::hung_up;
use multiproc_pool::{Pool, TaskError};
use multiproc_process::init_before_main;

init_before_main!();

const SIGKILL: i32 = 9;
const SIGABRT: i32 = 6;

fn pool(workers: usize) -> Pool {
    Pool::builder().workers(workers).build().unwrap()
}

#[test]
fn a_task_that_kills_its_worker_fails_alone() {
    watchdog();
    let pool = pool(2);
    for round in 0..20 {
        let outcomes = pool
            .try_map(
                |x: u32| {
                    if x % 50 == 7 {
                        kill(std::process::id());
                    }
                    x * 2
                },
                0..200,
            )
            .unwrap();
        for (x, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(value) => assert!(*value == x as u32 * 2 && x % 50 != 7, "round {round}"),
                Err(error) => {
                    assert_eq!((x % 50, error.signal()), (7, Some(SIGKILL)), "round {round}");
                }
            }
        }
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 4);
    }
    // Who has died last may not have been replaced yet.
    eventually(|| pool.worker_pids().len() == 2);
}

#[test]
fn each_way_to_end_is_told() {
    watchdog();
    let pool = pool(1);
    let exit = pool.apply(|code: i32| -> () { std::process::exit(code) }, 3).unwrap_err();
    assert_eq!(exit.exit_status().and_then(|status| status.code()), Some(3));
    let clean = pool.apply(|code: i32| -> () { std::process::exit(code) }, 0).unwrap_err();
    assert!(clean.is_death(), "{clean}");
    let abort = pool.apply(|()| -> () { std::process::abort() }, ()).unwrap_err();
    assert_eq!(abort.signal(), Some(SIGABRT), "{abort}");
    let panic = pool.apply(|x: u32| -> u32 { panic!("no {x}") }, 5).unwrap_err();
    assert_eq!(panic.panic().map(|panic| panic.message()), Some("no 5"));
    assert!(panic.panic().unwrap().location().unwrap().contains("deaths.rs"));
    let overflow = pool.apply(recurse, 0).unwrap_err();
    assert!(overflow.signal().is_some(), "{overflow}");
    assert_eq!(pool.apply(|x: u32| x, 1).unwrap(), 1);
}

fn kill_self() -> u32 {
    kill(std::process::id());
    unreachable!()
}

#[allow(unconditional_recursion)] // It ends in a stack overflow.
fn recurse(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 1000]);
    recurse(depth + 1) + room[500]
}

#[test]
fn an_idle_worker_that_was_killed_is_replaced_unnoticed() {
    watchdog();
    let pool = pool(2);
    for _ in 0..30 {
        for pid in pool.worker_pids() {
            kill(pid);
        }
        // Whether the pool has noticed by now or not: a task that was handed to a dying worker and
        // lost with it is an error of that task, and of no other.
        let outcomes = pool.try_map(|x: u32| x + 1, 0..10).unwrap();
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!(failed <= 2, "{outcomes:?}");
        for (x, outcome) in outcomes.iter().enumerate() {
            if let Ok(value) = outcome {
                assert_eq!(*value, x as u32 + 1);
            }
        }
    }
}

#[test]
fn results_that_were_finished_before_the_death_are_kept() {
    watchdog();
    // The first chunk of 64 tasks has 16: the last of them takes the worker with it, while the others
    // are finished and not sent.
    for _ in 0..50 {
        let pool = pool(1);
        let task = |x: u32| if x == 15 { kill_self() } else { x };
        let outcomes = pool.try_map(task, 0..64).unwrap();
        for (x, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(value) => assert_eq!(*value, x as u32),
                Err(error) => assert!(x == 15 && error.signal() == Some(SIGKILL), "{x}: {error}"),
            }
        }
        assert!(outcomes[15].is_err());
    }
}

#[test]
fn workers_that_never_get_to_run_a_task_end_in_an_error_not_in_a_loop() {
    watchdog();
    let pool = pool(1);
    // Each worker is killed as soon as it exists.
    let handle = pool.apply_async(|()| common::hang::<()>(), ()).unwrap();
    let mut handle = Some(handle);
    let error: TaskError = loop {
        for pid in pool.worker_pids() {
            kill(pid);
        }
        match handle.take().unwrap().get_timeout(Duration::from_millis(1)) {
            Ok(result) => break result.unwrap_err(),
            Err(again) => handle = Some(again),
        }
    };
    assert!(error.is_death() || error.is_not_run(), "{error}");
}

#[test]
fn a_terminated_pool_fails_what_was_not_done() {
    watchdog();
    let pool = pool(2);
    let (waits, running) = task_that_waits();
    let running_task = pool.apply_async(|fd| common::wait_for_ever::<()>(&fd), waits).unwrap();
    running.wait();
    let waiting: Vec<_> = (0..100)
        .map(|x| {
            pool.apply_async(
                |x: u32| {
                    common::hang::<()>();
                    x
                },
                x,
            )
        })
        .collect::<Result<_, _>>()
        .unwrap();
    drop(pool);
    assert!(running_task.get().unwrap_err().is_not_run());
    for handle in waiting {
        assert!(handle.get().unwrap_err().is_not_run());
    }
}

#[test]
fn killed_workers_under_load_lose_and_repeat_nothing() {
    watchdog();
    let pool = pool(3);
    let mut deaths = 0;
    // Whoever has the end of this pipe has not done, nor failed.
    let (reader, not_done) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let not_done = not_done;
        scope.spawn(|| {
            let mut turn = 0usize;
            while !hung_up(&reader, Deadline::after(Duration::from_millis(3))).unwrap() {
                // Ten in a row that are killed before they are ready for a task end it.
                let workers = pool.statistics().workers;
                let ready: Vec<u32> =
                    workers.iter().filter(|worker| worker.tasks > 0).map(|w| w.pid).collect();
                if let Some(pid) = ready.get(turn % ready.len().max(1)) {
                    kill(*pid);
                }
                turn += 1;
            }
        });
        for _ in 0..20 {
            let outcomes = pool
                .try_map(
                    |x: u64| (0..x % 97).fold(x, |a, b| std::hint::black_box(a ^ b)) ^ x,
                    0..5_000,
                )
                .unwrap();
            assert_eq!(outcomes.len(), 5_000);
            for (x, outcome) in outcomes.into_iter().enumerate() {
                match outcome {
                    Ok(value) => assert_eq!(value, (0..x as u64 % 97).fold(0, |a, b| a ^ b)),
                    Err(error) => {
                        assert_eq!(error.signal(), Some(SIGKILL), "{error}");
                        deaths += 1;
                    }
                }
            }
        }
        drop(not_done);
    });
    assert!(deaths < 2_000, "{deaths} tasks of 100,000 died");
    let killed = pool.statistics().died;
    assert!(killed > 20, "{killed} workers were killed");
}

/// Regression: results that a worker had sent, and that still stood in its outbox when it was killed,
/// passed for those of the tasks that it was given next.
#[test]
fn results_that_are_just_being_sent_do_not_pass_for_those_of_the_next_tasks() {
    watchdog();
    let pool = Pool::builder().workers(1).build().unwrap().with_chunk_size(4);
    // The last task has its worker killed so many microseconds later, which is while it sends.
    let task = |(x, micros): (u64, u64)| {
        if micros > 0 {
            std::thread::spawn(move || {
                let start = std::time::Instant::now();
                while start.elapsed().as_micros() < micros.into() {}
                kill(std::process::id());
            });
        }
        x
    };
    for round in 0..200 {
        for half in 0..2 {
            let number = move |x| round * 100 + half * 10 + x;
            let micros = |x| if half == 0 && x == 3 { 1 + round % 100 } else { 0 };
            let outcomes = pool.try_map(task, (0..4).map(|x| (number(x), micros(x)))).unwrap();
            for (outcome, x) in outcomes.into_iter().zip(0..) {
                match outcome {
                    Ok(value) => assert_eq!(value, number(x)),
                    Err(error) => assert!(error.is_death(), "round {round}: {error}"),
                }
            }
        }
    }
}
