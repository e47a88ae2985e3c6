//! A Python program with its standard library alone connects to our listener, and our client to its:
//! keys are proved at both ends, bytes and pickled values arrive.

mod common;

use std::io::Write;
use std::process::{Child, Command, Stdio};

use common::watchdog;
use multiproc_channel::{Address, Client, Codec, Digest, Listener};
use serde::{Deserialize, Serialize};

/// Python up to 3.11 knows no other.
const DIGEST: Digest = Digest::Md5;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    a: Vec<i64>,
    name: String,
    price: f64,
    paid: bool,
    note: Option<String>,
}

fn order() -> Order {
    Order { a: vec![1, -2, 1 << 40], name: "thé".into(), price: 2.5, paid: true, note: None }
}

const ORDER: &str =
    "{'a': [1, -2, 1 << 40], 'name': 'thé', 'price': 2.5, 'paid': True, 'note': None}";

/// Runs a program. `None`, with a word about it, if there is no Python.
fn python(program: &str, arguments: &[&str]) -> Option<Child> {
    watchdog();
    let mut command = Command::new("python3");
    let child = command.arg("-c").arg(program).args(arguments).stdin(Stdio::piped()).spawn();
    if child.is_err() {
        println!("skipped: there is no python3");
    }
    child.ok()
}

fn listener(key: &str, address: Address) -> Listener {
    Listener::builder().authkey(key).digest(DIGEST).codec(Codec::Pickle).bind(address).unwrap()
}

#[test]
fn python_connects_to_our_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let name = format!("multiproc-python-{}", std::process::id());
    let places = [
        (Address::path(&path), format!("{:?}", path.to_str().unwrap())),
        (Address::abstract_name(&name), format!("'\\0{name}'")),
        (Address::tcp("127.0.0.1:0").unwrap(), String::new()),
    ];
    for (address, in_python) in places {
        let listener = listener("secret", address);
        let in_python = match listener.address() {
            Address::Tcp(address) => format!("('127.0.0.1', {})", address.port()),
            _ => in_python,
        };
        let program = format!(
            "
from multiprocessing.connection import Client
c = Client({in_python}, authkey=b'secret')
c.send_bytes(b'hello')
assert c.recv_bytes() == b'world'
c.send_bytes(b'x' * 3000000)
c.send({ORDER})
assert c.recv() == {ORDER}, 'the order has changed'
c.send((1, [2.5, b'bytes', None]))
"
        );
        let Some(mut child) = python(&program, &[]) else { return };
        let connection = listener.accept().unwrap();
        assert_eq!(connection.recv_bytes().unwrap(), b"hello");
        connection.send_bytes(b"world").unwrap();
        assert!(connection.recv_bytes().unwrap() == vec![b'x'; 3_000_000]);
        assert_eq!(connection.recv::<Order>().unwrap(), order());
        connection.send(&order()).unwrap();
        let (one, (half, bytes, none)): (u8, (f64, Bytes, Option<u8>)) = connection.recv().unwrap();
        assert_eq!((one, half, bytes.0, none), (1, 2.5, b"bytes".to_vec(), None));
        assert!(child.wait().unwrap().success());
        assert!(connection.recv_bytes().unwrap_err().is_closed());
    }
}

/// Bytes, which serde would otherwise read as a sequence.
#[derive(Debug, PartialEq)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[test]
fn we_connect_to_python_s_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let program = format!(
        "
import sys
from multiprocessing.connection import Listener, AuthenticationError
with Listener(sys.argv[1], authkey=b'secret') as listener:
    open(sys.argv[1] + '.ready', 'w').close()
    for expected in (True, False):
        try:
            c = listener.accept()
        except AuthenticationError:
            assert not expected
            continue
        assert expected
        assert c.recv() == {ORDER}
        c.send({ORDER})
        c.send_bytes(c.recv_bytes()[::-1])
"
    );
    let Some(mut child) = python(&program, &[path.to_str().unwrap()]) else { return };
    while !path.with_extension("ready").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let builder = Client::builder().digest(DIGEST).codec(Codec::Pickle);
    let client = builder.clone().authkey("secret").connect(path.as_path()).unwrap();
    client.send(&order()).unwrap();
    assert_eq!(client.recv::<Order>().unwrap(), order());
    client.send_bytes(b"abc").unwrap();
    assert_eq!(client.recv_bytes().unwrap(), b"cba");

    let error = builder.authkey("wrong").connect(path.as_path()).unwrap_err();
    assert!(error.is_authentication(), "{error}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn python_with_a_wrong_key_is_refused() {
    let listener = listener("secret", Address::tcp("127.0.0.1:0").unwrap());
    let Address::Tcp(address) = listener.address() else { unreachable!() };
    let program = "
import sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
try:
    Client(('127.0.0.1', int(sys.argv[1])), authkey=b'wrong')
except AuthenticationError:
    sys.exit(7)
";
    let Some(mut child) = python(program, &[&address.port().to_string()]) else { return };
    assert!(listener.accept().unwrap_err().is_authentication());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn the_newer_form_of_the_proof_is_python_s() {
    // As Python 3.12 and later do it, written out with what 3.11 has.
    let listener =
        Listener::builder().authkey("secret").bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    let Address::Tcp(address) = listener.address() else { unreachable!() };
    let program = "
import hmac, os, sys
from multiprocessing.connection import Client
c = Client(('127.0.0.1', int(sys.argv[1])))
message = c.recv_bytes(256)
assert message.startswith(b'#CHALLENGE#{sha256}'), message
message = message[len(b'#CHALLENGE#'):]
c.send_bytes(b'{sha256}' + hmac.new(b'secret', message, 'sha256').digest())
assert c.recv_bytes(256) == b'#WELCOME#'
message = b'{sha256}' + os.urandom(40)
c.send_bytes(b'#CHALLENGE#' + message)
answer = c.recv_bytes(256)
assert answer == b'{sha256}' + hmac.new(b'secret', message, 'sha256').digest(), answer
c.send_bytes(b'#WELCOME#')
c.send_bytes(b'in')
";
    let Some(mut child) = python(program, &[&address.port().to_string()]) else { return };
    assert_eq!(listener.accept().unwrap().recv_bytes().unwrap(), b"in");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_pickle_that_would_run_code_is_an_error() {
    let listener = listener("secret", Address::tcp("127.0.0.1:0").unwrap());
    let Address::Tcp(address) = listener.address() else { unreachable!() };
    let program = "
import os, sys
from multiprocessing.connection import Client
class Evil:
    def __reduce__(self):
        return (os.system, ('echo no > ' + sys.argv[2],))
c = Client(('127.0.0.1', int(sys.argv[1])), authkey=b'secret')
c.send(Evil())
c.send([1, 2])
sys.stdin.read()
";
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let arguments = [address.port().to_string(), trace.to_str().unwrap().to_owned()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(mut child) = python(program, &arguments) else { return };
    let connection = listener.accept().unwrap();
    assert!(connection.recv::<Vec<u8>>().unwrap_err().is_decode());
    assert_eq!(connection.recv::<Vec<u8>>().unwrap(), [1, 2]);
    child.stdin.take().unwrap().flush().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!trace.exists());
}
