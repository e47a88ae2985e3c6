//! Queues under load and idle, beside a raw socket, Python's queues, and a channel between threads.
#![allow(missing_docs)]

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc;
use multiproc::Queue;
use multiproc_bench::python;
use multiproc_bench::rounds::{
    Cost, INTEGERS, Measure, PAYLOAD, Role, cpu_time, is_test, pin, placements, together, units,
    word,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const AREA: &str = "queue";

fn main() {
    if is_test() {
        return;
    }
    for (place, cores) in placements() {
        for parties in [1, 2, 4] {
            loaded(place, cores, parties);
        }
        woken(place, cores);
    }
}

/// So many producers and as many consumers.
fn loaded(place: &str, cores: [usize; 2], parties: usize) {
    let many = units(1 << 20);
    let producer = |index: usize| cores[index % 2];
    let consumer = |index: usize| cores[(index + 1) % 2];
    let among = |many: u64| many / parties as u64;
    let processes = |many: u64, put: &dyn Fn(), get: &dyn Fn()| {
        let producers = (0..parties).map(|index| (producer(index), put));
        let consumers = (0..parties).map(|index| (consumer(index), get));
        together(&producers.chain(consumers).collect::<Vec<Role<'_>>>(), many)
    };
    let ours = |queue: Queue<[f64; 8]>| {
        let put = || (0..among(many)).for_each(|_| queue.put(PAYLOAD).unwrap());
        let get = || (0..among(many)).for_each(|_| assert_eq!(queue.get().unwrap(), PAYLOAD));
        processes(many, &put, &get)
    };
    let words = [parties.to_string(), cores.map(|core| core.to_string()).join(",")];
    let script = python::standard("bench_queue");
    let measure = Measure::of(AREA, format!("{parties} to {parties}"), "item of 64 B")
        .at(place)
        .headline()
        .limit("raw socket", || {
            let many = many / 4;
            let (from, to) = sockets();
            let put =
                || (0..among(many)).for_each(|_| _ = rustix::io::write(&from, &[7; 64]).unwrap());
            let get = || {
                let mut buffer = [0; 64];
                (0..among(many))
                    .for_each(|_| assert_eq!(rustix::io::read(&to, &mut buffer), Ok(64)));
            };
            processes(many, &put, &get)
        })
        .ours("Queue", || ours(Queue::new().unwrap()))
        .ours("Queue of 1000", || ours(Queue::bounded(1000).unwrap()))
        .ours("Queue, of integers", || {
            let queue = Queue::new().unwrap();
            let put = || (0..among(many)).for_each(|_| queue.put(INTEGERS).unwrap());
            let get = || (0..among(many)).for_each(|_| assert_eq!(queue.get().unwrap(), INTEGERS));
            processes(many, &put, &get)
        })
        .python("Python's Queue", script, &["Queue", &words[0], &words[1]], many / 32)
        .python("Python's SimpleQueue", script, &["SimpleQueue", &words[0], &words[1]], many / 32)
        .threads("crossbeam-channel", || {
            let (from, to) = crossbeam_channel::unbounded::<[f64; 8]>();
            let act = || {
                thread::scope(|scope| {
                    for index in 0..parties {
                        let (from, to) = (from.clone(), to.clone());
                        scope.spawn(move || {
                            pin(producer(index));
                            (0..among(many)).for_each(|_| from.send(PAYLOAD).unwrap());
                        });
                        scope.spawn(move || {
                            pin(consumer(index));
                            (0..among(many)).for_each(|_| assert_eq!(to.recv().unwrap(), PAYLOAD));
                        });
                    }
                });
            };
            together(&[(cores[0], &act)], many)
        });
    if parties > 1 {
        return measure.run();
    }
    // It has one receiver.
    let peer = || {
        let many = many / 4;
        let (from, to) = ipc::channel::<[f64; 8]>().unwrap();
        let put = || (0..many).for_each(|_| from.send(PAYLOAD).unwrap());
        let get = || (0..many).for_each(|_| assert_eq!(to.recv().unwrap(), PAYLOAD));
        processes(many, &put, &get)
    };
    measure.peer("ipc-channel", peer).run();
}

/// An item to a consumer that sleeps, and its answer.
fn woken(place: &str, cores: [usize; 2]) {
    let turns = units(2000);
    Measure::of(AREA, "an item to who sleeps, and its answer", "round trip")
        .at(place)
        .limit("raw socket", || {
            let (ask, answer) = sockets();
            let near = || {
                let mut buffer = [7; 64];
                rustix::io::write(&ask, &buffer).unwrap();
                assert_eq!(rustix::io::read(&ask, &mut buffer).unwrap(), 64);
            };
            let far = || {
                let mut buffer = [0; 64];
                assert_eq!(rustix::io::read(&answer, &mut buffer).unwrap(), 64);
                rustix::io::write(&answer, &buffer).unwrap();
            };
            asleep(cores, turns, &near, &far)
        })
        .ours("two queues", || {
            let [ask, answer] = [(); 2].map(|()| Queue::<[f64; 8]>::new().unwrap());
            let near = || {
                ask.put(PAYLOAD).unwrap();
                assert_eq!(answer.get().unwrap(), PAYLOAD);
            };
            let far = || answer.put(ask.get().unwrap()).unwrap();
            asleep(cores, turns, &near, &far)
        })
        .run();
}

/// Turns that each begin when the far process sleeps.
fn asleep(cores: [usize; 2], turns: u64, near: &dyn Fn(), far: &dyn Fn()) -> Cost {
    let [who, taken, used] = [(); 3].map(|()| word());
    let near = || {
        let far = loop {
            match who.load(Acquire) {
                0 => thread::yield_now(),
                pid => break pid,
            }
        };
        let (mut wall, mut cpu) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..turns {
            while !sleeps(far) {
                thread::yield_now();
            }
            let (start, before) = (Instant::now(), cpu_time());
            near();
            cpu += cpu_time() - before;
            wall += start.elapsed();
        }
        taken.store(wall.as_nanos() as u64, Release);
        used.store(cpu.as_nanos() as u64, Release);
    };
    let far = || {
        who.store(std::process::id().into(), Release);
        (0..turns).for_each(|_| far());
    };
    together(&[(cores[0], &near), (cores[1], &far)], turns);
    let time = |nanos: u64| Duration::from_nanos(nanos);
    Cost::of(time(taken.load(Acquire)), time(used.load(Acquire)), turns)
}

fn sleeps(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") S "))
}

fn sockets() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}
