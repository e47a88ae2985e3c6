//! What one process sees of a lock: its errors, its timeouts, its poison, its forgotten guards.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_os::deadline::Deadline;
use multiproc_sync::region::{Header, Region, RegionGuard};
use multiproc_sync::{
    BarrierError, BoundedSemaphore, Condition, Event, Lock, LockError, LockGuard, MemoryError,
    Permit, RLock, RLockGuard, RawBarrier, RawBoundedSemaphore, RawCondition, RawEvent, RawLock,
    RawRLock, RawRwLock, RawSemaphore, ReadGuard, RwLock, Semaphore, WriteGuard,
};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Runs something in another thread.
fn elsewhere<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(run).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Panics while `held` unwinds, without a word about it.
fn panic_with<T>(held: T) {
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _held = held;
        resume_unwind(Box::new(()));
    }));
    assert!(panic.is_err());
}

#[test]
fn handles_and_errors_cross_threads_and_guards_are_shared_only() {
    fn send_and_sync<T: Send + Sync>() {}
    fn sync<T: Sync>() {}
    send_and_sync::<Lock>();
    send_and_sync::<LockError>();
    send_and_sync::<MemoryError>();
    send_and_sync::<RawLock>();
    send_and_sync::<Region<Gates>>();
    sync::<LockGuard<'_>>();
    sync::<RegionGuard<'_, Gates>>();
    send_and_sync::<(RLock, RwLock, Semaphore, BoundedSemaphore, Condition, Event)>();
    send_and_sync::<(multiproc_sync::Barrier, BarrierError)>();
    send_and_sync::<(RawRLock, RawRwLock, RawSemaphore, RawBoundedSemaphore)>();
    send_and_sync::<(RawCondition, RawEvent, RawBarrier)>();
    sync::<(RLockGuard<'_>, ReadGuard<'_>, WriteGuard<'_>, Permit<'_>)>();
}

#[test]
fn the_holder_does_not_wait_for_itself() {
    let lock = Lock::new().unwrap();
    let held = lock.lock().unwrap();
    for again in [lock.lock(), lock.lock_timeout(Duration::MAX), lock.lock_anyway()] {
        assert!(again.unwrap_err().is_deadlock());
    }
    assert!(lock.try_lock().unwrap_err().is_deadlock());
    assert!(lock.clone().lock().unwrap_err().is_deadlock());
    drop(held);
    drop(lock.lock().unwrap());
}

#[test]
fn a_lock_read_from_a_message_is_the_same() {
    let lock = Lock::new().unwrap();
    let message = multiproc_wire::encode(&[&lock, &lock]).unwrap();
    let [same, _]: [Lock; 2] = multiproc_wire::decode(message).unwrap();
    let held = same.lock().unwrap();
    assert!(lock.lock().unwrap_err().is_deadlock());
    elsewhere(|| assert!(lock.try_lock().unwrap().is_none()));
    drop(held);
    drop(lock.lock().unwrap());
}

#[test]
fn a_lock_that_is_held_is_not_had_by_others() {
    let lock = Lock::new().unwrap();
    let held = lock.lock().unwrap();
    elsewhere(|| {
        assert!(lock.try_lock().unwrap().is_none());
        for timeout in [0, 1, 30].map(Duration::from_millis) {
            let start = Instant::now();
            let error = lock.lock_timeout(timeout).unwrap_err();
            assert!(error.is_timeout(), "{error}");
            assert!(start.elapsed() >= timeout);
        }
        let start = Instant::now();
        for _ in 0..1000 {
            assert!(lock.lock_timeout(Duration::ZERO).unwrap_err().is_timeout());
        }
        assert!(start.elapsed() < Duration::from_millis(500), "no time is some time");
    });
    drop(held);
    drop(lock.lock_timeout(Duration::ZERO).unwrap());
}

#[test]
fn the_longest_timeout_waits() {
    let lock = Lock::new().unwrap();
    for timeout in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_secs(1 << 40)]
    {
        let held = lock.lock().unwrap();
        let ready = Barrier::new(2);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                ready.wait();
                lock.lock_timeout(timeout).map(drop)
            });
            ready.wait();
            for _ in 0..100 {
                thread::yield_now();
            }
            assert!(!waiter.is_finished());
            drop(held);
            waiter.join().unwrap().unwrap();
        });
    }
}

#[test]
fn threads_exclude_each_other() {
    let region = Region::<Gates>::create("test", 8).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let mut guard = region.lock().unwrap();
                    let number = u64::from_ne_bytes(guard.bytes().try_into().unwrap());
                    guard.bytes_mut().copy_from_slice(&(number + 1).to_ne_bytes());
                }
            });
        }
    });
    assert_eq!(region.lock().unwrap().bytes(), 80_000u64.to_ne_bytes());
}

#[test]
fn a_panic_poisons() {
    let lock = Lock::new().unwrap();
    panic_with(lock.lock().unwrap());
    assert!(lock.is_poisoned());
    assert!(lock.lock().unwrap_err().is_poisoned());
    elsewhere(|| assert!(lock.try_lock().unwrap_err().is_poisoned()));
    drop(lock.lock_anyway().unwrap());
    assert!(lock.is_poisoned());
    lock.clear_poison();
    drop(lock.lock().unwrap());
}

#[test]
fn a_lock_that_is_taken_while_a_panic_unwinds_is_not_poisoned() {
    struct LocksWhenDropped<'a>(&'a Lock);
    impl Drop for LocksWhenDropped<'_> {
        fn drop(&mut self) {
            drop(self.0.lock().unwrap());
        }
    }
    let lock = Lock::new().unwrap();
    panic_with(LocksWhenDropped(&lock));
    drop(lock.lock().unwrap());
}

#[test]
fn a_forgotten_guard_does_not_harm_other_locks() {
    for _ in 0..50 {
        let lock = Lock::new().unwrap();
        let other = Lock::new().unwrap();
        mem::forget(lock.lock().unwrap());
        // The lock's memory would be unmapped here, with this thread's list leading through it.
        drop(lock);
        drop(other.lock().unwrap());
        let [one, two] = [other.lock().unwrap(), lock_of_a_new_mapping()];
        drop((one, two));
    }

    fn lock_of_a_new_mapping() -> LockGuard<'static> {
        Box::leak(Box::new(Lock::new().unwrap())).lock().unwrap()
    }
}

#[test]
fn what_an_ended_thread_has_forgotten_is_not_had_again() {
    let lock = Lock::new().unwrap();
    elsewhere(|| mem::forget(lock.lock().unwrap()));
    // The thread has ended for us, but the kernel may be at its list yet.
    while lock.try_lock().is_ok_and(|guard| guard.is_none()) {
        thread::yield_now();
    }
    assert!(lock.lock().unwrap_err().is_leaked());
    assert!(lock.lock_anyway().unwrap_err().is_leaked());
    lock.clear_poison();
    assert!(elsewhere(|| lock.lock().map(drop)).unwrap_err().is_leaked());
    drop(lock);
}

#[test]
fn a_place_that_an_ended_thread_has_left_for_good_is_passed_over() {
    let lock = RwLock::new().unwrap();
    elsewhere(|| mem::forget(lock.read().unwrap()));
    // Each thread looks for a place elsewhere first.
    for _ in 0..2 * RwLock::MAX_READERS {
        elsewhere(|| drop(lock.read().unwrap()));
    }

    let semaphore = BoundedSemaphore::new(2).unwrap();
    elsewhere(|| mem::forget(semaphore.acquire().unwrap()));
    for _ in 0..10 {
        elsewhere(|| drop(semaphore.acquire().unwrap()));
    }
}

#[test]
fn forgotten_guards_of_each_kind_do_not_harm_other_locks() {
    for _ in 0..10 {
        let (rlock, rw_lock) = (RLock::new().unwrap(), RwLock::new().unwrap());
        let (other, permits) = (RwLock::new().unwrap(), BoundedSemaphore::new(2).unwrap());
        mem::forget(rlock.lock().unwrap());
        mem::forget([rw_lock.read().unwrap(), rw_lock.read().unwrap()]);
        mem::forget(other.write().unwrap());
        mem::forget([permits.acquire().unwrap(), permits.acquire().unwrap()]);
        // The memory would be unmapped here, with this thread's list leading through it.
        drop((rlock, rw_lock));
        drop((other, permits));
        let new: Vec<_> = (0..4).map(|_| RwLock::new().unwrap()).collect();
        let held: Vec<_> = new.iter().map(|lock| lock.write().unwrap()).collect();
        drop(held);
        drop(new.iter().map(|lock| lock.read().unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn threads_share_each_primitive() {
    let (rlock, rw_lock) = (RLock::new().unwrap(), RwLock::new().unwrap());
    let (units, permits) = (Semaphore::new(2).unwrap(), BoundedSemaphore::new(2).unwrap());
    let (lock, changed) = (Lock::new().unwrap(), Condition::new().unwrap());
    let (barrier, event) = (multiproc_sync::Barrier::new(4).unwrap(), Event::new().unwrap());
    let inside = [const { AtomicU32::new(0) }; 4];
    let visit = |place: usize, most: u32| {
        assert!(inside[place].fetch_add(1, SeqCst) < most);
        thread::yield_now();
        inside[place].fetch_sub(1, SeqCst);
    };
    let turn = AtomicU32::new(0);
    thread::scope(|scope| {
        for own in 0..4 {
            let (visit, barrier, event, turn) = (&visit, &barrier, &event, &turn);
            let (rlock, rw_lock, units, permits) = (&rlock, &rw_lock, &units, &permits);
            let (lock, changed) = (&lock, &changed);
            scope.spawn(move || {
                event.wait();
                for round in 0..300 {
                    {
                        let _outer = rlock.lock().unwrap();
                        let _inner = rlock.lock().unwrap();
                        visit(0, 1);
                    }
                    if (round + own) % 4 == 0 {
                        let _writing = rw_lock.write().unwrap();
                        visit(1, 1);
                    } else {
                        let _reading = rw_lock.read().unwrap();
                    }
                    units.acquire().unwrap();
                    visit(2, 2);
                    units.release();
                    {
                        let _permit = permits.acquire().unwrap();
                        visit(3, 2);
                    }
                    let held = lock.lock().unwrap();
                    let own_turn = |_: &mut LockGuard<'_>| turn.load(SeqCst) % 4 != own;
                    let held = changed.wait_while(held, own_turn).unwrap();
                    turn.fetch_add(1, SeqCst);
                    changed.notify_all();
                    drop(held);
                    barrier.wait().unwrap();
                    assert!(turn.load(SeqCst) >= 4 * (round + 1));
                }
            });
        }
        event.set();
    });
    assert_eq!(turn.load(SeqCst), 1_200);
    assert_eq!((units.value(), permits.value()), (2, 2));
}

const MANY: usize = 2_001;

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Gates([RawLock; MANY]);

impl Header for Gates {
    const KIND: [u8; 8] = *b"gates\0\0\0";
}

#[test]
fn a_thread_holds_so_many_locks_and_no_more() {
    let region = Region::<Gates>::create("test", 0).unwrap();
    let take = |i: usize| region.lock_gate(|gates| &gates.0[i], Deadline::NEVER);
    let mut held: Vec<_> = (0..MANY - 1).map(|i| take(i).unwrap()).collect();
    assert!(take(MANY - 1).unwrap_err().is_too_many());
    assert!(region.lock().unwrap_err().is_too_many());
    // Others may.
    elsewhere(|| drop((take(MANY - 1).unwrap(), region.lock().unwrap())));
    drop(held.swap_remove(1000));
    held.push(take(MANY - 1).unwrap());
    assert!(region.lock().unwrap_err().is_too_many());
    held.clear();
    drop(region.lock().unwrap());
    for i in 0..MANY {
        assert!(!take(i).unwrap().holder_died());
    }
}
