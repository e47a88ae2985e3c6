//! Proves that a storm of signals, whose handler has no `SA_RESTART`, surfaces nowhere.
#![allow(unsafe_code)] // A signal handler, a timer.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_wire::{Endpoint, SharedFd, encode};

static CAUGHT: AtomicU64 = AtomicU64::new(0);

extern "C" fn catch(_: libc::c_int) {
    // The watchdog: the timer comes every 100 µs.
    if CAUGHT.fetch_add(1, Relaxed) > 600_000 {
        // SAFETY: ends the process, also out of a handler.
        unsafe { libc::abort() };
    }
}

/// Has a signal come every 100 µs of real time; or no more.
fn set_timer(micros: i64) {
    let time = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: `sigaction` and `setitimer` read what they are given; the handler only counts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = catch as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()), 0);
    }
}

#[test]
fn a_storm_of_signals_surfaces_nowhere() {
    set_timer(100);
    let null = SharedFd::from(OwnedFd::from(File::open("/dev/null").unwrap()));
    let (here, there) = Endpoint::pair().unwrap();
    std::thread::scope(|scope| {
        // Whichever thread gets the signal: both block now and then, on a full or an empty socket.
        scope.spawn(|| {
            for round in 0..3_000u64 {
                let len = if round % 50 == 0 { 100_000 } else { 2_000 };
                let fds = if round % 100 == 0 { 300 } else { 1 };
                let value = (round, vec![&null; fds], vec![0u8; len]);
                assert!(here.send(&encode(&value).unwrap(), Deadline::NEVER).unwrap());
                if round % 500 == 0 {
                    std::thread::park_timeout(Duration::from_millis(3));
                }
            }
        });
        for round in 0..3_000u64 {
            let (number, fds, bytes): (u64, Vec<SharedFd>, Vec<u8>) =
                there.recv(Deadline::NEVER).unwrap().unwrap();
            assert_eq!(number, round);
            assert!(!fds.is_empty() && !bytes.is_empty());
            if round % 500 == 0 {
                std::thread::park_timeout(Duration::from_millis(3));
            }
        }
    });
    // A wait for a limited time is neither cut short nor without end.
    for millis in [1, 5, 20] {
        let start = std::time::Instant::now();
        let limit = Duration::from_millis(millis);
        assert_eq!(there.recv::<u8>(Deadline::after(limit)).unwrap(), None);
        assert!(start.elapsed() >= limit);
    }
    set_timer(0);
    assert!(CAUGHT.load(Relaxed) > 100, "{} signals", CAUGHT.load(Relaxed));
}
