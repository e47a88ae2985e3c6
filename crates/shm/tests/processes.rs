//! Values and slices between processes, some of which are killed.
#![allow(unsafe_code)] // alarm(2).

use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, fork};
use multiproc_shm::{Array, ShmBox, Value};
use multiproc_wire::{Endpoint, Message, encode, encode_move};

fn main() {
    let tests: [(&str, fn()); 5] = [
        ("every_increment_counts", every_increment_counts),
        ("a_killed_holder_poisons", a_killed_holder_poisons),
        ("chunks_are_filled_by_others", chunks_are_filled_by_others),
        ("a_child_does_not_get_its_parents_slices", a_child_does_not_get_its_parents_slices),
        ("a_child_does_not_offer_its_parents_slices", a_child_does_not_offer_its_parents_slices),
    ];
    for (name, test) in tests {
        println!("test {name} ...");
        watchdog();
        test();
    }
    println!("\ntest result: ok. {} passed; 0 failed\n", tests.len());
}

fn watchdog() {
    // SAFETY: starts a timer of this process, which ends it.
    unsafe { libc::alarm(60) };
}

fn child(run: impl FnOnce()) -> Forked {
    fork(|| {
        watchdog();
        run();
        0
    })
    .unwrap()
}

/// Waits for its end and tells whether it ended well.
fn ends_well(child: &Forked) -> bool {
    child.pidfd.wait_end(Deadline::NEVER).unwrap();
    child.pidfd.reap().unwrap().unwrap().success()
}

fn every_increment_counts() {
    const TIMES: usize = 20_000;
    let value = Value::new(0u64).unwrap();
    let array = Array::<u64>::zeroed(4).unwrap();
    let children: Vec<Forked> = (0..4)
        .map(|place| {
            child(|| {
                for _ in 0..TIMES {
                    *value.lock().unwrap() += 1;
                    array.lock().unwrap()[place] += 1;
                }
            })
        })
        .collect();
    assert!(children.iter().all(ends_well));
    assert_eq!(value.get().unwrap(), 4 * TIMES as u64);
    assert_eq!(array.to_vec().unwrap(), [TIMES as u64; 4]);
}

fn a_killed_holder_poisons() {
    let value = Value::new([1, 1]).unwrap();
    let holder = child(|| {
        let mut pair = value.lock().unwrap();
        pair[0] = 2;
        multiproc_os::fork::exit_now(0);
    });
    assert!(ends_well(&holder));
    assert!(value.get().unwrap_err().is_poisoned());
    {
        let mut pair = value.lock_anyway().unwrap();
        assert_eq!(*pair, [2, 1]);
        pair[1] = 2;
    }
    value.clear_poison();
    assert_eq!(value.get().unwrap(), [2, 2]);
}

/// Each chunk goes to a process and comes back.
fn chunks_are_filled_by_others() {
    const LEN: usize = 100_001;
    let send = |endpoint: &Endpoint, chunk: ShmBox<[u64]>| {
        let moved = encode_move(chunk).unwrap();
        assert!(endpoint.send(moved.message(), Deadline::NEVER).unwrap());
        moved.into_message()
    };
    let receive =
        |endpoint: &Endpoint| -> ShmBox<[u64]> { endpoint.recv(Deadline::NEVER).unwrap().unwrap() };
    let workers: Vec<(Endpoint, Forked)> = (0..4)
        .map(|_| {
            let (here, there) = Endpoint::pair().unwrap();
            let worker = child(|| {
                let mut chunk = receive(&there);
                chunk.iter_mut().for_each(|number| *number += 1);
                let sent = send(&there, chunk);
                // The parent has received it.
                there.recv::<()>(Deadline::NEVER).unwrap();
                assert!(sent.reader().read::<ShmBox<[u64]>>().is_err());
            });
            (here, worker)
        })
        .collect();
    let chunks = ShmBox::<[u64]>::zeroed(LEN).unwrap().split(4);
    let sent: Vec<Message> =
        chunks.into_iter().zip(&workers).map(|(chunk, worker)| send(&worker.0, chunk)).collect();
    let joined = ShmBox::join(workers.iter().map(|worker| receive(&worker.0))).unwrap();
    assert!(joined.len() == LEN && joined.iter().all(|number| *number == 1));
    assert!(sent.iter().all(|message| message.reader().read::<ShmBox<[u64]>>().is_err()));
    for (endpoint, worker) in workers {
        assert!(endpoint.send(&encode(&()).unwrap(), Deadline::NEVER).unwrap());
        assert!(ends_well(&worker));
    }
}

fn a_child_does_not_get_its_parents_slices() {
    let slice = ShmBox::from_slice(&[1, 2, 3]).unwrap();
    let mut copy = Some(ShmBox::from_slice(&[4]).unwrap());
    let user = child(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let used = std::panic::catch_unwind(|| slice[0]);
        assert!(used.is_err());
        assert!(encode(&slice).is_err());
        // Something else comes where the slice was mapped, and stays when that is dropped.
        let others: Vec<_> = (0..100).map(|_| ShmBox::from_slice(&[5]).unwrap()).collect();
        drop(copy.take());
        assert!(others.iter().all(|other| other[0] == 5));
    });
    assert!(ends_well(&user));
    assert_eq!((&*slice, copy.unwrap()[0]), (&[1, 2, 3][..], 4));
}

fn a_child_does_not_offer_its_parents_slices() {
    let mut slice = Some(ShmBox::from_slice(&[1, 2, 3]).unwrap());
    let message = encode(&slice).unwrap();
    assert!(ends_well(&child(|| drop(slice.take()))));
    assert!(message.reader().read::<Option<ShmBox<[i32]>>>().is_err());
    drop(slice);
    assert!(message.reader().read::<Option<ShmBox<[i32]>>>().is_ok());
}
