//! Shared memory by name and by message: its bounds, its names, and races for them.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use multiproc_os::memory::{Memory, named};
use multiproc_shm::SharedMemory;
use multiproc_wire::{SharedFd, decode, encode};

fn name(what: &str) -> String {
    format!("multiproc-test-{what}-{}", std::process::id())
}

fn bytes(memory: &SharedMemory, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_name_leads_to_the_same_memory_until_it_is_unlinked() {
    let name = name("same");
    let memory = SharedMemory::create(&name, 4097).unwrap();
    assert_eq!((memory.len(), memory.name()), (4097, Some(&*name)));
    assert_eq!(bytes(&memory, 0, 4097), [0; 4097]);
    let same = SharedMemory::open(&name).unwrap();
    same.write(4090, b"the end").unwrap();
    assert_eq!(bytes(&memory, 4090, 7), b"the end");
    let file = fs::metadata(format!("/dev/shm/{name}")).unwrap();
    assert_eq!((file.len(), file.permissions().mode() & 0o777), (4097, 0o600));

    assert!(SharedMemory::create(&name, 1).unwrap_err().is_already_exists());
    let error = SharedMemory::open_or_create(&name, 1).unwrap_err();
    assert!(error.to_string().contains("4097 bytes where 1 were"), "{error}");
    same.unlink().unwrap();
    assert!(memory.unlink().unwrap_err().is_not_found());
    assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
    assert_eq!(bytes(&memory, 4090, 7), b"the end");

    // What was emptied by others is unlinked too.
    let emptied = SharedMemory::create(&name, 1).unwrap();
    File::from(emptied.as_fd().try_clone_to_owned().unwrap()).set_len(0).unwrap();
    emptied.unlink().unwrap();

    // A name that others use by now is left to them.
    let second = SharedMemory::open_or_create(&name, 1).unwrap();
    assert!(memory.unlink().unwrap_err().is_not_found());
    second.unlink().unwrap();
    assert!(SharedMemory::unlink_name(&name).unwrap_err().is_not_found());
}

#[test]
fn what_is_not_within_is_refused() {
    let memory = SharedMemory::new(10).unwrap();
    for (offset, len) in [(0, 11), (10, 1), (11, 0), (usize::MAX, 1), (usize::MAX, 0)] {
        let error = memory.write(offset, &vec![1; len]).unwrap_err();
        assert!(error.is_out_of_bounds(), "{error}");
        assert!(memory.read(offset, &mut vec![1; len]).unwrap_err().is_out_of_bounds());
    }
    assert_eq!(bytes(&memory, 0, 10), [0; 10]);
    assert_eq!(bytes(&memory, 10, 0), []);
}

#[test]
fn lengths_are_awkward() {
    let name = name("length");
    assert!(SharedMemory::new(0).unwrap_err().to_string().contains("no bytes"));
    assert!(SharedMemory::create(&name, 0).unwrap_err().to_string().contains("no bytes"));
    for len in [usize::MAX, isize::MAX as usize + 1] {
        assert!(SharedMemory::new(len).unwrap_err().is_too_long());
        assert!(SharedMemory::create(&name, len).unwrap_err().is_too_long());
    }
    // More than there is, which is found out before it is all used up.
    let error = SharedMemory::create(&name, isize::MAX as usize).unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::StorageFull);
    assert!(SharedMemory::new(isize::MAX as usize).is_err());
    assert!(SharedMemory::open(&name).unwrap_err().is_not_found());

    let sparse = SharedMemory::new(4 << 30).unwrap();
    sparse.write((4 << 30) - 3, b"end").unwrap();
    assert_eq!(bytes(&sparse, (4 << 30) - 4, 4), b"\0end");
    assert!(sparse.write((4 << 30) - 3, b"ends").is_err());
}

#[test]
fn names_that_can_be_none_are_refused() {
    for bad in ["", ".", "..", "a/b", "/a", "a\0b", &"x".repeat(256)] {
        for result in [SharedMemory::create(bad, 1), SharedMemory::open(bad)] {
            assert!(result.unwrap_err().to_string().contains("is no name"), "{bad:?}");
        }
    }
    let long = format!("{}{}", name("long-"), "x".repeat(255));
    SharedMemory::create(&long[..255], 1).unwrap().unlink().unwrap();
}

#[test]
fn one_of_many_creators_wins_and_nobody_sees_it_half_made() {
    const LEN: usize = 100_000;
    let name = name("race");
    for _ in 0..20 {
        let created = thread::scope(|scope| {
            let opener = scope.spawn(|| {
                loop {
                    match SharedMemory::open(&name) {
                        Ok(memory) => break memory.len(),
                        Err(error) => assert!(error.is_not_found(), "{error}"),
                    }
                }
            });
            let creators: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| SharedMemory::create(&name, LEN)))
                .map(|creator| creator.join().unwrap())
                .collect();
            let others = creators.iter().filter_map(|result| result.as_ref().err());
            others.for_each(|error| assert!(error.is_already_exists(), "{error}"));
            assert_eq!(opener.join().unwrap(), LEN);
            creators.iter().filter(|result| result.is_ok()).count()
        });
        assert_eq!(created, 1);
        let memories: Vec<SharedMemory> = thread::scope(|scope| {
            SharedMemory::unlink_name(&name).unwrap();
            let openers: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| SharedMemory::open_or_create(&name, LEN).unwrap()))
                .collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        memories[0].write(7, b"x").unwrap();
        assert!(memories.iter().all(|memory| bytes(memory, 7, 1) == b"x"));
        memories[0].unlink().unwrap();
    }
}

#[test]
fn generated_names_differ() {
    let (one, two) = (SharedMemory::create_unique(1), SharedMemory::create_unique(1));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.name().unwrap(), two.name().unwrap());
    one.unlink().unwrap();
    assert_eq!(SharedMemory::open(two.name().unwrap()).unwrap().len(), 1);
    two.unlink().unwrap();
}

#[test]
fn memory_without_a_size_is_an_error() {
    let name = name("sizeless");
    File::create(format!("/dev/shm/{name}")).unwrap();
    let error = SharedMemory::open(&name).unwrap_err();
    assert!(error.to_string().contains("has no size"), "{error}");
    assert!(SharedMemory::open_or_create(&name, 1).is_err());
    SharedMemory::unlink_name(&name).unwrap();
    SharedMemory::open_or_create(&name, 1).unwrap().unlink().unwrap();
}

#[test]
fn memory_from_a_message_is_the_same() {
    for memory in [SharedMemory::new(10).unwrap(), SharedMemory::create_unique(10).unwrap()] {
        let message = encode(&memory).unwrap();
        if memory.name().is_some() {
            memory.unlink().unwrap();
        }
        let same: SharedMemory = decode(message).unwrap();
        same.write(3, b"x").unwrap();
        assert_eq!(bytes(&memory.clone(), 3, 1), b"x");
        assert_eq!((same.len(), same.name()), (10, memory.name()));
    }
}

#[test]
fn messages_that_lie_are_refused() {
    let refused = |fd: OwnedFd, name: Option<&str>| {
        let message = encode(&(SharedFd::from(fd), name)).unwrap();
        decode::<SharedMemory>(message).unwrap_err().to_string()
    };
    let (pipe, _writer) = std::io::pipe().unwrap();
    refused(pipe.into(), Some("pipe"));
    refused(File::open("/proc/self/exe").unwrap().into(), Some("program"));
    refused(File::open("/dev/shm").unwrap().into(), Some("directory"));
    refused(Memory::create("empty", 0).unwrap().into_fd(), None);
    refused(Memory::create("empty", 0).unwrap().into_fd(), Some("empty"));
    // Without a name, it must be sealed.
    let unsealed = named::Named::create(10).unwrap().into_fd();
    assert!(refused(unsealed, None).contains("not sealed"));

    // A name is taken away from no other memory.
    let (mine, theirs) = (SharedMemory::new(10).unwrap(), SharedMemory::create_unique(10).unwrap());
    let fd = SharedFd::from(mine.as_fd().try_clone_to_owned().unwrap());
    for (claimed, not_found) in [(theirs.name().unwrap(), true), ("../x", false)] {
        let liar: SharedMemory = decode(encode(&(fd.clone(), Some(claimed))).unwrap()).unwrap();
        assert_eq!(liar.unlink().unwrap_err().is_not_found(), not_found);
    }
    theirs.unlink().unwrap();
    assert!(mine.unlink().unwrap_err().to_string().contains("no name"));
}

#[test]
fn nothing_is_left_open_or_named() {
    let count = |path: &str| fs::read_dir(path).unwrap().count();
    // Other tests of this binary open and close as well.
    let least = (0..50)
        .map(|_| {
            let memory = SharedMemory::create_unique(1 << 20).unwrap();
            SharedMemory::open(memory.name().unwrap()).unwrap().unlink().unwrap();
            SharedMemory::create("a/b", 1).unwrap_err();
            drop(memory);
            count("/proc/self/fd")
        })
        .min()
        .unwrap();
    assert!(least < 60, "{least} descriptors");
}
