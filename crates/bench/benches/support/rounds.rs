//! Contenders in processes on given cores, measured in interleaved rounds.
#![allow(unsafe_code)] // getrusage(2)
#![allow(dead_code)] // Each benchmark takes what it needs.

use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Shared;
use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, fork};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Where the parties of a measurement run.
pub(crate) const PLACEMENTS: [(&str, [usize; 2]); 2] =
    [("one core", [0, 0]), ("two cores", [0, 1])];

const ROUNDS: usize = 5;

/// What one unit costs, in nanoseconds: on the clock, and of all processors together.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

impl Cost {
    pub(crate) fn of(wall: Duration, cpu: Duration, units: u64) -> Self {
        let each = |time: Duration| time.as_nanos() as f64 / units as f64;
        Cost { wall: each(wall), cpu: each(cpu) }
    }
}

/// 64 bytes, in memory and as a message.
pub(crate) const PAYLOAD: [f64; 8] = [0.5; 8];

/// 64 bytes in memory and 72 as a message, each of whose integers takes as many as it can.
pub(crate) const INTEGERS: [u64; 8] = [u64::MAX / 3; 8];

pub(crate) type Contender<'a> = (&'a str, Box<dyn FnMut() -> Cost + 'a>);

/// Tells whether the benchmark is to be compiled only.
pub(crate) fn is_test() -> bool {
    std::env::args().any(|word| word == "--test")
}

/// Measures one contender after the other in each round (A B C A B C), after a round that does not
/// count. Prints the medians, and the median of what each round says the first costs by comparison.
pub(crate) fn table(title: &str, mut contenders: Vec<Contender<'_>>) {
    let mut rounds: Vec<Vec<Cost>> = Vec::new();
    for round in 0..=ROUNDS {
        let costs = contenders.iter_mut().map(|(_, run)| run()).collect();
        if round > 0 {
            rounds.push(costs);
        }
    }
    let (first, _) = contenders[0];
    println!("\n{title}\n  {:<30}{:>10}{:>10}  time, and rate, of {first}", "", "ns", "CPU ns");
    for (index, (name, _)) in contenders.iter().enumerate() {
        let median = |figure: &dyn Fn(&[Cost]) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(|costs| figure(costs)).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        println!(
            "  {name:<30}{:>10.0}{:>10.0}{:>8.2}{:>8.2}",
            median(&|costs| costs[index].wall),
            median(&|costs| costs[index].cpu),
            median(&|costs| costs[index].wall / costs[0].wall),
            median(&|costs| costs[0].wall / costs[index].wall),
        );
    }
}

/// A process on a core, and what it does there.
pub(crate) type Role<'a> = (usize, &'a dyn Fn());

/// Runs each role in a process of its own, all from one moment on until the last has done.
pub(crate) fn together(roles: &[Role<'_>], units: u64) -> Cost {
    let [ready, go, end, cpu] = [(); 4].map(|()| word());
    let base = Instant::now();
    let children: Vec<Forked> = roles
        .iter()
        .map(|(core, act)| {
            fork(|| {
                pin(*core);
                ready.fetch_add(1, SeqCst);
                while go.load(Acquire) == 0 {
                    thread::yield_now();
                }
                let before = cpu_time();
                act();
                end.fetch_max(base.elapsed().as_nanos() as u64, SeqCst);
                cpu.fetch_add((cpu_time() - before).as_nanos() as u64, SeqCst);
                0
            })
            .unwrap()
        })
        .collect();
    while ready.load(SeqCst) < roles.len() as u64 {
        thread::yield_now();
    }
    let start = base.elapsed();
    go.store(1, Release);
    children.into_iter().for_each(finish);
    let wall = Duration::from_nanos(end.load(Relaxed)) - start;
    Cost::of(wall, Duration::from_nanos(cpu.load(Relaxed)), units)
}

/// A word that processes which are forked off share.
pub(crate) fn word() -> Shared<AtomicU64> {
    Shared::new(AtomicU64::new(0)).unwrap()
}

fn finish(child: Forked) {
    child.pidfd.wait_end(Deadline::NEVER).unwrap();
    let status = child.pidfd.reap().unwrap();
    assert!(status.is_some_and(|status| status.success()));
}

/// Keeps this thread on the core.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).unwrap();
}

/// What this process has used of all processors.
pub(crate) fn cpu_time() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it fills the structure, for which zeros are fine too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
