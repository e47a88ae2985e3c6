//! Proves that a packet which no honest sender sends is an error: no panic, no hang, no large
//! allocation, and every descriptor that came with it closed.

mod common;

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use common::{alone, count_open};
use multiproc_os::deadline::Deadline;
use multiproc_os::socket::{self, Wait};
use multiproc_wire::{Endpoint, Error, SharedFd, encode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags,
    SocketType, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const MARK: u8 = 0x6d;
const IN_MEMORY: u8 = 1;
const BY_COURIER: u8 = 2;
const IN_STREAM: u8 = 4;

/// The header of the crate's README.
fn header(flags: u8, fds: u32, len: u64) -> Vec<u8> {
    let mut bytes = vec![MARK, flags, 0, 0];
    bytes.extend_from_slice(&fds.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes
}

fn packet(flags: u8, fds: u32, len: u64, body: &[u8]) -> Vec<u8> {
    [&header(flags, fds, len)[..], body].concat()
}

/// Sends bytes and descriptors as they are.
fn send_raw(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Has the packet received as a `T`, and checks that what came is closed and the next is received.
fn receive<T: DeserializeOwned>(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<T, Error> {
    let (here, there) = Endpoint::pair().unwrap();
    let open = count_open();
    send_raw(&here, bytes, fds);
    let result = there.recv::<T>(Deadline::now()).map(Option::unwrap);
    if result.is_err() {
        assert_eq!(count_open(), open, "a descriptor was kept");
    }
    send_raw(&here, &packet(0, 0, 1, &[7]), &[]);
    assert_eq!(there.recv::<u8>(Deadline::now()).unwrap(), Some(7));
    result
}

/// Checks that the packet is refused for what it is.
fn refused<T: DeserializeOwned>(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> String {
    match receive::<T>(bytes, fds) {
        Ok(_) => panic!("{bytes:?} was taken"),
        Err(error) => {
            assert!(error.is_decode(), "{error}");
            error.to_string()
        }
    }
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn memory(content: &[u8], len: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("hostile", flags).unwrap());
    file.write_all(content).unwrap();
    ftruncate(&file, len).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

/// One end of a socket pair in which these descriptors wait, and the other end.
fn courier(batches: &[&[BorrowedFd<'_>]]) -> (OwnedFd, OwnedFd) {
    let (load, unload) = socket::pair().unwrap();
    for batch in batches {
        send_raw(&load, &[MARK], batch);
    }
    (unload, load)
}

fn u64s(packet: &[u8]) -> String {
    refused::<Vec<u64>>(packet, &[])
}

#[test]
fn headers_that_are_wrong() {
    let _alone = alone();
    let good = packet(0, 0, 2, &[1, 5]);
    assert_eq!(receive::<Vec<u64>>(&good, &[]).unwrap(), [5]);
    for len in 1..16 {
        assert!(u64s(&good[..len]).contains("not of this format"));
    }
    for (index, values) in [(0, 0..=255u8), (1, 8..=255), (2, 1..=255), (3, 1..=255)] {
        for value in values.filter(|value| *value != good[index]) {
            let mut bad = good.clone();
            bad[index] = value;
            assert!(u64s(&bad).contains("not of this format"), "{bad:?}");
        }
    }
    let text = u64s(&vec![0xff; 64 << 10]);
    assert!(text.contains("not of this format"), "{text}");
    let text = u64s(&packet(0, 0, 150_000, &vec![0; 150_000]));
    assert!(text.contains("longer than any packet"), "{text}");
}

#[test]
fn an_empty_packet_reads_as_the_end_and_keeps_nothing() {
    let _alone = alone();
    let null = null();
    let (here, there) = Endpoint::pair().unwrap();
    let open = count_open();
    send_raw(&here, &[], &[null.as_fd()]);
    assert!(there.recv::<u8>(Deadline::now()).unwrap_err().is_closed());
    assert_eq!(count_open(), open);
}

#[test]
fn lengths_that_lie() {
    let _alone = alone();
    for len in [0, 1, 3, 1 << 20, u64::from(u32::MAX), u64::MAX] {
        let text = u64s(&packet(0, 0, len, &[1, 5]));
        assert!(text.contains("shorter or longer than its header says"), "{text}");
    }
    // A body that claims a vector of 2^60 numbers.
    let mut body = vec![0xff; 8];
    body.push(0x0f);
    let text = u64s(&packet(0, 0, 9, &body));
    assert!(text.contains("cannot read the message as"), "{text}");
    let text = refused::<String>(&packet(0, 0, 9, &body), &[]);
    assert!(text.contains("cannot read the message as"), "{text}");
    let text = u64s(&packet(0, 0, 3, &[1, 5, 6]));
    assert!(text.contains("bytes are left over"), "{text}");
}

#[test]
fn descriptors_that_are_missing_or_too_many() {
    let _alone = alone();
    let null = null();
    let fds = [null.as_fd(), null.as_fd(), null.as_fd()];
    for (claimed, attached) in [(1, 0), (0, 1), (2, 1), (2, 3), (u32::MAX, 2), (253, 3)] {
        let bytes = packet(0, claimed, 1, &[0]);
        let text = refused::<SharedFd>(&bytes, &fds[..attached]);
        assert!(text.contains("more or fewer descriptors than its header says"), "{text}");
    }
    // The value names one that is not there, or one twice, or not all.
    let text = refused::<SharedFd>(&packet(0, 1, 1, &[1]), &fds[..1]);
    assert!(text.contains("no descriptor 1"), "{text}");
    let text = refused::<[SharedFd; 2]>(&packet(0, 1, 2, &[0, 0]), &fds[..1]);
    assert!(text.contains("no descriptor 0 (or names it twice)"), "{text}");
    let text = refused::<SharedFd>(&packet(0, 3, 1, &[0]), &fds);
    assert!(text.contains("descriptors are left over"), "{text}");
    let text = refused::<u8>(&packet(0, 3, 1, &[0]), &fds);
    assert!(text.contains("descriptors are left over"), "{text}");
    // An endpoint that is none is found out at once.
    let (stream, _other) = UnixStream::pair().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    let (end, _other) = socket::pair().unwrap();
    let _good: Endpoint = receive(&packet(0, 1, 2, &[0, 0]), &[end.as_fd()]).unwrap();
    for none in [fds[0], stream.as_fd(), tcp.as_fd(), connected.as_fd()] {
        let text = refused::<Endpoint>(&packet(0, 1, 2, &[0, 0]), &[none]);
        assert!(text.contains("no socket for packets"), "{text}");
    }
    // Memory that is none, or too short, is found out at once.
    let (pipe, _writer) = std::io::pipe().unwrap();
    let text = refused::<Endpoint>(&packet(0, 2, 4, &[0, 1, 1, 0]), &[fds[0], pipe.as_fd()]);
    assert!(text.contains("not shared memory"), "{text}");
    let short = memory(&[0; 100], 100, SealFlags::SHRINK);
    let text = refused::<Endpoint>(&packet(0, 2, 4, &[0, 1, 1, 0]), &[fds[0], short.as_fd()]);
    assert!(text.contains("not within the shared memory"), "{text}");
}

#[test]
fn memory_that_is_none_or_could_change() {
    let _alone = alone();
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let good = memory(&[1, 5], 2, all);
    let fd = good.as_fd();
    let bytes = packet(IN_MEMORY, 0, 2, &[]);
    assert_eq!(receive::<Vec<u64>>(&bytes, &[fd]).unwrap(), [5]);

    let read = refused::<Vec<u64>>;
    read(&bytes, &[]);
    read(&packet(IN_MEMORY, 0, 2, &[1, 5]), &[fd]);
    read(&packet(IN_MEMORY, 0, 1, &[]), &[fd]);
    read(&packet(IN_MEMORY, 0, 3, &[]), &[fd]);
    read(&packet(IN_MEMORY, 0, u64::MAX, &[]), &[fd]);
    read(&packet(IN_MEMORY, 1, 2, &[]), &[fd]);
    read(&bytes, &[fd, fd]);
    for missing in [SealFlags::WRITE, SealFlags::SHRINK, SealFlags::GROW] {
        let unsealed = memory(&[1, 5], 2, all.difference(missing));
        let text = read(&bytes, &[unsealed.as_fd()]);
        assert!(text.contains("not sealed"), "{text}");
    }
    let unsealed = memory(&[1, 5], 2, SealFlags::empty());
    read(&bytes, &[unsealed.as_fd()]);

    let sparse = memory(&[], 1 << 45, all);
    let before = resident();
    let text = refused::<Vec<u8>>(&packet(IN_MEMORY, 0, 1 << 45, &[]), &[sparse.as_fd()]);
    assert!(text.contains("stand behind"), "{text}");
    assert!(resident() < before + (64 << 20));

    let (pipe, _writer) = io::pipe().unwrap();
    read(&bytes, &[pipe.as_fd()]);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[1, 5]).unwrap();
    read(&bytes, &[file.as_fd()]);
    read(&bytes, &[null().as_fd()]);
    let (socket, _other) = socket::pair().unwrap();
    read(&bytes, &[socket.as_fd()]);
    let directory = File::open("/proc/self").unwrap();
    read(&bytes, &[directory.as_fd()]);
    // Memory in huge pages, where the machine has some.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    if let Ok(huge) = memfd_create("huge", flags) {
        read(&bytes, &[huge.as_fd()]);
    }
}

#[test]
fn vectors_of_bytes_that_lie() {
    let _alone = alone();
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let null = null();
    let each_way = |fds: u32, body: &[u8]| {
        let len = body.len() as u64;
        let memory = memory(body, len, all);
        let empty = self::memory(&[], 0, SealFlags::empty());
        let far = stream(body).1;
        let handles = vec![null.as_fd(); fds as usize];
        let with = |own: &[BorrowedFd<'_>], packet: &[u8]| {
            receive::<Vec<u8>>(packet, &[own, &handles[..]].concat())
        };
        [
            with(&[], &packet(0, fds, len, body)),
            with(&[memory.as_fd()], &packet(IN_MEMORY, fds, len, &[])),
            with(&[empty.as_fd(), far.as_fd()], &packet(IN_STREAM, fds, len, &[])),
        ]
    };
    for read in each_way(0, &[2, 5, 6]) {
        assert_eq!(read.unwrap(), [5, 6]);
    }
    let most = [&[0xff; 9][..], &[1, 5]].concat();
    let cases: [(u32, &[u8], &str); 6] = [
        (0, &[], "cannot read the message as"),
        (0, &[3, 5, 6], "cannot read the message as"),
        (0, &[0x80, 0x80], "cannot read the message as"),
        (0, &most, "cannot read the message as"),
        (0, &[1, 5, 6], "bytes are left over"),
        (1, &[2, 5, 6], "descriptors are left over"),
    ];
    for (fds, body, text) in cases {
        for read in each_way(fds, body) {
            let error = read.unwrap_err();
            assert!(error.is_decode() && error.to_string().contains(text), "{body:?}: {error}");
        }
    }
}

/// The ends of a socket for a body, of which so much was sent.
fn stream(bytes: &[u8]) -> (OwnedFd, OwnedFd) {
    let (near, far) = socket::pair().unwrap();
    if !bytes.is_empty() {
        socket::send_bytes(&near, bytes, Wait::Block).unwrap();
    }
    (near, far)
}

#[test]
fn streams_that_are_none_or_stop() {
    let _alone = alone();
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let (empty, rest) = (memory(&[], 0, SealFlags::empty()), memory(&[5], 1, all));
    let bytes = packet(IN_STREAM, 0, 2, &[]);
    let (near, far) = stream(&[1, 5]);
    let open_end = receive::<Vec<u64>>(&bytes, &[empty.as_fd(), far.as_fd()]);
    assert_eq!(open_end.unwrap(), [5]);
    drop(near);
    let ended = |bytes: &[u8]| stream(bytes).1;
    let good = receive::<Vec<u64>>(&bytes, &[empty.as_fd(), ended(&[1, 5]).as_fd()]);
    assert_eq!(good.unwrap(), [5]);
    let good = receive::<Vec<u64>>(&bytes, &[rest.as_fd(), ended(&[1]).as_fd()]);
    assert_eq!(good.unwrap(), [5]);

    let read = refused::<Vec<u64>>;
    read(&bytes, &[]);
    read(&bytes, &[empty.as_fd()]);
    read(&packet(IN_STREAM, 0, 2, &[1, 5]), &[empty.as_fd(), ended(&[1, 5]).as_fd()]);
    read(&packet(IN_STREAM, 1, 2, &[]), &[empty.as_fd(), ended(&[1, 5]).as_fd()]);
    read(&packet(IN_STREAM | 1, 0, 2, &[]), &[rest.as_fd(), ended(&[1, 5]).as_fd()]);
    for (memory, bytes_sent) in [(&empty, &[1][..]), (&empty, &[]), (&rest, &[])] {
        let text = read(&bytes, &[memory.as_fd(), ended(bytes_sent).as_fd()]);
        assert!(text.contains("before all of it was sent"), "{text}");
    }
    let unsealed = memory(&[5], 1, SealFlags::empty());
    read(&bytes, &[unsealed.as_fd(), ended(&[1]).as_fd()]);
    let (pipe, _writer) = io::pipe().unwrap();
    // This one is always ready, and has never anything: nobody may wait for it.
    let (idle, _other) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::shutdown(&idle, Shutdown::Both).unwrap();
    let (bytewise, _other) = UnixStream::pair().unwrap();
    for none in [null().as_fd(), pipe.as_fd(), rest.as_fd(), idle.as_fd(), bytewise.as_fd()] {
        let text = read(&bytes, &[rest.as_fd(), none]);
        assert!(text.contains("no socket"), "{text}");
    }
    let before = resident();
    for len in [1 << 45, u64::MAX] {
        let (_near, far) = stream(&[7; 1000]);
        read(&packet(IN_STREAM, 0, len, &[]), &[empty.as_fd(), far.as_fd()]);
    }
    assert!(resident() < before + (64 << 20));
    // Packets that are longer than the body, or have no bytes, and come with descriptors.
    let packets = |packets: &[&[u8]]| {
        let (near, far) = socket::pair().unwrap();
        for packet in packets {
            let parts = [IoSlice::new(packet)];
            socket::send(&near, &parts, &[rest.as_fd()], Wait::Block).unwrap();
        }
        far
    };
    let ended = packets(&[&[1], &[5]]);
    assert_eq!(receive::<Vec<u64>>(&bytes, &[empty.as_fd(), ended.as_fd()]).unwrap(), [5]);
    let ended = packets(&[&[1, 5, 7, 7, 7], &[7; 9]]);
    assert_eq!(receive::<Vec<u64>>(&bytes, &[empty.as_fd(), ended.as_fd()]).unwrap(), [5]);
    read(&bytes, &[empty.as_fd(), packets(&[&[1], &[], &[], &[5]]).as_fd()]);
    let (_near, far) = stream(&[1]);
    let text = read(&bytes, &[empty.as_fd(), far.as_fd()]);
    assert!(text.contains("stopped half-way"), "{text}");
}

/// How many bytes of memory this process has taken.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_descriptor_that_nobody_asked_for_is_closed() {
    let _alone = alone();
    let null = null();
    let open = count_open();
    for count in [0, 1, 200, 253, 300] {
        let (here, there) = Endpoint::pair().unwrap();
        if !tell_of_senders(there.as_fd()) {
            println!("skipped: this kernel has no SO_PASSPIDFD");
            return;
        }
        let handles: Vec<SharedFd> = (0..count).map(|_| null.try_clone().unwrap().into()).collect();
        here.send(&encode(&handles).unwrap(), Deadline::NEVER).unwrap();
        let received: Vec<SharedFd> = there.recv(Deadline::NEVER).unwrap().unwrap();
        assert_eq!(received.len(), count);
        drop((handles, received, here, there));
        assert_eq!(count_open(), open, "{count}");
    }
    // Whoever sends a courier may have had that done.
    let (load, unload) = socket::pair().unwrap();
    assert!(tell_of_senders(unload.as_fd()));
    send_raw(&load, &[MARK], &[null.as_fd(); 2]);
    let bytes = packet(BY_COURIER, 2, 2, &[0, 1]);
    let both: [SharedFd; 2] = receive(&bytes, &[unload.as_fd()]).unwrap();
    drop((both, load, unload));
    assert_eq!(count_open(), open);
}

/// Has each packet tell of its sender, with a descriptor of that and more.
#[allow(unsafe_code)] // setsockopt(2).
fn tell_of_senders(receiver: BorrowedFd<'_>) -> bool {
    const SO_PASSPIDFD: i32 = 76;
    [libc::SO_PASSCRED, SO_PASSPIDFD].into_iter().all(|option| {
        let one = 1i32;
        let len = size_of::<i32>() as libc::socklen_t;
        let (receiver, one) = (receiver.as_raw_fd(), (&raw const one).cast());
        // SAFETY: it reads the integer.
        unsafe { libc::setsockopt(receiver, libc::SOL_SOCKET, option, one, len) == 0 }
    })
}

#[test]
fn couriers_that_do_not_carry_what_they_should() {
    let _alone = alone();
    let null = null();
    let two = [null.as_fd(), null.as_fd()];
    let bytes = packet(BY_COURIER, 2, 2, &[0, 1]);
    let (good, _load) = courier(&[&two[..1], &two[1..]]);
    receive::<[SharedFd; 2]>(&bytes, &[good.as_fd()]).unwrap();

    let read = refused::<[SharedFd; 2]>;
    read(&bytes, &[]);
    read(&bytes, &two);
    let (extra, _load) = courier(&[&two]);
    read(&bytes, &[null.as_fd(), extra.as_fd()]);
    for batches in
        [&[][..], &[&two[..1]], &[&two[..1], &[]], &[&two[..1], &[], &two[..1]], &[&two, &two]]
    {
        let (unload, load) = courier(batches);
        if batches.len() < 2 || batches[1].len() != 2 {
            // The sender may keep its end open, or not: neither is waited for.
            let text = read(&bytes, &[unload.as_fd()]);
            assert!(text.contains("courier has too few descriptors"), "{text}");
            let (unload, load) = courier(batches);
            drop(load);
            read(&bytes, &[unload.as_fd()]);
        } else {
            // What is left over in the courier is closed with it.
            receive::<[SharedFd; 2]>(&bytes, &[unload.as_fd()]).unwrap();
        }
        drop(load);
    }
    let (three, _load) = courier(&[&two[..1], &two]);
    read(&bytes, &[three.as_fd()]);
    let (few, _load) = courier(&[&two]);
    read(&packet(BY_COURIER, u32::MAX, 2, &[0, 1]), &[few.as_fd()]);
    for not_a_socket in [null.as_fd(), io::pipe().unwrap().0.as_fd()] {
        assert!(receive::<[SharedFd; 2]>(&bytes, &[not_a_socket]).is_err());
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(receive::<[SharedFd; 2]>(&bytes, &[listener.as_fd()]).is_err());
    // A courier that carries itself.
    let (unload, load) = socket::pair().unwrap();
    send_raw(&load, &[MARK], &[unload.as_fd(), load.as_fd()]);
    drop(load);
    drop(receive::<[SharedFd; 2]>(&bytes, &[unload.as_fd()]));
}

#[derive(Debug, Serialize, Deserialize)]
enum Value {
    Unit,
    Text(String),
    Numbers(Vec<u64>, Option<f64>),
    Handles { fds: Vec<SharedFd>, label: char },
    Nested(Box<Value>, std::collections::BTreeMap<u8, Value>),
}

/// A value's bytes, and how many descriptors it has.
fn body() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let null = SharedFd::from(null());
    let leaf = prop_oneof![
        Just(0u8).prop_map(|_| Value::Unit),
        ".{0,20}".prop_map(Value::Text),
        (proptest::collection::vec(any::<u64>(), 0..20), any::<Option<f64>>())
            .prop_map(|(numbers, float)| Value::Numbers(numbers, float)),
        (0usize..3, any::<char>()).prop_map(move |(count, label)| Value::Handles {
            fds: vec![null.clone(); count],
            label,
        }),
    ];
    let nested = (leaf, proptest::collection::vec(any::<u8>(), 0..4)).prop_map(|(value, keys)| {
        let map = keys.into_iter().map(|key| (key, Value::Text(key.to_string()))).collect();
        Value::Nested(Box::new(value), map)
    });
    nested.prop_map(|value| {
        let message = multiproc_wire::encode(&value).unwrap();
        (message.bytes().to_vec(), message.fds().len())
    })
}

/// A valid packet, and what is done to it: bytes that are changed, where it is cut, what is added.
#[derive(Debug)]
struct Mutation {
    body: Vec<u8>,
    flags: u8,
    fds: usize,
    changes: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
    tail: Vec<u8>,
    honest_length: bool,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (
        prop_oneof![
            4 => body(),
            1 => (proptest::collection::vec(any::<u8>(), 0..200), 0usize..3),
        ],
        prop_oneof![4 => Just(0u8), 1 => 0u8..4],
        proptest::option::weighted(0.2, 0usize..5),
        changes,
        proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        proptest::collection::vec(any::<u8>(), 0..3),
        any::<bool>(),
    )
        .prop_map(|((body, own), flags, fds, changes, cut, tail, honest_length)| Mutation {
            body,
            flags,
            fds: fds.unwrap_or(own),
            changes,
            cut,
            tail,
            honest_length,
        })
}

#[test]
fn mutations_of_valid_packets_are_a_value_or_an_error() {
    let _alone = alone();
    let (null, mutation) = (null(), mutation());
    let (here, there) = Endpoint::pair().unwrap();
    let open = count_open();
    let before = resident();
    let taken = std::cell::Cell::new(0);
    let config = Config { cases: 5_000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&mutation, |mutation| {
            let body = if mutation.honest_length {
                // The body alone is changed, so that it gets past the header.
                let mut body = mutation.body.clone();
                for (index, value) in &mutation.changes {
                    if !body.is_empty() {
                        let index = index.index(body.len());
                        body[index] = *value;
                    }
                }
                body
            } else {
                mutation.body.clone()
            };
            let fds = u32::try_from(mutation.fds).unwrap();
            let mut bytes = packet(mutation.flags, fds, body.len() as u64, &body);
            if !mutation.honest_length {
                for (index, value) in &mutation.changes {
                    let index = index.index(bytes.len());
                    bytes[index] = *value;
                }
                if let Some(cut) = mutation.cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                bytes.extend_from_slice(&mutation.tail);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            send_raw(&here, &bytes, &vec![null.as_fd(); mutation.fds]);
            let received = there.recv::<Value>(Deadline::now());
            taken.set(taken.get() + u32::from(received.is_ok()));
            drop(received);
            prop_assert_eq!(count_open(), open);
            Ok(())
        })
        .unwrap();
    assert!(taken.get() > 100, "too few get through: {}", taken.get());
    assert!(resident() < before + (64 << 20), "{} bytes more", resident() - before);
}
