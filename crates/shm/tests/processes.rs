//! Values and slices between processes, some of which are killed.
#![allow(unsafe_code)] // alarm(2).

use multiproc_os::deadline::Deadline;
use multiproc_os::fork::{Forked, fork};
use multiproc_shm::{Array, Item, ShareableList, SharedMemory, ShmArc, ShmBox, Value};
use multiproc_wire::{Endpoint, Message, encode, encode_move};

fn main() {
    let tests: [(&str, fn()); 11] = [
        ("every_increment_counts", every_increment_counts),
        ("a_killed_holder_poisons", a_killed_holder_poisons),
        ("chunks_are_filled_by_others", chunks_are_filled_by_others),
        ("a_child_does_not_get_its_parents_slices", a_child_does_not_get_its_parents_slices),
        ("a_child_does_not_offer_its_parents_slices", a_child_does_not_offer_its_parents_slices),
        ("frozen_slices_are_read_by_others", frozen_slices_are_read_by_others),
        ("what_its_sender_still_maps_is_frozen", what_its_sender_still_maps_is_frozen),
        ("other_crates_work_on_a_workers_chunk", other_crates_work_on_a_workers_chunk),
        ("killed_creators_leave_all_or_nothing", killed_creators_leave_all_or_nothing),
        ("killed_writers_leave_no_wrong_items", killed_writers_leave_no_wrong_items),
        ("memory_that_is_cut_short_is_a_sigbus", memory_that_is_cut_short_is_a_sigbus),
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

/// A worker fills a chunk, the whole is frozen while the worker lives, and all read it.
fn frozen_slices_are_read_by_others() {
    let (here, there) = Endpoint::pair().unwrap();
    let worker = child(|| {
        let mut chunk: ShmBox<[u64]> = there.recv(Deadline::NEVER).unwrap().unwrap();
        chunk.fill(7);
        let moved = encode_move(chunk).unwrap();
        assert!(there.send(moved.message(), Deadline::NEVER).unwrap());
        drop(moved);
        let frozen: ShmArc<[u64]> = there.recv(Deadline::NEVER).unwrap().unwrap();
        assert!(frozen[..500].iter().all(|number| *number == 0));
        assert!(frozen[500..].iter().all(|number| *number == 7));
        assert!(there.send(&encode(&frozen.slice(499..501)).unwrap(), Deadline::NEVER).unwrap());
    });
    let (head, tail) = ShmBox::<[u64]>::zeroed(1000).unwrap().split_at(500);
    let moved = encode_move(tail).unwrap();
    assert!(here.send(moved.message(), Deadline::NEVER).unwrap());
    drop(moved);
    let tail: ShmBox<[u64]> = here.recv(Deadline::NEVER).unwrap().unwrap();
    let frozen = ShmBox::join([head, tail]).unwrap().freeze().unwrap();
    assert!(here.send(&encode(&frozen).unwrap(), Deadline::NEVER).unwrap());
    drop(frozen);
    let middle: ShmArc<[u64]> = here.recv(Deadline::NEVER).unwrap().unwrap();
    assert_eq!(*middle, [0, 7]);
    assert!(ends_well(&worker));
}

/// A receiver freezes what its sender has touched at once, and a sender may be killed at any time.
fn what_its_sender_still_maps_is_frozen() {
    const LEN: usize = 64 << 20;
    for is_killed in [false, true] {
        let (here, there) = Endpoint::pair().unwrap();
        let worker = child(|| {
            let mut slice: ShmBox<[u8]> = there.recv(Deadline::NEVER).unwrap().unwrap();
            slice.fill(7);
            let moved = encode_move(slice).unwrap();
            assert!(there.send(moved.message(), Deadline::NEVER).unwrap());
            if is_killed {
                // It keeps the mapping until it is.
                there.recv::<()>(Deadline::NEVER).unwrap();
            }
        });
        let moved = encode_move(ShmBox::<[u8]>::zeroed(LEN).unwrap()).unwrap();
        assert!(here.send(moved.message(), Deadline::NEVER).unwrap());
        drop(moved);
        let slice: ShmBox<[u8]> = here.recv(Deadline::NEVER).unwrap().unwrap();
        if is_killed {
            worker.pidfd.send_signal(libc::SIGKILL).unwrap();
        }
        let frozen = slice.freeze().unwrap();
        assert!(frozen.iter().all(|byte| *byte == 7));
        assert_eq!(ends_well(&worker), !is_killed);
    }
}

/// The threads of rayon in a process of its own, and the views of ndarray.
fn other_crates_work_on_a_workers_chunk() {
    use ndarray::{ArrayView2, ArrayViewMut2, Axis};
    use rayon::prelude::*;

    let (here, there) = Endpoint::pair().unwrap();
    let worker = child(|| {
        let mut chunk: ShmBox<[u64]> = there.recv(Deadline::NEVER).unwrap().unwrap();
        chunk.par_iter_mut().enumerate().for_each(|(i, number)| *number = i as u64);
        let mut table = ArrayViewMut2::from_shape((100, 1000), &mut chunk).unwrap();
        table.row_mut(7).fill(1);
        there.send(encode_move(chunk).unwrap().message(), Deadline::NEVER).unwrap();
    });
    let (head, tail) = ShmBox::<[u64]>::zeroed(200_000).unwrap().split_at(100_000);
    here.send(encode_move(tail).unwrap().message(), Deadline::NEVER).unwrap();
    let tail = here.recv(Deadline::NEVER).unwrap().unwrap();
    let joined = ShmBox::join([head, tail]).unwrap();
    let table = ArrayView2::from_shape((200, 1000), &joined).unwrap();
    assert_eq!(table.sum_axis(Axis(1))[107], 1000);
    assert_eq!(table[[199, 999]], 99_999);
    assert!(joined[..100_000].iter().all(|number| *number == 0));
    assert!(ends_well(&worker));
}

fn killed_creators_leave_all_or_nothing() {
    const LEN: usize = 16 << 20;
    let name = format!("multiproc-test-killed-{}", std::process::id());
    for round in 0..40u64 {
        // Where many processes want the processor, yields take long.
        watchdog();
        let creator = child(|| {
            loop {
                let memory = SharedMemory::create(&name, LEN).unwrap();
                memory.unlink().unwrap();
            }
        });
        // Some while into its work, which differs from round to round.
        (0..round * 50).for_each(|_| std::thread::yield_now());
        creator.pidfd.send_signal(libc::SIGKILL).unwrap();
        assert!(!ends_well(&creator));
        match SharedMemory::open(&name) {
            Ok(memory) => {
                assert_eq!(memory.len(), LEN);
                memory.unlink().unwrap();
            }
            Err(error) => assert!(error.is_not_found(), "{error}"),
        }
    }
}

fn killed_writers_leave_no_wrong_items() {
    let values = [Item::Str("a".repeat(100)), Item::Int(7), Item::Bytes(vec![1; 99]), Item::None];
    for round in 0..40u64 {
        watchdog();
        let list = ShareableList::new([values[0].clone()]).unwrap();
        let writer = child(|| {
            for value in values.iter().cycle() {
                list.set(0, value.clone()).unwrap();
            }
        });
        (0..round * 20).for_each(|_| std::thread::yield_now());
        writer.pidfd.send_signal(libc::SIGKILL).unwrap();
        assert!(!ends_well(&writer));
        match list.get(0) {
            Ok(item) => assert!(values.contains(&item.unwrap())),
            Err(error) => assert!(error.is_foreign(), "{error}"),
        }
        list.set(0, "b").unwrap();
        assert_eq!(list.get(0).unwrap(), Some("b".into()));
    }
}

fn memory_that_is_cut_short_is_a_sigbus() {
    use std::fs::File;
    use std::os::fd::AsFd;

    let memory = SharedMemory::create_unique(3 * 4096).unwrap();
    memory.unlink().unwrap();
    let file = File::from(memory.as_fd().try_clone_to_owned().unwrap());
    file.set_len(4096).unwrap();
    let reader = child(|| {
        memory.read(4000, &mut [0; 96]).unwrap();
        memory.read(4000, &mut [0; 97]).unwrap();
    });
    reader.pidfd.wait_end(Deadline::NEVER).unwrap();
    let status = reader.pidfd.reap().unwrap().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGBUS));
    // What has no name can not be cut short.
    let memory = SharedMemory::new(4096).unwrap();
    let file = File::from(memory.as_fd().try_clone_to_owned().unwrap());
    assert!(file.set_len(0).is_err());
}
