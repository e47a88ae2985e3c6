//! Whoever dies in the middle of a job: every result comes once, and in order.

mod common;

use std::time::Duration;

use common::{
    PATIENCE, Server, eventually, hang, is_first, lines, note, options, run, runs, signal,
    wait_for, work,
};
use multiproc_nats::Pool;
use rustix::process::Signal;

fn main() {
    let tests: &[(&str, fn())] = &[
        ("a_worker_is_killed", a_worker_is_killed),
        ("a_task_that_kills_its_workers_is_given_up", a_task_that_kills_its_workers_is_given_up),
        ("a_death_costs_the_chunk_no_result", a_death_costs_the_chunk_no_result),
        ("an_agent_is_killed", an_agent_is_killed),
        ("an_agent_is_told_to_end", an_agent_is_told_to_end),
        ("the_server_is_killed", the_server_is_killed),
        ("the_server_comes_back_empty", the_server_comes_back_empty),
        (
            "the_server_comes_back_without_large_arguments",
            the_server_comes_back_without_large_arguments,
        ),
        ("a_driver_is_killed", a_driver_is_killed),
    ];
    run(tests, driver);
}

/// Takes its time, says that it ran, and gives its argument.
fn step((log, x): (String, u64)) -> u64 {
    work(Duration::from_millis(5));
    note(&log, x);
    x
}

const STEPS: u64 = 300;

fn steps(log: &str) -> impl Iterator<Item = (String, u64)> {
    (0..STEPS).map(|x| (log.to_owned(), x))
}

fn assert_all(results: &[u64]) {
    assert!(results.iter().copied().eq(0..STEPS), "{results:?}");
}

fn a_worker_is_killed() {
    let server = Server::start();
    // No sign of life would be missed before the watchdog ends the test.
    let _agents = [server.agent(), server.agent()];
    let pool = server.connect();
    let wait = |(dir, x): (String, u32)| {
        if x == 5 && is_first(&format!("{dir}.first")) {
            note(&dir, std::process::id());
            wait_for(&format!("{dir}.never"));
        }
        x
    };
    let dir = server.path("victim");
    let later = pool.map_async(wait, (0..100).map(|x| (dir.clone(), x))).unwrap();
    eventually("the victim", || !lines(&dir).is_empty());
    signal(lines(&dir)[0].parse().unwrap(), Signal::KILL);
    assert!(later.get().unwrap().into_iter().eq(0..100));
}

fn a_task_that_kills_its_workers_is_given_up() {
    let server = Server::start();
    let _agents = [server.agent(), server.agent()];
    let pool = server.connect();
    let poison = |(log, x): (String, u32)| {
        if x % 10 == 3 {
            note(&log, x);
            std::process::abort();
        }
        x
    };
    let log = server.path("poison");
    let outcomes = pool.try_map(poison, (0..40).map(|x| (log.clone(), x))).unwrap();
    for (x, outcome) in (0..).zip(&outcomes) {
        match outcome {
            Ok(value) => assert!(*value == x && x % 10 != 3),
            Err(error) => {
                assert!(x % 10 == 3 && error.is_death() && error.deaths() == 3, "{x}: {error}");
                assert_eq!(error.signal(), Some(6));
                assert!(error.to_string().contains("2 tries before"), "{error}");
            }
        }
    }
    assert_eq!(lines(&log).len(), 4 * 3);
}

fn a_death_costs_the_chunk_no_result() {
    let server = Server::start();
    let _agent = server.agent();
    let pool = server.connect();
    let fall = |(log, x): (String, u32)| {
        note(&log, x);
        if x == 20 {
            std::process::abort();
        }
        x
    };
    let log = server.path("runs");
    let all = (0..40).map(|x| (log.clone(), x));
    let outcomes = pool.with_chunk_size(40).try_map(fall, all).unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 39);
    // The others' results were kept: only the one at fault ran again.
    let runs = |x: u32| lines(&log).iter().filter(|line| **line == x.to_string()).count();
    assert_eq!((runs(19), runs(20), runs(21)), (1, 3, 1));
}

fn an_agent_is_killed() {
    let server = Server::start();
    let mut first = server.agent_with(Duration::from_secs(1), 2);
    let _second = server.agent_with(Duration::from_secs(1), 2);
    let pool = server.connect();
    assert!(pool.wait_for_agents(2, PATIENCE));
    let log = server.path("steps");
    let mut results = pool.imap(step, steps(&log));
    let mut taken: Vec<u64> = results.by_ref().take(40).map(Result::unwrap).collect();
    first.kill();
    taken.extend(results.map(Result::unwrap));
    assert_all(&taken);
}

fn an_agent_is_told_to_end() {
    let server = Server::start();
    let mut first = server.agent();
    let _second = server.agent();
    let pool = server.connect();
    assert!(pool.wait_for_agents(2, PATIENCE));
    let log = server.path("steps");
    let mut results = pool.imap(step, steps(&log));
    let mut taken: Vec<u64> = results.by_ref().take(40).map(Result::unwrap).collect();
    first.terminate();
    assert!(first.wait().success());
    // It has handed back what it had: nobody waits for the half minute after which it would count as
    // dead.
    taken.extend(results.map(Result::unwrap));
    assert_all(&taken);
    assert_eq!(pool.agents().len(), 1);
}

fn the_server_is_killed() {
    let mut server = Server::start();
    let _agents = [0; 2].map(|_| server.agent_with(Duration::from_secs(3), 2));
    let pool = server.connect();
    let log = server.path("steps");
    let later = pool.map_async(step, steps(&log)).unwrap();
    for kills in 1..=3 {
        let enough = STEPS as usize / 5 * kills;
        eventually("some steps", || lines(&log).len() > enough);
        server.kill();
        server.start_again();
    }
    assert_all(&later.get().unwrap());
}

fn the_server_comes_back_empty() {
    let mut server = Server::start();
    let _agents = [0; 2].map(|_| server.agent_with(Duration::from_secs(3), 2));
    let pool = server.connect();
    let log = server.path("steps");
    let later = pool.map_async(step, steps(&log)).unwrap();
    eventually("some steps", || lines(&log).len() > 50);
    server.kill();
    server.wipe();
    server.start_again();
    assert_all(&later.get().unwrap());
}

fn the_server_comes_back_without_large_arguments() {
    let mut server = Server::start();
    let pool = server.connect();
    let texts = ["a", "b", "c"].map(|letter| letter.repeat(1 << 20));
    let later = pool.map_async(|text: String| text.to_uppercase(), texts.clone()).unwrap();
    eventually("the chunks", || server.messages("test-tasks").0 == 3);
    server.kill();
    server.wipe();
    server.start_again();
    let _agent = server.agent();
    assert!(later.get().unwrap() == texts.map(|text| text.to_uppercase()));
}

fn a_driver_is_killed() {
    let server = Server::start();
    let _agent = server.agent();
    let log = server.path("pids");
    let mut driver = server.driver(&[&log]);
    eventually("two tasks", || lines(&log).len() == 2);
    assert!(server.messages("test-tasks").0 > 2);
    driver.kill();
    // Its lease of two seconds runs out: what it has left is removed, and what runs is killed.
    let pids: Vec<u32> = lines(&log).iter().map(|pid| pid.parse().unwrap()).collect();
    eventually("the end of its tasks", || pids.iter().all(|&pid| !runs(pid)));
    eventually("an empty stream", || server.messages("test-tasks").0 == 0);
    assert_eq!(lines(&log).len(), 2, "others were begun");
    let pool = server.connect();
    assert_eq!(pool.apply(|x: u32| x + 1, 1).unwrap(), 2);
}

/// Hands in tasks that hang.
fn driver(arguments: &[String]) {
    let [url, log] = arguments else { panic!("{arguments:?}") };
    let pool = Pool::connect(url, options("test")).unwrap();
    pool.with_chunk_size(1).map(hang, vec![log.clone(); 12]).unwrap();
}
