//! The pool beside Python's two, procspawn's, and rayon's threads: what a task costs, how well tasks
//! fill the workers, how long one takes there and back, and what a worker weighs.
#![allow(missing_docs)]

#[path = "support/rounds.rs"]
mod rounds;

use std::fs;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use multiproc::{Fd, Pool, Process};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rounds::{Contender, Cost, PLACEMENTS, cpu_time, is_test, pin, table};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const WORKERS: usize = 2;

fn main() {
    multiproc::init();
    procspawn::init();
    if is_test() {
        return;
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let parts: [(&str, fn()); 6] = [
        ("map", map),
        ("single", single),
        ("fill", fill),
        ("shapes", shapes),
        ("latency", latency),
        ("memory", memory),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            part();
        }
    }
}

fn pool() -> Pool {
    Pool::builder().workers(WORKERS).build().unwrap()
}

fn square(x: u64) -> u64 {
    x * x
}

/// What this process needs for so many units.
fn measure(units: u64, act: impl FnOnce()) -> Cost {
    let (before, start) = (cpu_time(), Instant::now());
    act();
    Cost::of(start.elapsed(), cpu_time() - before, units)
}

/// What Python says that it needs for so many units.
fn python(part: &'static str, units: u64) -> Contender<'static> {
    let run = move || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/support/python_pool.py");
        let output = Command::new("python3").args([script, part, &units.to_string()]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let nanos = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        Cost::of(Duration::from_nanos(nanos), Duration::ZERO, units)
    };
    (part, Box::new(run))
}

fn map() {
    const MANY: u64 = 1_000_000;
    let pool = pool();
    let ours = || {
        measure(MANY, || {
            let squares = pool.map(square, 0..MANY).unwrap();
            assert_eq!(squares.last(), Some(&square(MANY - 1)));
        })
    };
    let threads = || {
        measure(MANY, || {
            let squares: Vec<u64> = (0..MANY).into_par_iter().map(square).collect();
            assert_eq!(black_box(squares).last(), Some(&square(MANY - 1)));
        })
    };
    table(
        "map over 1,000,000 integers, chunks as each likes, an integer",
        vec![
            ("Pool::map", Box::new(ours)),
            python("Pool.map", MANY),
            python("ProcessPoolExecutor.map", MANY),
            ("rayon's threads", Box::new(threads)),
        ],
    );
}

fn single() {
    const MANY: u64 = 20_000;
    let pool = pool();
    let singly = pool.with_chunk_size(1);
    let map = || {
        measure(MANY, || {
            let squares = singly.map(square, 0..MANY).unwrap();
            assert_eq!(squares.last(), Some(&square(MANY - 1)));
        })
    };
    let submit = || {
        measure(MANY, || {
            let later: Vec<_> = (0..MANY).map(|x| pool.apply_async(square, x).unwrap()).collect();
            for (x, handle) in (0..).zip(later) {
                assert_eq!(handle.get().unwrap(), square(x));
            }
        })
    };
    let imap = || {
        measure(MANY, || {
            let all = pool.imap(square, 0..MANY).map(Result::unwrap);
            assert!(all.eq((0..MANY).map(square)));
        })
    };
    let peer = procspawn::Pool::new(WORKERS).unwrap();
    let procspawn = || {
        const MANY: u64 = 300;
        measure(MANY, || {
            let later: Vec<_> =
                (0..MANY).map(|x| procspawn::spawn!(in peer, (x) || x * x)).collect();
            for (x, handle) in (0..).zip(later) {
                assert_eq!(handle.join().unwrap(), square(x));
            }
        })
    };
    table(
        "a message for each task, a task",
        vec![
            ("Pool::map, chunks of 1", Box::new(map)),
            ("Pool::apply_async", Box::new(submit)),
            ("Pool::imap", Box::new(imap)),
            python("Pool.map, chunksize=1", MANY),
            python("ProcessPoolExecutor.submit", MANY / 4),
            ("procspawn::Pool, 300", Box::new(procspawn)),
        ],
    );
    peer.shutdown();
}

/// Keeps a processor busy for this long.
fn work(micros: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        black_box(micros);
    }
    micros
}

fn fill() {
    const MANY: u64 = 2000;
    let pool = pool();
    let ideal = || {
        measure(MANY, || {
            std::thread::scope(|scope| {
                for core in 0..WORKERS {
                    scope.spawn(move || {
                        pin(core);
                        (0..MANY / WORKERS as u64).for_each(|_| _ = work(1000));
                    });
                }
            });
        })
    };
    let ours = || measure(MANY, || _ = pool.map(work, vec![1000; MANY as usize]).unwrap());
    let threads =
        || measure(MANY, || _ = (0..MANY).into_par_iter().map(|_| work(1000)).collect::<Vec<_>>());
    table(
        "tasks of 1 ms on 2 workers, a task",
        vec![
            ("two threads, half each", Box::new(ideal)),
            ("Pool::map", Box::new(ours)),
            python("Pool.map, 1 ms", MANY),
            ("rayon's threads", Box::new(threads)),
        ],
    );
}

fn shapes() {
    let even = vec![50; 4000];
    let skewed: Vec<u64> = (0..2000).map(|index| 1 + index / 10).collect();
    let mut giant = vec![20; 4000];
    giant[100] = 80_000;
    let pool = pool();
    for (name, tasks) in [("even", even), ("skewed", skewed), ("one giant", giant)] {
        let run = |pool: Pool, tasks: Vec<u64>| -> Box<dyn FnMut() -> Cost> {
            let units = tasks.len() as u64;
            Box::new(move || {
                measure(units, || {
                    assert_eq!(pool.map(work, tasks.iter().copied()).unwrap(), tasks);
                })
            })
        };
        let mut contenders = vec![("automatic", run(pool.clone(), tasks.clone()))];
        let sizes = [("1", 1), ("4", 4), ("16", 16), ("64", 64), ("250", 250), ("1000", 1000)];
        for (label, size) in sizes {
            contenders.push((label, run(pool.with_chunk_size(size), tasks.clone())));
        }
        table(&format!("chunk sizes, {name}, a task"), contenders);
    }
}

fn latency() {
    const MANY: u64 = 20_000;
    for (place, cores) in PLACEMENTS {
        pin(cores[0]);
        let worker = cores[1] as u32;
        let pool = Pool::builder().workers(1).cpu_affinity([worker]).build().unwrap();
        let ours = || {
            measure(MANY, || {
                for x in 0..MANY {
                    assert_eq!(pool.apply(square, x).unwrap(), square(x));
                }
            })
        };
        let raw = || {
            let (here, there) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                    .unwrap();
            let answer = |there: Fd<OwnedFd>| {
                for _ in 0..MANY {
                    assert_eq!(rustix::io::read(&*there, &mut [0; 8]), Ok(8));
                    rustix::io::write(&*there, &[7; 8]).unwrap();
                }
            };
            let peer =
                Process::builder().cpu_affinity([worker]).spawn(answer, there.into()).unwrap();
            let cost = measure(MANY, || {
                for _ in 0..MANY {
                    rustix::io::write(&here, &[7; 8]).unwrap();
                    assert_eq!(rustix::io::read(&here, &mut [0; 8]), Ok(8));
                }
            });
            peer.join().unwrap();
            cost
        };
        table(
            &format!("one task there and back, {place}"),
            vec![
                ("raw socket, blocking", Box::new(raw)),
                ("Pool::apply", Box::new(ours)),
                python("Pool.apply", MANY / 10),
            ],
        );
    }
}

/// What an idle worker has for itself.
fn memory() {
    let pool = pool();
    pool.map(square, 0..1000).unwrap();
    println!("\nresident memory of an idle worker that has run 1,000 tasks, KiB");
    for pid in pool.worker_pids() {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let of = |name: &str| -> u64 {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        println!(
            "  private {:>7}   proportional {:>7}   all {:>7}",
            of("Private_Clean:") + of("Private_Dirty:"),
            of("Pss:"),
            of("Rss:")
        );
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/support/python_pool.py");
    let output = Command::new("python3").args([script, "memory", "2"]).output().unwrap();
    print!("  Python's Pool:\n{}", String::from_utf8_lossy(&output.stdout));
}
