//! Pipes beside blocking reads and writes on a socket pair of the same kind, and beside their peers:
//! round trips and one way by the length of a message, and what a process that waits uses.
//!
//! The raw reads and writes are compiled into the loop. With some processors' mitigations, a return
//! right behind a system call costs up to a third of it, so that libc's calls, which are std's, cost
//! more than raw ones.
#![allow(missing_docs)]

use std::fs::File;
use std::hint::{black_box, spin_loop};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc;
use multiproc::{Queue, Receiver, Sender, ShmBox, pipe};
use multiproc_bench::iceoryx::End;
use multiproc_bench::python;
use multiproc_bench::rounds::{
    Cost, INTEGERS, Measure, PAYLOAD, is_test, placements, together, together_prepared, units, word,
};
use multiproc_os::deadline::Deadline;
use multiproc_os::poll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

const AREA: &str = "pipe";

/// A length, and how many messages of it go there and back, and one way.
struct Size {
    name: &'static str,
    len: usize,
    turns: u64,
    many: u64,
}

const SIZES: [Size; 7] = [
    Size { name: "64 B", len: 64, turns: 20_000, many: 200_000 },
    Size { name: "4 KiB", len: 4 << 10, turns: 20_000, many: 100_000 },
    Size { name: "64 KiB", len: 64 << 10, turns: 4000, many: 16_000 },
    Size { name: "128 KiB", len: 128 << 10, turns: 2000, many: 4000 },
    Size { name: "1 MiB", len: 1 << 20, turns: 400, many: 400 },
    Size { name: "16 MiB", len: 16 << 20, turns: 16, many: 64 },
    Size { name: "64 MiB", len: 64 << 20, turns: 4, many: 8 },
];

/// The longest message that goes through the raw socket as one packet.
const PACKET: usize = 64 << 10;

fn main() {
    if is_test() {
        return;
    }
    for (place, cores) in placements() {
        for size in &SIZES {
            round_trips(place, cores, size);
        }
        for size in &SIZES {
            one_way(place, cores, size);
        }
        values(place, cores);
        vectors(place, cores);
        crowded(place, cores);
    }
    idle();
}

fn round_trips(place: &str, cores: [usize; 2], &Size { name, len, turns, .. }: &Size) {
    let turns = units(turns);
    let bytes = vec![7u8; len];
    let between = |near: &dyn Fn(), far: &dyn Fn()| {
        let near = || (0..turns).for_each(|_| near());
        let far = || (0..turns).for_each(|_| far());
        together(&[(cores[0], &near), (cores[1], &far)], turns)
    };
    let sizes = [len.to_string(), cores.map(|core| core.to_string()).join(",")];
    let measure = Measure::of(AREA, format!("{name} there and back"), "round trip")
        .at(place)
        .on("there and back", len as f64);
    let measure = if [64, 4 << 10, 1 << 20].contains(&len) { measure.headline() } else { measure };
    let measure = measure.limit("raw socket", || raw_round_trips(cores, len, turns));
    let measure = if len <= PACKET {
        measure.limit("raw socket, never asleep", || awake_round_trips(cores, len, turns))
    } else {
        measure
    };
    measure
        .ours("pipe", || {
            let (ask, answer) = pipe::<()>().unwrap();
            let near = || {
                ask.send_bytes(&bytes).unwrap();
                check(&ask.recv_bytes().unwrap(), len);
            };
            let far = || answer.send_bytes(&answer.recv_bytes().unwrap()).unwrap();
            between(&near, &far)
        })
        .peer("ipc-channel", || {
            let (ask, asked) = ipc::bytes_channel().unwrap();
            let (answer, answered) = ipc::bytes_channel().unwrap();
            let near = || {
                ask.send(&bytes).unwrap();
                check(&answered.recv().unwrap(), len);
            };
            let far = || answer.send(&asked.recv().unwrap()).unwrap();
            between(&near, &far)
        })
        .peer("iceoryx2, in place", || {
            let names = ["ask", "answer"].map(unique);
            let near = || -> Box<dyn FnOnce()> {
                let end = End::open(&names[0], &names[1], len);
                let bytes = vec![7u8; len];
                Box::new(move || {
                    for _ in 0..turns {
                        end.send(&bytes);
                        end.receive(|bytes| check(bytes, len));
                    }
                })
            };
            let far = || -> Box<dyn FnOnce()> {
                let end = End::open(&names[1], &names[0], len);
                let bytes = vec![7u8; len];
                Box::new(move || {
                    for _ in 0..turns {
                        end.receive(|bytes| check(bytes, len));
                        end.send(&bytes);
                    }
                })
            };
            together_prepared(&[(cores[0], &near), (cores[1], &far)], turns)
        })
        .ours("pipe, into a buffer", || {
            let (ask, answer) = pipe::<()>().unwrap();
            let near = || {
                let mut buffer = vec![0; len];
                for _ in 0..turns {
                    ask.send_bytes(&bytes).unwrap();
                    let received = ask.recv_bytes_into(&mut buffer).unwrap();
                    check(&buffer[..received], len);
                }
            };
            let far = || {
                let mut buffer = vec![0; len];
                for _ in 0..turns {
                    let len = answer.recv_bytes_into(&mut buffer).unwrap();
                    answer.send_bytes(&buffer[..len]).unwrap();
                }
            };
            together(&[(cores[0], &near), (cores[1], &far)], turns)
        })
        .ours("ShmBox, in place", || {
            let (ask, answer) = pipe::<ShmBox<[u8]>>().unwrap();
            let near = || -> Box<dyn FnOnce()> {
                let mut slice = ShmBox::from_slice(&bytes).unwrap();
                let ask = &ask;
                Box::new(move || {
                    for _ in 0..turns {
                        ask.send(slice).unwrap();
                        slice = ask.recv().unwrap();
                        check(&slice, len);
                    }
                })
            };
            let far = || -> Box<dyn FnOnce()> {
                Box::new(|| (0..turns).for_each(|_| answer.send(answer.recv().unwrap()).unwrap()))
            };
            together_prepared(&[(cores[0], &near), (cores[1], &far)], turns)
        })
        .python(
            "Python's Pipe",
            python::standard("bench_pipe"),
            &["there-and-back", &sizes[0], &sizes[1]],
            fewer(turns),
        )
        .run();
}

fn raw_round_trips(cores: [usize; 2], len: usize, turns: u64) -> Cost {
    let (ask, answer) = sockets(len);
    if len <= PACKET {
        let near = || {
            let mut buffer = vec![7; len];
            for _ in 0..turns {
                rustix::io::write(&ask, &buffer).unwrap();
                assert_eq!(rustix::io::read(&ask, &mut buffer), Ok(len));
            }
        };
        let far = || {
            let mut buffer = vec![0; len];
            for _ in 0..turns {
                assert_eq!(rustix::io::read(&answer, &mut buffer), Ok(len));
                rustix::io::write(&answer, &buffer).unwrap();
            }
        };
        return together(&[(cores[0], &near), (cores[1], &far)], turns);
    }
    let (ask, answer) = (File::from(ask), File::from(answer));
    let near = || {
        let mut buffer = vec![7; len];
        for _ in 0..turns {
            (&ask).write_all(&buffer).unwrap();
            (&ask).read_exact(&mut buffer).unwrap();
        }
    };
    let far = || {
        let mut buffer = vec![0; len];
        for _ in 0..turns {
            (&answer).read_exact(&mut buffer).unwrap();
            (&answer).write_all(&buffer).unwrap();
        }
    };
    together(&[(cores[0], &near), (cores[1], &far)], turns)
}

/// What no wait on a socket is quicker than by much, as nobody ever sleeps: on two cores some 0.29 of what
/// it takes with sleepers that are woken.
fn awake_round_trips(cores: [usize; 2], len: usize, turns: u64) -> Cost {
    let (ask, answer) = sockets(len);
    let receive = |socket: &OwnedFd, buffer: &mut [u8]| {
        loop {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => thread::yield_now(),
                received => break assert_eq!(received, Ok((len, len))),
            }
        }
    };
    let near = || {
        let mut buffer = vec![7; len];
        for _ in 0..turns {
            rustix::io::write(&ask, &buffer).unwrap();
            receive(&ask, &mut buffer);
        }
    };
    let far = || {
        let mut buffer = vec![0; len];
        for _ in 0..turns {
            receive(&answer, &mut buffer);
            rustix::io::write(&answer, &buffer).unwrap();
        }
    };
    together(&[(cores[0], &near), (cores[1], &far)], turns)
}

fn one_way(place: &str, cores: [usize; 2], &Size { name, len, many, .. }: &Size) {
    let many = units(many);
    let bytes = vec![7u8; len];
    let between = |send: &dyn Fn(), receive: &dyn Fn()| {
        together(&[(cores[0], &|| (0..many).for_each(|_| send())), (cores[1], receive)], many)
    };
    let sizes = [len.to_string(), cores.map(|core| core.to_string()).join(",")];
    let measure =
        Measure::of(AREA, format!("{name} one way"), "message").at(place).on("one way", len as f64);
    let measure = if [64, 64 << 20].contains(&len) { measure.headline() } else { measure };
    let measure = measure
        .limit("raw socket", || {
            let (from, to) = sockets(len);
            let mut buffer = vec![0; len];
            if len <= PACKET {
                let send = || assert_eq!(rustix::io::write(&from, &bytes), Ok(len));
                let receive = || {
                    let mut buffer = vec![0; len];
                    (0..many).for_each(|_| assert_eq!(rustix::io::read(&to, &mut buffer), Ok(len)));
                };
                return between(&send, &receive);
            }
            buffer.fill(1);
            let (from, to) = (File::from(from), File::from(to));
            let receive = || {
                let mut buffer = buffer.clone();
                (0..many).for_each(|_| (&to).read_exact(&mut buffer).unwrap());
            };
            between(&|| (&from).write_all(&bytes).unwrap(), &receive)
        })
        .ours("pipe", || {
            let (from, to) = pipe::one_way::<()>().unwrap();
            let receive = || (0..many).for_each(|_| check(&to.recv_bytes().unwrap(), len));
            between(&|| from.send_bytes(&bytes).unwrap(), &receive)
        })
        .peer("ipc-channel", || {
            let (from, to) = ipc::bytes_channel().unwrap();
            let receive = || (0..many).for_each(|_| check(&to.recv().unwrap(), len));
            between(&|| from.send(&bytes).unwrap(), &receive)
        })
        .ours("pipe, into a buffer", || {
            let (from, to) = pipe::one_way::<()>().unwrap();
            let receive = || {
                let mut buffer = vec![0; len];
                for _ in 0..many {
                    let received = to.recv_bytes_into(&mut buffer).unwrap();
                    check(&buffer[..received], len);
                }
            };
            between(&|| from.send_bytes(&bytes).unwrap(), &receive)
        })
        .python(
            "Python's Pipe",
            python::standard("bench_pipe"),
            &["one-way", &sizes[0], &sizes[1]],
            fewer(many),
        );
    if len <= PACKET {
        return measure.run();
    }
    // What no way is quicker than that gives the receiver bytes of its own; and what any costs that copies
    // all of them once on each side, but for what a cache saves.
    let copied = |copies: usize| {
        let copy = || {
            let mut places = vec![vec![1; len]; copies];
            for _ in 0..many {
                let mut from = &bytes;
                for place in &mut places {
                    place.copy_from_slice(black_box(from));
                    from = place;
                }
                black_box(from);
            }
        };
        together(&[(cores[0], &copy)], many)
    };
    measure
        .limit("copied once in a process", || copied(1))
        .limit("copied twice in a process", || copied(2))
        .run();
}

/// What is no bytes is encoded.
fn values(place: &str, [here, there]: [usize; 2]) {
    let turns = units(20_000);
    Measure::of(AREA, "[f64; 8] there and back", "round trip")
        .at(place)
        .limit("std's read and write", || {
            let (ask, answer) = sockets(64);
            let (ask, answer) = (File::from(ask), File::from(answer));
            let near = || {
                let mut buffer = [7; 64];
                for _ in 0..turns {
                    (&ask).write_all(&buffer).unwrap();
                    assert_eq!((&ask).read(&mut buffer).unwrap(), 64);
                }
            };
            let far = || {
                let mut buffer = [0; 64];
                for _ in 0..turns {
                    assert_eq!((&answer).read(&mut buffer).unwrap(), 64);
                    (&answer).write_all(&buffer).unwrap();
                }
            };
            together(&[(here, &near), (there, &far)], turns)
        })
        .ours("pipe", || {
            let (ask, answer) = pipe::<[f64; 8]>().unwrap();
            let near = || {
                for _ in 0..turns {
                    ask.send(PAYLOAD).unwrap();
                    assert_eq!(ask.recv().unwrap(), PAYLOAD);
                }
            };
            let far = || (0..turns).for_each(|_| answer.send(answer.recv().unwrap()).unwrap());
            together(&[(here, &near), (there, &far)], turns)
        })
        .peer("ipc-channel", || {
            let (ask, asked) = ipc::channel::<[f64; 8]>().unwrap();
            let (answer, answered) = ipc::channel::<[f64; 8]>().unwrap();
            let near = || {
                for _ in 0..turns {
                    ask.send(PAYLOAD).unwrap();
                    assert_eq!(answered.recv().unwrap(), PAYLOAD);
                }
            };
            let far = || (0..turns).for_each(|_| answer.send(asked.recv().unwrap()).unwrap());
            together(&[(here, &near), (there, &far)], turns)
        })
        .run();

    let many = units(200_000);
    Measure::of(AREA, "[f64; 8] one way", "message")
        .at(place)
        .ours("pipe", || {
            let (from, to) = pipe::one_way::<[f64; 8]>().unwrap();
            let send = || (0..many).for_each(|_| from.send(PAYLOAD).unwrap());
            let receive = || (0..many).for_each(|_| assert_eq!(to.recv().unwrap(), PAYLOAD));
            together(&[(here, &send), (there, &receive)], many)
        })
        .ours("pipe, of integers", || {
            let (from, to) = pipe::one_way().unwrap();
            let send = || (0..many).for_each(|_| from.send(INTEGERS).unwrap());
            let receive = || (0..many).for_each(|_| assert_eq!(to.recv().unwrap(), INTEGERS));
            together(&[(here, &send), (there, &receive)], many)
        })
        .peer("ipc-channel", || {
            let (from, to) = ipc::channel::<[f64; 8]>().unwrap();
            let send = || (0..many).for_each(|_| from.send(PAYLOAD).unwrap());
            let receive = || (0..many).for_each(|_| assert_eq!(to.recv().unwrap(), PAYLOAD));
            together(&[(here, &send), (there, &receive)], many)
        })
        .run();
}

fn vectors(place: &str, [here, there]: [usize; 2]) {
    const LEN: usize = 16 << 20;
    let many = units(32);
    let bytes = vec![7u8; LEN];
    Measure::of(AREA, "16 MiB as a vector, one way", "message")
        .at(place)
        .ours("pipe", || {
            let (from, to): (Sender<Vec<u8>>, Receiver<_>) = pipe::one_way().unwrap();
            let send = || (0..many).for_each(|_| from.send(bytes.clone()).unwrap());
            let receive = || (0..many).for_each(|_| check(&to.recv().unwrap(), LEN));
            together(&[(here, &send), (there, &receive)], many)
        })
        .peer("ipc-channel", || {
            let (from, to) = ipc::channel::<Vec<u8>>().unwrap();
            let send = || (0..many).for_each(|_| from.send(bytes.clone()).unwrap());
            let receive = || (0..many).for_each(|_| check(&to.recv().unwrap(), LEN));
            together(&[(here, &send), (there, &receive)], many)
        })
        .run();
}

/// Round trips while a third process keeps the first core busy, whose processor time counts too.
fn crowded(place: &str, [here, there]: [usize; 2]) {
    let turns = units(20_000);
    let beside = |near: &dyn Fn(), far: &dyn Fn()| {
        let (done, taken) = (word(), word());
        let near = || {
            let start = Instant::now();
            near();
            taken.store(start.elapsed().as_nanos() as u64, Release);
            done.store(1, Release);
        };
        let busy = || {
            while done.load(Acquire) == 0 {
                spin_loop();
            }
        };
        let cost = together(&[(here, &near), (there, far), (here, &busy)], turns);
        let wall = Duration::from_nanos(taken.load(Acquire));
        Cost { wall: Cost::of(wall, Duration::ZERO, turns).wall, ..cost }
    };
    Measure::of(AREA, "64 B there and back beside a busy process", "round trip")
        .at(place)
        .limit("raw socket", || {
            let (ask, answer) = sockets(64);
            let near = || {
                let mut buffer = [7; 64];
                for _ in 0..turns {
                    rustix::io::write(&ask, &buffer).unwrap();
                    assert_eq!(rustix::io::read(&ask, &mut buffer).unwrap(), 64);
                }
            };
            let far = || {
                let mut buffer = [0; 64];
                for _ in 0..turns {
                    assert_eq!(rustix::io::read(&answer, &mut buffer).unwrap(), 64);
                    rustix::io::write(&answer, &buffer).unwrap();
                }
            };
            beside(&near, &far)
        })
        .ours("pipe", || {
            let (ask, answer) = pipe::<[f64; 8]>().unwrap();
            let near = || {
                for _ in 0..turns {
                    ask.send(PAYLOAD).unwrap();
                    assert_eq!(ask.recv().unwrap(), PAYLOAD);
                }
            };
            let far = || (0..turns).for_each(|_| answer.send(answer.recv().unwrap()).unwrap());
            beside(&near, &far)
        })
        .run();
}

/// What two processes use of their processors while one of them waits, after one that does not count: for the
/// first time, each page that a process has been forked off with is copied.
fn idle() {
    let Some((_, cores)) = placements().pop() else { return };
    let (from, to) = sockets(64);
    let (here, there) = pipe::<u8>().unwrap();
    let queue = Queue::<u8>::new().unwrap();
    let measure = |wait: &dyn Fn(), wake: &dyn Fn()| {
        let later = || {
            let [] = poll::readable([], Deadline::after(Duration::from_millis(200))).unwrap();
            wake();
        };
        let (waits, wakes) = (|| after_one(wait), || after_one(&later));
        let cost = together_prepared(&[(cores[0], &wakes), (cores[1], &waits)], 1);
        Cost { wall: cost.cpu, ..cost }
    };
    let read = || assert_eq!(rustix::io::read(&to, &mut [0; 64]), Ok(64));
    let write = || assert_eq!(rustix::io::write(&from, &[7; 64]), Ok(64));
    Measure::of(AREA, "CPU time of a wait of 200 ms", "wait")
        .limit("raw socket", || measure(&read, &write))
        .ours("pipe", || measure(&|| _ = there.recv().unwrap(), &|| here.send(1).unwrap()))
        .ours("Queue", || measure(&|| _ = queue.get().unwrap(), &|| queue.put(1).unwrap()))
        .run();
}

fn after_one<'a>(act: &'a dyn Fn()) -> Box<dyn FnOnce() + 'a> {
    act();
    Box::new(act)
}

fn sockets(len: usize) -> (OwnedFd, OwnedFd) {
    let kind = if len <= PACKET { SocketType::SEQPACKET } else { SocketType::STREAM };
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// All bytes are there, and some of them are right.
fn check(bytes: &[u8], len: usize) {
    assert_eq!(bytes.len(), len);
    assert!(bytes[0] == 7 && bytes[len / 2] == 7 && bytes[len - 1] == 7);
}

/// For those that need ten times as long.
fn fewer(units: u64) -> u64 {
    if units > 1000 { units / 10 } else { units }
}

/// A name that no process has used.
fn unique(name: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("multiproc-bench.{}.{}.{name}", std::process::id(), COUNT.fetch_add(1, Relaxed))
}
