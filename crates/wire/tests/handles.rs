//! Proves that handles travel wherever values go, that a single owner stays single, and that what
//! fails leaves nothing behind.

mod common;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use common::{alone, count_open};
use multiproc_os::deadline::Deadline;
use multiproc_wire::{
    Endpoint, Fd, Message, Series, SharedFd, UniqueFd, decode, encode, encode_move,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

/// Sends the value through a socket and back out.
fn through_a_socket<T: Serialize, U: DeserializeOwned>(value: &T) -> U {
    let (here, there) = Endpoint::pair().unwrap();
    assert!(here.send(&encode(value).unwrap(), Deadline::NEVER).unwrap());
    there.recv(Deadline::NEVER).unwrap().unwrap()
}

fn pipe() -> (OwnedFd, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader.into(), writer)
}

/// What comes out of a pipe until its end.
fn read(fd: impl AsFd) -> String {
    let mut text = String::new();
    let mut reader = PipeReader::from(fd.as_fd().try_clone_to_owned().unwrap());
    reader.read_to_string(&mut text).unwrap();
    text
}

#[derive(Serialize, Deserialize)]
enum Nested {
    Nothing,
    Tuple(SharedFd, Option<Box<Nested>>),
    Struct { many: Vec<(String, Fd<PipeReader>)>, end: Option<Endpoint> },
}

#[test]
fn handles_travel_in_structs_enums_and_vectors() {
    let _alone = alone();
    let open = count_open();
    {
        let (readers, mut writers): (Vec<_>, Vec<_>) = (0..5).map(|_| pipe()).unzip();
        for (number, writer) in writers.iter_mut().enumerate() {
            write!(writer, "pipe {number}").unwrap();
        }
        drop(writers);
        let mut readers = readers.into_iter();
        let (here, there) = Endpoint::pair().unwrap();
        let first = readers.next().unwrap().into();
        let many = readers.map(|fd| ("label".into(), PipeReader::from(fd).into())).collect();
        let inner = Nested::Struct { many, end: Some(there) };
        let value = vec![Nested::Nothing, Nested::Tuple(first, Some(Box::new(inner)))];

        let received: Vec<Nested> = through_a_socket(&value);
        drop(value);
        let [Nested::Nothing, Nested::Tuple(first, Some(inner))] = &received[..] else { panic!() };
        assert_eq!(read(first), "pipe 0");
        let Nested::Struct { many, end: Some(end) } = &**inner else { panic!() };
        for (number, (label, reader)) in many.iter().enumerate() {
            assert_eq!((&**label, read(reader)), ("label", format!("pipe {}", number + 1)));
        }
        end.send(&encode("through the inner end").unwrap(), Deadline::NEVER).unwrap();
        let text: String = here.recv(Deadline::NEVER).unwrap().unwrap();
        assert_eq!(text, "through the inner end");
        drop(received);
        assert!(here.recv::<()>(Deadline::NEVER).unwrap_err().is_closed(), "no copy is left");
    }
    assert_eq!(count_open(), open);
}

#[test]
fn files_share_their_position_and_streams_their_connection() {
    let _alone = alone();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    file.seek(std::io::SeekFrom::Start(3)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let value = (Fd::from(file.try_clone().unwrap()), Fd::from(client));
    let (mut received, mut client): (Fd<File>, Fd<TcpStream>) = through_a_socket(&value);
    drop(value);
    let mut text = String::new();
    received.read_to_string(&mut text).unwrap();
    assert_eq!(text, "3456789");
    assert_eq!(file.stream_position().unwrap(), 10, "one open file, one position");

    client.write_all(b"over").unwrap();
    drop(client);
    let (mut server, _) = listener.accept().unwrap();
    text.clear();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "over");
}

#[test]
fn an_endpoint_travels_inside_an_endpoint_inside_an_endpoint() {
    let _alone = alone();
    let (outer, outer_end) = Endpoint::pair().unwrap();
    let (middle, middle_end) = Endpoint::pair().unwrap();
    let (inner, inner_end) = Endpoint::pair().unwrap();
    for (carrier, cargo) in [(&middle, inner_end), (&outer, middle_end)] {
        let moved = encode_move(cargo).unwrap();
        carrier.send(moved.message(), Deadline::NEVER).unwrap();
    }
    inner.send(&encode(&42).unwrap(), Deadline::NEVER).unwrap();
    drop((outer, middle, inner));
    let middle: Endpoint = outer_end.recv(Deadline::NEVER).unwrap().unwrap();
    let inner: Endpoint = middle.recv(Deadline::NEVER).unwrap().unwrap();
    assert_eq!(inner.recv(Deadline::NEVER).unwrap(), Some(42));
}

#[test]
fn the_same_shared_handle_twice_is_two_handles() {
    let _alone = alone();
    let (reader, mut writer) = pipe();
    let shared = SharedFd::from(reader);
    let [first, second]: [SharedFd; 2] = through_a_socket(&[&shared, &shared]);
    write!(writer, "ab").unwrap();
    drop(writer);
    let mut byte = [0];
    for (fd, expected) in [(&first, b'a'), (&second, b'b')] {
        PipeReader::from(fd.as_fd().try_clone_to_owned().unwrap()).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [expected]);
    }
}

#[test]
fn more_descriptors_than_one_packet_takes_travel_as_one_message() {
    let _alone = alone();
    let open = count_open();
    for count in [1, 252, 253, 254, 506, 507, 2000] {
        // With a body inside the packet, and one in memory, which takes a descriptor itself.
        for len in [1, 100_000] {
            let (reader, writer) = pipe();
            let mut pipes: Vec<SharedFd> = vec![SharedFd::from(reader); count - 1];
            let (last, mut last_writer) = pipe();
            pipes.push(last.into());
            write!(last_writer, "last of {count}").unwrap();
            drop(last_writer);
            let received: (Vec<SharedFd>, Vec<u8>, u8) =
                through_a_socket(&(&pipes, vec![7u8; len], 9u8));
            assert_eq!((received.0.len(), received.1.len(), received.2), (count, len, 9));
            assert_eq!(read(&received.0[count - 1]), format!("last of {count}"));
            drop(writer);
        }
    }
    assert_eq!(count_open(), open);
}

#[test]
fn bodies_of_all_sizes_travel() {
    let _alone = alone();
    let open = count_open();
    let (here, there) = Endpoint::pair().unwrap();
    let inline = multiproc_wire::INLINE_MAX;
    for len in [0, 1, inline - 4, inline - 3, inline - 2, inline, inline + 1, 1 << 20, 16 << 20] {
        let text: String = (0..len).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        assert!(here.send(&encode(&text).unwrap(), Deadline::NEVER).unwrap());
        assert!(there.recv::<String>(Deadline::NEVER).unwrap().unwrap() == text, "{len}");
        // As bare bytes the length is the body's own.
        assert!(here.send_bytes(text.as_bytes(), Deadline::NEVER).unwrap());
        let same = there.recv_with(Deadline::NEVER, |reader| reader.rest() == text.as_bytes());
        assert_eq!(same.unwrap(), Some(true), "{len}");
    }
    drop((here, there));
    assert_eq!(count_open(), open);
}

#[test]
fn a_smaller_buffer_of_the_socket_takes_large_messages_all_the_same() {
    let _alone = alone();
    for pair in [Endpoint::pair, Endpoint::pair_with_memory] {
        let (here, there) = pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&here, 1).unwrap();
        for len in [1, 1000, 5000, 60_000, 70_000, 200_000] {
            let message = encode(&vec![3u8; len]).unwrap();
            assert!(here.send(&message, Deadline::NEVER).unwrap());
            assert!(here.stream(&message, Deadline::NEVER).unwrap());
            for _ in 0..2 {
                assert_eq!(there.recv(Deadline::NEVER).unwrap(), Some(vec![3u8; len]));
            }
        }
    }
}

#[test]
fn a_vector_of_bytes_is_the_sequence_that_others_write_and_read() {
    let _alone = alone();
    let (here, there) = Endpoint::pair().unwrap();
    let most = 128 << 10; // of a packet; three of it are the length
    for len in [0, 1, 127, 128, 300, 65_533, 65_534, 70_000, most - 3, most - 2, 300_000, 5 << 20] {
        let bytes: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        let sequence = VecDeque::from(bytes.clone());
        let message = encode(&bytes).unwrap();
        assert_eq!(message.bytes(), encode(&sequence).unwrap().bytes());
        let mut series = Series::new();
        series.push(bytes.clone()).unwrap();
        let series = series.into_message();
        assert_eq!(series.reader().read_framed::<Vec<u8>>().unwrap(), bytes);

        assert!(here.stream_vector(&bytes, Deadline::NEVER).unwrap().unwrap());
        assert!(here.stream(&encode(&sequence).unwrap(), Deadline::NEVER).unwrap());
        assert!(here.stream(&message, Deadline::NEVER).unwrap());
        assert_eq!(there.recv::<VecDeque<u8>>(Deadline::NEVER).unwrap(), Some(sequence));
        assert_eq!(there.recv(Deadline::NEVER).unwrap().as_ref(), Some(&bytes));
        assert_eq!(there.recv(Deadline::NEVER).unwrap(), Some(bytes));
    }
}

#[test]
fn a_full_socket_makes_a_sender_wait_until_its_deadline() {
    let _alone = alone();
    let (here, there) = Endpoint::pair().unwrap();
    let message = encode(&vec![0u8; 30_000]).unwrap();
    let mut sent = 0;
    while here.send(&message, Deadline::now()).unwrap() {
        sent += 1;
    }
    assert!(sent > 1);
    let soon = Deadline::after(std::time::Duration::from_millis(5));
    assert!(!here.send(&message, soon).unwrap());
    for _ in 0..sent {
        assert!(there.recv::<Vec<u8>>(Deadline::now()).unwrap().is_some());
    }
    assert!(there.recv::<Vec<u8>>(soon).unwrap().is_none());
    assert!(here.send(&message, Deadline::now()).unwrap());
}

#[test]
fn what_was_sent_before_a_close_is_received_though_the_closing_end_left_messages_unread() {
    let _alone = alone();
    let (here, there) = Endpoint::pair().unwrap();
    there.send(&encode("never read").unwrap(), Deadline::NEVER).unwrap();
    here.send(&encode("first").unwrap(), Deadline::NEVER).unwrap();
    here.send(&encode("second").unwrap(), Deadline::NEVER).unwrap();
    drop(here);
    for text in ["first", "second"] {
        assert_eq!(there.recv::<String>(Deadline::NEVER).unwrap().as_deref(), Some(text));
    }
    for _ in 0..2 {
        assert!(there.recv::<String>(Deadline::NEVER).unwrap_err().is_closed());
        assert!(there.send(&encode("late").unwrap(), Deadline::NEVER).unwrap_err().is_closed());
    }
}

#[test]
fn a_handle_outside_a_message_is_an_error_that_says_so() {
    let _alone = alone();
    let (reader, _writer) = pipe();
    let shared = SharedFd::from(reader);
    let (end, _other) = Endpoint::pair().unwrap();
    let file = Fd::from(File::open("/dev/null").unwrap());
    let open = count_open();
    // postcard keeps no text; a serializer that does shows it.
    assert!(postcard::to_stdvec(&shared).is_err());
    assert!(postcard::to_stdvec(&end).is_err());
    assert!(postcard::to_stdvec(&file).is_err());
    for text in [shared.serialize(Loud), end.serialize(Loud), file.serialize(Loud)] {
        let text = text.unwrap_err().to_string();
        assert!(text.contains("a handle can travel only inside a message"), "{text}");
    }
    assert!(postcard::from_bytes::<SharedFd>(&[0]).is_err());
    assert!(postcard::from_bytes::<Endpoint>(&[0]).is_err());
    assert_eq!(count_open(), open);
    // Nothing of it is left for the next message.
    assert!(!encode(&1).unwrap().has_fds());
}

/// A serializer that keeps the text of errors and writes nothing.
struct Loud;

#[derive(Debug)]
struct Text(String);

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Text {}

impl ser::Error for Text {
    fn custom<T: std::fmt::Display>(text: T) -> Self {
        Text(text.to_string())
    }
}

macro_rules! refuse {
    ($($method:ident($($type:ty),*) -> $result:ty,)*) => {$(
        fn $method(self, $(_: $type),*) -> Result<$result, Text> {
            Err(Text("not expected".into()))
        }
    )*};
}

impl Serializer for Loud {
    type Ok = ();
    type Error = Text;
    type SerializeSeq = ser::Impossible<(), Text>;
    type SerializeTuple = ser::Impossible<(), Text>;
    type SerializeTupleStruct = ser::Impossible<(), Text>;
    type SerializeTupleVariant = ser::Impossible<(), Text>;
    type SerializeMap = ser::Impossible<(), Text>;
    type SerializeStruct = Fields;
    type SerializeStructVariant = ser::Impossible<(), Text>;

    refuse! {
        serialize_bool(bool) -> (),
        serialize_i8(i8) -> (),
        serialize_i16(i16) -> (),
        serialize_i32(i32) -> (),
        serialize_i64(i64) -> (),
        serialize_u8(u8) -> (),
        serialize_u16(u16) -> (),
        serialize_u32(u32) -> (),
        serialize_u64(u64) -> (),
        serialize_f32(f32) -> (),
        serialize_f64(f64) -> (),
        serialize_char(char) -> (),
        serialize_str(&str) -> (),
        serialize_bytes(&[u8]) -> (),
        serialize_none() -> (),
        serialize_unit() -> (),
        serialize_unit_struct(&'static str) -> (),
        serialize_unit_variant(&'static str, u32, &'static str) -> (),
        serialize_seq(Option<usize>) -> Self::SerializeSeq,
        serialize_tuple(usize) -> Self::SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant,
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Text> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Text> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Text> {
        value.serialize(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, Text> {
        Ok(Fields)
    }
}

struct Fields;

impl ser::SerializeStruct for Fields {
    type Ok = ();
    type Error = Text;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Text> {
        value.serialize(Loud)
    }

    fn end(self) -> Result<(), Text> {
        Ok(())
    }
}

/// Fails, or panics, after what stands before it was encoded.
enum Stops {
    Fails,
    Panics,
}

impl Serialize for Stops {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match self {
            Stops::Fails => Err(ser::Error::custom("it stops here")),
            Stops::Panics => panic!("it stops here"),
        }
    }
}

impl<'de> Deserialize<'de> for Stops {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Stops::Fails)
    }
}

#[test]
fn a_failed_serialisation_leaves_nothing_for_the_next_message() {
    let _alone = alone();
    let open = count_open();
    for stops in [Stops::Fails, Stops::Panics] {
        let (reader, _writer) = pipe();
        let shared = SharedFd::from(reader);
        let (end, other) = Endpoint::pair().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            encode(&(&shared, &end, &stops)).map(drop)
        }));
        match stops {
            Stops::Fails => {
                let text = result.unwrap().unwrap_err().to_string();
                assert!(text.ends_with("it stops here"), "{text}");
            }
            Stops::Panics => drop(result.unwrap_err()),
        }
        assert_eq!(shared.handles(), 1);
        let next = encode(&5u8).unwrap();
        assert!(!next.has_fds());
        assert_eq!(decode::<u8>(next).unwrap(), 5);
        drop(end);
        assert!(other.recv::<()>(Deadline::NEVER).unwrap_err().is_closed());

        // In a message of several values, the others stay.
        let mut message = Message::new();
        message.push(&shared).unwrap();
        assert!(message.push(&(&shared, Stops::Fails)).is_err());
        assert!(message.push_framed((shared.clone(), Stops::Fails)).is_err());
        message.push(&6u8).unwrap();
        let mut reader = message.reader();
        reader.read::<SharedFd>().unwrap();
        assert_eq!(reader.read::<u8>().unwrap(), 6);
        reader.finish().unwrap();
    }
    assert_eq!(count_open(), open);
}

#[test]
fn a_value_whose_serialisation_sends_a_message_harms_neither() {
    struct Sends(SharedFd, Endpoint);
    impl Serialize for Sends {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let message = encode(&(&self.0, "inner")).map_err(ser::Error::custom)?;
            self.1.send(&message, Deadline::NEVER).map_err(ser::Error::custom)?;
            self.0.serialize(serializer)
        }
    }
    let _alone = alone();
    let (reader, mut writer) = pipe();
    let (here, there) = Endpoint::pair().unwrap();
    write!(writer, "text").unwrap();
    drop(writer);
    let outer = encode(&(1u8, Sends(reader.into(), here), 2u8)).unwrap();
    let inner: (SharedFd, String) = there.recv(Deadline::NEVER).unwrap().unwrap();
    assert_eq!(inner.1, "inner");
    let (one, fd, two): (u8, SharedFd, u8) = decode(outer).unwrap();
    assert_eq!((one, read(fd), two), (1, "text".into(), 2));
}

#[test]
fn a_single_owner_stays_single() {
    let _alone = alone();
    let (reader, _writer) = pipe();
    let moved = encode_move((UniqueFd::from(reader), 7)).unwrap();
    assert!(moved.message().has_fds());
    // It was not sent: the value comes back, and can be sent again.
    let value: (UniqueFd, i32) = moved.into_value().unwrap();
    let again = encode_move(value).unwrap();
    let received: (UniqueFd, i32) = through_socket(again.message());
    assert_eq!(received.1, 7);
}

fn through_socket<T: DeserializeOwned>(message: &Message) -> T {
    let (here, there) = Endpoint::pair().unwrap();
    here.send(message, Deadline::NEVER).unwrap();
    there.recv(Deadline::NEVER).unwrap().unwrap()
}

#[test]
fn a_single_owner_that_is_referenced_elsewhere_is_refused_and_comes_back() {
    let _alone = alone();
    let open = count_open();
    {
        let check = |error: &multiproc_wire::Error| {
            assert!(error.is_encode());
            let text = error.to_string();
            assert!(text.contains("a handle in it is still in use here"), "{text}");
            assert!(text.contains("drop every other reference"), "{text}");
        };
        // A reference that is kept here.
        let (reader, mut writer) = pipe();
        write!(writer, "text").unwrap();
        drop(writer);
        let kept = Arc::new(UniqueFd::from(reader));
        let rejected = encode_move((Arc::clone(&kept), 1)).unwrap_err();
        check(&rejected.error);
        let (back, one): (Arc<UniqueFd>, i32) = rejected.value.unwrap();
        assert_eq!((read(&*back), one), ("text".into(), 1));
        // As long as there are two, neither can go.
        assert!(encode_move(back).is_err());
        let kept = Arc::try_unwrap(kept).unwrap();
        encode_move(kept).unwrap();

        // Twice in one value.
        let (end, other) = Endpoint::pair().unwrap();
        let twice = Rc::new(end);
        let rejected = encode_move((Rc::clone(&twice), twice)).unwrap_err();
        check(&rejected.error);
        let (first, second): (Rc<Endpoint>, Rc<Endpoint>) = rejected.value.unwrap();
        drop(first);
        assert!(other.recv::<()>(Deadline::now()).unwrap().is_none(), "still open");
        encode_move(second).unwrap();
        assert!(other.recv::<()>(Deadline::NEVER).unwrap_err().is_closed());

        // Among several values.
        let (end, _other) = Endpoint::pair().unwrap();
        let end = Rc::new(end);
        let mut message = Message::new();
        message.push_framed(1).unwrap();
        check(&message.push_framed(Rc::clone(&end)).unwrap_err());
        message.push_framed(2).unwrap();
        assert!(!message.has_fds());
        let mut reader = message.reader();
        assert_eq!((reader.read_framed().ok(), reader.read_framed().ok()), (Some(1), Some(2)));
    }
    assert_eq!(count_open(), open);
}
