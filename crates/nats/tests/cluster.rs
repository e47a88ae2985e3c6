//! What a pool over several agents does when nobody dies.

mod common;

use std::cell::Cell;
use std::time::Duration;

use common::{
    PATIENCE, Server, eventually, hang, lines, no_driver, note, parent, run, runs, wait_for,
};
use futures_util::StreamExt;
use multiproc_nats::Failure;
use multiproc_sync::Lock;

fn main() {
    let tests: &[(&str, fn())] = &[
        ("two_agents_run_the_tasks_of_one_map", two_agents_run_the_tasks_of_one_map),
        (
            "results_come_in_the_form_that_was_asked_for",
            results_come_in_the_form_that_was_asked_for,
        ),
        ("errors_and_panics_are_results_and_run_once", errors_and_panics_are_results_and_run_once),
        ("agents_may_come_after_the_tasks", agents_may_come_after_the_tasks),
        ("an_agent_may_come_in_the_middle", an_agent_may_come_in_the_middle),
        ("an_endless_iterator_is_no_harm", an_endless_iterator_is_no_harm),
        ("large_arguments_and_results_travel", large_arguments_and_results_travel),
        ("a_cancelled_task_is_killed", a_cancelled_task_is_killed),
        ("a_timeout_costs_its_task_only", a_timeout_costs_its_task_only),
        (
            "a_handle_is_refused_before_anything_is_sent",
            a_handle_is_refused_before_anything_is_sent,
        ),
        ("a_closed_pool_takes_nothing", a_closed_pool_takes_nothing),
        ("nothing_is_left_behind", nothing_is_left_behind),
        ("a_pool_that_is_dropped_fails_its_tasks", a_pool_that_is_dropped_fails_its_tasks),
        ("a_handle_is_a_future", a_handle_is_a_future),
    ];
    run(tests, no_driver);
}

fn square(x: u64) -> u64 {
    x * x
}

fn two_agents_run_the_tasks_of_one_map() {
    let server = Server::start();
    let agents = [server.agent(), server.agent()];
    let pool = server.connect();
    assert!(pool.wait_for_agents(2, PATIENCE));
    assert_eq!(pool.workers(), 4);
    let meet = |(dir, parties): (String, usize)| {
        note(&dir, std::process::id());
        while lines(&dir).len() < parties {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        parent()
    };
    // Four tasks that wait for each other: each of the four workers must have one.
    let all = vec![(server.path("meeting"), 4); 4];
    let parents = pool.with_chunk_size(1).map(meet, all).unwrap();
    let pids = agents.each_ref().map(|agent| agent.pid());
    for pid in pids {
        assert_eq!(parents.iter().filter(|&&parent| parent == pid).count(), 2, "{parents:?}");
    }
}

fn results_come_in_the_form_that_was_asked_for() {
    let server = Server::start();
    let _agents = [server.agent(), server.agent()];
    let pool = server.connect();
    let squares: Vec<u64> = (0..3000).map(square).collect();
    assert_eq!(pool.map(square, 0..3000).unwrap(), squares);
    assert_eq!(pool.with_chunk_size(7).map(square, 0..3000).unwrap(), squares);
    let ordered: Result<Vec<_>, _> = pool.imap(square, 0..3000).collect();
    assert_eq!(ordered.unwrap(), squares);
    let unordered: Result<Vec<_>, _> = pool.imap_unordered(square, 0..3000).collect();
    let mut unordered = unordered.unwrap();
    unordered.sort_unstable();
    assert_eq!(unordered, squares);
    let later: Vec<_> = (0..50).map(|x| pool.apply_async(square, x).unwrap()).collect();
    let later: Result<Vec<_>, _> = later.into_iter().map(|handle| handle.get()).collect();
    assert_eq!(later.unwrap(), squares[..50]);
    assert_eq!(pool.apply(|(a, b): (i32, i32)| a - b, (5, 2)).unwrap(), 3);
    assert!(pool.map(square, std::iter::empty()).unwrap().is_empty());
}

fn errors_and_panics_are_results_and_run_once() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    let fail = |(log, x): (String, u32)| -> Result<u32, Failure> {
        note(&log, x);
        assert!(x != 3, "three");
        if x == 4 { Err(Failure::new("four")) } else { Ok(x) }
    };
    let log = server.path("log of tasks");
    let outcomes = pool.try_map(fail, (0..6).map(|x| (log.clone(), x))).unwrap();
    assert_eq!(outcomes[3].as_ref().unwrap_err().panic().unwrap().message(), "three");
    assert_eq!(outcomes[4].as_ref().unwrap().as_ref().unwrap_err().to_string(), "four");
    assert_eq!(outcomes[5].as_ref().unwrap().as_ref().unwrap(), &5);
    let mut runs = lines(&log);
    runs.sort_unstable();
    assert_eq!(runs, ["0", "1", "2", "3", "4", "5"]);
}

fn agents_may_come_after_the_tasks() {
    let server = Server::start();
    let pool = server.connect();
    let later = pool.map_async(square, 0..500).unwrap();
    let _agent = server.agent();
    assert_eq!(later.get().unwrap()[499], 499 * 499);
}

fn an_agent_may_come_in_the_middle() {
    let server = Server::start();
    let first = server.agent();
    let pool = server.connect();
    // Each task waits until the parent of some task is another one.
    let wait = |(log, first): (String, u32)| {
        note(&log, parent());
        let first = first.to_string();
        while lines(&log).iter().all(|pid| *pid == first) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    };
    let log = server.path("parents");
    let later = pool.with_chunk_size(1).map_async(wait, vec![(log.clone(), first.pid()); 20]);
    eventually("a task", || !lines(&log).is_empty());
    let _second = server.agent();
    later.unwrap().get().unwrap();
}

fn an_endless_iterator_is_no_harm() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    assert!(pool.wait_for_agents(1, PATIENCE));
    let taken = Cell::new(0);
    let endless = (0u64..).inspect(|_| taken.set(taken.get() + 1));
    let mut results = pool.with_chunk_size(1).imap(square, endless);
    for x in 0..200 {
        assert_eq!(results.next().unwrap().unwrap(), x * x);
        // Four for each of two workers, and what has come early.
        assert!(taken.get() <= x + 1 + 8, "{} of the items were taken for {x}", taken.get());
    }
    drop(results);
    let first = |(gate, x): (String, u64)| {
        if x == 0 {
            wait_for(&gate);
        }
        x
    };
    // One that is slow does not let the others run ahead.
    let gate = server.path("gate");
    taken.set(0);
    let endless = (0u64..).inspect(|_| taken.set(taken.get() + 1)).map(|x| (gate.clone(), x));
    let mut results = pool.with_chunk_size(1).imap(first, endless);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("a stop", || server.messages("test-results").1 > 200 + 6);
            std::fs::write(&gate, "").unwrap();
        });
        assert_eq!(results.next().unwrap().unwrap(), 0);
    });
    assert!(taken.get() <= 16, "{} items were taken", taken.get());
}

fn large_arguments_and_results_travel() {
    const LEN: usize = 20 << 20;
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    let bytes: Vec<u8> = (0..LEN).map(|index| (index * 7 % 251) as u8).collect();
    let text = String::from_utf8(bytes.iter().map(|byte| byte % 64 + 32).collect()).unwrap();
    let twice = pool.apply(|text: String| text + "!", text.clone()).unwrap();
    assert!(twice.strip_suffix('!').unwrap() == text);
    // Arguments that are small, and results that are large, and the other way round.
    let lens = pool.map(|text: String| text.len(), [text.clone(), "short".into()]).unwrap();
    assert_eq!(lens, [LEN, 5]);
    let made = pool.map(|len: usize| "x".repeat(len), [LEN, 5]).unwrap();
    assert_eq!(made.iter().map(String::len).collect::<Vec<_>>(), [LEN, 5]);
    drop(pool);
    let left = server.ask(async |context| {
        let store = context.get_object_store("test-payloads").await.unwrap();
        store.list().await.unwrap().count().await
    });
    assert_eq!(left, 0);
}

fn a_cancelled_task_is_killed() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    let log = server.path("pids");
    let later = pool.with_chunk_size(1).map_async(hang, vec![log.clone(); 50]);
    let later = later.unwrap();
    eventually("two tasks", || lines(&log).len() == 2);
    later.cancel();
    assert!(later.outcomes().iter().all(|outcome| outcome.as_ref().unwrap_err().is_cancelled()));
    let pids: Vec<u32> = lines(&log).iter().map(|pid| pid.parse().unwrap()).collect();
    eventually("their ends", || pids.iter().all(|&pid| !runs(pid)));
    eventually("an empty stream", || server.messages("test-tasks").0 == 0);
    assert_eq!(pool.map(square, 0..10).unwrap()[9], 81);
    assert_eq!(lines(&log).len(), 2, "others were begun");
}

fn a_timeout_costs_its_task_only() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect().with_timeout(Duration::from_millis(300));
    let hang = |x: u32| {
        if x == 3 {
            wait_for("/nowhere");
        }
        x
    };
    let outcomes = pool.try_map(hang, 0..6).unwrap();
    assert!(outcomes[3].as_ref().unwrap_err().is_timeout());
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
}

fn a_handle_is_refused_before_anything_is_sent() {
    let server = Server::start();
    let pool = server.connect();
    let lock = Lock::new().unwrap();
    let all = [(1, None), (2, Some(lock.clone()))];
    let error = pool.map(|(x, _): (u32, Option<Lock>)| x, all).unwrap_err();
    let error = error.cause().unwrap();
    assert!(error.is_argument() && error.to_string().contains("task 1"), "{error}");
    assert!(error.to_string().contains("another machine"), "{error}");
    let error = pool.apply_async(|_: Lock| (), lock.clone()).unwrap_err();
    assert!(error.is_argument());
    let error = pool.imap(|_: Lock| (), [lock]).next().unwrap().unwrap_err();
    assert!(error.is_not_run() && error.to_string().contains("handle"), "{error}");
    assert_eq!(server.messages("test-tasks"), (0, 0));
    // Nor is one a result.
    let _agent = server.agent();
    let error = pool.apply(|()| Lock::new().unwrap(), ()).unwrap_err();
    assert!(error.to_string().contains("handle"), "{error}");
}

fn a_closed_pool_takes_nothing() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    let later = pool.map_async(square, 0..100).unwrap();
    pool.close();
    assert!(pool.map(square, 0..3).unwrap_err().cause().unwrap().is_closed());
    pool.join().unwrap();
    assert_eq!(later.get().unwrap()[99], 99 * 99);
}

fn nothing_is_left_behind() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    pool.map(square, 0..100).unwrap();
    let log = server.path("begun");
    let later = pool.apply_async(hang, log.clone()).unwrap();
    eventually("a task", || !lines(&log).is_empty());
    drop((later, pool));
    for stream in ["test-tasks", "test-results", "test-leases"] {
        assert_eq!(server.messages(stream).0, 0, "{stream}");
    }
    let consumers = server.ask(async |context| {
        let mut results = context.get_stream("test-results").await.unwrap();
        results.info().await.unwrap().state.consumer_count
    });
    assert_eq!(consumers, 0);
}

fn a_pool_that_is_dropped_fails_its_tasks() {
    let server = Server::start();
    let pool = server.connect();
    let later = pool.map_async(square, 0..10).unwrap();
    drop(pool);
    assert!(later.outcomes().iter().all(|outcome| outcome.as_ref().unwrap_err().is_not_run()));
}

fn a_handle_is_a_future() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    let later = pool.map_async(square, 0..10).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(later).unwrap()[9], 81);
}
