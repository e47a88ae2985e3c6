//! Owned slices: split, join, and one owner whatever is done with their messages.

use multiproc_shm::ShmBox;
use multiproc_wire::{Message, SharedFd, UniqueFd, decode, encode, encode_move};

fn numbers(count: u64) -> ShmBox<[u64]> {
    let numbers: Vec<u64> = (0..count).collect();
    ShmBox::from_slice(&numbers).unwrap()
}

/// Sends and receives.
fn moved(slice: ShmBox<[u64]>) -> ShmBox<[u64]> {
    decode(encode_move(slice).unwrap().into_message()).unwrap()
}

fn read(message: &Message) -> Result<ShmBox<[u64]>, multiproc_wire::Error> {
    message.reader().read()
}

#[test]
fn chunks_are_joined_as_they_were_split() {
    for len in [0, 1, 2, 511, 512, 513, 5000] {
        for count in [1, 2, 3, 7, 600] {
            let chunks = numbers(len).split(count);
            assert_eq!(chunks.len(), count);
            let lens: Vec<usize> = chunks.iter().map(|chunk| chunk.len()).collect();
            assert!(lens.iter().max().unwrap() - lens.iter().min().unwrap() <= 1);
            let joined = ShmBox::join(chunks).unwrap();
            assert_eq!(joined.len() as u64, len);
            assert!((0..len).eq(joined.iter().copied()));
        }
    }
    let chunks = numbers(10).into_chunks(4);
    assert_eq!(chunks.iter().map(|chunk| chunk.len()).collect::<Vec<_>>(), [4, 4, 2]);
    assert!(numbers(0).into_chunks(4).is_empty());
    assert!(ShmBox::<[u64]>::join([]).unwrap().is_empty());
}

#[test]
fn chunks_that_were_elsewhere_are_joined() {
    for count in [1, 2, 7, 50] {
        let chunks: Vec<_> = numbers(5000).split(count).into_iter().map(moved).collect();
        let joined = ShmBox::join(chunks).unwrap();
        assert!((0..5000).eq(joined.iter().copied()));
        // And are split again, each with the mapping of the whole.
        let halves = moved(joined).split(2).into_iter().map(moved);
        assert!((0..5000).eq(ShmBox::join(halves).unwrap().iter().copied()));
    }
}

#[test]
fn what_is_written_elsewhere_is_seen() {
    let mut chunks = numbers(5000).split(3);
    let mut away = moved(chunks.remove(1));
    away.fill(7);
    chunks.insert(1, moved(away));
    let joined = ShmBox::join(chunks).unwrap();
    assert!(joined[..1667].iter().copied().eq(0..1667));
    assert!(joined[1667..3334].iter().all(|number| *number == 7));
    assert!(joined[3334..].iter().copied().eq(3334..5000));
}

#[test]
fn what_does_not_belong_together_comes_back() {
    let check = |parts: Vec<ShmBox<[u64]>>, why: &str| {
        let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let error = ShmBox::join(parts).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        let back = error.into_parts();
        assert_eq!(back.iter().map(|part| part.len()).collect::<Vec<_>>(), lens);
        back
    };
    let mut chunks = check(numbers(10).split(3).into_iter().rev().collect(), "order");
    chunks.reverse();
    let middle = chunks.remove(1);
    let mut chunks = check(chunks, "adjacent");
    chunks.insert(1, middle);
    assert!((0..10).eq(ShmBox::join(chunks).unwrap().iter().copied()));
    check(vec![numbers(3), numbers(3)], "different memory");
}

#[test]
fn a_message_gives_its_slice_once() {
    let message = encode_move(numbers(3)).unwrap().into_message();
    let slice = read(&message).unwrap();
    assert_eq!(*slice, [0, 1, 2]);
    for _ in 0..2 {
        assert!(read(&message).unwrap_err().to_string().contains("taken already"));
    }
    drop(slice);
    assert!(read(&message).is_err());
}

#[test]
fn a_slice_that_is_still_owned_is_not_given() {
    let mut slice = numbers(3);
    let (first, second) = (encode(&slice).unwrap(), encode(&slice).unwrap());
    assert!(read(&first).unwrap_err().to_string().contains("let go"));
    slice[0] = 9;
    drop(slice);
    // Of two messages, the first to be read gets it.
    assert_eq!(*read(&second).unwrap(), [9, 1, 2]);
    assert!(read(&first).is_err());
}

#[test]
fn what_became_something_else_is_not_given() {
    let slice = numbers(4);
    let message = encode(&slice).unwrap();
    let halves = slice.split(2);
    assert!(read(&message).is_err());
    let messages: Vec<Message> = halves.iter().map(|half| encode(half).unwrap()).collect();
    let joined = ShmBox::join(halves).unwrap();
    assert!(messages.iter().all(|message| read(message).is_err()));
    drop(joined);
    assert!(messages.iter().all(|message| read(message).is_err()));
    assert!(read(&message).is_err());
}

#[test]
fn a_slice_that_was_not_sent_comes_back() {
    let moved = encode_move((numbers(3), "label".to_owned())).unwrap();
    let (slice, label) = moved.into_value().unwrap();
    assert_eq!((&*slice, &*label), (&[0, 1, 2][..], "label"));
}

#[test]
fn what_was_moved_into_a_message_is_unmapped_with_it() {
    let slice = numbers(5000);
    let inode = Inode::of(&slice);
    let message = encode(&slice).unwrap();
    drop(message);
    assert_eq!(inode.mappings(), 1);

    let mut message = encode_move(slice).unwrap().into_message();
    assert_eq!(inode.mappings(), 1);
    let received = read(&message).unwrap();
    assert_eq!(inode.mappings(), 2);
    // Of what is received, nothing is kept.
    drop(received);
    assert_eq!(inode.mappings(), 1);
    message.let_go();
    assert_eq!(inode.mappings(), 0);

    // What was not sent is mapped anew.
    let slice = numbers(5000);
    let inode = Inode::of(&slice);
    let slice = encode_move(slice).unwrap().into_value().unwrap();
    assert_eq!(inode.mappings(), 1);
    // A part keeps what it shares with another.
    let (head, tail) = slice.split_at(100);
    let message = encode_move(head).unwrap().into_message();
    drop(tail);
    assert_eq!(inode.mappings(), 1);
    drop(message);
    assert_eq!(inode.mappings(), 0);
}

/// Tells memory in `/proc/self/maps`.
struct Inode(String);

impl Inode {
    fn of(slice: &ShmBox<[u64]>) -> Self {
        use std::os::fd::AsFd;
        use std::os::unix::fs::MetadataExt;

        let (memory, _) = descriptors(slice);
        let file = std::fs::File::from(memory.as_fd().try_clone_to_owned().unwrap());
        Inode(file.metadata().unwrap().ino().to_string())
    }

    fn mappings(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_of_it = |line: &&str| line.split_whitespace().nth(4) == Some(&self.0);
        maps.lines().filter(is_of_it).count()
    }
}

#[test]
fn a_message_of_another_type_or_place_is_refused() {
    let message = encode_move(numbers(3)).unwrap().into_message();
    assert!(message.reader().read::<ShmBox<[u32]>>().is_err());
    // It was not taken by that.
    assert_eq!(*read(&message).unwrap(), [0, 1, 2]);

    // What a message says of a place is not believed.
    for place in [(0, 1 << 40), (1 << 40, 1 << 41), (24, 0), (0, 0), (u64::MAX - 8, u64::MAX)] {
        let slice = numbers(3);
        let (memory, ticket) = descriptors(&slice);
        drop(slice);
        let forged =
            (3usize, Some((memory, ticket, (0u128, place.0, place.1), Vec::<SharedFd>::new())));
        assert!(read(&encode(&forged).unwrap()).is_err(), "{place:?}");
    }
}

fn descriptors(slice: &ShmBox<[u64]>) -> (SharedFd, UniqueFd) {
    type Parcel = (usize, Option<(SharedFd, UniqueFd, (u128, u64, u64), Vec<SharedFd>)>);
    let (_, part): Parcel = decode(encode(slice).unwrap()).unwrap();
    let (memory, ticket, ..) = part.unwrap();
    (memory, ticket)
}

#[test]
fn lengths_are_awkward() {
    let odd = |len: usize| {
        let mut bytes = ShmBox::<[u8]>::zeroed(len).unwrap();
        bytes.fill(7);
        let message = encode_move(bytes).unwrap().into_message();
        let bytes: ShmBox<[u8]> = decode(message).unwrap();
        assert!(bytes.len() == len && bytes.iter().all(|byte| *byte == 7));
    };
    [0, 1, 4095, 4096, 4097].into_iter().for_each(odd);

    // Four gigabytes, of which three pages are there.
    const LEN: usize = 1 << 29;
    let mut sparse = ShmBox::<[u64]>::zeroed(LEN).unwrap();
    (sparse[0], sparse[LEN / 2], sparse[LEN - 1]) = (1, 2, 3);
    let halves: Vec<_> = sparse.split(2).into_iter().map(moved).collect();
    assert_eq!((halves[0][0], halves[1][0], halves[1][LEN / 2 - 1]), (1, 2, 3));
    assert_eq!(ShmBox::join(halves).unwrap()[LEN / 2], 2);

    for len in [usize::MAX, usize::MAX / 8, usize::MAX / 8 + 1, isize::MAX as usize / 8 + 1] {
        assert!(ShmBox::<[u64]>::zeroed(len).unwrap_err().is_too_long(), "{len}");
    }
    // No address space is that large.
    assert!(ShmBox::<[u64]>::zeroed(isize::MAX as usize / 8).is_err());
}

#[test]
fn nothing_is_left_open() {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let use_all = || {
        let chunks: Vec<_> = numbers(5000).split(50).into_iter().map(moved).collect();
        let joined = ShmBox::join(chunks).unwrap();
        drop(encode_move(joined).unwrap());
    };
    use_all();
    // Other tests of this binary open and close as well.
    let least = (0..50)
        .map(|_| {
            use_all();
            count()
        })
        .min()
        .unwrap();
    assert!(least < 40, "{least} descriptors");
}
