//! Many processes on one lock: nothing is counted twice or lost, and random kills stop nobody.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc_harness::{Child, eventually};
use multiproc_sync::region::{Header, Region, RegionGuard};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

const PROCESSES: usize = 4;

fn main() {
    multiproc_harness::run(&[
        ("every_increment_counts", every_increment_counts),
        ("random_kills_stop_nobody", random_kills_stop_nobody),
    ]);
}

/// How often each process has had the lock.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Turns([AtomicU64; PROCESSES]);

impl Header for Turns {
    const KIND: [u8; 8] = *b"turns\0\0\0";
}

/// Two numbers that are equal whenever nobody is at work.
struct Pair<'a>(RegionGuard<'a, Turns>);

impl Pair<'_> {
    fn get(&self) -> [u64; 2] {
        let half = |i: usize| u64::from_ne_bytes(self.0.bytes()[i..i + 8].try_into().unwrap());
        [half(0), half(8)]
    }

    fn set(&mut self, place: usize, value: u64) {
        self.0.bytes_mut()[place * 8..][..8].copy_from_slice(&value.to_ne_bytes());
    }

    fn increment(&mut self) {
        let [one, other] = self.get();
        assert_eq!(one, other, "two are at work, or a death was not told");
        self.set(0, one + 1);
        std::hint::black_box(&mut self.0);
        self.set(1, one + 1);
    }
}

fn every_increment_counts() {
    const TIMES: u64 = 100_000;
    let region = Region::<Turns>::create("pair", 16).unwrap();
    let children: Vec<Child> = (0..PROCESSES)
        .map(|_| {
            Child::fork(|| {
                for _ in 0..TIMES {
                    Pair(region.lock().unwrap()).increment();
                }
            })
        })
        .collect();
    children.into_iter().for_each(Child::join);
    assert_eq!(Pair(region.lock().unwrap()).get(), [PROCESSES as u64 * TIMES; 2]);
}

fn random_kills_stop_nobody() {
    const KILLS: usize = 100;
    let region = Region::<Turns>::create("pair", 16).unwrap();
    let work = |place: usize| {
        Child::fork(|| {
            loop {
                let sound = region.lock().map(Pair);
                let mut pair = match sound {
                    Ok(pair) => pair,
                    Err(error) if error.is_poisoned() => {
                        let mut pair = Pair(region.lock_anyway().unwrap());
                        if region.is_poisoned() {
                            let [one, _] = pair.get();
                            pair.set(1, one);
                            region.clear_poison();
                        }
                        pair
                    }
                    Err(error) => panic!("{error}"),
                };
                pair.increment();
                drop(pair);
                region.header().0[place].fetch_add(1, Relaxed);
            }
        })
    };
    let mut children: Vec<Child> = (0..PROCESSES).map(work).collect();
    let turns = |place: usize| region.header().0[place].load(Relaxed);
    for _ in 0..KILLS {
        let random = RandomState::new().build_hasher().finish();
        let (victim, pause) = (random as usize % PROCESSES, random >> 32 & 0xfff);
        for _ in 0..pause {
            std::hint::spin_loop();
        }
        let before: Vec<u64> = (0..PROCESSES).map(turns).collect();
        drop(children.remove(victim));
        for place in (0..PROCESSES).filter(|place| *place != victim) {
            eventually("a survivor's turn", || turns(place) > before[place]);
        }
        children.insert(victim, work(victim));
    }
}
