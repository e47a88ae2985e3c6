//! A child holds none of its parent's locks, and is not taken for its parent.
#![allow(unsafe_code)] // A clone that bypasses the C library.

use multiproc_harness::{Child, eventually};
use multiproc_sync::{BoundedSemaphore, Lock, RLock, RwLock};

fn main() {
    multiproc_harness::run(&[
        ("child_is_not_taken_for_its_parent", child_is_not_taken_for_its_parent),
        ("copied_guard_releases_nothing", copied_guard_releases_nothing),
        ("copied_guards_of_each_kind_release_nothing", copied_guards_of_each_kind_release_nothing),
        (
            "copied_write_guard_leaves_the_death_of_its_owner_to_be_told",
            copied_write_guard_leaves_the_death_of_its_owner_to_be_told,
        ),
        ("raw_clone_is_not_taken_for_its_parent", raw_clone_is_not_taken_for_its_parent),
        ("lock_taken_after_a_raw_clone_is_handed_on", lock_taken_after_a_raw_clone_is_handed_on),
        ("grandchildren", grandchildren),
        ("another_pid_namespace_is_refused", another_pid_namespace_is_refused),
    ]);
}

fn child_is_not_taken_for_its_parent() {
    let (lock, other) = (Lock::new().unwrap(), Lock::new().unwrap());
    let held = lock.lock().unwrap();
    Child::fork(|| {
        assert!(lock.try_lock().unwrap().is_none());
        // Its list is its own.
        let _one = other.lock().unwrap();
        assert!(other.lock().unwrap_err().is_deadlock());
    })
    .join();
    assert!(lock.lock().unwrap_err().is_deadlock());
    drop(held);
    Child::fork(|| drop(lock.lock().unwrap())).join();
    drop((lock.lock().unwrap(), other.lock().unwrap()));
}

fn copied_guard_releases_nothing() {
    let lock = Lock::new().unwrap();
    let mut held = Some(lock.lock().unwrap());
    Child::fork(|| drop(held.take())).join();
    // It does not if the child has found out its new thread id either.
    Child::fork(|| {
        assert!(lock.try_lock().unwrap().is_none());
        drop(held.take());
    })
    .join();
    Child::fork(|| assert!(lock.try_lock().unwrap().is_none())).join();
    drop(held);
    Child::fork(|| drop(lock.try_lock().unwrap().unwrap())).join();
}

fn copied_guards_of_each_kind_release_nothing() {
    let (rlock, rw_lock) = (RLock::new().unwrap(), RwLock::new().unwrap());
    let (other, permits) = (RwLock::new().unwrap(), BoundedSemaphore::new(2).unwrap());
    let mut held = Some((
        [rlock.lock().unwrap(), rlock.lock().unwrap()],
        rw_lock.read().unwrap(),
        other.write().unwrap(),
        permits.acquire().unwrap(),
    ));
    let check = || {
        assert!(rlock.try_lock().unwrap().is_none());
        assert!(rw_lock.try_write().unwrap().is_none());
        assert!(other.try_read().unwrap().is_none());
        assert_eq!(permits.value(), 1);
    };
    // Before the child knows its thread id, and after.
    Child::fork(|| drop(held.take())).join();
    Child::fork(|| {
        check();
        drop(held.take());
        check();
    })
    .join();
    Child::fork(check).join();
    // The child is another thread than the one that holds them.
    Child::fork(|| {
        assert!(rw_lock.try_read().unwrap().is_some());
        let permit = permits.try_acquire().unwrap().unwrap();
        assert!(permits.try_acquire().unwrap().is_none());
        drop(permit);
    })
    .join();
    assert!(!other.is_poisoned());
    drop(held);
    Child::fork(|| {
        drop((rlock.try_lock().unwrap().unwrap(), rw_lock.try_write().unwrap().unwrap()));
        drop(other.try_write().unwrap().unwrap());
        assert_eq!(permits.value(), 2);
    })
    .join();
}

fn copied_write_guard_leaves_the_death_of_its_owner_to_be_told() {
    let lock = RwLock::new().unwrap();
    Child::fork_and_stay(|| {
        let mut held = Some(lock.write().unwrap());
        Child::fork(|| drop(held.take())).join();
        held
    })
    .kill();
    assert!(lock.read().unwrap_err().is_poisoned());
}

/// Runs `child` in a copy of the process of which the C library learns nothing.
fn raw_clone(child: impl FnOnce() -> bool) -> i32 {
    // SAFETY: as `fork`, in a process with one thread. The child ends before it returns.
    unsafe {
        match libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) {
            0 => {
                multiproc_harness::watchdog();
                let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
                multiproc_os::fork::exit_now(if matches!(ok, Ok(true)) { 0 } else { 1 })
            }
            pid => i32::try_from(pid).unwrap(),
        }
    }
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: writes the status.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

fn raw_clone_is_not_taken_for_its_parent() {
    let (lock, other) = (Lock::new().unwrap(), Lock::new().unwrap());
    let held = lock.lock().unwrap();
    let pid = raw_clone(|| {
        let free = other.lock().is_ok();
        free && lock.try_lock().is_ok_and(|guard| guard.is_none())
    });
    assert_eq!(wait(pid), 0);
    drop(held);
    drop(lock.lock().unwrap());
}

fn lock_taken_after_a_raw_clone_is_handed_on() {
    let lock = Lock::new().unwrap();
    drop(lock.lock().unwrap());
    let pid = raw_clone(|| {
        let _held = lock.lock().unwrap();
        multiproc_harness::stay()
    });
    eventually("the child's lock", || lock.try_lock().unwrap().is_none());
    // SAFETY: sends a signal to a child that was not reaped.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    wait(pid);
    assert!(lock.lock().unwrap_err().is_poisoned());
}

fn grandchildren() {
    fn descend(lock: &Lock, generations: u32) {
        let held = lock.lock().unwrap();
        Child::fork(|| assert!(lock.try_lock().unwrap().is_none())).join();
        drop(held);
        if generations > 0 {
            Child::fork(|| descend(lock, generations - 1)).join();
        }
        drop(lock.lock().unwrap());
    }
    descend(&Lock::new().unwrap(), 5);
}

fn another_pid_namespace_is_refused() {
    let lock = Lock::new().unwrap();
    Child::fork(|| {
        // SAFETY: changes where children of this process, which has one thread, are numbered.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            println!("skipped: not allowed to make a pid namespace");
            return;
        }
        let error = |lock: &Lock| {
            let message = multiproc_wire::encode(lock).unwrap();
            multiproc_wire::decode::<Lock>(message).map(drop).unwrap_err().to_string()
        };
        // This process stays where it was.
        drop(lock.lock().unwrap());
        Child::fork(|| {
            let error = error(&lock);
            assert!(error.contains("another pid namespace"), "{error}");
            drop(Lock::new().unwrap().lock().unwrap());
        })
        .join();
    })
    .join();
}
