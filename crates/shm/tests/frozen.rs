//! Frozen slices: what can be frozen, what is shared, and messages that lie.

use multiproc_os::memory::Memory;
use multiproc_shm::{ShmArc, ShmBox};
use multiproc_wire::{SharedFd, decode, encode, encode_move};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Nothing;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8192))]
struct TwoPages([u8; 8192]);

/// What a message says of a slice.
type Parcel = (usize, Option<(SharedFd, u64)>);

fn again<T>(slice: &ShmArc<[T]>) -> ShmArc<[T]>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    decode(encode(slice).unwrap()).unwrap()
}

#[test]
fn frozen_slices_are_read_everywhere() {
    for len in [0, 1, 511, 512, 513, 5000] {
        let numbers: Vec<u64> = (0..len).collect();
        let frozen = ShmBox::from_slice(&numbers).unwrap().freeze().unwrap();
        let copied = ShmArc::from_slice(&numbers).unwrap();
        let collected = ShmArc::try_from_iter(0..len).unwrap();
        for slice in [frozen, copied, collected] {
            assert_eq!(*slice, *numbers);
            assert_eq!(*again(&slice), *numbers);
            assert_eq!(*again(&slice).clone(), *numbers);
            assert!(slice.as_ptr().is_aligned());
            assert!(slice.into_iter().copied().eq(0..len));
        }
    }
    assert!(ShmArc::<[u8]>::default().is_empty());
    assert!(ShmBox::<[u8]>::default().freeze().unwrap().is_empty());
}

#[test]
fn slices_share_the_memory() {
    let numbers = ShmArc::try_from_iter(0..2000u64).unwrap();
    let part = numbers.slice(700..=1500);
    assert_eq!(part.as_ptr(), &raw const numbers[700]);
    drop(numbers);
    assert_eq!((part.len(), part[0], part[800]), (801, 700, 1500));
    // In another mapping, it starts amid a page.
    let part = again(&part);
    assert_eq!((part.len(), part[0], part[800]), (801, 700, 1500));
    let part = again(&part.slice(100..)).slice(..3);
    assert_eq!(*part, [800, 801, 802]);
    assert!(again(&part.slice(1..1)).is_empty());
    assert_eq!(*again(&part.slice(..)), *part);
}

#[test]
fn ranges_that_are_not_within_panic() {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let numbers = ShmArc::from_slice(&[1u8, 2, 3]).unwrap();
    assert!(numbers.slice(3..3).is_empty());
    for range in [
        (Included(0), Excluded(4)),
        (Included(0), Included(3)),
        (Included(4), Unbounded),
        (Included(2), Excluded(1)),
        (Excluded(usize::MAX), Unbounded),
        (Unbounded, Included(usize::MAX)),
    ] {
        let slice = std::panic::catch_unwind(|| numbers.slice(range));
        assert!(slice.is_err(), "{range:?}");
    }
}

#[test]
fn a_part_is_not_frozen_and_the_rejoined_whole_is() {
    let mut parts = ShmBox::from_slice(&[1u64, 2, 3, 4]).unwrap().split(2);
    let second = parts.pop().unwrap();
    let error = parts.pop().unwrap().freeze().unwrap_err();
    assert!(error.is_part() && !error.is_in_use(), "{error}");
    let first = error.into_box().unwrap();
    // One half has been elsewhere.
    let second = decode(encode_move(second).unwrap().into_message()).unwrap();
    let whole = ShmBox::join([first, second]).unwrap();
    assert_eq!(*whole.freeze().unwrap(), [1, 2, 3, 4]);
}

#[test]
fn what_others_have_mapped_is_not_frozen_and_comes_back() {
    let mut slice = ShmBox::from_slice(&[1u64; 1000]).unwrap();
    // As a hostile sender could keep it.
    type Owned = (usize, Option<(SharedFd, SharedFd, (u128, u64, u64), Vec<SharedFd>)>);
    let (_, part): Owned = decode(encode(&slice).unwrap()).unwrap();
    let memory = Memory::from_fd(part.unwrap().0).unwrap();
    let kept = memory.map(0, 10).unwrap();
    let error = slice.freeze().unwrap_err();
    assert!(error.is_in_use() && !error.is_part(), "{error}");
    slice = error.into_box().unwrap();
    assert_eq!(slice[..2], [1, 1]);
    slice[1] += 1;
    drop(kept);
    assert_eq!(slice.freeze().unwrap()[..2], [1, 2]);
    assert!(memory.map(0, 10).is_err());
}

#[test]
fn a_message_of_what_was_frozen_gives_nothing() {
    let slice = ShmBox::from_slice(&[1, 2]).unwrap();
    let message = encode(&slice).unwrap();
    let frozen = slice.freeze().unwrap();
    assert!(message.reader().read::<ShmBox<[i32]>>().is_err());
    drop(frozen);
    assert!(message.reader().read::<ShmBox<[i32]>>().is_err());
}

#[test]
fn sizes_are_awkward() {
    let sparse = ShmBox::<[u8]>::zeroed(4 << 30).unwrap().freeze().unwrap();
    assert_eq!((sparse.len(), sparse[(4 << 30) - 1]), (4 << 30, 0));
    assert_eq!(*again(&sparse.slice((4 << 30) - 1..)), [0]);
    let odd = ShmArc::from_slice(&[7u8; 4097]).unwrap();
    assert_eq!(*again(&odd).slice(4095..), [7, 7]);
    let nothing = ShmArc::from_slice(&[Nothing; 3]).unwrap();
    assert_eq!(*again(&nothing).slice(1..), [Nothing; 2]);
    assert!(ShmArc::<[TwoPages]>::from_slice(&[]).is_err());
    let overflowing: Parcel = (usize::MAX, None);
    assert!(decode::<ShmArc<[u64]>>(encode(&overflowing).unwrap()).is_err());
}

#[test]
fn messages_that_lie_are_refused() {
    let refused =
        |parcel: Parcel| decode::<ShmArc<[u64]>>(encode(&parcel).unwrap()).unwrap_err().to_string();
    let frozen = ShmArc::from_slice(&[1u64, 2]).unwrap();
    let (_, memory): Parcel = decode(encode(&frozen).unwrap()).unwrap();
    let fd = memory.unwrap().0;
    for (len, at) in [(3, 0), (2, 8), (1, 4), (0, 0), (1, 16), (1, u64::MAX - 7), (1 << 60, 0)] {
        refused((len, Some((fd.clone(), at))));
    }
    refused((1, None));
    let honest: Parcel = (1, Some((fd, 8)));
    assert_eq!(*decode::<ShmArc<[u64]>>(encode(&honest).unwrap()).unwrap(), [2]);

    let unsealed = SharedFd::from(Memory::create("test", 16).unwrap().into_fd());
    let text = refused((2, Some((unsealed, 0))));
    assert!(text.contains("not sealed"), "{text}");
    let program = std::fs::File::open("/proc/self/exe").unwrap();
    refused((2, Some((SharedFd::from(std::os::fd::OwnedFd::from(program)), 0))));
}
