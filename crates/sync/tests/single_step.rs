//! Proves that whoever is killed, at whatever instruction of an operation on a primitive, the others go
//! on: who holds, who waits, who was woken and overtaken by a thief, who wakes others.
//!
//! A victim runs instruction by instruction and is killed after the first, the second, and so on. Of
//! these deaths a run takes a sample, another each time; with `--ignored` it takes all of them.
//!
//! The other way round, one that waits is stopped after each instruction, another dies or does what it
//! waits for, and it must come to its end by itself.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use multiproc_harness::trace::{Moment, Traced, Way};
use multiproc_harness::{Child, eventually, is_asleep, watchdog};
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, LockError, RLock, RwLock, Semaphore,
};

/// How many deaths each test samples: fewer where each takes long.
fn samples(length: u64) -> u64 {
    (50_000 / length.max(1)).clamp(5, 25).min(length)
}

fn main() {
    multiproc_harness::run(&[
        ("lock_and_unlock", lock_and_unlock),
        ("lock_held_by_another", lock_held_by_another),
        ("lock_that_waits", lock_that_waits),
        ("lock_that_waits_and_is_overtaken", lock_that_waits_and_is_overtaken),
        ("unlock_that_wakes", unlock_that_wakes),
        ("rlock_twice_and_unlock", rlock_twice_and_unlock),
        ("rlock_that_waits", rlock_that_waits),
        ("runlock_that_wakes", runlock_that_wakes),
        ("semaphore_acquire_and_release", semaphore_acquire_and_release),
        ("semaphore_acquire_that_waits", semaphore_acquire_that_waits),
        (
            "semaphore_acquire_that_waits_behind_another",
            semaphore_acquire_that_waits_behind_another,
        ),
        ("semaphore_acquire_whose_time_is_over", semaphore_acquire_whose_time_is_over),
        ("semaphore_release_that_wakes", semaphore_release_that_wakes),
        ("bounded_acquire_and_release", bounded_acquire_and_release),
        ("bounded_acquire_that_waits", bounded_acquire_that_waits),
        ("bounded_acquire_that_waits_behind_another", bounded_acquire_that_waits_behind_another),
        ("bounded_release_that_wakes", bounded_release_that_wakes),
        ("condition_wait", condition_wait),
        ("condition_wait_whose_time_is_over", condition_wait_whose_time_is_over),
        ("condition_notify_one", condition_notify_one),
        ("condition_notify_all_with_the_lock_held", condition_notify_all_with_the_lock_held),
        ("barrier_first_party", barrier_first_party),
        ("barrier_middle_party", barrier_middle_party),
        ("barrier_last_party", barrier_last_party),
        ("barrier_party_whose_time_is_over", barrier_party_whose_time_is_over),
        ("read_and_release", read_and_release),
        ("read_that_waits", read_that_waits),
        ("read_release_that_wakes", read_release_that_wakes),
        ("write_and_release", write_and_release),
        ("write_that_waits", write_that_waits),
        ("write_release_that_wakes", write_release_that_wakes),
        ("event_set_that_wakes", event_set_that_wakes),
        ("event_pulse", event_pulse),
        ("event_wait", event_wait),
        ("event_wait_whose_time_is_over", event_wait_whose_time_is_over),
        ("holder_killed_under_a_waiter", holder_killed_under_a_waiter),
        ("holder_releases_under_a_waiter", holder_releases_under_a_waiter),
        ("unit_given_under_a_waiter", unit_given_under_a_waiter),
        ("first_in_line_killed_under_the_next", first_in_line_killed_under_the_next),
        ("permit_comes_back_under_a_waiter", permit_comes_back_under_a_waiter),
        ("notified_under_a_waiter", notified_under_a_waiter),
        ("set_under_a_waiter", set_under_a_waiter),
        ("party_killed_under_another", party_killed_under_another),
        ("last_party_comes_under_another", last_party_comes_under_another),
        ("reader_killed_under_a_writer", reader_killed_under_a_writer),
        ("writer_comes_under_a_reader", writer_comes_under_a_reader),
        ("reader_comes_under_a_writer", reader_comes_under_a_writer),
        ("writer_killed_under_a_reader", writer_killed_under_a_reader),
    ]);
}

/// Tells a story with one death after the other. It is given when the victim dies, and tells how many
/// instructions there were if the victim came to the end.
fn everywhere(live: impl Fn(Moment<'_>) -> Option<u64>) {
    // What is found out once for each process is found out before all forks.
    assert!(!Event::new().unwrap().wait_timeout(Duration::from_millis(1)));
    let way = Way::default();
    let length = live(way.to_the_end()).expect("the victim does not end");
    let whole = std::env::args().any(|word| word == "--ignored");
    let stride = if whole { 1 } else { (length / samples(length)).max(1) };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let (mut deaths, mut strayed) = (0, 0);
    for after in (u64::from(now) % stride..length).step_by(stride as usize) {
        watchdog();
        live(way.after(after));
        deaths += 1;
        if way.was_strayed_from() {
            // Where it matters how fast it runs.
            live(after.into());
            strayed += 1;
        }
    }
    println!("{deaths} deaths in {length} instructions, {strayed} of them by single steps alone");
    assert!(deaths >= samples(length), "{deaths} deaths prove little");
}

/// Runs to the end, or dies before, without anybody's help.
fn alone(before: impl FnOnce(), act: impl FnOnce(), after: Moment<'_>) -> Option<u64> {
    start(before, act).run(after, || panic!("the victim sleeps"))
}

fn start(before: impl FnOnce(), act: impl FnOnce()) -> Traced {
    let warm_up = Lock::new().unwrap();
    Traced::start(
        || {
            drop(warm_up.lock().unwrap());
            before();
        },
        act,
    )
}

/// Somebody else, who is asleep over something.
fn sleeper(act: impl FnOnce()) -> Child {
    let child = Child::fork(act);
    child.wait_asleep();
    child
}

fn join_all(children: impl IntoIterator<Item = Child>) {
    children.into_iter().for_each(Child::join);
}

/// Waits until each has ended or sleeps, with nobody awake who would wake another.
fn settle(children: &[&Child]) {
    let rests = || children.iter().all(|child| child.has_ended() || is_asleep(child.pid()));
    eventually("rest", || (0..3).all(|_| rests()));
}

fn count_ended(children: &[&Child]) -> usize {
    children.iter().filter(|child| child.has_ended()).count()
}

/// Takes a lock, poisoned or not; a death that it tells of must have been one.
fn pass(lock: &Lock, died: bool) {
    match lock.lock() {
        Ok(guard) => drop(guard),
        Err(error) => {
            assert!(error.is_poisoned() && died, "{error}");
            drop(lock.lock_anyway().unwrap());
            lock.clear_poison();
            drop(lock.lock().unwrap());
        }
    }
}

fn unless_poisoned<T>(result: Result<T, LockError>) -> Option<T> {
    result.inspect_err(|error| assert!(error.is_poisoned(), "{error}")).ok()
}

fn lock_and_unlock() {
    everywhere(|after| {
        let lock = Lock::new().unwrap();
        let length = alone(|| (), || drop(lock.lock().unwrap()), after);
        Child::fork(|| drop(lock.lock_anyway().unwrap())).join();
        pass(&lock, length.is_none());
        length
    });
}

fn lock_held_by_another() {
    everywhere(|after| {
        let lock = Lock::new().unwrap();
        let held = lock.lock().unwrap();
        let other = sleeper(|| drop(lock.lock().unwrap()));
        let act = || {
            assert!(lock.try_lock().unwrap().is_none());
            assert!(lock.lock_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
        };
        let length = start(|| (), act).run(after, || ());
        drop(held);
        other.join();
        pass(&lock, false);
        length
    });
}

fn lock_that_waits() {
    wait_for_a_lock(false);
}

fn lock_that_waits_and_is_overtaken() {
    wait_for_a_lock(true);
}

/// The victim waits in front of a sleeper, is woken, and a thief may be faster.
fn wait_for_a_lock(steal: bool) {
    everywhere(|after| {
        let lock = Lock::new().unwrap();
        let held = RefCell::new(Some(lock.lock().unwrap()));
        let behind = RefCell::new(None);
        let next = || sleeper(|| drop(lock.lock_anyway().unwrap()));
        let victim = start(|| (), || drop(lock.lock().unwrap()));
        let length = victim.run(after, || {
            if behind.borrow().is_none() {
                *behind.borrow_mut() = Some(next());
                drop(held.take());
                if steal {
                    *held.borrow_mut() = lock.try_lock().unwrap();
                }
            } else {
                drop(held.take());
            }
        });
        // A thief who has never heard of the one behind wakes him all the same.
        drop(held.take());
        join_all(behind.take());
        pass(&lock, length.is_none());
        length
    });
}

fn unlock_that_wakes() {
    everywhere(|after| {
        let lock = Lock::new().unwrap();
        let held = RefCell::new(None);
        let before = || *held.borrow_mut() = Some(lock.lock().unwrap());
        let victim = start(before, || drop(held.take()));
        let sleepers = [(); 2].map(|()| sleeper(|| drop(lock.lock_anyway().unwrap())));
        let length = victim.run(after, || panic!("it sleeps"));
        join_all(sleepers);
        pass(&lock, length.is_none());
        length
    });
}

fn pass_rlock(lock: &RLock, died: bool) {
    if let Err(error) = lock.lock().map(drop) {
        assert!(error.is_poisoned() && died, "{error}");
        lock.clear_poison();
    }
    let outer = lock.lock().unwrap();
    drop(lock.lock().unwrap());
    Child::fork(|| assert!(lock.try_lock().unwrap().is_none())).join();
    drop(outer);
    Child::fork(|| assert!(lock.try_lock().unwrap().is_some())).join();
}

fn rlock_twice_and_unlock() {
    everywhere(|after| {
        let lock = RLock::new().unwrap();
        let act = || {
            let outer = lock.lock().unwrap();
            let inner = lock.lock().unwrap();
            drop(outer);
            drop(inner);
        };
        let length = alone(|| (), act, after);
        pass_rlock(&lock, length.is_none());
        length
    });
}

fn rlock_that_waits() {
    everywhere(|after| {
        let lock = RLock::new().unwrap();
        let held = RefCell::new(Some([lock.lock().unwrap(), lock.lock().unwrap()]));
        let behind = RefCell::new(None);
        let victim = start(|| (), || drop([lock.lock().unwrap(), lock.lock().unwrap()]));
        let length = victim.run(after, || {
            if held.borrow().is_some() {
                *behind.borrow_mut() = Some(sleeper(|| drop(lock.lock_anyway().unwrap())));
                drop(held.take());
            }
        });
        drop(held.take());
        join_all(behind.take());
        pass_rlock(&lock, length.is_none());
        length
    });
}

fn runlock_that_wakes() {
    everywhere(|after| {
        let lock = RLock::new().unwrap();
        let held = RefCell::new(None);
        let before = || *held.borrow_mut() = Some([lock.lock().unwrap(), lock.lock().unwrap()]);
        let victim = start(before, || drop(held.take()));
        let sleepers = [(); 2].map(|()| sleeper(|| drop(lock.lock_anyway().unwrap())));
        let length = victim.run(after, || panic!("it sleeps"));
        join_all(sleepers);
        pass_rlock(&lock, length.is_none());
        length
    });
}

fn semaphore_acquire_and_release() {
    everywhere(|after| {
        let semaphore = Semaphore::new(1).unwrap();
        let act = || {
            assert!(semaphore.try_acquire());
            assert!(!semaphore.try_acquire());
            semaphore.release();
            semaphore.acquire().unwrap();
            semaphore.release();
        };
        let length = alone(|| (), act, after);
        let value = semaphore.value();
        assert!(value == 1 || value == 0 && length.is_none());
        semaphore.release();
        semaphore.acquire().unwrap();
        assert_eq!(semaphore.value(), value);
        length
    });
}

/// Whoever waits gets what there is, without further help.
fn gets_what_there_is(semaphore: &Semaphore, waiters: &[Child]) {
    let waiters: Vec<&Child> = waiters.iter().collect();
    settle(&waiters);
    assert!(semaphore.value() == 0 || count_ended(&waiters) == waiters.len(), "one sleeps on");
}

fn semaphore_acquire_that_waits() {
    everywhere(|after| {
        let semaphore = Semaphore::new(0).unwrap();
        let given = Cell::new(0);
        let behind = RefCell::new(Vec::new());
        let next = || sleeper(|| semaphore.acquire().unwrap());
        let victim = start(|| (), || semaphore.acquire().unwrap());
        let length = victim.run(after, || {
            if given.get() == 0 {
                *behind.borrow_mut() = vec![next(), next()];
                semaphore.release();
                given.set(1);
            }
        });
        let behind = behind.take();
        gets_what_there_is(&semaphore, &behind);
        let taken = count_ended(&behind.iter().collect::<Vec<_>>());
        assert!(taken <= given.get() && (taken == 0 || length.is_none()));
        // The unit that the dead had in hand is lost, or it had none.
        semaphore.release_many(4);
        let left = 4 + given.get() - behind.len();
        join_all(behind);
        let value = semaphore.value() as usize;
        assert!(value == left - 1 || value == left && length.is_none(), "{value} of {left}");
        length
    });
}

fn semaphore_acquire_that_waits_behind_another() {
    everywhere(|after| {
        let semaphore = Semaphore::new(0).unwrap();
        let given = Cell::new(0);
        let next = || sleeper(|| semaphore.acquire().unwrap());
        let others = RefCell::new(vec![next()]);
        let victim = start(|| (), || semaphore.acquire().unwrap());
        let length = victim.run(after, || {
            if others.borrow().len() == 1 {
                others.borrow_mut().push(next());
            }
            if given.get() < 2 {
                semaphore.release();
                given.set(given.get() + 1);
            }
        });
        let others = others.take();
        gets_what_there_is(&semaphore, &others);
        semaphore.release_many(4);
        let left = 4 + given.get() - others.len();
        join_all(others);
        let value = semaphore.value() as usize;
        assert!(value == left - 1 || value == left && length.is_none(), "{value} of {left}");
        length
    });
}

fn semaphore_acquire_whose_time_is_over() {
    everywhere(|after| {
        let semaphore = Semaphore::new(0).unwrap();
        let behind = RefCell::new(Vec::new());
        let next = || sleeper(|| semaphore.acquire().unwrap());
        let act = || {
            let error = semaphore.acquire_timeout(Duration::from_millis(8)).unwrap_err();
            assert!(error.is_timeout());
        };
        let length = start(|| (), act).run(after, || {
            if behind.borrow().is_empty() {
                *behind.borrow_mut() = vec![next()];
            }
        });
        let behind = behind.take();
        semaphore.release();
        gets_what_there_is(&semaphore, &behind);
        assert_eq!(semaphore.value() as usize, 1 - behind.len());
        join_all(behind);
        length
    });
}

fn semaphore_release_that_wakes() {
    everywhere(|after| {
        let semaphore = Semaphore::new(0).unwrap();
        let next = || sleeper(|| semaphore.acquire().unwrap());
        let sleepers = [next(), next(), next()];
        let length = alone(|| (), || semaphore.release_many(2), after);
        gets_what_there_is(&semaphore, &sleepers);
        let given = count_ended(&sleepers.iter().collect::<Vec<_>>());
        assert!(given == 2 || given == 0 && length.is_none());
        semaphore.release_many(3 - given as u32);
        join_all(sleepers);
        assert_eq!(semaphore.value(), 0);
        length
    });
}

fn bounded_acquire_and_release() {
    everywhere(|after| {
        let semaphore = BoundedSemaphore::new(2).unwrap();
        let act = || {
            let first = semaphore.try_acquire().unwrap().unwrap();
            let second = semaphore.acquire().unwrap();
            assert!(semaphore.try_acquire().unwrap().is_none());
            drop(first);
            drop(second);
        };
        let length = alone(|| (), act, after);
        assert_eq!(semaphore.value(), 2);
        drop([(); 2].map(|()| semaphore.try_acquire().unwrap().unwrap()));
        assert_eq!(semaphore.value(), 2);
        length
    });
}

fn bounded_acquire_that_waits() {
    everywhere(|after| {
        let semaphore = BoundedSemaphore::new(2).unwrap();
        let held = RefCell::new(vec![semaphore.acquire().unwrap(), semaphore.acquire().unwrap()]);
        let behind = RefCell::new(Vec::new());
        let next = || sleeper(|| drop(semaphore.acquire().unwrap()));
        let victim = start(|| (), || drop(semaphore.acquire().unwrap()));
        let length = victim.run(after, || {
            if behind.borrow().is_empty() {
                *behind.borrow_mut() = vec![next(), next()];
            }
            // A thief may be faster than the victim once.
            let mut held = held.borrow_mut();
            if held.len() == 2 {
                drop(held.pop());
                held.extend(semaphore.try_acquire().unwrap());
            }
            held.truncate(1);
        });
        // One permit is enough for all.
        held.borrow_mut().truncate(1);
        join_all(behind.take());
        held.take();
        assert_eq!(semaphore.value(), 2);
        length
    });
}

fn bounded_acquire_that_waits_behind_another() {
    everywhere(|after| {
        let semaphore = BoundedSemaphore::new(1).unwrap();
        let held = RefCell::new(Some(semaphore.acquire().unwrap()));
        let next = || sleeper(|| drop(semaphore.acquire().unwrap()));
        let others = RefCell::new(vec![next()]);
        let victim = start(|| (), || drop(semaphore.acquire().unwrap()));
        let length = victim.run(after, || {
            if held.borrow().is_some() {
                others.borrow_mut().push(next());
                drop(held.take());
            }
        });
        drop(held.take());
        join_all(others.take());
        assert_eq!(semaphore.value(), 1);
        length
    });
}

fn bounded_release_that_wakes() {
    everywhere(|after| {
        let semaphore = BoundedSemaphore::new(2).unwrap();
        let other = semaphore.acquire().unwrap();
        let held = RefCell::new(None);
        let before = || *held.borrow_mut() = Some(semaphore.acquire().unwrap());
        let victim = start(before, || drop(held.take()));
        let sleepers = [(); 2].map(|()| sleeper(|| drop(semaphore.acquire().unwrap())));
        let length = victim.run(after, || panic!("it sleeps"));
        join_all(sleepers);
        assert_eq!(semaphore.value(), 1);
        drop(other);
        length
    });
}

/// Waits once, until notified; poison is as good.
fn wait_for(changed: &Condition, lock: &Lock) {
    if let Some(held) = unless_poisoned(lock.lock()) {
        drop(unless_poisoned(changed.wait(held)));
    }
}

fn condition_wait() {
    everywhere(|after| {
        let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
        let other = sleeper(|| wait_for(&changed, &lock));
        let notified = Cell::new(false);
        let victim = start(|| (), || wait_for(&changed, &lock));
        let length = victim.run(after, || {
            if !notified.replace(true) {
                changed.notify(2);
            }
        });
        pass(&lock, length.is_none());
        // Whether the other has got the notification shows by itself.
        settle(&[&other]);
        assert_eq!(other.has_ended(), notified.get());
        changed.notify(1);
        other.join();
        pass(&lock, false);
        length
    });
}

fn condition_wait_whose_time_is_over() {
    everywhere(|after| {
        let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
        let other = sleeper(|| wait_for(&changed, &lock));
        let act = || {
            let soon = Duration::from_millis(1);
            let (_held, notified) = changed.wait_timeout(lock.lock().unwrap(), soon).unwrap();
            assert!(!notified);
        };
        let length = start(|| (), act).run(after, || ());
        pass(&lock, length.is_none());
        changed.notify(1);
        other.join();
        pass(&lock, false);
        length
    });
}

fn condition_notify_one() {
    everywhere(|after| {
        let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
        let others = [(); 2].map(|()| sleeper(|| wait_for(&changed, &lock)));
        let length = alone(|| (), || changed.notify(1), after);
        let [one, two] = &others;
        settle(&[one, two]);
        let ended = count_ended(&[one, two]);
        assert!(ended == 1 || ended == 0 && length.is_none(), "{ended} have gone on");
        changed.notify(2 - ended as u32);
        join_all(others);
        length
    });
}

fn condition_notify_all_with_the_lock_held() {
    everywhere(|after| {
        let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
        let others = [(); 3].map(|()| sleeper(|| wait_for(&changed, &lock)));
        let act = || {
            let held = lock.lock().unwrap();
            changed.notify_all();
            drop(held);
        };
        let length = alone(|| (), act, after);
        let all: Vec<&Child> = others.iter().collect();
        settle(&all);
        let ended = count_ended(&all);
        assert!(ended == 3 || ended == 0 && length.is_none(), "{ended} have gone on");
        pass(&lock, length.is_none());
        changed.notify_all();
        join_all(others);
        length
    });
}

/// Lets those that have come to the barrier, and so many more, go on or learn that it is broken.
fn meet(barrier: &Barrier, mut come: Vec<Child>, more: usize, died: bool) {
    let arrived = barrier.waiting() as usize > come.len();
    for _ in 0..more {
        come.push(Child::fork(|| _ = barrier.wait()));
    }
    let all: Vec<&Child> = come.iter().collect();
    settle(&all);
    let left = all.len() - count_ended(&all);
    if left > 0 {
        // The dead never came; all others are there, and nobody knows of a reason to go.
        assert!(died && !arrived && !barrier.is_broken(), "{left} hang: {barrier:?}");
        assert_eq!((left, barrier.waiting() as usize), (all.len(), all.len()));
        barrier.abort().unwrap();
    }
    join_all(come);
    assert!(died || !barrier.is_broken());
    barrier.reset().unwrap();
    let others = [(); 2].map(|()| Child::fork(|| _ = barrier.wait().unwrap()));
    barrier.wait().unwrap();
    join_all(others);
}

/// The victim is a party at a barrier for three, after so many others.
fn at_a_barrier(before: usize) {
    everywhere(|after| {
        let barrier = Barrier::new(3).unwrap();
        let next = || sleeper(|| _ = barrier.wait());
        let others = RefCell::new((0..before).map(|_| next()).collect::<Vec<_>>());
        let complete = Cell::new(false);
        let acted = Cell::new(false);
        let victim = start(|| (), || _ = barrier.wait_with(|| acted.set(true)).unwrap());
        let length = victim.run(after, || {
            if others.borrow().is_empty() {
                others.borrow_mut().push(next());
            } else if !complete.replace(true) {
                barrier.wait().unwrap();
            }
        });
        let others = others.take();
        let more = if complete.get() || before == 2 { 0 } else { 2 - others.len() };
        meet(&barrier, others, more, length.is_none());
        length
    });
}

fn barrier_first_party() {
    at_a_barrier(0);
}

fn barrier_middle_party() {
    at_a_barrier(1);
}

fn barrier_last_party() {
    at_a_barrier(2);
}

fn barrier_party_whose_time_is_over() {
    everywhere(|after| {
        let barrier = Barrier::new(3).unwrap();
        let other = sleeper(|| _ = barrier.wait());
        let soon = Duration::from_millis(8);
        let victim = start(|| (), || assert!(barrier.wait_timeout(soon).unwrap_err().is_timeout()));
        let length = victim.run(after, || ());
        if length.is_some() {
            other.join();
            assert!(barrier.is_broken());
            meet(&barrier, Vec::new(), 2, true);
        } else {
            meet(&barrier, vec![other], 1, true);
        }
        length
    });
}

/// Nobody is in it.
fn is_free(lock: &RwLock, died_writing: bool) {
    if let Err(error) = lock.try_write().map(Option::unwrap).map(drop) {
        assert!(error.is_poisoned() && died_writing, "{error}");
        drop(lock.write_anyway().unwrap());
        lock.clear_poison();
    }
    drop(lock.try_write().unwrap().unwrap());
    drop([(); 64].map(|()| lock.try_read().unwrap().unwrap()));
}

fn read_and_release() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let reading = lock.read().unwrap();
        let act = || {
            let guard = lock.read().unwrap();
            assert!(lock.try_write().unwrap_err().is_deadlock());
            drop(guard);
            drop(lock.try_read().unwrap().unwrap());
        };
        let length = alone(|| (), act, after);
        drop(reading);
        is_free(&lock, false);
        length
    });
}

fn read_that_waits() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let held = RefCell::new(Some(lock.write().unwrap()));
        let behind = RefCell::new(Vec::new());
        let victim = start(|| (), || drop(lock.read().unwrap()));
        let length = victim.run(after, || {
            if held.borrow().is_some() {
                behind.borrow_mut().push(sleeper(|| drop(lock.write().unwrap())));
                behind.borrow_mut().push(sleeper(|| drop(lock.read().unwrap())));
                drop(held.take());
            }
        });
        drop(held.take());
        join_all(behind.take());
        is_free(&lock, false);
        length
    });
}

fn read_release_that_wakes() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let held = RefCell::new(None);
        let before = || *held.borrow_mut() = Some(lock.read().unwrap());
        let victim = start(before, || drop(held.take()));
        let writer = sleeper(|| drop(lock.write().unwrap()));
        let reader = sleeper(|| drop(lock.read().unwrap()));
        let length = victim.run(after, || panic!("it sleeps"));
        writer.join();
        reader.join();
        is_free(&lock, false);
        length
    });
}

fn write_and_release() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let act = || {
            let guard = lock.write().unwrap();
            assert!(lock.try_read().unwrap_err().is_deadlock());
            drop(guard);
            drop(lock.try_write().unwrap().unwrap());
        };
        let length = alone(|| (), act, after);
        is_free(&lock, length.is_none());
        length
    });
}

fn write_that_waits() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let held = RefCell::new(Some(lock.read().unwrap()));
        let behind = RefCell::new(Vec::new());
        let victim = start(|| (), || drop(lock.write().unwrap()));
        let length = victim.run(after, || {
            if held.borrow().is_some() {
                behind.borrow_mut().push(sleeper(|| drop(lock.read_anyway().unwrap())));
                behind.borrow_mut().push(sleeper(|| drop(lock.write_anyway().unwrap())));
                drop(held.take());
            }
        });
        drop(held.take());
        join_all(behind.take());
        is_free(&lock, length.is_none());
        length
    });
}

fn write_release_that_wakes() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let held = RefCell::new(None);
        let before = || *held.borrow_mut() = Some(lock.write().unwrap());
        let victim = start(before, || drop(held.take()));
        let reader = sleeper(|| drop(lock.read_anyway().unwrap()));
        let writer = sleeper(|| drop(lock.write_anyway().unwrap()));
        let length = victim.run(after, || panic!("it sleeps"));
        writer.join();
        reader.join();
        is_free(&lock, length.is_none());
        length
    });
}

fn event_set_that_wakes() {
    everywhere(|after| {
        let event = Event::new().unwrap();
        let others = [(); 2].map(|()| sleeper(|| event.wait()));
        let length = alone(|| (), || event.set(), after);
        let [one, two] = &others;
        settle(&[one, two]);
        let ended = count_ended(&[one, two]);
        assert_eq!(ended, if event.is_set() { 2 } else { 0 });
        assert!(event.is_set() || length.is_none());
        event.set();
        join_all(others);
        length
    });
}

fn event_pulse() {
    everywhere(|after| {
        let event = Event::new().unwrap();
        let others = [(); 2].map(|()| sleeper(|| event.wait()));
        let act = || {
            event.set();
            event.clear();
        };
        let length = alone(|| (), act, after);
        let [one, two] = &others;
        settle(&[one, two]);
        let ended = count_ended(&[one, two]);
        assert!(ended == 2 || ended == 0 && length.is_none() && !event.is_set());
        assert!(length.is_none() || !event.is_set());
        event.clear();
        assert!(!event.wait_timeout(Duration::ZERO));
        event.set();
        join_all(others);
        assert!(event.is_set());
        length
    });
}

fn event_wait() {
    everywhere(|after| {
        let event = Event::new().unwrap();
        let other = sleeper(|| event.wait());
        let pulsed = Cell::new(false);
        let victim = start(|| (), || event.wait());
        let length = victim.run(after, || {
            pulsed.set(true);
            event.set();
            event.clear();
        });
        settle(&[&other]);
        assert_eq!(other.has_ended(), pulsed.get());
        event.set();
        other.join();
        length
    });
}

fn event_wait_whose_time_is_over() {
    everywhere(|after| {
        let event = Event::new().unwrap();
        let other = sleeper(|| event.wait());
        let soon = Duration::from_millis(1);
        let length = start(|| (), || assert!(!event.wait_timeout(soon))).run(after, || ());
        event.set();
        other.join();
        length
    });
}

/// Runs it for so many instructions, has something happen once, and waits for its end.
fn waits(act: impl FnOnce(), after: Moment<'_>, happen: impl FnOnce()) -> Option<u64> {
    let mut happen = Some(happen);
    start(|| (), act).run_on(after, || {
        happen.take().into_iter().for_each(|happen| happen());
        true
    })
}

fn holder_killed_under_a_waiter() {
    everywhere(|after| {
        let lock = Lock::new().unwrap();
        let holder = Child::fork_and_stay(|| lock.lock().unwrap());
        waits(|| assert!(lock.lock().unwrap_err().is_poisoned()), after, || holder.kill())
    });
}

fn holder_releases_under_a_waiter() {
    everywhere(|after| {
        let lock = Lock::new().unwrap();
        let held = lock.lock().unwrap();
        let length = waits(|| drop(lock.lock().unwrap()), after, || drop(held));
        pass(&lock, false);
        length
    });
}

fn unit_given_under_a_waiter() {
    everywhere(|after| {
        let semaphore = Semaphore::new(0).unwrap();
        let length = waits(|| semaphore.acquire().unwrap(), after, || semaphore.release());
        assert_eq!(semaphore.value(), 0);
        length
    });
}

fn first_in_line_killed_under_the_next() {
    everywhere(|after| {
        let semaphore = Semaphore::new(0).unwrap();
        let first = sleeper(|| semaphore.acquire().unwrap());
        let happen = || {
            first.kill();
            semaphore.release();
        };
        let length = waits(|| semaphore.acquire().unwrap(), after, happen);
        assert_eq!(semaphore.value(), 0);
        length
    });
}

fn permit_comes_back_under_a_waiter() {
    everywhere(|after| {
        let semaphore = BoundedSemaphore::new(2).unwrap();
        let kept = semaphore.acquire().unwrap();
        let holder = Child::fork_and_stay(|| semaphore.acquire().unwrap());
        let length = waits(|| drop(semaphore.acquire().unwrap()), after, || holder.kill());
        drop(kept);
        assert_eq!(semaphore.value(), 2);
        length
    });
}

fn notified_under_a_waiter() {
    everywhere(|after| {
        let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
        let done = Event::new().unwrap();
        let act = || {
            let held = lock.lock().unwrap();
            drop(changed.wait_while(held, |_| !done.is_set()).unwrap());
        };
        start(|| (), act).run_on(after, || {
            // It may be in the middle of taking or releasing the lock.
            let Some(held) = lock.try_lock().unwrap() else { return false };
            done.set();
            drop(held);
            changed.notify(1);
            true
        })
    });
}

fn set_under_a_waiter() {
    everywhere(|after| {
        let event = Event::new().unwrap();
        waits(|| event.wait(), after, || event.set())
    });
}

/// Of those that wait before it, one has the watch and another has not.
fn party_killed_under_another() {
    for victim in 0..2 {
        everywhere(|after| {
            let barrier = Barrier::new(4).unwrap();
            let mut others = [(); 2].map(|()| Some(sleeper(|| _ = barrier.wait())));
            let dead = others[victim].take().unwrap();
            let act = || assert!(barrier.wait().unwrap_err().is_broken());
            let length = waits(act, after, || dead.kill());
            join_all(others.into_iter().flatten());
            length
        });
    }
}

fn last_party_comes_under_another() {
    everywhere(|after| {
        let barrier = Barrier::new(2).unwrap();
        let other = RefCell::new(None);
        let come = || *other.borrow_mut() = Some(Child::fork(|| _ = barrier.wait().unwrap()));
        let length = waits(|| _ = barrier.wait().unwrap(), after, come);
        join_all(other.take());
        assert!(!barrier.is_broken());
        length
    });
}

fn reader_killed_under_a_writer() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let reader = Child::fork_and_stay(|| lock.read().unwrap());
        let length = waits(|| drop(lock.write().unwrap()), after, || reader.kill());
        is_free(&lock, false);
        length
    });
}

/// Somebody who takes the lock at any instruction, if it is to be had, has it until the other sleeps.
fn comes_under<G>(
    after: Moment<'_>,
    act: impl FnOnce(&Event),
    take: impl Fn() -> Option<G>,
) -> Option<u64> {
    let (done, held) = (Event::new().unwrap(), RefCell::new(None));
    let came = Cell::new(false);
    let length = start(|| (), || act(&done)).run_on(after, || {
        if !came.replace(true) {
            *held.borrow_mut() = take();
            // Unless the other was first, or is done.
            return held.borrow().is_none() || done.is_set();
        }
        held.take();
        true
    });
    held.take();
    length
}

fn writer_comes_under_a_reader() {
    everywhere(|after| {
        let (lock, inside) = (RwLock::new().unwrap(), Event::new().unwrap());
        let act = |done: &Event| {
            let reading = lock.read().unwrap();
            assert!(!inside.is_set(), "a reader is in, and so is a writer");
            drop(reading);
            done.set();
        };
        let take = || {
            lock.try_write().unwrap().inspect(|_| inside.set()).map(|held| Inside(&inside, held))
        };
        comes_under(after, act, take)
    });
}

fn reader_comes_under_a_writer() {
    everywhere(|after| {
        let (lock, inside) = (RwLock::new().unwrap(), Event::new().unwrap());
        let act = |done: &Event| {
            let writing = lock.write().unwrap();
            assert!(!inside.is_set(), "a writer is in, and so is a reader");
            drop(writing);
            done.set();
        };
        let take =
            || lock.try_read().unwrap().inspect(|_| inside.set()).map(|held| Inside(&inside, held));
        comes_under(after, act, take)
    });
}

/// Says that somebody is in, until it is dropped.
struct Inside<'a, G>(&'a Event, G);

impl<G> Drop for Inside<'_, G> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

fn writer_killed_under_a_reader() {
    everywhere(|after| {
        let lock = RwLock::new().unwrap();
        let writer = Child::fork_and_stay(|| lock.write().unwrap());
        let act = || assert!(lock.read().unwrap_err().is_poisoned());
        let length = waits(act, after, || writer.kill());
        is_free(&lock, true);
        length
    });
}
