//! A slice of a gigabyte that moves to another process and back, beside one of a kilobyte: the bytes
//! stay where they are. The kernel takes some 2 µs more to map and unmap the longer range each time.
//!
//! Apart from that, what pages cost that were touched: the sender unmaps them, while the receiver has the
//! slice already.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group};
use multiproc::{Connection, Process, SharedMemory, ShmArc, ShmBox, Value, pipe};

const SIZES: [(&str, usize); 2] = [("1 KiB", 1 << 10), ("1 GiB", 1 << 30)];

/// To the other process and back: two messages.
fn moved(c: &mut Criterion) {
    let mut group = c.benchmark_group("move a ShmBox there and back");
    let (here, there) = pipe::<ShmBox<[u8]>>().unwrap();
    let echo = |there: Connection<ShmBox<[u8]>>| {
        for slice in &there {
            there.send(slice.unwrap()).unwrap();
        }
    };
    let child = Process::spawn(echo, there).unwrap();
    for (name, len) in SIZES {
        let mut slice = ShmBox::zeroed(len).unwrap();
        // All of it is there. Once it has moved for the first time, no page is in anybody's address space.
        slice.fill(1);
        let mut slice = Some(slice);
        group.bench_function(name, |b| {
            b.iter(|| {
                here.send(slice.take().unwrap()).unwrap();
                slice = Some(here.recv().unwrap());
            });
        });
    }
    drop(here);
    child.join().unwrap();
    group.finish();
}

/// A kilobyte and a gigabyte by turns, each page of them touched: until another process has it, and
/// until the sender is done, which has unmapped it by then.
fn received() {
    const ROUNDS: usize = 25;
    let (here, there) = pipe::<ShmBox<[u8]>>().unwrap();
    let (times, clock) = pipe::<SystemTime>().unwrap();
    let receiver = |(there, clock): (Connection<ShmBox<[u8]>>, Connection<SystemTime>)| {
        for slice in &there {
            clock.send(SystemTime::now()).unwrap();
            there.send(slice.unwrap()).unwrap();
        }
    };
    let child = Process::spawn(receiver, (there, clock)).unwrap();
    let mut slices = SIZES.map(|(_, len)| ShmBox::<[u8]>::zeroed(len).unwrap());
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let costs = [0, 1].map(|turn| {
            // All of them each time, so that the caches are as cold and the receiver as fast asleep.
            for slice in &mut slices {
                slice.iter_mut().step_by(4096).for_each(|byte| *byte = byte.wrapping_add(1));
            }
            let (slice, start) = (std::mem::take(&mut slices[turn]), SystemTime::now());
            here.send(slice).unwrap();
            let done = start.elapsed().unwrap();
            let received = times.recv().unwrap().duration_since(start).unwrap();
            slices[turn] = here.recv().unwrap();
            [received, done].map(|time| time.as_secs_f64() * 1e6)
        });
        if round > 0 {
            rounds.push(costs);
        }
    }
    drop(here);
    child.join().unwrap();
    let median = |figure: &dyn Fn(&[[f64; 2]; 2]) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    println!("send a ShmBox, each page touched before, µs (median of {ROUNDS} pairs)");
    println!("  {:<12}{:>12}{:>12}", "", "received", "sender done");
    for (turn, (name, _)) in SIZES.iter().enumerate() {
        let [received, done] = [0, 1].map(|of| median(&|costs| costs[turn][of]));
        println!("  {name:<12}{received:>12.1}{done:>12.1}");
    }
    let ratio = median(&|costs| costs[1][0] / costs[0][0]);
    let unmapping = median(&|costs| costs[1][1] - costs[0][1]);
    println!("  1 GiB / 1 KiB until received: {ratio:.2}; unmapping: {unmapping:.0} µs more");
}

/// What it takes to touch each page of memory that is there, and to unmap it then.
fn pages(c: &mut Criterion) {
    let mut group = c.benchmark_group("the pages of 1 GiB");
    group.sample_size(10);
    let frozen = ShmBox::<[u8]>::zeroed(1 << 30).unwrap();
    let frozen = filled(frozen).freeze().unwrap();
    let (here, there) = pipe::<ShmArc<[u8]>>().unwrap();
    let mut map_and = |name: &str, unmap: bool| {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    here.send(frozen.clone()).unwrap();
                    let fresh = there.recv().unwrap();
                    let start = Instant::now();
                    black_box(fresh.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
                    let touched = start.elapsed();
                    let start = Instant::now();
                    drop(fresh);
                    spent += if unmap { start.elapsed() } else { touched };
                }
                spent
            });
        });
    };
    map_and("touch", false);
    map_and("unmap", true);
    group.finish();
}

fn filled(mut slice: ShmBox<[u8]>) -> ShmBox<[u8]> {
    slice.fill(1);
    slice
}

/// A number under its lock, beside an atomic number in plain shared memory.
fn increment(c: &mut Criterion) {
    let mut group = c.benchmark_group("increment a shared number");
    let memory = SharedMemory::new(8).unwrap();
    #[allow(unsafe_code)] // A number of the memory's own, to compare with.
    // SAFETY: it is within the memory, aligned, and used atomically by all.
    let atomic = unsafe { AtomicU64::from_ptr(memory.as_ptr().cast()) };
    group.bench_function("AtomicU64, no lock", |b| {
        b.iter(|| black_box(atomic).fetch_add(1, Ordering::Relaxed));
    });
    let value = Value::new(0u64).unwrap();
    group.bench_function("Value", |b| b.iter(|| *black_box(&value).lock().unwrap() += 1));
    group.finish();
}

/// A megabyte by atomic words, beside the same by a plain copy.
fn copied(c: &mut Criterion) {
    const LEN: usize = 1 << 20;
    let mut group = c.benchmark_group("copy 1 MiB");
    group.throughput(Throughput::Bytes(LEN as u64));
    let (memory, mut bytes) = (SharedMemory::new(LEN).unwrap(), vec![1; LEN]);
    group.bench_function("SharedMemory::write", |b| {
        b.iter(|| memory.write(0, black_box(&bytes)).unwrap());
    });
    group.bench_function("SharedMemory::read", |b| {
        b.iter(|| memory.read(0, black_box(&mut bytes)).unwrap());
    });
    let mut slice = ShmBox::<[u8]>::zeroed(LEN).unwrap();
    group.bench_function("ShmBox, copy_from_slice", |b| {
        b.iter(|| slice.copy_from_slice(black_box(&bytes)));
    });
    group.finish();
}

criterion_group!(benches, moved, pages, increment, copied);

fn main() {
    multiproc::init();
    if !std::env::args().any(|word| word == "--test") {
        received();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
