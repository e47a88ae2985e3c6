//! Sleeping on a word of shared memory, and waking who sleeps there.
//!
//! Never private to the process: the kernel finds the sleepers by the file and the offset that the
//! word has, whatever its address is here and there.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, Flags, WaitFlags, WaitPtr, WaitvFlags, WakeOp, WakeOpCmp};

use crate::deadline::Deadline;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Somebody woke this sleeper, and took account of having done so.
    Woken,
    /// The word did not have the value, or may not have it any more: look again.
    Changed,
    /// The deadline passed.
    TimedOut,
}

/// What [`store_and_wake`] does to the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The word becomes `1 << n`, for `n` up to 31.
    Bit(u8),
    /// The word is increased by `n`, up to [`MOST_ADDED`].
    Add(u16),
    /// The word gets the bit `1 << n` too, for `n` up to 31.
    Set(u8),
}

/// The most that [`Store::Add`] adds: the kernel takes twelve bits with sign.
pub const MOST_ADDED: u16 = 2_047;

/// The most words that [`wait_any`] takes.
pub const MOST_AWAITED: usize = 128;

/// Sleeps while the word has the value, until woken or until the deadline.
///
/// Handled signals do not end it.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::AtomicU32;
/// use std::time::Duration;
/// use multiproc_os::{deadline::Deadline, futex::{self, Waited}};
///
/// let word = AtomicU32::new(1);
/// assert_eq!(futex::wait(&word, 0, Deadline::NEVER), Waited::Changed);
/// assert_eq!(futex::wait(&word, 1, Deadline::after(Duration::ZERO)), Waited::TimedOut);
/// ```
pub fn wait(word: &AtomicU32, value: u32, deadline: Deadline) -> Waited {
    let until = deadline.timespec();
    loop {
        // Of all waits, the one with a bit set takes an absolute time of the monotonic clock.
        match futex::wait_bitset(word, Flags::empty(), value, until.as_ref(), NonZeroU32::MAX) {
            Ok(()) => return Waited::Woken,
            Err(Errno::INTR) => {}
            Err(Errno::TIMEDOUT) => return Waited::TimedOut,
            // `EAGAIN`. What else there is cannot happen to a word that is mapped, and if it did:
            // a caller that looks again and again is better than one that sleeps for good.
            Err(_) => return Waited::Changed,
        }
    }
}

/// Sleeps while each word has its value, until one is woken or until the deadline.
///
/// Needs Linux 5.16; before that it fails with `ENOSYS`.
///
/// # Errors
///
/// The kernel has no such call, or does not let this process make it; there are no words, or more
/// than [`MOST_AWAITED`].
///
/// # Examples
///
/// ```
/// use std::sync::atomic::AtomicU32;
/// use std::time::Duration;
/// use multiproc_os::{deadline::Deadline, futex::{self, Waited}};
///
/// let (one, two) = (AtomicU32::new(1), AtomicU32::new(2));
/// assert_eq!(futex::wait_any(&[(&one, 1), (&two, 0)], Deadline::NEVER)?, Waited::Changed);
/// let soon = Deadline::after(Duration::ZERO);
/// assert_eq!(futex::wait_any(&[(&one, 1), (&two, 2)], soon)?, Waited::TimedOut);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn wait_any(words: &[(&AtomicU32, u32)], deadline: Deadline) -> io::Result<Waited> {
    let until = deadline.timespec();
    let mut waits = [futex::Wait::new(); MOST_AWAITED];
    let waits = waits.get_mut(..words.len()).ok_or(io::ErrorKind::InvalidInput)?;
    for (wait, (word, value)) in waits.iter_mut().zip(words) {
        wait.uaddr = WaitPtr::new(word.as_ptr().cast());
        wait.val = (*value).into();
        wait.flags = WaitFlags::SIZE_U32;
    }
    loop {
        let flags = WaitvFlags::empty();
        match futex::waitv(waits, flags, until.as_ref(), ClockId::Monotonic) {
            Ok(_) => return Ok(Waited::Woken),
            Err(Errno::INTR) => {}
            Err(Errno::TIMEDOUT) => return Ok(Waited::TimedOut),
            Err(Errno::AGAIN) => return Ok(Waited::Changed),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Wakes up to `most` sleepers and tells how many it woke.
pub fn wake(word: &AtomicU32, most: u32) -> usize {
    // The kernel counts with sign, and takes a negative number for one.
    futex::wake(word, Flags::empty(), most.min(i32::MAX as u32)).unwrap_or(0)
}

/// Changes the word and wakes up to `most` sleepers, in one system call: whoever is killed, either
/// both has happened or nothing. Tells how many it woke.
///
/// # Errors
///
/// The kernel has no such call on this architecture, or does not let this process make it. The word
/// is unchanged.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use multiproc_os::futex::{Store, store_and_wake};
///
/// let word = AtomicU32::new(1);
/// assert_eq!(store_and_wake(&word, Store::Add(2), 1)?, 0);
/// assert_eq!(word.load(Ordering::Relaxed), 3);
/// store_and_wake(&word, Store::Set(31), 1)?;
/// assert_eq!(word.load(Ordering::Relaxed), 1 << 31 | 3);
/// store_and_wake(&word, Store::Bit(31), 1)?;
/// assert_eq!(word.load(Ordering::Relaxed), 1 << 31);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn store_and_wake(word: &AtomicU32, store: Store, most: u32) -> io::Result<usize> {
    // The call wakes more sleepers if the word had a certain value before. That cannot be turned
    // off; this value, -1 in twelve bits, is one that no word of ours has.
    const NO_WORD_HAS: u16 = 0xfff;
    let (operation, argument) = match store {
        Store::Bit(bit) => (WakeOp::SetShift, u16::from(bit & 31)),
        Store::Add(number) => (WakeOp::Add, number.min(MOST_ADDED)),
        Store::Set(bit) => (WakeOp::OrShift, u16::from(bit & 31)),
    };
    let most = most.min(i32::MAX as u32);
    let (flags, compare) = (Flags::empty(), WakeOpCmp::Eq);
    Ok(futex::wake_op(word, flags, most, 0, word, operation, compare, argument, NO_WORD_HAS)?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::{Relaxed, SeqCst};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn deadlines_are_kept_and_the_longest_does_not_fail() {
        let word = AtomicU32::new(0);
        for millis in [0, 1, 20] {
            let duration = Duration::from_millis(millis);
            let start = Instant::now();
            assert_eq!(wait(&word, 0, Deadline::after(duration)), Waited::TimedOut);
            assert!(start.elapsed() >= duration);
        }
        for duration in
            [Duration::MAX, Duration::from_secs(i64::MAX as u64), Duration::from_secs(1 << 40)]
        {
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| wait(&word, 0, Deadline::after(duration)));
                while wake(&word, 1) == 0 {
                    assert!(!sleeper.is_finished());
                    std::thread::yield_now();
                }
                assert_eq!(sleeper.join().unwrap(), Waited::Woken);
            });
        }
    }

    #[test]
    fn as_many_are_woken_as_was_asked_for() {
        let word = AtomicU32::new(5);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| while wait(&word, 5, Deadline::NEVER) != Waited::Woken {});
            }
            let mut woken = 0;
            while woken < 1 {
                woken += wake(&word, 1);
            }
            while woken < 3 {
                woken += wake(&word, u32::MAX);
            }
        });
    }

    #[test]
    fn storing_wakes_one_and_only_one() {
        let word = AtomicU32::new(1 << 31 | 77);
        let finished = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while wait(&word, 1 << 31 | 77, Deadline::NEVER) != Waited::Woken {}
                    finished.fetch_add(1, SeqCst);
                });
            }
            // Both sleep once a wake of nobody else finds them; this one puts back the same value.
            let mut woken = 0;
            while woken == 0 {
                woken = store_and_wake(&word, Store::Add(0), 1).unwrap();
            }
            assert_eq!(woken, 1);
            while finished.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            while store_and_wake(&word, Store::Add(0), 1).unwrap() == 0 {}
        });
        assert_eq!(store_and_wake(&word, Store::Bit(31), 1).unwrap(), 0);
        assert_eq!(word.load(Relaxed), 1 << 31);
    }
}
