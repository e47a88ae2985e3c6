//! Contenders that are measured by turns: in each round one after the other, and again.
#![allow(unsafe_code)] // getrusage(2)

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::mem::MaybeUninit;
use std::ops::Div;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Shared;
use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, fork};
use multiproc_report::row::{Kind, Quantity, Row, Spread};
use multiproc_report::{QUICK, ROWS};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::python;

/// What one unit takes, in nanoseconds: on the clock, and of all processors together.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// On the clock.
    pub wall: f64,
    /// Of all processors.
    pub cpu: f64,
}

impl Cost {
    /// From what all units took.
    pub fn of(wall: Duration, cpu: Duration, units: u64) -> Self {
        let nanos = |time: Duration| time.as_nanos() as f64;
        Cost { wall: nanos(wall), cpu: nanos(cpu) } / units
    }

    /// The mean of what several need of memory, in bytes.
    pub fn of_memory(bytes: &[f64]) -> Self {
        assert!(!bytes.is_empty(), "there is nobody whose memory is to be measured");
        Cost { wall: bytes.iter().sum::<f64>() / bytes.len() as f64, cpu: f64::NAN }
    }
}

impl Div<u64> for Cost {
    type Output = Self;

    fn div(self, units: u64) -> Self {
        Cost { wall: self.wall / units as f64, cpu: self.cpu / units as f64 }
    }
}

/// 64 bytes, in memory and as a message.
pub const PAYLOAD: [f64; 8] = [0.5; 8];

/// 64 bytes in memory and 72 as a message, each of whose integers takes as many as it can.
pub const INTEGERS: [u64; 8] = [u64::MAX / 3; 8];

/// Tells whether the benchmark is to be compiled only.
pub fn is_test() -> bool {
    std::env::args().any(|word| word == "--test")
}

fn is_quick() -> bool {
    std::env::var_os(QUICK).is_some()
}

/// So many units, or an eighth of them if it is to be quick.
pub fn units(full: u64) -> u64 {
    if is_quick() { (full / 8).max(1) } else { full }
}

/// Where two parties run: both on one core, and each on its own if there are two.
pub fn placements() -> Vec<(&'static str, [usize; 2])> {
    let usable = sched_getaffinity(None).unwrap();
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core));
    let first = cores.next().unwrap();
    let mut places = vec![("one core", [first; 2])];
    places.extend(cores.next().map(|second| ("two cores", [first, second])));
    places
}

/// One thing to be done, and those that do it.
pub struct Measure<'a> {
    form: Row,
    rounds: usize,
    contenders: Vec<(Kind, String, Run<'a>)>,
}

type Run<'a> = Box<dyn FnMut() -> Cost + 'a>;

impl<'a> Measure<'a> {
    /// Begins with what is done, and what one unit of it is.
    pub fn of(area: &str, measure: impl Into<String>, unit: &str) -> Self {
        let form = Row {
            area: area.into(),
            measure: measure.into(),
            place: String::new(),
            unit: unit.into(),
            quantity: Quantity::Time,
            headline: false,
            curve: None,
            name: String::new(),
            kind: Kind::Ours,
            wall: Vec::new(),
            cpu: Vec::new(),
        };
        Measure { form, rounds: if is_quick() { 5 } else { 9 }, contenders: Vec::new() }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        self.form.place = place.into();
        self
    }

    /// Puts it on the first page.
    #[must_use]
    pub fn headline(mut self) -> Self {
        self.form.headline = true;
        self
    }

    /// Makes it a point of a curve.
    #[must_use]
    pub fn on(mut self, curve: &str, x: f64) -> Self {
        self.form.curve = Some((curve.into(), x));
        self
    }

    /// Counts bytes.
    #[must_use]
    pub fn of_memory(mut self) -> Self {
        self.form.quantity = Quantity::Memory;
        self
    }

    /// Takes so many times as many rounds, which are short.
    #[must_use]
    pub fn short_rounds(mut self, times: usize) -> Self {
        self.rounds *= times;
        self
    }

    /// Adds a contender.
    #[must_use]
    pub fn with(mut self, kind: Kind, name: &str, run: impl FnMut() -> Cost + 'a) -> Self {
        self.contenders.push((kind, name.into(), Box::new(run)));
        self
    }

    /// Adds this project.
    #[must_use]
    pub fn ours(self, name: &str, run: impl FnMut() -> Cost + 'a) -> Self {
        self.with(Kind::Ours, name, run)
    }

    /// Adds what cannot be beaten.
    #[must_use]
    pub fn limit(self, name: &str, run: impl FnMut() -> Cost + 'a) -> Self {
        self.with(Kind::Limit, name, run)
    }

    /// Adds another library for processes.
    #[must_use]
    pub fn peer(self, name: &str, run: impl FnMut() -> Cost + 'a) -> Self {
        self.with(Kind::Peer, name, run)
    }

    /// Adds threads of one process.
    #[must_use]
    pub fn threads(self, name: &str, run: impl FnMut() -> Cost + 'a) -> Self {
        self.with(Kind::Threads, name, run)
    }

    /// Adds a script, if there is an interpreter that has the module. It is given the arguments and the
    /// number of units last, and started once for all rounds.
    #[must_use]
    pub fn python(
        self,
        name: &str,
        script: python::Script,
        arguments: &[&str],
        units: u64,
    ) -> Self {
        if !script.runs() {
            return self;
        }
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).into()).collect();
        let quantity = self.form.quantity;
        let mut running = None;
        self.with(Kind::Python, name, move || {
            let script = running.get_or_insert_with(|| script.start(&arguments, units));
            let numbers = script.round();
            match quantity {
                Quantity::Time => Cost { wall: numbers[0], cpu: numbers[1] } / units,
                Quantity::Memory => Cost::of_memory(&numbers),
            }
        })
    }

    /// Measures after a round that does not count. Prints what comes out, and writes it where the
    /// environment says.
    pub fn run(mut self) {
        let title = format!("{} {} {}", self.form.area, self.form.measure, self.form.place);
        let mut filters =
            std::env::args().skip(1).filter(|word| !word.starts_with("--")).peekable();
        if filters.peek().is_some() && !filters.any(|word| title.contains(&word)) {
            return;
        }
        let mut rows: Vec<Row> = (self.contenders.iter())
            .map(|(kind, name, _)| Row { name: name.clone(), kind: *kind, ..self.form.clone() })
            .collect();
        for round in 0..=self.rounds {
            for ((_, _, run), row) in self.contenders.iter_mut().zip(&mut rows) {
                let cost = run();
                if round > 0 {
                    row.wall.push(cost.wall);
                    row.cpu.extend(Some(cost.cpu).filter(|cpu| cpu.is_finite()));
                }
            }
        }
        print(&rows);
        if let Some(path) = std::env::var_os(ROWS) {
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            for row in rows {
                writeln!(file, "{}", serde_json::to_string(&row).unwrap()).unwrap();
            }
        }
    }
}

fn print(rows: &[Row]) {
    let Some(form) = rows.first() else { return };
    let reference = rows.iter().find(|row| row.kind == Kind::Ours).unwrap_or(form);
    let place = if form.place.is_empty() { String::new() } else { format!(", {}", form.place) };
    println!("\n{}{place}; one {} ({} rounds)", form.measure, form.unit, form.wall.len());
    let (wall, cpu) = match form.quantity {
        Quantity::Time => ("ns", "CPU ns"),
        Quantity::Memory => ("bytes", ""),
    };
    println!("  {:<34}{wall:>12}{cpu:>12}  times {}", "", reference.name);
    for row in rows {
        let median = |figures: &[f64]| {
            Spread::of(figures.iter().copied())
                .map_or(String::new(), |of| format!("{:.1}", of.median))
        };
        let Some(ratio) = Spread::of_ratios(&row.wall, &reference.wall) else { continue };
        println!(
            "  {:<34}{:>12}{:>12}  {:>6.2} ({:.2} to {:.2})",
            row.name,
            median(&row.wall),
            median(&row.cpu),
            ratio.median,
            ratio.low,
            ratio.high
        );
    }
}

/// A process on a core, and what it does there.
pub type Role<'a> = (usize, &'a dyn Fn());

/// A process on a core, which prepares what it does there.
pub type PreparedRole<'a> = (usize, &'a dyn Fn() -> Box<dyn FnOnce() + 'a>);

/// Runs each role in a process of its own, all from one moment on until the last has done.
pub fn together(roles: &[Role<'_>], units: u64) -> Cost {
    let prepare: Vec<_> = (roles.iter())
        .map(|(_, act)| move || -> Box<dyn FnOnce() + '_> { Box::new(act) })
        .collect();
    let roles: Vec<PreparedRole<'_>> =
        (roles.iter().zip(&prepare)).map(|((core, _), prepare)| (*core, prepare as _)).collect();
    together_prepared(&roles, units)
}

/// The same; the preparation does not count.
pub fn together_prepared(roles: &[PreparedRole<'_>], units: u64) -> Cost {
    let [ready, go, end, cpu] = [(); 4].map(|()| word());
    let base = Instant::now();
    let children: Vec<Forked> = roles
        .iter()
        .map(|(core, prepare)| {
            fork(|| {
                pin(*core);
                let act = prepare();
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

/// Does something in a process of its own, so that threads and cores of it are nobody else's.
pub fn apart(act: impl FnOnce()) {
    let child = fork(|| {
        act();
        0
    });
    finish(child.unwrap());
}

/// Does something in this process.
pub fn here(units: u64, act: impl FnOnce()) -> Cost {
    beside(&[], units, act)
}

/// Does something in this process, for which others work too.
pub fn beside(workers: &[u32], units: u64, act: impl FnOnce()) -> Cost {
    let used = || cpu_time() + workers.iter().map(|worker| cpu_time_of(*worker)).sum::<Duration>();
    let (before, start) = (used(), Instant::now());
    act();
    let wall = start.elapsed();
    Cost::of(wall, used().saturating_sub(before), units)
}

/// A word that processes which are forked off share.
pub fn word() -> Shared<AtomicU64> {
    Shared::new(AtomicU64::new(0)).unwrap()
}

fn finish(child: Forked) {
    child.pidfd.wait_end(Deadline::NEVER).unwrap();
    let status = child.pidfd.reap().unwrap();
    assert!(status.is_some_and(|status| status.success()), "a contender fails");
}

/// Keeps this thread on the core.
pub fn pin(core: usize) {
    pin_to([core; 2]);
}

/// Keeps this thread on the cores.
pub fn pin_to(cores: [usize; 2]) {
    let mut set = CpuSet::new();
    cores.into_iter().for_each(|core| set.set(core));
    sched_setaffinity(None, &set).unwrap();
}

/// What this process has used of all processors.
pub fn cpu_time() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it fills the structure, for which zeros are fine too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// What another process has.
fn cpu_time_of(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}

/// The memory that a process has for itself, in bytes.
pub fn private_memory(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kilobytes = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.sum::<u64>() as f64 * 1024.0
}
