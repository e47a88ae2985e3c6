//! Values and arrays: awkward types and lengths, messages, poison.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use multiproc_shm::{Array, Error, ShareableList, SharedMemory, ShmArc, ShmBox, Value};
use multiproc_wire::{decode, encode};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Nothing;

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line([u8; 64]);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8192))]
struct TwoPages([u8; 8192]);

#[test]
fn handles_cross_threads() {
    fn send_and_sync<T: Send + Sync>() {}
    fn send<T: Send>() {}
    send_and_sync::<Value<u64>>();
    send_and_sync::<Array<f64>>();
    send_and_sync::<ShmBox<[u8]>>();
    send_and_sync::<ShmArc<[u8]>>();
    send_and_sync::<SharedMemory>();
    send_and_sync::<ShareableList>();
    send_and_sync::<Error>();
    send::<multiproc_shm::JoinError<u8>>();
    send::<multiproc_shm::FreezeError<u8>>();
}

#[test]
fn a_value_read_from_a_message_is_the_same() {
    let value = Value::new(1u64).unwrap();
    let same: Value<u64> = decode(encode(&value).unwrap()).unwrap();
    same.update(|number| *number += 1).unwrap();
    assert_eq!(value.get().unwrap(), 2);
    value.set(7).unwrap();
    assert_eq!(*same.lock().unwrap(), 7);
    let guard = value.lock().unwrap();
    assert!(same.lock().unwrap_err().is_deadlock());
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(same.try_lock().unwrap().is_none());
            assert!(same.lock_timeout(Duration::ZERO).unwrap_err().is_timeout());
        });
    });
    drop(guard);

    let array = Array::from_slice(&[1, 2, 3]).unwrap();
    let same: Array<i32> = decode(encode(&array).unwrap()).unwrap();
    same.lock().unwrap().reverse();
    assert_eq!(array.to_vec().unwrap(), [3, 2, 1]);
    assert_eq!(same.len(), 3);
}

#[test]
fn memory_of_another_type_is_refused() {
    let array = Array::from_slice(&[1u32, 2]).unwrap();
    let error = decode::<Array<u64>>(encode(&array).unwrap()).unwrap_err();
    assert!(error.to_string().contains("does not hold u64"), "{error}");
    let lock = multiproc_sync::Lock::new().unwrap();
    let error = decode::<Value<u64>>(encode(&lock).unwrap()).unwrap_err();
    assert!(error.to_string().contains("lock"), "{error}");
}

#[test]
fn any_alignment_up_to_a_page_is_kept() {
    fn check<T>(element: T, is: impl Fn(&T) -> bool)
    where
        T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout,
    {
        let value = Value::new(element).unwrap();
        assert!(is(&value.lock().unwrap()));
        for len in [0, 1, 3] {
            let array = Array::from_slice(&vec![element; len]).unwrap();
            let again: Array<T> = decode(encode(&array).unwrap()).unwrap();
            assert_eq!(again.len(), len);
            let guard = again.lock().unwrap();
            assert!(guard.as_ptr().is_aligned());
            assert!(guard.len() == len && guard.iter().all(&is));
            drop(guard);
            let owned = ShmBox::from_slice(&vec![element; len]).unwrap();
            assert!(owned.as_ptr().is_aligned());
            assert!(owned.len() == len && owned.iter().all(&is));
        }
    }
    check(Nothing, |_| true);
    check([0u64; 0], |_| true);
    check(7u8, |element| *element == 7);
    check([1u16, 2, 3], |element| *element == [1, 2, 3]);
    check(u128::MAX, |element| *element == u128::MAX);
    check(Line([3; 64]), |element| element.0 == [3; 64]);
    check(Page([4; 4096]), |element| element.0 == [4; 4096]);

    let error = Array::<TwoPages>::zeroed(1).unwrap_err();
    assert!(error.to_string().contains("4096"), "{error}");
    assert!(ShmBox::<[TwoPages]>::zeroed(1).is_err());
}

#[test]
fn lengths_are_awkward() {
    for len in [0, 1, 4096, 4097] {
        let array = Array::<u8>::zeroed(len).unwrap();
        assert_eq!((array.len(), array.is_empty()), (len, len == 0));
        array.lock().unwrap().fill(1);
        assert_eq!(array.to_vec().unwrap(), vec![1; len]);
        assert_eq!(array.get(len).unwrap(), None);
    }
    let value = Value::new([7u8; 4097]).unwrap();
    let again: Value<[u8; 4097]> = decode(encode(&value).unwrap()).unwrap();
    assert_eq!(again.get().unwrap(), [7; 4097]);
    for len in [usize::MAX, usize::MAX / 8, usize::MAX / 8 + 1, isize::MAX as usize / 8] {
        assert!(Array::<u64>::zeroed(len).unwrap_err().is_too_long(), "{len}");
        assert!(ShmBox::<[u64]>::zeroed(len).is_err(), "{len}");
    }
    let sparse = Array::<u64>::zeroed(1 << 29).unwrap();
    sparse.set((1 << 29) - 1, 9).unwrap();
    assert_eq!(sparse.get((1 << 29) - 1).unwrap(), Some(9));
    assert_eq!(Array::<Nothing>::zeroed(usize::MAX).unwrap().len(), usize::MAX);
}

#[test]
fn elements_are_copied_in_bulk_and_changed_one_by_one() {
    let array = Array::<u32>::zeroed(4097).unwrap();
    let numbers: Vec<u32> = (0..4097).collect();
    array.copy_from_slice(&numbers).unwrap();
    let mut copy = vec![0; 4097];
    array.copy_to_slice(&mut copy).unwrap();
    assert_eq!(copy, numbers);
    assert_eq!(array.update(4096, |last| std::mem::replace(last, 7)).unwrap(), 4096);
    assert_eq!(array.get(4096).unwrap(), Some(7));
    let mut guard = array.lock().unwrap();
    for element in &mut guard {
        *element += 1;
    }
    assert_eq!((&guard).into_iter().take(3).sum::<u32>(), 6);
    drop(guard);

    let empty = Array::<u32>::zeroed(0).unwrap();
    empty.copy_from_slice(&[]).unwrap();
    empty.copy_to_slice(&mut []).unwrap();

    for wrong in [0, 4096, 4098] {
        let (mut long, array) = (vec![0; wrong], AssertUnwindSafe(&array));
        assert!(catch_unwind(|| array.copy_from_slice(&vec![0; wrong])).is_err());
        assert!(catch_unwind(move || array.copy_to_slice(&mut long)).is_err());
    }
    assert!(catch_unwind(AssertUnwindSafe(|| array.update(4097, |_| ()))).is_err());
    assert!(!array.is_poisoned());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        array.update(0, |_| resume_unwind(Box::new(()))).map(drop)
    }));
    assert!(panic.is_err() && array.is_poisoned());
    assert!(array.copy_from_slice(&numbers).unwrap_err().is_poisoned());
    assert!(array.copy_to_slice(&mut copy).unwrap_err().is_poisoned());
    assert!(array.update(0, |_| ()).unwrap_err().is_poisoned());
}

#[test]
fn a_panic_poisons_and_an_index_out_of_bounds_does_not() {
    let array = Array::from_slice(&[1, 2]).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| array.set(2, 0))).is_err());
    assert!(!array.is_poisoned());

    let value = Value::new([1, 1]).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        value.update(|pair| {
            pair[0] = 2;
            resume_unwind(Box::new(()))
        })
    }));
    assert!(panic.is_err());
    assert!(value.get().unwrap_err().is_poisoned());
    assert!(value.set([3, 3]).unwrap_err().is_poisoned());
    assert_eq!(*value.lock_anyway().unwrap(), [2, 1]);
    value.clear_poison();
    value.set([3, 3]).unwrap();
    assert_eq!(value.get().unwrap(), [3, 3]);
}
