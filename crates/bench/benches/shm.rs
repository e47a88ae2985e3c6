//! A slice of a gigabyte that moves to another process and back, beside one of a kilobyte: the bytes
//! stay where they are. The kernel takes some 2 µs more to map and unmap the longer range each time.
//!
//! Apart from that, what pages cost that were touched: the sender unmaps them, while the receiver has the
//! slice already.
#![allow(missing_docs)]

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use multiproc::{Connection, Process, SharedMemory, ShmArc, ShmBox, Value, pipe};
use multiproc_bench::rounds::{Cost, Measure, here, is_test, units};

const AREA: &str = "shm";
const SIZES: [(&str, usize); 2] = [("1 KiB", 1 << 10), ("1 GiB", 1 << 30)];

fn main() {
    multiproc::init();
    if is_test() {
        return;
    }
    moved();
    received();
    pages();
    increment();
    copied();
}

/// To the other process and back: two messages.
fn moved() {
    let turns = units(2000);
    let (here_end, there) = pipe::<ShmBox<[u8]>>().unwrap();
    let echo = |there: Connection<ShmBox<[u8]>>| {
        for slice in &there {
            there.send(slice.unwrap()).unwrap();
        }
    };
    let child = Process::spawn(echo, there).unwrap();
    let run = |len: usize| {
        let mut slice = Some(filled(len));
        let ask = &here_end;
        move || {
            here(turns, || {
                for _ in 0..turns {
                    ask.send(slice.take().unwrap()).unwrap();
                    slice = Some(ask.recv().unwrap());
                }
            })
        }
    };
    let measure = Measure::of(AREA, "move a ShmBox there and back", "round trip");
    let measure = SIZES.iter().fold(measure, |measure, (name, len)| measure.ours(name, run(*len)));
    measure.run();
    drop(here_end);
    child.join().unwrap();
}

/// By turns a kilobyte and a gigabyte, each page of them touched: until another process has it, and
/// until the sender is done, which has unmapped it by then.
fn received() {
    let (here, there) = pipe::<ShmBox<[u8]>>().unwrap();
    let (times, clock) = pipe::<SystemTime>().unwrap();
    let receiver = |(there, clock): (Connection<ShmBox<[u8]>>, Connection<SystemTime>)| {
        for slice in &there {
            clock.send(SystemTime::now()).unwrap();
            there.send(slice.unwrap()).unwrap();
        }
    };
    let child = Process::spawn(receiver, (there, clock)).unwrap();
    let slices = RefCell::new(SIZES.map(|(_, len)| ShmBox::<[u8]>::zeroed(len).unwrap()));
    let run = |turn: usize, until_done: bool| {
        let (here, times, slices) = (&here, &times, &slices);
        move || {
            let mut slices = slices.borrow_mut();
            // All of them each time, so that the caches are as cold and the receiver as fast asleep.
            for slice in &mut *slices {
                slice.iter_mut().step_by(4096).for_each(|byte| *byte = byte.wrapping_add(1));
            }
            let (slice, start) = (std::mem::take(&mut slices[turn]), SystemTime::now());
            here.send(slice).unwrap();
            let done = start.elapsed().unwrap();
            let received = times.recv().unwrap().duration_since(start).unwrap();
            slices[turn] = here.recv().unwrap();
            let wall = if until_done { done } else { received };
            Cost { cpu: f64::NAN, ..Cost::of(wall, wall, 1) }
        }
    };
    Measure::of(AREA, "send a ShmBox, each page touched before", "slice")
        .ours("1 KiB, until received", run(0, false))
        .ours("1 GiB, until received", run(1, false))
        .ours("1 KiB, until the sender is done", run(0, true))
        .ours("1 GiB, until the sender is done", run(1, true))
        .run();
    drop(here);
    child.join().unwrap();
}

/// What it takes to touch each page of memory that is there, and to unmap it then.
fn pages() {
    let frozen = filled(1 << 30).freeze().unwrap();
    let (here_end, there) = pipe::<ShmArc<[u8]>>().unwrap();
    let fresh = || {
        here_end.send(frozen.clone()).unwrap();
        there.recv().unwrap()
    };
    let touch = |slice: &ShmArc<[u8]>| {
        black_box(slice.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
    };
    Measure::of(AREA, "the pages of 1 GiB", "gigabyte")
        .ours("touch", || {
            let fresh = fresh();
            here(1, || touch(&fresh))
        })
        .ours("unmap", || {
            let fresh = fresh();
            touch(&fresh);
            here(1, || drop(fresh))
        })
        .run();
}

fn filled(len: usize) -> ShmBox<[u8]> {
    let mut slice = ShmBox::<[u8]>::zeroed(len).unwrap();
    slice.fill(1);
    slice
}

/// A number under its lock, beside an atomic number in plain shared memory.
fn increment() {
    const TURNS: u64 = 50_000;
    let memory = SharedMemory::new(8).unwrap();
    #[allow(unsafe_code)] // A number of the memory's own, to compare with.
    // SAFETY: it is within the memory, aligned, and used atomically by all.
    let atomic = unsafe { AtomicU64::from_ptr(memory.as_ptr().cast()) };
    let value = Value::new(0u64).unwrap();
    let repeat = |act: &dyn Fn()| here(TURNS, || (0..TURNS).for_each(|_| act()));
    Measure::of(AREA, "add to a number in shared memory", "addition")
        .short_rounds(20)
        .ours("Value", || repeat(&|| *black_box(&value).lock().unwrap() += 1))
        .limit("AtomicU64, no lock", || {
            repeat(&|| _ = black_box(atomic).fetch_add(1, Ordering::Relaxed))
        })
        .run();
}

/// A megabyte by atomic words, beside the same by a plain copy.
fn copied() {
    const LEN: usize = 1 << 20;
    const TURNS: u64 = 50;
    let memory = SharedMemory::new(LEN).unwrap();
    let mut slice = ShmBox::<[u8]>::zeroed(LEN).unwrap();
    let (bytes, mut buffer) = (vec![1; LEN], vec![1; LEN]);
    let mut plain = vec![1; LEN];
    let repeat = |act: &mut dyn FnMut()| here(TURNS, || (0..TURNS).for_each(|_| act()));
    Measure::of(AREA, "copy 1 MiB", "copy")
        .short_rounds(4)
        .ours("SharedMemory::write", || repeat(&mut || memory.write(0, black_box(&bytes)).unwrap()))
        .ours("SharedMemory::read", || {
            repeat(&mut || memory.read(0, black_box(&mut buffer)).unwrap())
        })
        .ours("ShmBox, copy_from_slice", || {
            repeat(&mut || slice.copy_from_slice(black_box(&bytes)))
        })
        .limit("copy_from_slice", || {
            repeat(&mut || black_box(&mut plain).copy_from_slice(black_box(&bytes)))
        })
        .run();
}
