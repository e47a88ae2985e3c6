//! Pipes beside blocking reads and writes on a socket pair of the same kind, and beside ipc-channel:
//! round trips, one way, large messages, and what a process that waits uses of its processor.
//!
//! The raw reads and writes are compiled into the loop. With some processors' mitigations, a return
//! right behind a system call costs up to a third of it, so that libc's calls, which are std's, cost
//! more than raw ones.
#![allow(missing_docs)]

#[path = "support/rounds.rs"]
mod rounds;

use std::fs::File;
use std::hint::{black_box, spin_loop};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use ipc_channel::ipc;
use multiproc::{Queue, Receiver, Sender, pipe};
use multiproc_os::deadline::Deadline;
use multiproc_os::poll;
use rounds::{Cost, INTEGERS, PAYLOAD, PLACEMENTS, is_test, table, together, word};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

fn main() {
    if is_test() {
        return;
    }
    for (place, cores) in PLACEMENTS {
        round_trips(place, cores);
        one_way(place, cores);
        large(place, cores);
        crowded(place, cores);
    }
    idle();
}

fn round_trips(place: &str, [here, there]: [usize; 2]) {
    const TURNS: u64 = 20_000;
    let raw = || {
        let (ask, answer) = sockets();
        let near = || {
            let mut buffer = [7; 64];
            for _ in 0..TURNS {
                rustix::io::write(&ask, &buffer).unwrap();
                assert_eq!(rustix::io::read(&ask, &mut buffer).unwrap(), 64);
            }
        };
        let far = || {
            let mut buffer = [0; 64];
            for _ in 0..TURNS {
                assert_eq!(rustix::io::read(&answer, &mut buffer).unwrap(), 64);
                rustix::io::write(&answer, &buffer).unwrap();
            }
        };
        together(&[(here, &near), (there, &far)], TURNS)
    };
    let by_std = || {
        let (ask, answer) = sockets();
        let (ask, answer) = (File::from(ask), File::from(answer));
        let near = || {
            let mut buffer = [7; 64];
            for _ in 0..TURNS {
                (&ask).write_all(&buffer).unwrap();
                assert_eq!((&ask).read(&mut buffer).unwrap(), 64);
            }
        };
        let far = || {
            let mut buffer = [0; 64];
            for _ in 0..TURNS {
                assert_eq!((&answer).read(&mut buffer).unwrap(), 64);
                (&answer).write_all(&buffer).unwrap();
            }
        };
        together(&[(here, &near), (there, &far)], TURNS)
    };
    let ours = || {
        let (ask, answer) = pipe::<[f64; 8]>().unwrap();
        let near = || {
            for _ in 0..TURNS {
                ask.send(PAYLOAD).unwrap();
                assert_eq!(ask.recv().unwrap(), PAYLOAD);
            }
        };
        let far = || (0..TURNS).for_each(|_| answer.send(answer.recv().unwrap()).unwrap());
        together(&[(here, &near), (there, &far)], TURNS)
    };
    let peers = || {
        let (ask, asked) = ipc::channel::<[f64; 8]>().unwrap();
        let (answer, answered) = ipc::channel::<[f64; 8]>().unwrap();
        let near = || {
            for _ in 0..TURNS {
                ask.send(PAYLOAD).unwrap();
                assert_eq!(answered.recv().unwrap(), PAYLOAD);
            }
        };
        let far = || (0..TURNS).for_each(|_| answer.send(asked.recv().unwrap()).unwrap());
        together(&[(here, &near), (there, &far)], TURNS)
    };
    table(
        &format!("64 bytes there and back, {place}"),
        vec![
            ("raw socket", Box::new(raw)),
            ("std's read and write", Box::new(by_std)),
            ("pipe", Box::new(ours)),
            ("ipc-channel", Box::new(peers)),
        ],
    );
}

fn one_way(place: &str, [here, there]: [usize; 2]) {
    const MANY: u64 = 300_000;
    let raw = || {
        let (from, to) = sockets();
        let send =
            || (0..MANY).for_each(|_| assert_eq!(rustix::io::write(&from, &[7; 64]), Ok(64)));
        let receive = || {
            let mut buffer = [0; 64];
            (0..MANY).for_each(|_| assert_eq!(rustix::io::read(&to, &mut buffer), Ok(64)));
        };
        together(&[(here, &send), (there, &receive)], MANY)
    };
    let ours = || {
        let (from, to) = pipe::one_way::<[f64; 8]>().unwrap();
        let send = || (0..MANY).for_each(|_| from.send(PAYLOAD).unwrap());
        let receive = || (0..MANY).for_each(|_| assert_eq!(to.recv().unwrap(), PAYLOAD));
        together(&[(here, &send), (there, &receive)], MANY)
    };
    let integers = || {
        let (from, to) = pipe::one_way().unwrap();
        let send = || (0..MANY).for_each(|_| from.send(INTEGERS).unwrap());
        let receive = || (0..MANY).for_each(|_| assert_eq!(to.recv().unwrap(), INTEGERS));
        together(&[(here, &send), (there, &receive)], MANY)
    };
    let peers = || {
        let (from, to) = ipc::channel::<[f64; 8]>().unwrap();
        let send = || (0..MANY).for_each(|_| from.send(PAYLOAD).unwrap());
        let receive = || (0..MANY).for_each(|_| assert_eq!(to.recv().unwrap(), PAYLOAD));
        together(&[(here, &send), (there, &receive)], MANY)
    };
    table(
        &format!("64 bytes one way, {place}"),
        vec![
            ("raw socket", Box::new(raw)),
            ("pipe", Box::new(ours)),
            ("pipe, of integers", Box::new(integers)),
            ("ipc-channel", Box::new(peers)),
        ],
    );
}

fn large(place: &str, [here, there]: [usize; 2]) {
    const MANY: u64 = 8;
    const LEN: usize = 16 << 20;
    let bytes = vec![7u8; LEN];

    let their_bytes = || {
        let (from, to) = ipc::bytes_channel().unwrap();
        let send = || (0..MANY).for_each(|_| from.send(&bytes).unwrap());
        let receive = || (0..MANY).for_each(|_| assert_eq!(to.recv().unwrap().len(), LEN));
        together(&[(here, &send), (there, &receive)], MANY)
    };
    let our_bytes = || {
        let (from, to) = pipe::one_way::<()>().unwrap();
        let send = || (0..MANY).for_each(|_| from.send_bytes(&bytes).unwrap());
        let receive = || (0..MANY).for_each(|_| assert_eq!(to.recv_bytes().unwrap().len(), LEN));
        together(&[(here, &send), (there, &receive)], MANY)
    };
    let copied_into = || {
        let (from, to) = pipe::one_way::<()>().unwrap();
        let send = || (0..MANY).for_each(|_| from.send_bytes(&bytes).unwrap());
        let receive = || {
            let mut buffer = vec![0; LEN];
            (0..MANY).for_each(|_| assert_eq!(to.recv_bytes_into(&mut buffer).unwrap(), LEN));
        };
        together(&[(here, &send), (there, &receive)], MANY)
    };
    // What any way costs that copies all of it once on each side, but for what a cache saves.
    let copied_twice = || {
        let copy = || {
            let (mut between, mut received) = (vec![1; LEN], vec![1; LEN]);
            for _ in 0..MANY {
                between.copy_from_slice(black_box(&bytes));
                received.copy_from_slice(black_box(&between));
                black_box(&received);
            }
        };
        together(&[(here, &copy)], MANY)
    };
    table(
        &format!("16 MiB of bytes, {place}"),
        vec![
            ("ipc-channel", Box::new(their_bytes)),
            ("pipe", Box::new(our_bytes)),
            ("pipe, into a buffer", Box::new(copied_into)),
            ("copied twice in a process", Box::new(copied_twice)),
        ],
    );

    let their_values = || {
        let (from, to) = ipc::channel::<Vec<u8>>().unwrap();
        let send = || (0..MANY).for_each(|_| from.send(bytes.clone()).unwrap());
        let receive = || (0..MANY).for_each(|_| assert_eq!(to.recv().unwrap().len(), LEN));
        together(&[(here, &send), (there, &receive)], MANY)
    };
    let our_values = || {
        let (from, to): (Sender<Vec<u8>>, Receiver<_>) = pipe::one_way().unwrap();
        let send = || (0..MANY).for_each(|_| from.send(bytes.clone()).unwrap());
        let receive = || (0..MANY).for_each(|_| assert_eq!(to.recv().unwrap().len(), LEN));
        together(&[(here, &send), (there, &receive)], MANY)
    };
    table(
        &format!("16 MiB as a vector, {place}"),
        vec![("ipc-channel", Box::new(their_values)), ("pipe", Box::new(our_values))],
    );
}

/// Round trips while a third process keeps the first core busy, whose processor time counts too.
fn crowded(place: &str, [here, there]: [usize; 2]) {
    const TURNS: u64 = 20_000;
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
        let cost = together(&[(here, &near), (there, far), (here, &busy)], TURNS);
        let wall = Duration::from_nanos(taken.load(Acquire));
        Cost { wall: Cost::of(wall, Duration::ZERO, TURNS).wall, ..cost }
    };
    let raw = || {
        let (ask, answer) = sockets();
        let near = || {
            let mut buffer = [7; 64];
            for _ in 0..TURNS {
                rustix::io::write(&ask, &buffer).unwrap();
                assert_eq!(rustix::io::read(&ask, &mut buffer).unwrap(), 64);
            }
        };
        let far = || {
            let mut buffer = [0; 64];
            for _ in 0..TURNS {
                assert_eq!(rustix::io::read(&answer, &mut buffer).unwrap(), 64);
                rustix::io::write(&answer, &buffer).unwrap();
            }
        };
        beside(&near, &far)
    };
    let ours = || {
        let (ask, answer) = pipe::<[f64; 8]>().unwrap();
        let near = || {
            for _ in 0..TURNS {
                ask.send(PAYLOAD).unwrap();
                assert_eq!(ask.recv().unwrap(), PAYLOAD);
            }
        };
        let far = || (0..TURNS).for_each(|_| answer.send(answer.recv().unwrap()).unwrap());
        beside(&near, &far)
    };
    table(
        &format!("64 bytes there and back beside a busy process, {place}"),
        vec![("raw socket", Box::new(raw)), ("pipe", Box::new(ours))],
    );
}

/// What two processes use of their processors while one of them waits for a second.
fn idle() {
    let (here, there) = pipe::<u8>().unwrap();
    let queue = Queue::<u8>::new().unwrap();
    println!("\nCPU time while one waits for a second");
    let measure = |name: &str, wait: &dyn Fn(), wake: &dyn Fn()| {
        let wake = || {
            let [] = poll::readable([], Deadline::after(Duration::from_secs(1))).unwrap();
            wake();
        };
        let cost = together(&[(0, &wake), (1, wait)], 1);
        println!("  {name:<30}{:>10.0} us", cost.cpu / 1000.0);
    };
    measure("Connection::recv", &|| _ = there.recv().unwrap(), &|| here.send(1).unwrap());
    measure("Queue::get", &|| _ = queue.get().unwrap(), &|| queue.put(1).unwrap());
}

fn sockets() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}
