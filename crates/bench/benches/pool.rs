//! The pool beside Python's, procspawn's, and rayon's threads: what a task costs, how well tasks
//! fill the workers, how long one takes there and back, and what a worker weighs.
#![allow(missing_docs)]

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use multiproc::{Fd, Pool, Process};
use multiproc_bench::python::{Script, standard};
use multiproc_bench::rounds::{
    Cost, Measure, apart, beside, here, is_test, pin, pin_to, placements, private_memory, units,
};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const AREA: &str = "pool";
const WORKERS: usize = 2;

const PYTHON: Script = standard("bench_pool");
const LOKY: Script = Script { file: "bench_pool", module: "loky" };
const MPIRE: Script = Script { file: "bench_pool", module: "mpire" };

fn main() {
    multiproc::init();
    procspawn::init();
    if is_test() {
        return;
    }
    // Each in a process of its own: rayon's threads stay.
    for part in [map, chunks, single, fill, shapes, memory] {
        apart(part);
    }
    for (place, cores) in placements() {
        apart(|| latency(place, cores));
    }
}

fn pool() -> Pool {
    Pool::builder().workers(WORKERS).build().unwrap()
}

fn square(x: u64) -> u64 {
    x * x
}

fn map() {
    let many: u64 = 1_000_000;
    let pool = pool();
    Measure::of(AREA, "map over 1,000,000 integers", "integer")
        .headline()
        .ours("Pool::map", || {
            beside(&pool.worker_pids(), many, || {
                let squares = pool.map(square, 0..many).unwrap();
                assert_eq!(squares.last(), Some(&square(many - 1)));
            })
        })
        .threads("rayon", || {
            here(many, || {
                let squares: Vec<u64> = (0..many).into_par_iter().map(square).collect();
                assert_eq!(black_box(squares).last(), Some(&square(many - 1)));
            })
        })
        .python("Python's Pool", PYTHON, &["Standard", "map"], many)
        .python("Python's Executor, 250,000", PYTHON, &["Executor", "map"], many / 4)
        .python("loky, 250,000", LOKY, &["Loky", "map"], many / 4)
        .python("mpire, 25,000", MPIRE, &["Mpire", "map"], many / 40)
        .run();
}

/// What a task costs by the number of those that go together.
fn chunks() {
    let pool = pool();
    for chunk in [1, 4, 16, 64, 256, 1024] {
        let many = units(20_000 * (chunk as u64).min(16));
        let few = many / (chunk as u64).clamp(4, 16);
        let words = chunk.to_string();
        let chunked = pool.with_chunk_size(chunk);
        Measure::of(AREA, format!("map in chunks of {chunk}"), "task")
            .on("map in chunks", chunk as f64)
            .ours("Pool::map", || {
                beside(&pool.worker_pids(), many, || {
                    let squares = chunked.map(square, 0..many).unwrap();
                    assert_eq!(squares.last(), Some(&square(many - 1)));
                })
            })
            .python("Python's Pool", PYTHON, &["Standard", "map", &words], few)
            .python("Python's ProcessPoolExecutor", PYTHON, &["Executor", "map", &words], few)
            .python("loky", LOKY, &["Loky", "map", &words], few)
            .python("mpire", MPIRE, &["Mpire", "map", &words], few / 4)
            .run();
    }
}

fn single() {
    let many = units(80_000);
    let pool = pool();
    let peer = procspawn::Pool::new(WORKERS).unwrap();
    Measure::of(AREA, "tasks handed in one by one", "task")
        .headline()
        .ours("Pool::apply_async", || {
            beside(&pool.worker_pids(), many, || {
                let later: Vec<_> =
                    (0..many).map(|x| pool.apply_async(square, x).unwrap()).collect();
                for (x, handle) in (0..).zip(later) {
                    assert_eq!(handle.get().unwrap(), square(x));
                }
            })
        })
        .ours("Pool::imap", || {
            beside(&pool.worker_pids(), many, || {
                let all = pool.imap(square, 0..many).map(Result::unwrap);
                assert!(all.eq((0..many).map(square)));
            })
        })
        .peer("procspawn's Pool, 200", || {
            const MANY: u64 = 200;
            let cost = here(MANY, || {
                let later: Vec<_> =
                    (0..MANY).map(|x| procspawn::spawn!(in peer, (x) || x * x)).collect();
                for (x, handle) in (0..).zip(later) {
                    assert_eq!(handle.join().unwrap(), square(x));
                }
            });
            // What its workers use is not known.
            Cost { cpu: f64::NAN, ..cost }
        })
        .python("Python's Pool", PYTHON, &["Standard", "submit"], many / 40)
        .python("Python's ProcessPoolExecutor", PYTHON, &["Executor", "submit"], many / 40)
        .python("loky", LOKY, &["Loky", "submit"], many / 80)
        .python("mpire", MPIRE, &["Mpire", "submit"], many / 80)
        .run();
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
    let many = units(800);
    let pool = pool();
    let Some((_, cores)) = placements().pop() else { return };
    Measure::of(AREA, "tasks of 1 ms on 2 workers", "task")
        .headline()
        .limit("two threads, half each", || {
            here(many, || {
                std::thread::scope(|scope| {
                    for core in cores {
                        scope.spawn(move || {
                            pin(core);
                            (0..many / WORKERS as u64).for_each(|_| _ = work(1000));
                        });
                    }
                });
            })
        })
        .ours("Pool::map", || {
            beside(&pool.worker_pids(), many, || {
                assert_eq!(pool.map(work, vec![1000; many as usize]).unwrap().len() as u64, many);
            })
        })
        .threads("rayon", || {
            here(many, || {
                _ = (0..many).into_par_iter().map(|_| work(1000)).collect::<Vec<_>>();
            })
        })
        .python("Python's Pool", PYTHON, &["Standard", "1ms"], many)
        .python("Python's ProcessPoolExecutor", PYTHON, &["Executor", "1ms"], many)
        .python("loky", LOKY, &["Loky", "1ms"], many)
        .python("mpire", MPIRE, &["Mpire", "1ms"], many)
        .run();
}

fn shapes() {
    let even = vec![50; 4000];
    let skewed: Vec<u64> = (0..2000).map(|index| 1 + index / 10).collect();
    let mut giant = vec![20; 4000];
    giant[100] = 80_000;
    let pool = pool();
    for (name, tasks) in [("even", even), ("skewed", skewed), ("one giant", giant)] {
        let run = |pool: Pool, tasks: Vec<u64>| {
            move || {
                beside(&pool.worker_pids(), tasks.len() as u64, || {
                    assert_eq!(pool.map(work, tasks.iter().copied()).unwrap(), tasks);
                })
            }
        };
        let measure = Measure::of(AREA, format!("chunk sizes, {name} tasks"), "task")
            .ours("automatic", run(pool.clone(), tasks.clone()));
        [1, 16, 250, 1000]
            .into_iter()
            .fold(measure, |measure, size| {
                measure.ours(&size.to_string(), run(pool.with_chunk_size(size), tasks.clone()))
            })
            .run();
    }
}

fn latency(place: &str, cores: [usize; 2]) {
    let many = units(20_000);
    let worker = cores[1] as u32;
    let script = |pool: &'static str| [pool, "apply"];
    pin(cores[0]);
    let pool = Pool::builder().workers(1).cpu_affinity([worker]).build().unwrap();
    let raw = || {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let answer = |(far, many): (Fd<OwnedFd>, u64)| {
            for _ in 0..many {
                assert_eq!(rustix::io::read(&*far, &mut [0; 8]), Ok(8));
                rustix::io::write(&*far, &[7; 8]).unwrap();
            }
        };
        let peer =
            Process::builder().cpu_affinity([worker]).spawn(answer, (far.into(), many)).unwrap();
        let cost = beside(&[peer.pid()], many, || {
            for _ in 0..many {
                rustix::io::write(&near, &[7; 8]).unwrap();
                assert_eq!(rustix::io::read(&near, &mut [0; 8]), Ok(8));
            }
        });
        peer.join().unwrap();
        cost
    };
    // Its worker inherits where it may run; Python's are on the cores of both.
    pin_to(cores);
    let peer = procspawn::Pool::new(1).unwrap();
    pin(cores[0]);
    let procspawn = || {
        let cost = here(many / 100, || {
            for x in 0..many / 100 {
                assert_eq!(procspawn::spawn!(in peer, (x) || x * x).join().unwrap(), square(x));
            }
        });
        Cost { cpu: f64::NAN, ..cost }
    };
    Measure::of(AREA, "one task there and back", "task")
        .at(place)
        .headline()
        .limit("raw socket", raw)
        .ours("Pool::apply", || {
            beside(&pool.worker_pids(), many, || {
                for x in 0..many {
                    assert_eq!(pool.apply(square, x).unwrap(), square(x));
                }
            })
        })
        .peer("procspawn's Pool", procspawn)
        .python("Python's Pool", PYTHON, &script("Standard"), many / 20)
        .python("Python's ProcessPoolExecutor", PYTHON, &script("Executor"), many / 20)
        .python("loky", LOKY, &script("Loky"), many / 20)
        .python("mpire", MPIRE, &script("Mpire"), many / 20)
        .run();
    peer.shutdown();
}

/// What an idle worker has for itself once it has run some tasks.
fn memory() {
    Measure::of(AREA, "memory of a worker alone", "worker")
        .headline()
        .of_memory()
        .ours("Pool", || {
            let pool = pool();
            pool.map(square, 0..1000).unwrap();
            let workers = pool.worker_pids();
            Cost::of_memory(&workers.into_iter().map(private_memory).collect::<Vec<_>>())
        })
        .python("Python's Pool, fork", PYTHON, &["Standard", "memory"], 1)
        .python("Python's Pool, spawn", PYTHON, &["Spawned", "memory"], 1)
        .python("Python's ProcessPoolExecutor", PYTHON, &["Executor", "memory"], 1)
        .python("loky", LOKY, &["Loky", "memory"], 1)
        .python("mpire", MPIRE, &["Mpire", "memory"], 1)
        .run();
}
