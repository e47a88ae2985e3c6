//! Each worker has a state of its own, which its tasks change and its finalizer consumes.

mod common;

use common::{kill, watchdog};
use multiproc_pool::{Pool, Stateful};
use multiproc_process::init_before_main;

init_before_main!();

#[test]
fn a_state_is_lent_to_each_task_of_its_worker() {
    watchdog();
    let pool: Pool<Stateful<Vec<u32>>> =
        Pool::builder().workers(1).state(|start: u32| vec![start], 7).build().unwrap();
    for x in 0..20 {
        let so_far = pool.apply(
            |seen, x: u32| {
                seen.push(x);
                seen.clone()
            },
            x,
        );
        assert_eq!(so_far.unwrap(), [7].into_iter().chain(0..=x).collect::<Vec<_>>());
    }
    // A panic leaves it as it is then.
    let panics = pool.apply(
        |seen, ()| -> () {
            seen.clear();
            panic!("cleared")
        },
        (),
    );
    assert!(panics.unwrap_err().panic().is_some());
    assert_eq!(pool.apply(|seen, ()| seen.len(), ()).unwrap(), 0);
}

#[test]
fn states_are_not_shared() {
    watchdog();
    let pool = Pool::builder().workers(3).state(|()| 0u64, ()).build().unwrap();
    let counts = pool.map(
        |count, _: u32| {
            *count += 1;
            (std::process::id(), *count)
        },
        0..1_000,
    );
    let mut next = std::collections::HashMap::new();
    let mut counts = counts.unwrap();
    counts.sort();
    for (pid, count) in counts {
        let expected: &mut u64 = next.entry(pid).or_insert(1);
        assert_eq!(count, *expected);
        *expected += 1;
    }
}

#[test]
fn finalizers_of_all_workers_are_heard_those_that_were_replaced_too() {
    watchdog();
    for round in 0..10 {
        let pool = Pool::builder()
            .workers(3)
            .max_tasks_per_child(10)
            .state(|()| (0u64, 0u64), ())
            .finalizer(|state| state)
            .build()
            .unwrap();
        let add = |(count, sum): &mut (u64, u64), x: u64| {
            *count += 1;
            *sum += x;
        };
        pool.map(add, 0..200).unwrap();
        let finals: Vec<(u64, u64)> =
            pool.join_with_finals().unwrap().into_iter().collect::<Result<_, _>>().unwrap();
        assert!(finals.len() >= 20, "round {round}: {finals:?}");
        assert_eq!(finals.iter().map(|(count, _)| count).sum::<u64>(), 200, "round {round}");
        assert_eq!(finals.iter().map(|(_, sum)| sum).sum::<u64>(), 199 * 100, "round {round}");
    }
}

#[test]
fn a_finalizer_that_panics_or_dies_is_an_error_of_its_own() {
    watchdog();
    let pool = Pool::builder()
        .workers(1)
        .max_tasks_per_child(1)
        .state(|()| 0u32, ())
        .finalizer(|kind| match kind {
            0 => panic!("the finalizer"),
            1 => std::process::abort(),
            2 => std::process::exit(0),
            other => other,
        })
        .build()
        .unwrap();
    pool.map(|state, x: u32| *state = x, 0..5).unwrap();
    let finals = pool.join_with_finals().unwrap();
    let texts: Vec<String> = finals
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(ToString::to_string, ToString::to_string))
        .collect();
    assert!(texts.iter().any(|text| text.contains("the finalizer")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("SIGABRT")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("exit status: 0")), "{texts:?}");
    for value in ["3", "4"] {
        assert!(texts.iter().any(|text| text == value), "{texts:?}");
    }
}

#[test]
fn a_worker_that_is_killed_takes_its_state_with_it_and_the_next_makes_its_own() {
    watchdog();
    let pool =
        Pool::builder().workers(1).state(|()| 0u32, ()).finalizer(|count| count).build().unwrap();
    let count = |count: &mut u32, dies: bool| {
        if dies {
            kill(std::process::id());
        }
        *count += 1;
        *count
    };
    assert_eq!(pool.apply(count, false).unwrap(), 1);
    assert_eq!(pool.apply(count, false).unwrap(), 2);
    assert!(pool.apply(count, true).unwrap_err().is_death());
    assert_eq!(pool.apply(count, false).unwrap(), 1);
    let finals: Result<Vec<u32>, _> = pool.join_with_finals().unwrap().into_iter().collect();
    assert_eq!(finals.unwrap(), [1]);
}
