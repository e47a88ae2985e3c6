//! Shareable lists: the bytes that Python writes, Python's rules, and memory that lies.

use std::thread;

use multiproc_shm::{Item, ShareableList, SharedMemory};
use multiproc_wire::{decode, encode};

/// What CPython 3.11 writes for the items of `items()`.
const PYTHON: &str = "\
    0b00000000000000000000000000000008000000000000001000000000000000180000000000000020000000\
    0000000028000000000000003000000000000000380000000000000040000000000000004800000000000000\
    58000000000000006000000000000000010000000000000000000000000004c0000000000000000100000000\
    000000000000000000000000686f776479000000000000000000000062797465730000000000000000000000\
    7878787878787878000000000000000031323334353637007100000000000000640000000000000078787878\
    7878783f787878787878783f7878787878783f78387300000000000038730000000000003873000000000000\
    3873000000000000313673000000000038730000000000000000000003010102020102";

fn items() -> Vec<Item> {
    vec![
        1.into(),
        (-2.5).into(),
        true.into(),
        false.into(),
        Item::None,
        "howdy".into(),
        "".into(),
        b"bytes".into(),
        b"".into(),
        "xxxxxxxx".into(),
        b"1234567".into(),
    ]
}

fn python() -> Vec<u8> {
    let digits = PYTHON.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn bytes(list: &ShareableList) -> Vec<u8> {
    let mut bytes = vec![0; list.memory().len()];
    list.memory().read(0, &mut bytes).unwrap();
    bytes
}

fn list_of(bytes: &[u8]) -> Result<ShareableList, multiproc_shm::Error> {
    let memory = SharedMemory::new(bytes.len()).unwrap();
    memory.write(0, bytes).unwrap();
    ShareableList::from_memory(memory)
}

#[test]
fn the_bytes_are_those_of_python() {
    let list = ShareableList::new(items()).unwrap();
    assert_eq!(bytes(&list), python());
    assert_eq!(list_of(&python()).unwrap().to_vec().unwrap(), items());
    assert_eq!(bytes(&ShareableList::new([]).unwrap()), [0; 16]);
}

/// As CPython 3.11 changes `["abc", 5, 2.5]`.
#[test]
fn items_change_as_in_python() {
    let list = ShareableList::new(["abc".into(), 5.into(), 2.5.into()]).unwrap();
    let format = |index: usize| {
        let mut format = [0; 8];
        list.memory().read(5 * 8 + 3 * 8 + index * 8, &mut format).unwrap();
        String::from_utf8(format.to_vec()).unwrap().trim_end_matches('\0').to_owned()
    };
    list.set(0, 5).unwrap();
    assert_eq!((&*format(0), list.get(0).unwrap()), ("q", Some(5.into())));
    list.set(0, "abcdefgh").unwrap();
    assert_eq!((&*format(0), list.get(0).unwrap()), ("8s", Some("abcdefgh".into())));
    list.set(1, "xyz").unwrap();
    assert_eq!((&*format(1), list.get(1).unwrap()), ("8s", Some("xyz".into())));
    list.set(1, Item::None).unwrap();
    assert_eq!((&*format(1), list.get(1).unwrap()), ("xxxxxx?x", Some(Item::None)));
    list.set(2, b"ab\0\0").unwrap();
    assert_eq!((&*format(2), list.get(2).unwrap()), ("8s", Some(b"ab".into())));
    list.set(2, true).unwrap();
    assert_eq!((&*format(2), list.get(2).unwrap()), ("xxxxxxx?", Some(true.into())));
    list.set(2, i64::MIN).unwrap();
    assert_eq!(list.get(2).unwrap(), Some(Item::Int(i64::MIN)));
    assert_eq!((list.count("abcdefgh").unwrap(), list.index(Item::None).unwrap()), (1, Some(1)));
    assert_eq!((list.count("x").unwrap(), list.index(i64::MAX).unwrap()), (0, None));
}

#[test]
fn what_is_too_long_or_not_there_changes_nothing() {
    let list = ShareableList::new(items()).unwrap();
    for (index, text) in [(0, "123456789"), (5, "123456789"), (9, "12345678901234567")] {
        assert!(list.set(index, text).unwrap_err().is_too_long());
        assert!(list.set(index, text.as_bytes()).unwrap_err().is_too_long());
    }
    for index in [11, usize::MAX] {
        assert!(list.set(index, 1).unwrap_err().is_out_of_bounds());
        assert_eq!(list.get(index).unwrap(), None);
    }
    assert_eq!(bytes(&list), python());
    // The umlauts count as bytes, not as letters.
    let list = ShareableList::new(["äöüß".into(), "äöüß€".into()]).unwrap();
    assert_eq!(list.to_vec().unwrap(), ["äöüß".into(), "äöüß€".into()]);
    assert!(list.set(0, "äöüß€ äöüß€").unwrap_err().is_too_long());
}

#[test]
fn sizes_are_awkward() {
    let longest = "x".repeat(9_999_991);
    let list = ShareableList::new([Item::Str(longest.clone()), 1.into()]).unwrap();
    assert_eq!(list.get(0).unwrap(), Some(Item::Str(longest.clone())));
    assert_eq!(list.get(1).unwrap(), Some(1.into()));
    let error = ShareableList::new([1.into(), Item::Str(longest + "x")]).unwrap_err();
    assert!(error.is_too_long() && error.to_string().contains("item 1"), "{error}");

    let many = ShareableList::new((0..100_000).map(Item::from)).unwrap();
    assert_eq!((many.len(), many.index(99_999).unwrap()), (100_000, Some(99_999)));
    // One page and a byte of text.
    let page = ShareableList::new([Item::Bytes(vec![7; 4097])]).unwrap();
    assert_eq!(page.get(0).unwrap(), Some(Item::Bytes(vec![7; 4097])));

    // A length that overflows, and one of four gigabytes that is not there.
    for len in [u64::MAX, u64::MAX / 8, 1 << 61, i64::MAX as u64, 1 << 29, 4] {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&len.to_ne_bytes());
        assert!(list_of(&bytes).unwrap_err().is_foreign(), "{len}");
    }
    assert!(ShareableList::from_memory(SharedMemory::new(4 << 30).unwrap()).is_err());
}

#[test]
fn what_is_half_written_is_an_error() {
    let whole = python();
    for written in 0..whole.len() - 1 {
        let mut half = vec![0; whole.len()];
        half[..written].copy_from_slice(&whole[..written]);
        let read = list_of(&half).and_then(|list| list.to_vec());
        match read {
            Err(error) => assert!(error.is_foreign(), "{error}"),
            // The rest is zeros.
            Ok(read) => assert_eq!((&half, read), (&whole, items()), "{written}"),
        }
        assert!(list_of(&whole[..written + 1]).is_err() || written == 0, "{written}");
    }
}

#[test]
fn any_bytes_are_items_or_an_error() {
    let whole = python();
    for at in 0..whole.len() {
        for byte in [0, 1, 7, 8, 0x30, 0x39, 0x73, 0x7f, 0x80, 0xf8, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let Ok(list) = list_of(&bytes) else { continue };
            for index in 0..=list.len() {
                let _read = list.get(index);
                for item in items() {
                    let _set = list.set(index, item);
                }
            }
            assert!(list.to_vec().is_ok(), "{byte} at {at}");
        }
    }
}

#[test]
fn a_name_or_a_message_leads_to_the_same_list() {
    let list = ShareableList::create_unique(items()).unwrap();
    let name = list.memory().name().unwrap();
    let same = ShareableList::open(name).unwrap();
    same.set(0, 9).unwrap();
    assert!(ShareableList::create(name, []).unwrap_err().is_already_exists());
    let again: ShareableList = decode(encode(&list.clone()).unwrap()).unwrap();
    assert_eq!(again.get(0).unwrap(), Some(9.into()));
    list.memory().unlink().unwrap();
    assert!(ShareableList::open(name).unwrap_err().is_not_found());

    let memory = SharedMemory::create_unique(16).unwrap();
    memory.write(0, &[1]).unwrap();
    assert!(ShareableList::open(memory.name().unwrap()).unwrap_err().is_foreign());
    assert!(decode::<ShareableList>(encode(&memory).unwrap()).is_err());
    memory.unlink().unwrap();
}

#[test]
fn racing_readers_see_whole_words() {
    let list = ShareableList::new([Item::Int(0), "".into()]).unwrap();
    let values = [Item::Int(-1), Item::Float(1.5), "12345678".into(), b"abcdefgh".into()];
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..3000 {
                list.set(0, if round % 2 == 0 { -1 } else { 0 }).unwrap();
                list.set(1, values[round % 4].clone()).unwrap();
            }
        });
        while !writer.is_finished() {
            let number = list.get(0).unwrap().unwrap();
            assert!([Item::Int(0), Item::Int(-1)].contains(&number), "{number:?}");
            // It may be changed all the time.
            let _other = list.get(1);
        }
    });
    assert_eq!(list.get(1).unwrap(), Some(values[3].clone()));
}
