//! Whoever is killed, the others get on with it: holders, waiters, and waiters that were just woken.
#![allow(unsafe_code)] // Processors and priorities of processes.

use std::time::{Duration, Instant};

use multiproc_harness::{Child, flag};
use multiproc_sync::Lock;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

fn main() {
    multiproc_harness::run(&[
        ("holder_killed", holder_killed),
        ("holder_killed_while_others_sleep", holder_killed_while_others_sleep),
        ("holder_executes_another_program", holder_executes_another_program),
        ("waiter_killed_asleep", waiter_killed_asleep),
        ("waiter_killed_when_woken", waiter_killed_when_woken),
        ("waiter_killed_when_woken_and_overtaken", waiter_killed_when_woken_and_overtaken),
        ("waiter_stopped_when_woken", waiter_stopped_when_woken),
        ("woken_waiter_and_thief_killed_together", woken_waiter_and_thief_killed_together),
        ("every_lock_of_a_dead_holder_is_handed_on", every_lock_of_a_dead_holder_is_handed_on),
    ]);
}

/// Takes the lock, which must be sound.
fn pass(lock: &Lock) {
    drop(lock.lock().unwrap());
}

fn waiter(lock: &Lock) -> Child {
    let child = Child::fork(|| pass(lock));
    child.wait_asleep();
    child
}

fn holder_killed() {
    let lock = Lock::new().unwrap();
    let holder = Child::fork_and_stay(|| lock.lock().unwrap());
    assert!(lock.try_lock().unwrap().is_none());
    assert!(!lock.is_poisoned());
    holder.kill();

    assert!(lock.is_poisoned());
    assert!(lock.lock().unwrap_err().is_poisoned());
    assert!(lock.try_lock().unwrap_err().is_poisoned());
    let held = lock.lock_anyway().unwrap();
    lock.clear_poison();
    drop(held);
    pass(&lock);

    // Declared repaired before anybody has taken it since.
    Child::fork_and_stay(|| lock.lock().unwrap()).kill();
    lock.clear_poison();
    assert!(!lock.is_poisoned());
    pass(&lock);
}

fn holder_killed_while_others_sleep() {
    let lock = Lock::new().unwrap();
    let holder = Child::fork_and_stay(|| lock.lock().unwrap());
    let waiters: Vec<Child> = (0..3)
        .map(|_| Child::fork(|| assert!(lock.lock().unwrap_err().is_poisoned())))
        .inspect(Child::wait_asleep)
        .collect();
    let start = Instant::now();
    holder.kill();
    waiters.into_iter().for_each(Child::join);
    assert!(start.elapsed() < Duration::from_secs(5), "the lock was not handed on at once");
}

fn holder_executes_another_program() {
    use std::os::unix::process::CommandExt;
    let lock = Lock::new().unwrap();
    let holder = Child::fork(|| {
        let _held = lock.lock().unwrap();
        panic!("{}", std::process::Command::new("true").exec());
    });
    holder.join();
    assert!(lock.lock().unwrap_err().is_poisoned());
}

fn waiter_killed_asleep() {
    let lock = Lock::new().unwrap();
    let held = lock.lock().unwrap();
    let victims: Vec<Child> = (0..3).map(|_| waiter(&lock)).collect();
    let survivor = waiter(&lock);
    victims.into_iter().for_each(Child::kill);
    drop(held);
    survivor.join();
    pass(&lock);
}

/// Keeps this process and the child on one processor, and the child from running while this does:
/// so it can be killed after it was woken and before it has run.
fn on_one_processor<R>(run: impl Fn(&dyn Fn(&Child)) -> R) -> R {
    let before = sched_getaffinity(None).unwrap();
    let cpu = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).unwrap();
    let result = run(&|child| {
        let pid = i32::try_from(child.pid()).unwrap();
        sched_setaffinity(Pid::from_raw(pid), &one).unwrap();
        let idle = libc::sched_param { sched_priority: 0 };
        // SAFETY: reads the parameters.
        assert_eq!(unsafe { libc::sched_setscheduler(pid, libc::SCHED_IDLE, &idle) }, 0);
    });
    sched_setaffinity(None, &before).unwrap();
    result
}

fn waiter_killed_when_woken() {
    for _ in 0..20 {
        on_one_processor(|slow_down| {
            let lock = Lock::new().unwrap();
            let held = lock.lock().unwrap();
            let victim = waiter(&lock);
            slow_down(&victim);
            let sleeper = waiter(&lock);
            drop(held);
            victim.kill();
            sleeper.join();
            pass(&lock);
        });
    }
}

/// The unlocker wakes a waiter; a thief takes the lock; the waiter is killed; the thief's release
/// must wake the next sleeper, of whom it has never heard.
fn waiter_killed_when_woken_and_overtaken() {
    for _ in 0..20 {
        on_one_processor(|slow_down| {
            let lock = Lock::new().unwrap();
            let held = lock.lock().unwrap();
            let victim = waiter(&lock);
            slow_down(&victim);
            let sleeper = waiter(&lock);
            drop(held);
            let stolen = lock.try_lock().unwrap().expect("the woken waiter has run");
            victim.kill();
            drop(stolen);
            sleeper.join();
            pass(&lock);
        });
    }
}

/// As above, but the waiter is stopped, so that the kernel does nothing on its behalf.
fn waiter_stopped_when_woken() {
    for _ in 0..20 {
        on_one_processor(|slow_down| {
            let lock = Lock::new().unwrap();
            let held = lock.lock().unwrap();
            let stopped = waiter(&lock);
            slow_down(&stopped);
            let sleeper = waiter(&lock);
            drop(held);
            stopped.signal(libc::SIGSTOP);
            pass(&lock);
            sleeper.join();
            stopped.signal(libc::SIGCONT);
            stopped.join();
        });
    }
}

/// The one that was woken and the one that overtook it die at once.
fn woken_waiter_and_thief_killed_together() {
    for _ in 0..20 {
        on_one_processor(|slow_down| {
            let lock = Lock::new().unwrap();
            let held = lock.lock().unwrap();
            let victim = waiter(&lock);
            slow_down(&victim);
            // Poisoned, unless the victim has run before the thief.
            let sleeper = Child::fork(|| drop(lock.lock_anyway().unwrap()));
            sleeper.wait_asleep();
            let (go, mut start) = flag();
            let (taken, mut report) = flag();
            let thief = Child::fork(|| {
                go.wait();
                let _stolen = lock.try_lock().unwrap();
                report.raise();
                multiproc_harness::stay()
            });
            drop(held);
            start.raise();
            taken.wait();
            victim.signal(libc::SIGKILL);
            thief.signal(libc::SIGKILL);
            victim.kill();
            thief.kill();
            sleeper.join();
        });
    }
}

fn every_lock_of_a_dead_holder_is_handed_on() {
    const LOCKS: usize = 200;
    let locks: Vec<Lock> = (0..LOCKS).map(|_| Lock::new().unwrap()).collect();
    Child::fork_and_stay(|| {
        let mut held: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap()).collect();
        // Not in the order in which they were taken.
        for i in (0..LOCKS).step_by(7).rev() {
            drop(held.remove(i));
        }
        held
    })
    .kill();
    for (i, lock) in locks.iter().enumerate() {
        assert_eq!(lock.lock().is_err(), i % 7 != 0, "lock {i}");
    }
}
