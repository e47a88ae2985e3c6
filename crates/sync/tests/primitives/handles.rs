use std::os::fd::AsFd;
use std::time::Duration;

use multiproc_sync::region::{Header, Region, SHARED, Words};
use multiproc_sync::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, RawBarrier, RawBoundedSemaphore,
    RawCondition, RawEvent, RawLock, RawRLock, RawRwLock, RawSemaphore, RwLock, Semaphore,
};
use multiproc_wire::{SharedFd, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::{Tests, asleep, join_all};

pub(crate) const TESTS: Tests = &[
    ("handles_travel", travel),
    ("handles_of_words_among_others_travel", of_words_among_others_travel),
    ("handles_of_foreign_memory_are_refused", of_foreign_memory_are_refused),
    ("handles_whose_offset_lies_are_refused", whose_offset_lies_are_refused),
];

/// What another process reads from a message.
fn sent<T: Serialize + DeserializeOwned>(handle: &T) -> T {
    decode(encode(handle).unwrap()).unwrap()
}

fn travel() {
    let lock = RLock::new().unwrap();
    let same = sent(&lock);
    let held = lock.lock().unwrap();
    let waiter = asleep(1, || drop(same.lock().unwrap()));
    // The same thread holds it, through whatever handle.
    drop(same.lock().unwrap());
    drop(held);
    join_all(waiter);

    let lock = RwLock::new().unwrap();
    let same = sent(&lock);
    let reading = lock.read().unwrap();
    assert!(same.try_read().unwrap().is_some());
    let waiter = asleep(1, || drop(same.write().unwrap()));
    assert!(lock.try_read().unwrap().is_none());
    drop(reading);
    join_all(waiter);

    let semaphore = Semaphore::new(1).unwrap();
    let same = sent(&semaphore);
    same.acquire().unwrap();
    let waiter = asleep(1, || same.acquire().unwrap());
    semaphore.release_many(2);
    join_all(waiter);
    assert_eq!(same.value(), 1);

    let semaphore = BoundedSemaphore::new(1).unwrap();
    let same = sent(&semaphore);
    let permit = same.acquire().unwrap();
    let waiter = asleep(1, || drop(semaphore.acquire().unwrap()));
    drop(permit);
    join_all(waiter);

    let (lock, condition) = (Lock::new().unwrap(), Condition::new().unwrap());
    let same = sent(&(lock.clone(), condition.clone()));
    let waiter = asleep(1, || drop(same.1.wait(same.0.lock().unwrap()).unwrap()));
    condition.notify(1);
    join_all(waiter);

    let event = Event::new().unwrap();
    let same = sent(&event);
    let waiter = asleep(1, || same.wait());
    event.set();
    join_all(waiter);
    assert!(same.is_set());

    let barrier = Barrier::new(2).unwrap();
    let same = sent(&barrier);
    let waiter = asleep(1, || _ = same.wait().unwrap());
    assert_eq!(barrier.wait().unwrap(), 1);
    join_all(waiter);
    assert_eq!(same.parties(), 2);
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Many {
    lock: RawLock,
    event: RawEvent,
    rlock: RawRLock,
    condition: RawCondition,
    rw_lock: RawRwLock,
    semaphore: RawSemaphore,
    bounded: RawBoundedSemaphore,
    barrier: RawBarrier,
    last: RawEvent,
}

impl Header for Many {
    const KIND: [u8; 8] = SHARED;
}

fn many() -> Region<Many> {
    let words = Many {
        lock: RawLock::new(),
        event: RawEvent::new(),
        rlock: RawRLock::new(),
        condition: RawCondition::new(),
        rw_lock: RawRwLock::new(),
        semaphore: RawSemaphore::new(1),
        bounded: RawBoundedSemaphore::new(2),
        barrier: RawBarrier::new(1),
        last: RawEvent::new(),
    };
    Region::create_with("many", words, 0).unwrap()
}

fn of_words_among_others_travel() {
    let region = many();
    let (lock, event): (Lock, Event) =
        (region.place(|many| &many.lock).into(), region.place(|many| &many.event).into());
    let last: Event = region.place(|many| &many.last).into();
    let rlock: RLock = region.place(|many| &many.rlock).into();
    let condition: Condition = region.place(|many| &many.condition).into();
    let rw_lock: RwLock = region.place(|many| &many.rw_lock).into();
    let semaphore: Semaphore = region.place(|many| &many.semaphore).into();
    let bounded: BoundedSemaphore = region.place(|many| &many.bounded).into();
    let barrier: Barrier = region.place(|many| &many.barrier).into();
    let held = (
        lock.lock().unwrap(),
        rlock.lock().unwrap(),
        rw_lock.read().unwrap(),
        bounded.acquire().unwrap(),
    );
    last.set();
    let (lock, event, last) = sent(&(lock.clone(), event, last));
    let (rlock, rw_lock, semaphore) = sent(&(rlock.clone(), rw_lock.clone(), semaphore));
    let (bounded, barrier, condition) = sent(&(bounded.clone(), barrier, condition));
    drop(region);
    assert!(lock.lock().unwrap_err().is_deadlock());
    assert!(!event.is_set());
    assert!(last.is_set());
    drop(rlock.lock().unwrap());
    assert!(rw_lock.write().unwrap_err().is_deadlock());
    assert_eq!(bounded.value(), 1);
    drop(held);
    let (held, _) = condition.wait_timeout(lock.lock().unwrap(), Duration::ZERO).unwrap();
    drop(held);
    drop(rw_lock.write().unwrap());
    assert_eq!(bounded.value(), 2);
    semaphore.acquire().unwrap();
    assert!(!semaphore.try_acquire());
    barrier.wait().unwrap();
}

fn refusal<T: DeserializeOwned>(message: multiproc_wire::Message) -> String {
    match decode::<T>(message) {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

fn of_foreign_memory_are_refused() {
    let lock = Lock::new().unwrap();
    let text = refusal::<RLock>(encode(&lock).unwrap());
    assert!(text.contains("memory of \"lock") && text.contains("not of \"rlock"), "{text}");
    let text = refusal::<Event>(encode(&RwLock::new().unwrap()).unwrap());
    assert!(text.contains("rwlock") && text.contains("event"), "{text}");
    let text = refusal::<Lock>(encode(&Event::new().unwrap()).unwrap());
    assert!(text.contains("event"), "{text}");
    refusal::<Semaphore>(encode(&BoundedSemaphore::new(1).unwrap()).unwrap());
    refusal::<BoundedSemaphore>(encode(&Semaphore::new(1).unwrap()).unwrap());
    refusal::<Barrier>(encode(&Condition::new().unwrap()).unwrap());
    refusal::<Condition>(encode(&Barrier::new(1).unwrap()).unwrap());

    let (pipe, _writer) = std::io::pipe().unwrap();
    let pipe = SharedFd::from(std::os::fd::OwnedFd::from(pipe));
    let text = refusal::<Barrier>(encode(&(pipe, 0u64)).unwrap());
    assert!(text.contains("cannot use the shared memory"), "{text}");
    let zeros = multiproc_os::memory::Memory::create("test", 1 << 16).unwrap();
    let zeros = SharedFd::from(zeros.into_fd());
    let text = refusal::<Semaphore>(encode(&(zeros, 0u64)).unwrap());
    assert!(text.contains("something else"), "{text}");
    // No message of a handle at all.
    refusal::<RwLock>(encode(&7u64).unwrap());
}

/// What is refused of a handle with other offsets.
fn offsets<X: Words>(memory: impl AsFd, offsets: &[u64])
where
    X::Handle: DeserializeOwned,
{
    let fd = SharedFd::from(memory.as_fd().try_clone_to_owned().unwrap());
    for at in offsets {
        let text = refusal::<X::Handle>(encode(&(fd.clone(), *at)).unwrap());
        assert!(text.contains("cannot use the shared memory"), "{text}");
    }
}

fn whose_offset_lies_are_refused() {
    let message = |fds: multiproc_wire::Message| fds.fds()[0].try_clone_to_owned().unwrap();
    let lies = [1, 2, 4, 8, 63, 64, 128, 1 << 20, 1 << 40, u64::MAX / 2, u64::MAX - 127, u64::MAX];
    offsets::<RawLock>(message(encode(&Lock::new().unwrap()).unwrap()), &lies);
    offsets::<RawRLock>(message(encode(&RLock::new().unwrap()).unwrap()), &lies);
    offsets::<RawRwLock>(message(encode(&RwLock::new().unwrap()).unwrap()), &lies);
    offsets::<RawSemaphore>(message(encode(&Semaphore::new(1).unwrap()).unwrap()), &lies);
    let bounded = BoundedSemaphore::new(1).unwrap();
    offsets::<RawBoundedSemaphore>(message(encode(&bounded).unwrap()), &lies);
    offsets::<RawCondition>(message(encode(&Condition::new().unwrap()).unwrap()), &lies);
    offsets::<RawEvent>(message(encode(&Event::new().unwrap()).unwrap()), &lies);
    offsets::<RawBarrier>(message(encode(&Barrier::new(1).unwrap()).unwrap()), &lies);

    // Where several are: past the end, across it, and not aligned.
    let region = many();
    let len = size_of::<Many>() as u64;
    let outside = [len, len + 64, u64::MAX - 63, u64::MAX - 200, u64::MAX];
    offsets::<RawLock>(&region, &[&outside[..], &[len - 63, len - 56, 1, 4, 7]].concat());
    offsets::<RawEvent>(&region, &[&outside[..], &[len - 7, len - 4, 1, 2, 3]].concat());
    offsets::<RawBarrier>(&region, &[&outside[..], &[len - 64, 16 << 10, 3]].concat());
}
