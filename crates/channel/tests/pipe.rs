//! Proves that values cross a pipe whole, in order and of any size, that its end and a broken pipe are
//! told, and that what was not sent comes back.

mod common;

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{METHODS, file, number, spawn, spawn_by, watchdog};
use multiproc_channel::pipe::{self, pipe};
use multiproc_channel::{Connection, Queue, Receiver, Sender};
use multiproc_wire::{Fd, decode, encode_move};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

multiproc_process::init_before_main!();

#[test]
fn a_request_has_a_reply_of_another_type() {
    for method in METHODS {
        let (client, server) = pipe::duplex::<u64, String>().unwrap();
        let child = spawn_by(
            method,
            |server: Connection<String, u64>| {
                for request in &server {
                    server.send(format!("<{}>", request.unwrap())).unwrap();
                }
            },
            server,
        );
        for request in 0..1000 {
            client.send(request).unwrap();
            assert_eq!(client.recv().unwrap(), format!("<{request}>"));
        }
        drop(client);
        child.join().unwrap();
    }
}

#[test]
fn what_is_sent_one_way_comes_in_order() {
    let (sender, receiver) = pipe::one_way::<u64>().unwrap();
    let child =
        spawn(|sender: Sender<u64>| (0..50_000).for_each(|i| sender.send(i).unwrap()), sender);
    let received: Vec<u64> = receiver.iter().map(Result::unwrap).collect();
    assert!(received.into_iter().eq(0..50_000));
    child.join().unwrap();
}

#[test]
fn of_a_large_message_whose_sender_is_killed_nothing_or_all_is_received() {
    const LEN: usize = 3 << 20;
    for kill in 0..20 {
        let (sender, receiver) = pipe::one_way::<()>().unwrap();
        let child = spawn(
            |sender: Sender<()>| {
                for fill in 0.. {
                    sender.send_bytes(&vec![fill; LEN]).unwrap();
                }
            },
            sender,
        );
        let mut received = 0..;
        let mut is_next = |bytes: Vec<u8>| {
            let fill = received.next().unwrap() as u8;
            assert!(bytes.len() == LEN && bytes.iter().all(|byte| *byte == fill));
        };
        (0..kill % 4).for_each(|_| is_next(receiver.recv_bytes().unwrap()));
        child.kill().unwrap();
        let error = loop {
            match receiver.recv_bytes() {
                Ok(bytes) => is_next(bytes),
                Err(error) => break error,
            }
        };
        assert!(error.is_closed() || error.is_decode(), "{error}");
        assert!(receiver.recv_bytes().unwrap_err().is_closed());
        child.join().unwrap_err();
    }
}

#[test]
fn a_large_message_waits_for_no_receiver_that_is_killed() {
    const LEN: usize = 3 << 20;
    for kill in 0..20 {
        let (sender, receiver) = pipe::one_way::<()>().unwrap();
        let child =
            spawn(|receiver: Receiver<()>| while receiver.recv_bytes().is_ok() {}, receiver);
        for _ in 0..kill % 4 {
            sender.send_bytes(&[7; LEN]).unwrap();
        }
        child.kill().unwrap();
        while sender.send_bytes(&[7; LEN]).is_ok() {}
        assert!(sender.send_bytes(&[7; LEN]).unwrap_err().is_closed());
        child.join().unwrap_err();
    }
}

#[test]
fn messages_of_any_size_pass_each_other() {
    const ONE_PACKET: [usize; 8] = [0, 1, 63, 64, 4096, 65_519, 65_520, 65_536];
    const LONG: [usize; 8] =
        [65_537, 100_000, 131_056, 131_069, 131_070, 1 << 20, 20_000_003, 32 << 20];
    fn exchange(end: &Connection<Vec<u8>>, own: u8, other: u8) {
        for len in ONE_PACKET.into_iter().chain(LONG) {
            end.send(vec![own; len]).unwrap();
            let received = end.recv().unwrap();
            assert!(received.len() == len && received.iter().all(|byte| *byte == other), "{len}");
        }
    }
    let (here, there) = pipe().unwrap();
    let child = spawn(|there: Connection<Vec<u8>>| exchange(&there, 2, 1), there);
    exchange(&here, 1, 2);
    child.join().unwrap();
}

#[test]
fn long_messages_wait_for_a_receiver_without_their_sender() {
    let lengths = [16, 20_000, 70_000, 100_000, 131_000, 190_000, 300_000];
    for start in 0..lengths.len() {
        let mut lengths = lengths;
        lengths.rotate_left(start);
        let (here, there) = pipe::<Vec<u8>>().unwrap();
        for (index, len) in (0..).zip(lengths) {
            for byte in [index, index + 100] {
                here.send(vec![byte; len]).unwrap();
            }
        }
        for (index, len) in (0..).zip(lengths) {
            for byte in [index, index + 100] {
                assert!(there.recv().unwrap() == vec![byte; len], "{len} of {lengths:?}");
            }
        }
    }
}

#[test]
fn nothing_to_receive_is_told_in_time() {
    let (here, there) = pipe::<u8>().unwrap();
    assert_eq!(here.try_recv().unwrap(), None);
    assert_eq!(here.recv_timeout(Duration::ZERO).unwrap(), None);
    assert!(!here.poll(Duration::ZERO).unwrap());
    let (start, timeout) = (Instant::now(), Duration::from_millis(30));
    assert_eq!(here.recv_timeout(timeout).unwrap(), None);
    assert!(start.elapsed() >= timeout);
    assert!(!here.poll(timeout).unwrap());
    assert!(start.elapsed() >= 2 * timeout);

    there.send(1).unwrap();
    assert!(here.poll(Duration::MAX).unwrap());
    assert_eq!(here.recv_timeout(Duration::ZERO).unwrap(), Some(1));
    there.send(2).unwrap();
    assert_eq!(here.recv_timeout(Duration::MAX).unwrap(), Some(2));
    there.send(3).unwrap();
    assert_eq!(here.try_recv().unwrap(), Some(3));

    let (sender, receiver) = pipe::one_way::<u8>().unwrap();
    assert_eq!(receiver.try_recv().unwrap(), None);
    assert_eq!(receiver.recv_timeout(Duration::ZERO).unwrap(), None);
    sender.try_send(4).unwrap();
    assert!(receiver.poll(Duration::ZERO).unwrap());
    assert_eq!(receiver.recv().unwrap(), 4);
}

#[test]
fn a_wait_with_the_longest_timeout_is_ended_by_a_value() {
    watchdog();
    let (here, there) = pipe::<u8>().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| here.recv_timeout(Duration::MAX));
        let poller = scope.spawn(|| here.poll(Duration::MAX));
        there.send(5).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), Some(5));
        // The other one may have come too late to see it.
        there.send(6).unwrap();
        assert!(poller.join().unwrap().unwrap());
    });
}

#[test]
fn a_full_pipe_gives_the_value_back() {
    let (here, there) = pipe::<String>().unwrap();
    let value = "x".repeat(10_000);
    let mut sent = 0;
    let error = loop {
        match here.try_send(value.clone()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full() && !error.is_timeout() && !error.is_closed());
    assert_eq!(error.into_inner().unwrap(), value);
    let (start, timeout) = (Instant::now(), Duration::from_millis(20));
    let error = here.send_timeout(value.clone(), timeout).unwrap_err();
    assert!(error.is_timeout() && start.elapsed() >= timeout);
    assert_eq!(error.into_inner().unwrap(), value);
    assert!(here.send_timeout(value.clone(), Duration::ZERO).unwrap_err().is_timeout());

    // What waits for room gets it.
    let child = spawn(|there: Connection<String>| there.iter().map(Result::unwrap).count(), there);
    here.send(value.clone()).unwrap();
    here.send_timeout(value, Duration::MAX).unwrap();
    drop(here);
    assert_eq!(child.join().unwrap(), sent + 2);
}

#[test]
fn the_end_is_told_to_who_receives_and_who_sends() {
    let (here, there) = pipe::<String>().unwrap();
    there.send("last".into()).unwrap();
    drop(there);
    assert!(here.poll(Duration::ZERO).unwrap());
    let error = here.send("late".into()).unwrap_err();
    assert!(error.is_closed());
    assert_eq!(error.into_inner().unwrap(), "late");
    assert_eq!(here.recv().unwrap(), "last", "what had been sent is still there");
    assert!(here.poll(Duration::ZERO).unwrap(), "the end can be received");
    for _ in 0..2 {
        assert!(here.recv().unwrap_err().is_closed());
        assert!(here.try_recv().unwrap_err().is_closed());
        assert!(here.recv_timeout(Duration::ZERO).unwrap_err().is_closed());
    }
    assert!(here.iter().next().is_none());
    let error = here.try_send("late".into()).unwrap_err();
    assert!(error.is_closed() && error.into_inner().unwrap() == "late");
}

#[test]
fn the_end_comes_after_what_was_sent_though_the_other_had_unread_values() {
    let (here, there) = pipe::<u32>().unwrap();
    here.send(1).unwrap();
    there.send(2).unwrap();
    drop(there);
    assert_eq!(here.recv().unwrap(), 2);
    assert!(here.recv().unwrap_err().is_closed());
}

#[test]
fn a_killed_child_ends_the_pipe() {
    let (here, there) = pipe::<u64>().unwrap();
    let child = spawn(
        |there: Connection<u64>| {
            there.send(1).unwrap();
            // Until it is killed.
            for (i, received) in (1..).zip(&there) {
                assert_eq!(received.unwrap(), i);
            }
        },
        there,
    );
    assert_eq!(here.recv().unwrap(), 1);
    (1..100).for_each(|i| here.send(i).unwrap());
    child.kill().unwrap();
    assert!(here.recv().unwrap_err().is_closed());
    let error = here.send(7).unwrap_err();
    assert!(error.is_closed() && error.into_inner() == Some(7));
    child.join().unwrap_err();
}

#[test]
fn a_child_that_is_killed_while_it_sends_leaves_whole_messages() {
    for round in 0..100 {
        let (sender, receiver) = pipe::one_way::<Vec<u64>>().unwrap();
        let child = spawn(
            |sender: Sender<Vec<u64>>| {
                for i in 0.. {
                    // Some of them through memory.
                    let len = if i % 5 == 0 { 10_000 } else { 10 };
                    sender.send(vec![i; len]).unwrap();
                }
            },
            sender,
        );
        for (i, message) in (0..).zip(receiver.iter()) {
            if i == round {
                child.kill().unwrap();
            }
            let message = message.unwrap();
            assert!(message.len() == if i % 5 == 0 { 10_000 } else { 10 });
            assert!(message.iter().all(|number| *number == i));
        }
        child.join().unwrap_err();
    }
}

#[test]
fn a_message_of_another_type_is_an_error_of_that_message() {
    let (here, there) = pipe::<Vec<u8>>().unwrap();
    let child = spawn(
        // The same end, which the parent knows as one of bytes.
        |there: Connection<u8, Option<String>>| {
            there.iter().map(|word| word.map_err(|error| error.is_decode())).collect::<Vec<_>>()
        },
        decode(encode_move(there).unwrap().into_message()).unwrap(),
    );
    here.send(vec![]).unwrap();
    // A vector is its length and its bytes; an option is 0 or 1 and what follows.
    here.send(vec![2, b'h']).unwrap();
    here.send(vec![3]).unwrap();
    here.send(vec![0xff; 100_000]).unwrap();
    here.send(vec![]).unwrap();
    drop(here);
    assert_eq!(child.join().unwrap(), [Ok(None), Err(true), Err(true), Err(true), Ok(None)]);
}

#[test]
fn iteration_goes_on_after_what_cannot_be_read() {
    let (here, there) = pipe::<Picky>().unwrap();
    for i in 0..4 {
        here.send(Picky(i)).unwrap();
    }
    drop(here);
    let received: Vec<_> = there.iter().map(|item| item.ok().map(|Picky(i)| i)).collect();
    assert_eq!(received, [Some(0), None, Some(2), None]);
}

/// Serialises whatever it is, and refuses to be read if it is odd.
struct Picky(u64);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number % 2 == 1 { Err(de::Error::custom("odd")) } else { Ok(Picky(number)) }
    }
}

#[test]
fn a_value_that_does_not_serialise_comes_back() {
    struct Stubborn(u32);
    impl Serialize for Stubborn {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(ser::Error::custom("it does not want to"))
        }
    }
    impl<'de> Deserialize<'de> for Stubborn {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u32::deserialize(deserializer).map(Stubborn)
        }
    }
    let (here, there) = pipe::duplex::<(String, Stubborn), (String, u32)>().unwrap();
    let error = here.send(("text".into(), Stubborn(7))).unwrap_err();
    assert!(error.is_encode());
    assert!(error.to_string().contains("it does not want to"), "{error}");
    let (text, Stubborn(number)) = error.into_inner().unwrap();
    assert_eq!((text.as_str(), number), ("text", 7));
    // Nothing of it is under way.
    assert!(!there.poll(Duration::ZERO).unwrap());
}

#[test]
fn a_connection_travels_over_a_connection() {
    for method in METHODS {
        let (here, there) = pipe::<Connection<String>>().unwrap();
        let child = spawn_by(
            method,
            |there: Connection<Connection<String>>| {
                let inner = there.recv().unwrap();
                inner.send("through the inner one".into()).unwrap();
                // And back.
                there.send(inner).unwrap();
            },
            there,
        );
        let (kept, sent) = pipe().unwrap();
        here.send(sent).unwrap();
        assert_eq!(kept.recv().unwrap(), "through the inner one");
        let back = here.recv().unwrap();
        child.join().unwrap();
        back.send("home".into()).unwrap();
        assert_eq!(kept.recv().unwrap(), "home");
        drop(back);
        assert!(kept.recv().unwrap_err().is_closed(), "somebody still has the end that was sent");
    }
}

/// A connection that others may refer to, as serde does it with its feature `rc`.
struct Referenced(Rc<Connection<u32>>);

impl Serialize for Referenced {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (*self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Referenced {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Connection::deserialize(deserializer).map(|inner| Referenced(Rc::new(inner)))
    }
}

#[test]
fn a_connection_that_is_still_referenced_is_not_sent() {
    let (here, there) = pipe::<(u8, Referenced)>().unwrap();
    let (kept, sent) = pipe::<u32>().unwrap();
    let sent = Rc::new(sent);
    let error = here.send((1, Referenced(Rc::clone(&sent)))).unwrap_err();
    assert!(error.is_encode() && error.to_string().contains("still in use"), "{error}");
    let (one, back) = error.into_inner().unwrap();
    assert_eq!(one, 1);
    assert!(!there.poll(Duration::ZERO).unwrap());
    back.0.send(2).unwrap();
    assert_eq!(kept.recv().unwrap(), 2);
    drop(sent);
    here.send((1, back)).unwrap();
    let (_, arrived) = there.recv().unwrap();
    arrived.0.send(3).unwrap();
    assert_eq!(kept.recv().unwrap(), 3);
    drop(arrived);
    assert!(kept.recv().unwrap_err().is_closed());
}

#[test]
fn a_connection_that_could_not_be_sent_still_works() {
    let (here, there) = pipe::<Connection<u32>>().unwrap();
    drop(there);
    let (kept, sent) = pipe::<u32>().unwrap();
    let error = here.send(sent).unwrap_err();
    assert!(error.is_closed());
    let back = error.into_inner().unwrap();
    back.send(4).unwrap();
    assert_eq!(kept.recv().unwrap(), 4);
    drop(back);
    assert!(kept.recv().unwrap_err().is_closed(), "a copy of the descriptor was left behind");
}

#[test]
fn handles_travel_through_a_pipe() {
    #[derive(Serialize, Deserialize)]
    struct Parcel {
        file: Fd<std::fs::File>,
        more: Vec<Fd<std::fs::File>>,
        reader: Option<Fd<PipeReader>>,
        writer: Fd<PipeWriter>,
        queue: Queue<String>,
        receiver: Receiver<u8>,
    }
    for method in METHODS {
        let (here, there) = pipe::duplex::<Parcel, u64>().unwrap();
        let child = spawn_by(
            method,
            |there: Connection<u64, Parcel>| {
                for parcel in &there {
                    let mut parcel = parcel.unwrap();
                    let sum: u64 = parcel.more.iter().map(number).sum();
                    let mut text = String::new();
                    parcel.reader.as_mut().unwrap().read_to_string(&mut text).unwrap();
                    parcel.writer.write_all(text.as_bytes()).unwrap();
                    parcel.queue.put(text).unwrap();
                    let byte = parcel.receiver.recv().unwrap();
                    there.send(number(&parcel.file) + sum + u64::from(byte)).unwrap();
                }
            },
            there,
        );
        // So many descriptors that they take another way, and few.
        for count in [0, 3, 300] {
            let (reader, mut text) = std::io::pipe().unwrap();
            let (mut echo, writer) = std::io::pipe().unwrap();
            let (sender, receiver) = pipe::one_way().unwrap();
            let queue = Queue::new().unwrap();
            let parcel = Parcel {
                file: file(7),
                more: (0..count).map(|_| file(1)).collect(),
                reader: Some(reader.into()),
                writer: writer.into(),
                queue: queue.clone(),
                receiver,
            };
            here.send(parcel).unwrap();
            text.write_all(b"some text").unwrap();
            drop(text);
            sender.send(100).unwrap();
            assert_eq!(here.recv().unwrap(), 107 + count);
            let mut echoed = String::new();
            echo.read_to_string(&mut echoed).unwrap();
            assert_eq!(echoed, "some text");
            assert_eq!(queue.get().unwrap(), "some text");
        }
        drop(here);
        child.join().unwrap();
    }
}

#[test]
fn threads_share_an_end() {
    const EACH: u64 = 5000;
    watchdog();
    let (here, there) = pipe::<u64>().unwrap();
    let mut received: Vec<u64> = std::thread::scope(|scope| {
        for thread in 0..3 {
            let here = &here;
            scope.spawn(move || (0..EACH).for_each(|i| here.send(thread * EACH + i).unwrap()));
        }
        let receive = || (0..EACH).map(|_| there.recv().unwrap()).collect::<Vec<_>>();
        let receivers = [(); 3].map(|()| scope.spawn(receive));
        receivers.into_iter().flat_map(|receiver| receiver.join().unwrap()).collect()
    });
    received.sort();
    assert!(received.into_iter().eq(0..3 * EACH));
}

/// Who has sent it, the how manieth it is, and more or less of something.
type Numbered = (u8, u32, Vec<u16>, Option<Fd<File>>);

/// Short and long ones, and now and then one with a handle.
fn numbered(thread: u8, number: u32, handles: bool) -> Numbered {
    let len = match (u32::from(thread) + number) % 100 {
        0 => 30_000,
        few @ 1..10 => few * 100,
        few => few % 30,
    };
    let with_handle = handles && number % 50 == 7;
    let handle = with_handle.then(|| file(number.into()));
    (thread, number, vec![number as u16; len as usize], handle)
}

#[test]
fn messages_keep_their_order_whichever_way_they_go() {
    const EACH: u32 = 3000;
    const THREADS: u8 = 3;
    for handles in [false, true] {
        let (here, there) = pipe::<Numbered>().unwrap();
        let child = spawn(
            |(there, handles): (Connection<Numbered>, bool)| {
                std::thread::scope(|scope| {
                    for thread in 0..THREADS {
                        let there = &there;
                        scope.spawn(move || {
                            for number in 0..EACH {
                                there.send(numbered(thread, number, handles)).unwrap();
                                // Now and then it waits, and so finds the other waiting.
                                if number % 10 == 0 {
                                    there.recv().unwrap();
                                }
                            }
                        });
                    }
                });
            },
            (there, handles),
        );
        let mut next = [0; THREADS as usize];
        let mut attempt = 0u64;
        while next != [EACH; THREADS as usize] {
            attempt += 1;
            let received = match attempt % 4 {
                0 => here.try_recv().unwrap(),
                1 => here.recv_timeout(Duration::from_micros(attempt % 100)).unwrap(),
                _ => Some(here.recv().unwrap()),
            };
            let Some((thread, number, content, handle)) = received else { continue };
            assert_eq!(number, std::mem::replace(&mut next[thread as usize], number + 1));
            let (_, _, expected, with_handle) = numbered(thread, number, handles);
            assert_eq!(content, expected);
            let told = |handle: Option<Fd<File>>| handle.as_ref().map(common::number);
            assert_eq!(told(handle), told(with_handle));
            if number % 10 == 0 {
                here.send((0, 0, vec![], None)).unwrap();
            }
        }
        child.join().unwrap();
        assert!(here.recv().unwrap_err().is_closed());
    }
}

/// Sends back what comes.
fn echo(end: Connection<u64>) {
    for received in &end {
        end.send(received.unwrap()).unwrap();
    }
}

#[test]
fn a_value_for_a_child_that_was_killed_comes_back() {
    for _ in 0..200 {
        let (here, there) = pipe::<u64>().unwrap();
        let child = spawn(echo, there);
        for i in 0..20 {
            here.send(i).unwrap();
            assert_eq!(here.recv().unwrap(), i);
        }
        // It waits, and is yet to sleep, most of the time.
        child.kill().unwrap();
        child.join().unwrap_err();
        let error = here.send(7).unwrap_err();
        assert!(error.is_closed() && error.into_inner() == Some(7));
    }
}

#[test]
fn values_come_once_though_a_child_is_stopped_time_and_again() {
    const SOON: Duration = Duration::from_millis(1);
    const SIGCONT: i32 = 18;
    const SIGSTOP: i32 = 19;
    let (here, there) = pipe::<u64>().unwrap();
    let child = spawn(echo, there);
    for round in 0..300 {
        let signal = |signal| child.send_signal(signal).unwrap();
        here.send(round).unwrap();
        signal(SIGSTOP);
        let mut received = here.recv_timeout(SOON).unwrap();
        signal(SIGCONT);
        if received.is_none() {
            received = Some(here.recv().unwrap());
        }
        assert_eq!(received, Some(round));
        assert_eq!(here.try_recv().unwrap(), None);
    }
    drop(here);
    child.join().unwrap();
}

#[test]
fn bytes_cross_whole_and_unchanged() {
    let (here, there) = pipe::<()>().unwrap();
    let child = spawn(
        |there: Connection<()>| {
            // Gives back what comes, until the end.
            let mut buffer = vec![0; 1 << 20];
            let error = loop {
                match there.recv_bytes_into(&mut buffer) {
                    Ok(len) => there.send_bytes(&buffer[..len]).unwrap(),
                    Err(error) => break error,
                }
            };
            error.is_closed()
        },
        there,
    );
    for len in [0, 1, 496, 497, 65_536, 65_537, 131_072, 131_073, 1 << 20] {
        let bytes: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        here.send_bytes(&bytes).unwrap();
        assert!(here.recv_bytes().unwrap() == bytes, "{len}");
    }
    drop(here);
    assert!(child.join().unwrap());
}

#[test]
fn bytes_that_do_not_fit_are_not_lost() {
    let (sender, receiver) = pipe::one_way::<String>().unwrap();
    sender.send_bytes(&[7; 100]).unwrap();
    sender.send("next".to_string()).unwrap();
    let error = receiver.recv_bytes_into(&mut [0; 99]).unwrap_err();
    assert!(error.is_buffer_too_short() && !error.is_closed() && !error.is_decode());
    assert!(error.to_string().contains("100 bytes") && error.to_string().contains("99"));
    assert!(!format!("{error:?}").contains("7, 7"), "{error:?}");
    assert_eq!(error.into_bytes().unwrap(), [7; 100]);
    assert_eq!(receiver.recv().unwrap(), "next");
}

#[test]
fn a_value_with_handles_is_not_bytes() {
    let (here, there) = pipe::<Fd<File>>().unwrap();
    here.send(file(1)).unwrap();
    assert!(there.recv_bytes().unwrap_err().is_decode());
    here.send(file(2)).unwrap();
    assert_eq!(number(&there.recv().unwrap()), 2);
}

#[test]
fn a_receiver_is_iterated_over_until_the_end() {
    let (sender, receiver) = pipe::one_way::<u32>().unwrap();
    let child = spawn(|sender: Sender<u32>| (0..100).for_each(|i| sender.send(i).unwrap()), sender);
    let mut received = 0;
    for value in &receiver {
        assert_eq!(value.unwrap(), received);
        received += 1;
    }
    assert_eq!(received, 100);
    child.join().unwrap();
}
