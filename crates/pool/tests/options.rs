//! What a pool and its handles were told holds in the workers: chunks, limits, the environment,
//! processors, niceness, priorities, progress.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::sync::{Arc, Mutex};

use common::{Gate, gate, log, note, pass, say, task_that_waits, watchdog};
use multiproc_pool::{Pool, Stateful};
use multiproc_process::{Limit, Process, cpu_count, init_before_main};
use multiproc_wire::Fd;

init_before_main!();

const CAPS: [&str; 5] = [
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

fn variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

/// Where tasks wait, and where they write.
type GateAndLog = (Fd<File>, Fd<File>);

/// A pool whose tasks wait at a gate, and a log that they write to.
fn gated(workers: usize) -> (Pool<Stateful<GateAndLog>>, Gate, common::Log) {
    let (entry, gate) = gate();
    let (writer, log) = log();
    let pool = Pool::builder().workers(workers).state(|state| state, (entry, writer));
    (pool.build().unwrap(), gate, log)
}

#[test]
fn a_chunk_of_a_size_set_by_hand_goes_to_one_worker() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap().with_chunk_size(10);
    for _ in 0..50 {
        let pids = pool.map(|_: u32| std::process::id(), 0..205).unwrap();
        for chunk in pids.chunks(10) {
            assert!(chunk.iter().all(|pid| *pid == chunk[0]), "{pids:?}");
        }
    }
}

#[test]
fn without_a_size_long_tasks_are_spread_and_short_ones_bundled() {
    watchdog();
    // Two tasks can only both run if neither waits behind the other.
    let (pool, gate, _) = gated(2);
    let (says, mut running) = task_that_waits();
    let meet = |(gate, _): &mut GateAndLog, says: Fd<File>| {
        say(&says);
        pass(gate);
    };
    let both = pool.map_async(meet, [Fd::from(says.try_clone().unwrap()), says]).unwrap();
    running.wait_for(2);
    gate.let_through(2);
    both.get().unwrap();
    // Of many short ones, neighbours mostly run in one worker.
    let pool = Pool::builder().workers(2).build().unwrap();
    let pids = pool.map(|_: u32| std::process::id(), 0..20_000).unwrap();
    let seams = pids.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(seams < 10_000, "{seams} seams");
}

#[test]
fn libraries_are_told_their_share_of_the_processors() {
    watchdog();
    let pool = Pool::builder().workers(1).env("OMP_NUM_THREADS", "7").build().unwrap();
    for name in CAPS {
        let expected = match (std::env::var(name), name) {
            (_, "OMP_NUM_THREADS") => "7".to_owned(),
            (Ok(set_by_the_user), _) => set_by_the_user,
            (Err(_), _) => cpu_count().to_string(),
        };
        assert_eq!(pool.apply(variable, name.into()).unwrap(), Some(expected), "{name}");
    }
    let many = Pool::builder().workers(cpu_count() * 2).build().unwrap();
    if std::env::var("MKL_NUM_THREADS").is_err() {
        assert_eq!(many.apply(variable, "MKL_NUM_THREADS".into()).unwrap().unwrap(), "1");
    }
    let none = Pool::builder().workers(1).thread_caps(false).build().unwrap();
    for name in CAPS {
        assert_eq!(none.apply(variable, name.into()).unwrap(), std::env::var(name).ok());
    }
}

#[test]
fn what_the_parent_was_told_of_threads_holds_for_its_workers() {
    watchdog();
    let ask = |()| {
        let pool = Pool::builder().workers(1).build().unwrap();
        ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"]
            .map(|name| pool.apply(variable, name.to_owned()).unwrap().unwrap())
    };
    let told = Process::builder().env("RAYON_NUM_THREADS", "3").env("OMP_NUM_THREADS", "");
    assert_eq!(told.spawn(ask, ()).unwrap().join().unwrap(), ["3", ""]);
}

#[test]
fn the_environment_processors_niceness_and_limits_hold_in_each_worker() {
    watchdog();
    let cpus = multiproc_os::context::affinity().unwrap();
    let pool = Pool::builder()
        .workers(2)
        .env("GREETING", "hello")
        .cpu_affinity(cpus.clone())
        .niceness(5)
        .limit(Limit::OpenFiles, 77)
        .max_tasks_per_child(3)
        .build()
        .unwrap();
    let ask = |_: u32| {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let nice: i32 =
            stat.rsplit(')').next().unwrap().split(' ').nth(17).unwrap().parse().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let files = files.split_whitespace().nth(3).unwrap().to_owned();
        let cpus = multiproc_os::context::affinity().unwrap();
        (std::env::var("GREETING").unwrap(), cpus, nice, files)
    };
    let mut pinned = HashSet::new();
    for (greeting, on, nice, files) in pool.map(ask, 0..20).unwrap() {
        assert_eq!((greeting.as_str(), nice, files.as_str()), ("hello", 5, "77"));
        assert_eq!(on.len(), 1);
        assert!(cpus.contains(&on[0]));
        pinned.extend(on);
    }
    // Twenty tasks took seven workers at least, and those take turns.
    assert_eq!(pinned.len(), cpus.len().min(7));
}

#[test]
fn an_initializer_gets_its_argument_in_every_worker() {
    watchdog();
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let pool = Pool::builder()
        .workers(2)
        .max_tasks_per_child(5)
        .initializer(|name: String| NAME.set(name).unwrap(), "worker".into())
        .build()
        .unwrap();
    let names = pool.map(|x: u32| (NAME.get().cloned(), x), 0..50).unwrap();
    for (x, (name, argument)) in names.into_iter().enumerate() {
        assert_eq!((name.as_deref(), argument), (Some("worker"), x as u32));
    }
}

#[test]
fn tasks_of_higher_priority_are_begun_first() {
    watchdog();
    let (pool, gate, log) = gated(1);
    let task = |(gate, log): &mut GateAndLog, name: String| {
        note(log, name);
        pass(gate);
    };
    let named = |name: &str, count: usize| vec![name.to_owned(); count];
    // The chunk is in the worker's hands, but only its first task was begun.
    let low = pool.with_priority(-1).with_chunk_size(5).map_async(task, named("low", 5)).unwrap();
    common::eventually(|| log.lines().len() == 1);
    let usual = pool.map_async(task, named("usual", 3)).unwrap();
    let high = pool.with_priority(7).map_async(task, named("high", 3)).unwrap();
    drop(gate);
    high.get().unwrap();
    usual.get().unwrap();
    low.get().unwrap();
    let expected = [named("low", 1), named("high", 3), named("usual", 3), named("low", 4)];
    assert_eq!(log.lines(), expected.concat());
}

#[test]
fn progress_only_grows_and_ends_with_all() {
    watchdog();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let pool = Pool::builder().workers(2).build().unwrap();
    let observed = pool.with_progress(move |done, of| sees.lock().unwrap().push((done, of)));
    let outcomes = observed.try_map(|x: u32| 100 / (x % 10), 0..3_000).unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 300);
    let seen = seen.lock().unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "{seen:?}");
    assert!(seen.iter().all(|(_, of)| *of == 3_000));
    assert_eq!(seen.last(), Some(&(3_000, 3_000)));
}

#[test]
fn a_bar_shows_how_far_a_map_has_come_whatever_comes_of_its_tasks() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    for chunk in [1, 7, 100] {
        let bar = indicatif::ProgressBar::hidden();
        let pool = pool.with_chunk_size(chunk).with_progress_bar(bar.clone());
        let outcomes = pool.try_map(|x: u32| assert!(x != 3), 0..50).unwrap();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
        assert_eq!((bar.position(), bar.length()), (50, Some(50)));
    }
}

#[test]
fn statistics_count_each_task_once_and_print_a_table() {
    watchdog();
    let pool = Pool::builder().workers(2).max_tasks_per_child(40).build().unwrap();
    let mut expected = 0;
    for count in [1, 17, 200, 0, 555] {
        pool.map(|x: u32| x, 0..count).unwrap();
        expected += u64::from(count);
        let statistics = pool.statistics();
        assert_eq!(statistics.tasks(), expected, "{statistics}");
        assert_eq!(statistics.waiting, 0);
    }
    let statistics = pool.statistics();
    let workers = statistics.ended + statistics.workers.len() as u64;
    assert!(workers >= expected / 40, "{statistics}");
    assert_eq!(statistics.died, 0, "{statistics}");
    let table = statistics.to_string();
    assert_eq!(table.lines().count(), 1 + statistics.workers.len() + 1, "{table}");
    for worker in &statistics.workers {
        assert!(table.contains(&worker.pid.to_string()), "{table}");
        assert!(worker.tasks <= 40, "{table}");
    }
}
