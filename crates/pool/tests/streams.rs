//! Results are streams as well as iterators, and take from their items only what is needed.
#![cfg(feature = "stream")]

mod common;

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{gate, pass, watchdog};
use futures_core::Stream;
use multiproc_pool::{Pool, as_completed};
use multiproc_process::init_before_main;

init_before_main!();

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

#[test]
fn an_imap_is_a_stream_in_order() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    block_on(async {
        let mut results = pool.imap(|x: u64| x * 3, 0..500);
        for x in 0..500 {
            assert_eq!(next(&mut results).await.unwrap().unwrap(), x * 3);
        }
        assert!(next(&mut results).await.is_none());
    });
}

#[test]
fn an_unordered_imap_is_a_stream_of_all() {
    watchdog();
    let pool = Pool::builder().workers(3).build().unwrap().with_chunk_size(4);
    let seen = block_on(async {
        let mut results = pool.imap_unordered(|x: u64| x, 0..500);
        let mut seen = HashSet::new();
        while let Some(result) = next(&mut results).await {
            assert!(seen.insert(result.unwrap()));
        }
        seen
    });
    assert_eq!(seen, (0..500).collect());
}

#[test]
fn completed_tasks_are_a_stream() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let later: Vec<_> = (0..50).map(|x| pool.apply_async(|x: u32| x + 1, x).unwrap()).collect();
    let mut results = as_completed(later);
    let seen = block_on(async {
        let mut seen = HashSet::new();
        while let Some((place, result)) = next(&mut results).await {
            assert_eq!(result.unwrap() as usize, place + 1);
            seen.insert(place);
        }
        seen
    });
    assert_eq!(seen.len(), 50);
}

#[test]
fn items_are_taken_only_as_far_as_workers_need_them() {
    watchdog();
    for (chunk, workers) in [(1, 2), (10, 2), (25, 3)] {
        let (entry, gate) = gate();
        let pool = Pool::builder().workers(workers).state(|gate| gate, entry).build().unwrap();
        let taken = AtomicUsize::new(0);
        let items = (0u64..).inspect(|_| {
            taken.fetch_add(1, Relaxed);
        });
        let bound = 4 * chunk * workers;
        let task = |gate: &mut multiproc_wire::Fd<std::fs::File>, x: u64| {
            if x == 0 {
                pass(gate);
            }
            x
        };
        let pool = pool.with_chunk_size(chunk);
        let mut results = pool.imap(task, items);
        // The first keeps all others from being given out.
        std::thread::scope(|scope| {
            let first = scope.spawn(|| results.next().unwrap().unwrap());
            common::eventually(|| taken.load(Relaxed) >= bound);
            gate.let_through(1);
            assert_eq!(first.join().unwrap(), 0);
        });
        assert!(taken.load(Relaxed) <= 2 * bound, "{} were taken", taken.load(Relaxed));
        for x in 1..300 {
            assert_eq!(results.next().unwrap().unwrap(), x);
            let ahead = taken.load(Relaxed) - x as usize;
            assert!(ahead <= 2 * bound, "{ahead} ahead of {x}");
        }
    }
}
