//! Proves that a storm of signals, whose handler has no `SA_RESTART`, surfaces nowhere.
#![allow(unsafe_code)] // A signal handler and a timer.

mod common;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::METHODS;
use multiproc_process::Process;

static CAUGHT: AtomicU64 = AtomicU64::new(0);

extern "C" fn catch(_: libc::c_int) {
    CAUGHT.fetch_add(1, Relaxed);
}

fn main() {
    common::init();
    common::run(&[("a_storm_of_signals_surfaces_nowhere", storm)]);
}

/// Has a signal come every 100 µs; or no more.
fn set_timer(micros: i64) {
    let time = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: `sigaction` and `setitimer` read what they are given; the handler only adds to a number.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = catch as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()), 0);
        assert_eq!(libc::sigaction(libc::SIGVTALRM, &action, std::ptr::null_mut()), 0);
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()), 0);
    }
}

/// Sends its parent a signal as fast as it can.
fn pester(parent: u32) {
    let pid = rustix::process::Pid::from_raw(parent.cast_signed()).unwrap();
    while rustix::process::kill_process(pid, rustix::process::Signal::USR1).is_ok() {
        std::thread::yield_now();
    }
}

fn storm() {
    // Timers by processor time do not come while this process waits; a pestering child's signals do.
    set_timer(500);
    let pest = Process::builder().daemon(true).spawn(pester, std::process::id()).unwrap();
    // There is hardly an instruction between two signals, so that each round takes half a second.
    for round in 0..20u64 {
        for method in METHODS {
            let builder = Process::builder().start_method(method);
            let mut process = builder
                .spawn(
                    |(round, text): (u64, String)| {
                        std::thread::park_timeout(Duration::from_micros(300));
                        (round, text)
                    },
                    (round, "x".repeat(if round % 10 == 0 { 200_000 } else { 10 })),
                )
                .unwrap();
            while process.is_alive() {
                if let Some(value) = process.join_timeout(Duration::from_micros(200)).unwrap() {
                    assert_eq!(value.0, round, "{method:?}");
                    break;
                }
            }
        }
        let process = Process::spawn(|x: u64| x + 1, round).unwrap();
        assert_eq!(process.join().unwrap(), round + 1);
    }
    pest.kill().unwrap();
    assert_eq!(pest.join().unwrap_err().signal(), Some(9));
    set_timer(0);
    let caught = CAUGHT.load(Relaxed);
    println!("    {caught} signals were caught");
    assert!(caught > 1000);
}
