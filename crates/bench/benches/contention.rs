//! Locks that several processes want at once, and wake-ups between two processes, beside their peers.
#![allow(missing_docs)]

use std::sync::Barrier;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;

use multiproc::{Condition, Event, Lock, RLock, RwLock, Semaphore, Value};
use multiproc_bench::pthread::{self, Page};
use multiproc_bench::rounds::{Cost, Measure, Role, is_test, pin, placements, together, units};
use multiproc_os::deadline::Deadline;
use multiproc_os::futex;
use raw_sync::Timeout;
use raw_sync::events::EventState;

const AREA: &str = "lock";

fn main() {
    if is_test() {
        return;
    }
    let places = placements();
    if let Some((place, cores)) = places.last() {
        for parties in [2, 4] {
            contended(place, *cores, parties);
        }
    }
    for (place, cores) in places {
        handoff(place, cores);
    }
}

/// So many processes (or threads, for those that are for threads) take a lock for a short section.
fn contended(place: &str, cores: [usize; 2], parties: usize) {
    let all = units(3_200_000);
    let turns = all / parties as u64;
    let page = Page::new();
    let lock = Lock::new().unwrap();
    let rlock = RLock::new().unwrap();
    let rwlock = RwLock::new().unwrap();
    let value = Value::new(0u64).unwrap();
    let mutex = std::sync::Mutex::new(());
    let parking_lot = parking_lot::Mutex::new(());
    let robust = pthread::Mutex::new(&page, 512, true);
    let shared = pthread::Mutex::new(&page, 1024, false);
    let raw_sync = pthread::raw_sync(&page, 1536);

    let counter = page.word64(0);
    let count = || counter.store(counter.load(Relaxed) + 1, Relaxed);
    // The counter shows that nobody was in the section at the same time.
    let counted = |cost: &dyn Fn() -> Cost| {
        counter.store(0, Relaxed);
        let cost = cost();
        assert_eq!(counter.load(Relaxed), all);
        cost
    };
    let in_processes = |turn: &dyn Fn()| {
        let act = || (0..turns).for_each(|_| turn());
        let roles: Vec<Role<'_>> =
            (0..parties).map(|index| (cores[index % 2], &act as &dyn Fn())).collect();
        together(&roles, all)
    };
    let in_threads = |turn: &(dyn Fn() + Sync)| {
        let ready = &Barrier::new(parties);
        let act = || {
            thread::scope(|scope| {
                for index in 0..parties {
                    scope.spawn(move || {
                        pin(cores[index % 2]);
                        ready.wait();
                        (0..turns).for_each(|_| turn());
                    });
                }
            });
        };
        together(&[(cores[0], &act)], all)
    };
    let processes = |turn: &dyn Fn()| counted(&|| in_processes(turn));
    let threads = |turn: &(dyn Fn() + Sync)| counted(&|| in_threads(turn));
    Measure::of(AREA, format!("a short section under a lock, {parties} at once"), "turn")
        .at(place)
        .headline()
        .ours("Lock", || {
            processes(&|| {
                let _held = lock.lock().unwrap();
                count();
            })
        })
        .peer("pthread robust mutex", || processes(&|| robust.with(count)))
        .peer("pthread mutex", || processes(&|| shared.with(count)))
        .peer("raw_sync Mutex", || {
            processes(&|| {
                let _held = raw_sync.lock().unwrap();
                count();
            })
        })
        .threads("std Mutex", || {
            threads(&|| {
                let _held = mutex.lock().unwrap();
                count();
            })
        })
        .threads("parking_lot Mutex", || {
            threads(&|| {
                let _held = parking_lot.lock();
                count();
            })
        })
        .ours("RLock", || {
            processes(&|| {
                let _held = rlock.lock().unwrap();
                count();
            })
        })
        .ours("RwLock, write", || {
            processes(&|| {
                let _held = rwlock.write().unwrap();
                count();
            })
        })
        .ours("RwLock, read", || in_processes(&|| drop(rwlock.read().unwrap())))
        .ours("Value, addition", || in_processes(&|| *value.lock().unwrap() += 1))
        .run();
}

/// A turn goes to and fro between two processes.
fn handoff(place: &str, cores: [usize; 2]) {
    let turns = units(40_000);
    let page = Page::new();
    let semaphores = [Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap()];
    let events = [Event::new().unwrap(), Event::new().unwrap()];
    let (turn, changed) = (Value::new(0u64).unwrap(), Condition::new().unwrap());
    let futexes = [page.word32(64), page.word32(128)];
    let theirs = [512, 1024].map(|at| pthread::raw_sync_event(&page, at));

    // Each in its turn: what the one does, and what the other.
    let between = |near: &dyn Fn(), far: &dyn Fn()| {
        let near = || (0..turns).for_each(|_| near());
        let far = || (0..turns).for_each(|_| far());
        together(&[(cores[0], &near), (cores[1], &far)], turns)
    };
    Measure::of(AREA, "a turn to another process and back", "round trip")
        .at(place)
        .headline()
        .limit("raw futex", || {
            let near = || {
                raw_set(futexes[0]);
                raw_wait(futexes[1]);
            };
            let far = || {
                raw_wait(futexes[0]);
                raw_set(futexes[1]);
            };
            between(&near, &far)
        })
        .ours("Semaphore", || {
            let near = || {
                semaphores[0].release();
                semaphores[1].acquire().unwrap();
            };
            let far = || {
                semaphores[0].acquire().unwrap();
                semaphores[1].release();
            };
            between(&near, &far)
        })
        .ours("Event", || {
            let near = || {
                events[0].set();
                events[1].wait();
                events[1].clear();
            };
            let far = || {
                events[0].wait();
                events[0].clear();
                events[1].set();
            };
            between(&near, &far)
        })
        .ours("Condition and Value", || {
            let act = |own: u64| {
                let mut guard =
                    changed.wait_while(turn.lock().unwrap(), |turn| **turn % 2 != own).unwrap();
                *guard += 1;
                drop(guard);
                changed.notify(1);
            };
            between(&|| act(0), &|| act(1))
        })
        .peer("raw_sync Event", || {
            let near = || {
                theirs[0].set(EventState::Signaled).unwrap();
                theirs[1].wait(Timeout::Infinite).unwrap();
            };
            let far = || {
                theirs[0].wait(Timeout::Infinite).unwrap();
                theirs[1].set(EventState::Signaled).unwrap();
            };
            between(&near, &far)
        })
        .run();
}

fn raw_set(word: &AtomicU32) {
    word.store(1, Release);
    futex::wake(word, 1);
}

fn raw_wait(word: &AtomicU32) {
    while word.swap(0, Acquire) == 0 {
        futex::wait(word, 0, Deadline::NEVER);
    }
}
