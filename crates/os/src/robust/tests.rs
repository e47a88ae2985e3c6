//! The list is what the kernel and the C library take it for.

use std::sync::atomic::{AtomicU32, Ordering::Acquire};

use super::*;

#[repr(C)]
#[derive(Default)]
struct Lock {
    words: [AtomicU32; 4],
    links: Links,
}

impl Lock {
    fn word(&self) -> &AtomicU32 {
        &self.words[if cfg!(target_env = "musl") { 1 } else { 0 }]
    }

    /// Gives whether the lock is lost to this process.
    fn link(&self, thread: Thread) -> bool {
        let room = thread.room().unwrap();
        // SAFETY: in these tests, locks outlive their place in the list.
        unsafe {
            thread.announce(&self.links);
            thread.link(&self.links, room)
        }
    }

    fn unlink(&self, thread: Thread) {
        let was_alone = Tag::load(&self.links[0]).depth() == Some(1);
        // SAFETY: it was linked by this thread.
        unsafe {
            thread.announce(&self.links);
            let first = Thread::still_with_first(thread.generation(), &self.links);
            if was_alone && first.is_some() {
                thread.unlink_only();
            } else {
                thread.unlink(&self.links);
            }
        }
        thread.conclude();
    }
}

#[test]
fn a_thread_knows_its_number() {
    let id = || Thread::current().unwrap().id();
    assert_eq!(id(), rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    assert_eq!(id(), id());
    let other = std::thread::spawn(id).join().unwrap();
    assert_ne!(other, id());
    assert!(is_thread_of_this_process(id()));
    assert!(!is_thread_of_this_process(u32::MAX));
    assert!(!is_thread_of_this_process(0));
}

#[test]
fn locks_are_linked_and_unlinked_in_any_order() {
    let thread = Thread::current().unwrap();
    let locks: [Lock; 3] = Default::default();
    let [a, b, c] = [0, 1, 2].map(|i: usize| address(&locks[i].links));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for lock in &locks {
            assert!(!lock.link(thread));
        }
        let mut left = vec![c, b, a];
        assert_eq!(thread.entries().collect::<Vec<_>>(), left);
        for i in order {
            locks[i].unlink(thread);
            left.retain(|entry| *entry != [a, b, c][i]);
            assert_eq!(thread.entries().collect::<Vec<_>>(), left);
        }
    }
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let thread = Thread::current().unwrap();
    let locks: Vec<Lock> = (0..MOST_HELD).map(|_| Lock::default()).collect();
    for lock in &locks {
        assert!(!lock.link(thread));
    }
    assert!(thread.room().is_none());
    locks[7].unlink(thread);
    assert!(thread.room().is_some());
    locks[7].link(thread);
    assert!(thread.room().is_none());
    for lock in &locks {
        lock.unlink(thread);
    }
}

#[test]
fn locking_hand_over_hand_does_not_exhaust_the_room() {
    let thread = Thread::current().unwrap();
    let locks: [Lock; 3] = Default::default();
    for i in 0..3 * MOST_HELD as usize {
        locks[i % 3].link(thread);
        if i > 0 {
            locks[(i - 1) % 3].unlink(thread);
        }
    }
    locks[(3 * MOST_HELD as usize - 1) % 3].unlink(thread);
}

#[test]
fn the_kernel_marks_what_a_dead_thread_has_held() {
    const OWNER_DIED: u32 = 1 << 30;
    let locks: &'static [Lock; 2] = Box::leak(Box::default());
    std::thread::spawn(move || {
        let thread = Thread::current().unwrap();
        for lock in locks {
            lock.word().store(thread.id(), Relaxed);
        }
        locks[0].link(thread);
        // The second is announced only.
        // SAFETY: the locks are never freed.
        unsafe { thread.announce(&locks[1].links) };
    })
    .join()
    .unwrap();
    for lock in locks {
        // The thread has run its last code, but the kernel may be at its list yet.
        while lock.word().load(Acquire) != OWNER_DIED {
            std::thread::yield_now();
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // A fork and an exit that nobody has prepared.
fn what_a_thread_has_announced_is_nothing_to_a_child() {
    let lock = Lock::default();
    let thread = Thread::current().unwrap();
    // SAFETY: the lock stays until it is concluded. The child loads a number and ends.
    unsafe {
        thread.announce(&lock.links);
        let child = libc::fork();
        if child == 0 {
            libc::_exit((thread.head.pending.load(Relaxed) != 0).into());
        }
        thread.conclude();
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        assert_eq!(status, 0);
    }
}

#[test]
fn what_a_thread_of_this_process_has_forgotten_is_lost_to_it() {
    let locks: &'static [Lock; 2] = Box::leak(Box::default());
    std::thread::spawn(move || {
        let thread = Thread::current().unwrap();
        assert!(!locks[0].link(thread));
        assert!(!locks[1].link(thread));
        locks[1].unlink(thread);
    })
    .join()
    .unwrap();
    let thread = Thread::current().unwrap();
    assert!(locks[0].link(thread));
    assert!(!locks[1].link(thread));
    for lock in locks {
        lock.unlink(thread);
    }
}

#[test]
fn mutexes_of_the_c_library_share_the_list() {
    let thread = Thread::current().unwrap();
    let ours: [Lock; 2] = Default::default();
    // SAFETY: the mutexes are initialised before they are used and do not move.
    unsafe {
        let mut attributes = std::mem::zeroed();
        libc::pthread_mutexattr_init(&mut attributes);
        libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
        libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
        let mut mutexes: [libc::pthread_mutex_t; 2] = std::mem::zeroed();
        for mutex in &mut mutexes {
            assert_eq!(libc::pthread_mutex_init(mutex, &attributes), 0);
        }
        let [first, second] = &mut mutexes;
        assert_eq!(libc::pthread_mutex_lock(first), 0);
        ours[0].link(thread);
        assert_eq!(libc::pthread_mutex_lock(second), 0);
        ours[1].link(thread);
        assert_eq!(thread.entries().count(), 4);
        assert_eq!(libc::pthread_mutex_unlock(first), 0);
        assert_eq!(thread.entries().nth(2), Some(address(&ours[0].links)));
        ours[0].unlink(thread);
        assert_eq!(libc::pthread_mutex_unlock(second), 0);
        ours[1].unlink(thread);
        assert_eq!(thread.entries().count(), 0);
    }
}
