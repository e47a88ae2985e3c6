//! One function for each decoder that reads bytes from outside. It panics if the decoder breaks a
//! promise.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use multiproc_os::deadline::Deadline;
use multiproc_os::socket::{self, Wait};
use multiproc_wire::{Endpoint, Fd, SharedFd};
use serde::Deserialize;

use crate::codec::Codec;
use crate::frame::Incoming;
use crate::handshake::{Digest, Handshake, Outcome};

/// A stream of frames, in pieces as the first byte says.
pub fn frame(bytes: &[u8]) {
    const MOST: usize = 1 << 20;
    let Some((piece, mut rest)) = bytes.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let mut incoming = Incoming::default();
    loop {
        let room = match incoming.room(MOST) {
            Ok(Some(room)) => room,
            Ok(None) => {
                assert!(incoming.take().len() <= MOST && incoming.is_empty());
                continue;
            }
            Err(error) => {
                assert!(!error.is_closed() && !error.to_string().is_empty());
                return;
            }
        };
        assert!(!room.is_empty(), "no room, and not at the end");
        // Whatever was announced, no more is taken than has come and a step.
        assert!(room.len() <= bytes.len() + (64 << 10));
        let len = room.len().min(piece).min(rest.len());
        if len == 0 {
            return;
        }
        let (come, later) = rest.split_at(len);
        room[..len].copy_from_slice(come);
        incoming.add(len);
        rest = later;
    }
}

/// Both roles, each fed with the same frames: a length of one byte and so many bytes.
pub fn handshake(bytes: &[u8]) {
    let (mut listener, challenge) = Handshake::listener(b"secret", Digest::Md5).unwrap();
    let mut client = Handshake::client(b"secret", Digest::Md5);
    // A frame of length 255 stands for what an honest end would send now.
    let (mut to_client, mut to_listener) = (challenge, Vec::new());
    let mut forged = false;
    let mut rest = bytes;
    while let Some((len, after)) = rest.split_first() {
        let honest = *len == 255;
        let len = if honest { 0 } else { usize::from(*len).min(after.len()) };
        let (frame, after) = after.split_at(len);
        rest = after;
        forged |= !honest;
        for listens in [false, true] {
            let (end, own, other) = if listens {
                (&mut listener, &mut to_listener, &mut to_client)
            } else {
                (&mut client, &mut to_client, &mut to_listener)
            };
            let frame = if honest { std::mem::take(own) } else { frame.to_owned() };
            let step = end.step(&frame);
            // The last one is what the other end waits for.
            if let Some(last) = step.send.last() {
                last.clone_into(other);
            }
            assert!(step.send.iter().all(|frame| frame.len() <= 256));
            match step.outcome {
                Outcome::More => {}
                Outcome::Refused(error) => {
                    assert!(error.is_authentication(), "{error}");
                    return;
                }
                // A client believes `#WELCOME#` and then asks for a proof; nobody ends without one.
                Outcome::Done => {
                    assert!(!forged, "somebody without the key was believed");
                    return;
                }
            }
        }
    }
}

/// A value as Python may send it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Any {
    Unit(()),
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Any>),
    Map(BTreeMap<String, Any>),
}

#[derive(Debug, Deserialize)]
struct Record {
    _name: String,
    _value: Option<u32>,
    _pair: (i8, f32),
    _next: Option<Box<Record>>,
}

#[derive(Debug, Deserialize)]
enum Choice {
    _A,
    _B(u8, String),
    _C { _x: Vec<u8> },
}

/// A pickle, read as values of several types.
pub fn pickle(bytes: &[u8]) {
    let codec = Codec::Pickle;
    let _ = codec.decode::<Any>(bytes.to_owned());
    let _ = codec.decode::<Record>(bytes.to_owned());
    let _ = codec.decode::<Choice>(bytes.to_owned());
    let _ = codec.decode::<Vec<(u64, String)>>(bytes.to_owned());
}

#[derive(Debug, Deserialize)]
enum Handles {
    _None,
    _Shared(SharedFd),
    _Owned(Fd<std::fs::File>, String),
    _End(Endpoint),
    _Many(Vec<(u32, Option<SharedFd>)>),
}

/// A packet: the first byte says how many descriptors it has, of several kinds. What it is read as must
/// leave none of them open.
pub fn wire(bytes: &[u8]) {
    let Some((count, packet)) = bytes.split_first() else { return };
    let count = usize::from(*count % 8);
    let (here, there) = socket::pair().unwrap();
    let memory = multiproc_os::memory::SealedBytes::write(&[&bytes[1..]]).unwrap();
    let (courier, other) = socket::pair().unwrap();
    let courier_sends = socket::send(
        &other,
        &[std::io::IoSlice::new(&[1])],
        &[here.as_fd(), other.as_fd()],
        Wait::Try,
    );
    courier_sends.unwrap();
    drop(other);
    let kinds: [BorrowedFd<'_>; 3] = [memory.as_fd(), courier.as_fd(), there.as_fd()];
    let fds: Vec<_> = (0..count).map(|index| kinds[(index + count) % 3]).collect();
    let part = std::io::IoSlice::new(packet);
    if packet.is_empty() || socket::send(&here, &[part], &fds, Wait::Try).is_err() {
        return;
    }
    let end: Endpoint = there.into();
    match end.recv::<Handles>(Deadline::now()) {
        Ok(Some(value)) => drop(format!("{value:?}")),
        Ok(None) => panic!("a packet has come and was not seen"),
        Err(error) => assert!(error.is_decode() && !error.is_closed(), "{error}"),
    }
}
