//! Many processes on one lock, and on one of each primitive: nothing is counted twice or lost, and
//! random kills stop nobody.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use multiproc_harness::{Child, eventually};
use multiproc_sync::region::{Header, Region, RegionGuard};
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, LockError, RLock, RwLock, Semaphore,
};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

const PROCESSES: usize = 4;

fn main() {
    multiproc_harness::run(&[
        ("every_increment_counts", every_increment_counts),
        ("random_kills_stop_nobody", random_kills_stop_nobody),
        ("random_kills_among_random_acts_stop_nobody", random_kills_among_random_acts_stop_nobody),
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

const WORKERS: usize = 8;
const ACTS: u64 = 4_000;
const BOUND: u32 = 3;

/// How many acts each worker has done, and below who is alone somewhere.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Board {
    acts: [AtomicU64; WORKERS],
    alone: [AtomicU64; 4],
}

impl Header for Board {
    const KIND: [u8; 8] = *b"board\0\0\0";
}

/// Who is alone where.
#[derive(Clone, Copy)]
enum Place {
    Lock,
    RLock,
    Writer,
    Condition,
}

/// One of each.
#[derive(Debug)]
struct All {
    board: Region<Board>,
    lock: Lock,
    rlock: RLock,
    rw_lock: RwLock,
    semaphore: Semaphore,
    bounded: BoundedSemaphore,
    changes: Lock,
    changed: Condition,
    event: Event,
    barrier: Barrier,
}

struct Random(u64);

impl Random {
    fn new() -> Self {
        Random(RandomState::new().build_hasher().finish() ^ u64::from(std::process::id()) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn time(&mut self) -> Duration {
        Duration::from_micros(self.below(500))
    }
}

/// Gives the guard if there is one. If a holder has died, has it repaired what that has left.
fn sound<G>(taken: Result<G, LockError>, repair: impl FnOnce()) -> Option<G> {
    match taken {
        Ok(guard) => return Some(guard),
        Err(error) if error.is_poisoned() => repair(),
        Err(error) => assert!(error.is_timeout(), "{error}"),
    }
    None
}

impl All {
    fn new() -> Self {
        All {
            board: Region::create("board", 0).unwrap(),
            lock: Lock::new().unwrap(),
            rlock: RLock::new().unwrap(),
            rw_lock: RwLock::new().unwrap(),
            semaphore: Semaphore::new(0).unwrap(),
            bounded: BoundedSemaphore::new(BOUND).unwrap(),
            changes: Lock::new().unwrap(),
            changed: Condition::new().unwrap(),
            event: Event::new().unwrap(),
            barrier: Barrier::new(3).unwrap(),
        }
    }

    fn alone(&self, place: Place) -> &AtomicU64 {
        &self.board.header().alone[place as usize]
    }

    fn visit(&self, place: Place) {
        let before = self.alone(place).swap(std::process::id().into(), SeqCst);
        assert_eq!(before, 0, "two are alone, or a death was not told");
        // Long enough for deaths to find it here.
        std::thread::yield_now();
        self.clear(place);
    }

    /// Nobody is alone there any more. For whoever holds the lock.
    fn clear(&self, place: Place) {
        self.alone(place).store(0, SeqCst);
    }

    fn lock(&self, lock: &Lock, place: Place, time: Option<Duration>) {
        let taken = time.map_or_else(|| lock.lock(), |time| lock.lock_timeout(time));
        if let Some(_held) = sound(taken, || self.repair(lock, place)) {
            self.visit(place);
        }
    }

    fn repair(&self, lock: &Lock, place: Place) {
        let _held = lock.lock_anyway().unwrap();
        // Somebody else may have repaired it before.
        if lock.is_poisoned() {
            self.clear(place);
            lock.clear_poison();
        }
    }

    fn rlock(&self) {
        let repair = || {
            let _held = self.rlock.lock_anyway().unwrap();
            if self.rlock.is_poisoned() {
                self.clear(Place::RLock);
                self.rlock.clear_poison();
            }
        };
        if let Some(outer) = sound(self.rlock.lock(), repair) {
            let inner = self.rlock.lock().unwrap();
            self.visit(Place::RLock);
            drop(outer);
            self.visit(Place::RLock);
            drop(inner);
        }
    }

    fn repair_rw_lock(&self) {
        let _writing = self.rw_lock.write_anyway().unwrap();
        if self.rw_lock.is_poisoned() {
            self.clear(Place::Writer);
            self.rw_lock.clear_poison();
        }
    }

    fn read(&self, time: Option<Duration>) {
        let taken =
            time.map_or_else(|| self.rw_lock.read(), |time| self.rw_lock.read_timeout(time));
        if let Some(_held) = sound(taken, || self.repair_rw_lock()) {
            assert_eq!(self.alone(Place::Writer).load(SeqCst), 0, "somebody writes");
        }
    }

    fn write(&self, time: Option<Duration>) {
        let taken =
            time.map_or_else(|| self.rw_lock.write(), |time| self.rw_lock.write_timeout(time));
        if let Some(_held) = sound(taken, || self.repair_rw_lock()) {
            self.visit(Place::Writer);
        }
    }

    fn wait_for_change(&self, time: Option<Duration>) {
        let place = Place::Condition;
        let repair = || self.repair(&self.changes, place);
        let Some(held) = sound(self.changes.lock(), repair) else { return };
        let held = match time {
            None => self.changed.wait(held),
            Some(time) => self.changed.wait_timeout(held, time).map(|(held, _)| held),
        };
        if let Some(_held) = sound(held, || self.repair(&self.changes, place)) {
            self.visit(place);
        }
    }

    fn meet(&self, time: Option<Duration>) {
        let met = time.map_or_else(|| self.barrier.wait(), |time| self.barrier.wait_timeout(time));
        if let Err(error) = met {
            assert!(error.is_broken(), "{error}");
            self.barrier.reset().unwrap();
        }
    }

    fn act(&self, random: &mut Random) {
        let time = (random.below(2) == 0).then(|| random.time());
        match random.below(16) {
            0 | 1 => self.lock(&self.lock, Place::Lock, time),
            2 => self.rlock(),
            3 | 4 => self.read(time),
            5 => self.write(time),
            6 => {
                self.semaphore.release();
                self.semaphore.acquire().unwrap();
            }
            7 => {
                self.semaphore.release_many(1 + random.below(3) as u32);
                let _taken = self.semaphore.acquire_timeout(random.time());
                let _another = self.semaphore.try_acquire();
            }
            8 => drop(self.bounded.acquire().unwrap()),
            9 => {
                let one = self.bounded.acquire_timeout(random.time());
                let _two = self.bounded.try_acquire().unwrap();
                drop(one);
            }
            10 => self.wait_for_change(time),
            11 => self.changed.notify(random.below(4) as u32),
            12 => match time {
                None => self.event.wait(),
                Some(time) => _ = self.event.wait_timeout(time),
            },
            13 => match random.below(2) {
                0 => self.event.set(),
                _ => self.event.clear(),
            },
            14 => self.meet(time),
            _ => self.lock(&self.changes, Place::Condition, None),
        }
    }

    /// What those who wait without a limit wait for, time after time.
    fn help(&self) -> ! {
        loop {
            self.event.set();
            self.event.clear();
            self.lock(&self.changes, Place::Condition, None);
            self.changed.notify_all();
            self.barrier.abort().unwrap();
            self.barrier.reset().unwrap();
            std::thread::yield_now();
        }
    }

    fn work(&self, worker: usize) {
        let mut random = Random::new();
        let acts = &self.board.header().acts[worker];
        while acts.load(SeqCst) < ACTS {
            self.act(&mut random);
            acts.fetch_add(1, SeqCst);
        }
    }

    fn acts(&self) -> Vec<u64> {
        self.board.header().acts.iter().map(|acts| acts.load(SeqCst)).collect()
    }

    /// Says where everybody is.
    fn dump(&self, children: &[(usize, Child)]) {
        println!("{self:#?}\nacts: {:?}", self.acts());
        for (worker, child) in children {
            let read = |name: &str| {
                std::fs::read_to_string(format!("/proc/{}/{name}", child.pid())).unwrap_or_default()
            };
            let call = read("syscall");
            let state = read("stat").split(' ').nth(2).unwrap_or_default().to_owned();
            let at = call.split(' ').nth(1).and_then(|word| word.strip_prefix("0x"));
            let at = at.and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let word = at.and_then(|at| {
                let mut word = [0; 4];
                let memory = std::fs::File::open(format!("/proc/{}/mem", child.pid())).ok()?;
                memory.read_exact_at(&mut word, at).ok()?;
                Some(u32::from_ne_bytes(word))
            });
            println!("worker {worker}, {}, {state}: {} {word:x?}", child.pid(), call.trim());
        }
    }
}

fn random_kills_among_random_acts_stop_nobody() {
    const KILLS: usize = 400;
    /// Of waiting for nobody to do anything.
    const PATIENCE: Duration = Duration::from_secs(20);
    let all = All::new();
    let fork = |worker: usize| {
        let child = Child::fork(|| if worker < WORKERS { all.work(worker) } else { all.help() });
        (worker, child)
    };
    let mut children: Vec<(usize, Child)> = (0..=WORKERS).map(fork).collect();
    let mut random = Random::new();
    let (mut kills, mut last, mut since) = (0, all.acts(), Instant::now());
    while all.acts().iter().any(|acts| *acts < ACTS) {
        if all.acts() != last {
            (last, since) = (all.acts(), Instant::now());
        }
        if since.elapsed() > PATIENCE {
            all.dump(&children);
            panic!("all hang");
        }
        if kills == KILLS {
            std::thread::yield_now();
            continue;
        }
        for _ in 0..random.below(0x1000) {
            std::hint::spin_loop();
        }
        let (worker, victim) = children.swap_remove(random.below(children.len() as u64) as usize);
        if victim.has_ended() {
            let is_done = worker < WORKERS && all.acts()[worker] >= ACTS;
            assert!(is_done, "worker {worker} has ended before its time");
            victim.join();
        } else {
            victim.kill();
            kills += 1;
        }
        let is_done = worker < WORKERS && all.acts()[worker] >= ACTS;
        children.extend((!is_done).then(|| fork(worker)));
    }
    println!("{kills} were killed");
    for (worker, child) in children {
        if worker < WORKERS { child.join() } else { child.kill() }
    }
    // All is as it was, but for what the dead had in hand.
    assert_eq!(all.bounded.value(), BOUND);
    drop(all.lock.lock_anyway().unwrap());
    drop(all.rlock.lock_anyway().unwrap());
    drop(all.rw_lock.write_anyway().unwrap());
    all.semaphore.release();
    all.semaphore.acquire().unwrap();
    all.barrier.reset().unwrap();
    assert!(all.barrier.wait_timeout(Duration::ZERO).unwrap_err().is_timeout());
}
