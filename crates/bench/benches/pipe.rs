//! A round trip of 64 bytes between two processes, beside blocking reads and writes on a socket pair
//! of the same kind: raw ones, compiled into the loop, and std's, which are calls of libc's. (With
//! some processors' mitigations, a return right behind a system call costs up to a third of it.) Both
//! ends are pinned, to one core and to two.
#![allow(missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use criterion::{BenchmarkGroup, Criterion, criterion_group, measurement::WallTime};
use multiproc::{Connection, Fd, Process, pipe};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{CpuSet, sched_setaffinity};

type Payload = [u64; 8];

fn round_trip(c: &mut Criterion) {
    for (name, peer) in [("one core", 0), ("two cores", 1)] {
        let mut group = c.benchmark_group(format!("round trip of 64 bytes, {name}"));
        pin(0);
        raw(&mut group, peer);
        by_std(&mut group, peer);
        ours(&mut group, peer);
        group.finish();
    }
}

fn raw(group: &mut BenchmarkGroup<'_, WallTime>, peer: usize) {
    let (here, there) = sockets();
    let echo = |(there, cpu): (Fd<OwnedFd>, usize)| {
        pin(cpu);
        let mut buffer = [0; 64];
        while rustix::io::read(&there, &mut buffer).unwrap() > 0 {
            rustix::io::write(&there, &buffer).unwrap();
        }
    };
    let child = Process::spawn(echo, (Fd::from(there), peer)).unwrap();
    let mut buffer = [7; 64];
    group.bench_function("raw read and write", |b| {
        b.iter(|| {
            rustix::io::write(&here, &buffer).unwrap();
            assert_eq!(rustix::io::read(&here, &mut buffer).unwrap(), 64);
        });
    });
    drop(here);
    child.join().unwrap();
}

fn by_std(group: &mut BenchmarkGroup<'_, WallTime>, peer: usize) {
    let (here, there) = sockets();
    let mut here = File::from(here);
    let echo = |(there, cpu): (Fd<File>, usize)| {
        pin(cpu);
        let (mut there, mut buffer) = (&*there, [0; 64]);
        while there.read(&mut buffer).unwrap() > 0 {
            there.write_all(&buffer).unwrap();
        }
    };
    let child = Process::spawn(echo, (Fd::from(File::from(there)), peer)).unwrap();
    let mut buffer = [7; 64];
    group.bench_function("std's read and write", |b| {
        b.iter(|| {
            here.write_all(&buffer).unwrap();
            assert_eq!(here.read(&mut buffer).unwrap(), 64);
        });
    });
    drop(here);
    child.join().unwrap();
}

fn ours(group: &mut BenchmarkGroup<'_, WallTime>, peer: usize) {
    let (here, there) = pipe::<Payload>().unwrap();
    let echo = |(there, cpu): (Connection<Payload>, usize)| {
        pin(cpu);
        for message in &there {
            there.send(message.unwrap()).unwrap();
        }
    };
    let child = Process::spawn(echo, (there, peer)).unwrap();
    // Each takes the most bytes that an integer can.
    let payload = [u64::MAX / 3; 8];
    group.bench_function("pipe", |b| {
        b.iter(|| {
            here.send(payload).unwrap();
            assert_eq!(here.recv().unwrap(), payload);
        });
    });
    drop(here);
    child.join().unwrap();
}

fn sockets() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap();
}

criterion_group!(benches, round_trip);

fn main() {
    multiproc::init();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
