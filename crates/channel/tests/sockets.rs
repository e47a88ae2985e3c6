//! Listeners and clients of programs that were started apart: addresses, keys, silent and hostile peers,
//! files of the dead.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use common::{spawn, watchdog};
use multiproc_channel::{Address, Client, Digest, Error, Listener, Queue, SocketConnection};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

multiproc_process::init_before_main!();

fn addresses(directory: &TempDir) -> [Address; 3] {
    let path = directory.path().join("socket");
    let name = format!("multiproc-test-{}", path.display());
    [Address::path(path), Address::abstract_name(name), Address::tcp("127.0.0.1:0").unwrap()]
}

/// Both ends of a connection.
fn pair(listener: &Listener) -> (SocketConnection, SocketConnection) {
    let client = Client::connect(listener.address().clone()).unwrap();
    (client, listener.accept().unwrap())
}

fn local_listener() -> Listener {
    Listener::bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    name: String,
    amounts: Vec<u32>,
    note: Option<f64>,
}

#[test]
fn values_and_bytes_cross_at_every_address() {
    watchdog();
    let directory = tempfile::tempdir().unwrap();
    for address in addresses(&directory) {
        let listener = Listener::builder().authkey("key").bind(address).unwrap();
        let address = listener.address().clone();
        let client = thread::spawn(move || {
            let client = Client::builder().authkey("key").connect(address).unwrap();
            let order = client.recv::<Order>().unwrap();
            client.send(&order).unwrap();
            client.send_bytes(b"").unwrap();
            client.send_bytes(&[7; 1 << 20]).unwrap();
        });
        let connection = listener.accept().unwrap();
        let order = Order { name: "tea".into(), amounts: vec![1, 2], note: Some(0.5) };
        connection.send(&order).unwrap();
        assert_eq!(connection.recv::<Order>().unwrap(), order);
        assert_eq!(connection.recv_bytes().unwrap(), b"");
        assert!(connection.recv_bytes().unwrap() == [7; 1 << 20]);
        client.join().unwrap();
        assert!(connection.recv_bytes().unwrap_err().is_closed());
        assert!(connection.recv::<u8>().unwrap_err().is_closed());
    }
}

#[test]
fn a_process_that_was_started_apart_connects() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Listener::builder().authkey(*b"key").bind(path.as_path()).unwrap();
    let child = spawn(
        |path: PathBuf| {
            let client = Client::builder().authkey("key").connect(path).unwrap();
            client.send(&std::process::id()).unwrap();
            client.recv::<u32>().unwrap()
        },
        path,
    );
    let connection = listener.accept().unwrap();
    let credentials = connection.peer_credentials().unwrap().unwrap();
    assert_eq!(connection.recv::<u32>().unwrap(), child.pid());
    assert_eq!(credentials.pid, child.pid());
    assert_eq!(credentials.uid, rustix::process::getuid().as_raw());
    connection.send(&5u32).unwrap();
    assert_eq!(child.join().unwrap(), 5);
}

#[test]
fn a_wrong_key_is_refused_at_both_ends_and_holds_up_nobody() {
    watchdog();
    let listener =
        Listener::builder().authkey("right").bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    let address = listener.address().clone();
    let client = thread::spawn(move || {
        let wrong = Client::builder().authkey("wrong").connect(address.clone());
        let right = Client::builder().authkey("right").connect(address);
        (wrong.map(drop), right)
    });
    assert!(listener.accept().unwrap_err().is_authentication());
    let accepted = listener.accept().unwrap();
    let (wrong, right) = client.join().unwrap();
    assert!(wrong.unwrap_err().is_authentication());
    right.unwrap().send(&1).unwrap();
    assert_eq!(accepted.recv::<i32>().unwrap(), 1);
}

#[test]
fn a_client_without_a_key_and_a_silent_one_hold_up_nobody() {
    watchdog();
    let listener = Listener::builder()
        .authkey("key")
        .timeout(Duration::from_millis(300))
        .bind(Address::tcp("127.0.0.1:0").unwrap())
        .unwrap();
    let Address::Tcp(tcp) = *listener.address() else { unreachable!() };
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(tcp).unwrap()).collect();
    let without = Client::connect(tcp).unwrap();
    without.send(&1).unwrap();
    let client = thread::spawn(move || Client::builder().authkey("key").connect(tcp).map(drop));
    let mut refused = 0;
    loop {
        match listener.accept() {
            Ok(_) => break,
            Err(error) => {
                assert!(error.is_timeout() || error.is_authentication(), "{error}");
                refused += 1;
            }
        }
    }
    client.join().unwrap().unwrap();
    // Those that had not come in time for the client were refused after it.
    for _ in refused..=silent.len() {
        assert!(listener.accept().is_err());
    }
    assert!(listener.accept_timeout(Duration::ZERO).unwrap().is_none());
}

#[test]
fn a_client_that_goes_before_its_proof_is_no_end_of_the_listener() {
    watchdog();
    let listener =
        Listener::builder().authkey("key").bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    for _ in 0..10 {
        drop(Client::connect(listener.address().clone()).unwrap());
    }
    let address = listener.address().clone();
    let client = thread::spawn(move || Client::builder().authkey("key").connect(address).map(drop));
    let mut gone = 0;
    while let Err(error) = listener.accept() {
        assert!(error.is_authentication() && !error.is_closed(), "{error}");
        gone += 1;
    }
    assert!(gone <= 10);
    client.join().unwrap().unwrap();
}

#[test]
fn a_key_at_the_client_only_ends_in_time() {
    watchdog();
    let listener = local_listener();
    let builder = Client::builder().authkey("key").timeout(Duration::from_millis(50));
    let error = builder.connect(listener.address().clone()).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    // What was accepted is just closed.
    assert!(listener.accept().unwrap().recv_bytes().unwrap_err().is_closed());
}

#[test]
fn what_is_weaker_than_asked_for_is_refused() {
    watchdog();
    // As Python 3.11 speaks.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old");
    let old = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = old.accept().unwrap();
        stream.write_all(&[&[0, 0, 0, 31][..], b"#CHALLENGE#", &[1; 20]].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    let error = Client::builder().authkey("key").connect(path).unwrap_err();
    assert!(error.is_authentication() && error.to_string().contains("Digest::Md5"), "{error}");
    assert_eq!(server.join().unwrap(), b"", "it has told a digest to one that it does not trust");

    let listener = Listener::builder()
        .authkey("key")
        .digest(Digest::Sha384)
        .bind(Address::tcp("127.0.0.1:0").unwrap())
        .unwrap();
    let address = listener.address().clone();
    let client = thread::spawn(move || Client::builder().authkey("key").connect(address).map(drop));
    assert!(listener.accept().unwrap_err().is_authentication());
    assert!(client.join().unwrap().unwrap_err().is_authentication());
}

#[test]
fn only_one_listens_at_a_path_and_what_the_dead_have_left_is_replaced() {
    watchdog();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Listener::bind(path.as_path()).unwrap();
    let file = std::fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    let error = Listener::bind(path.as_path()).unwrap_err();
    assert!(error.to_string().contains("another process listens"), "{error}");
    drop(listener.accept_timeout(Duration::ZERO));
    drop(listener);
    assert!(!path.exists());

    // A listener that was killed.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(path.as_path()).unwrap();
    let (client, accepted) = pair(&listener);
    client.send(&1u8).unwrap();
    assert_eq!(accepted.recv::<u8>().unwrap(), 1);
    drop(listener);

    // A file that is something else stays.
    std::fs::write(&path, "text").unwrap();
    assert!(Listener::bind(path.as_path()).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn many_that_come_for_a_path_at_once_get_one_listener() {
    watchdog();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    for _ in 0..20 {
        drop(UnixListener::bind(&path).unwrap());
        let listeners: Vec<Option<Listener>> = thread::scope(|scope| {
            let come = || Listener::bind(path.as_path()).ok();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(listeners.iter().flatten().count(), 1);
        assert!(UnixStream::connect(&path).is_ok());
    }
}

#[test]
fn lengths_that_lie_and_messages_cut_short_are_errors() {
    watchdog();
    let listener = Listener::builder()
        .max_message_len(1000)
        .bind(Address::tcp("127.0.0.1:0").unwrap())
        .unwrap();
    let Address::Tcp(tcp) = *listener.address() else { unreachable!() };
    let receive = |bytes: &[u8]| -> Error {
        let mut peer = TcpStream::connect(tcp).unwrap();
        peer.write_all(bytes).unwrap();
        drop(peer);
        listener.accept().unwrap().recv_bytes().unwrap_err()
    };
    for lies in [
        &[0, 0, 4, 0][..],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        &[0, 0, 0, 5, 1, 2],
        &[0, 0],
    ] {
        assert!(!receive(lies).is_closed(), "{lies:?}");
    }
    assert!(receive(&[]).is_closed());
}

#[test]
fn a_message_that_comes_slowly_is_not_lost_to_a_timeout() {
    watchdog();
    let listener = local_listener();
    let Address::Tcp(tcp) = *listener.address() else { unreachable!() };
    let mut peer = TcpStream::connect(tcp).unwrap();
    let connection = listener.accept().unwrap();
    for byte in [0, 0, 0, 2, 8] {
        peer.write_all(&[byte]).unwrap();
        assert!(connection.poll(Duration::MAX).unwrap());
        assert_eq!(connection.recv_bytes_timeout(Duration::ZERO).unwrap(), None);
    }
    assert!(!connection.poll(Duration::ZERO).unwrap());
    peer.write_all(&[9]).unwrap();
    assert_eq!(connection.recv_bytes_timeout(Duration::MAX).unwrap().unwrap(), [8, 9]);
}

#[test]
fn handles_do_not_travel_to_strangers() {
    let listener = local_listener();
    let (client, _accepted) = pair(&listener);
    let error = client.send(&Queue::<u8>::new().unwrap()).unwrap_err();
    assert!(error.is_encode() && error.to_string().contains("pipe"), "{error}");
}

#[test]
fn nobody_listens_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none");
    let error = Client::connect(path.as_path()).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    let long = "x".repeat(200);
    assert!(Listener::bind(Address::path(&long)).is_err());
    assert!(Listener::bind(Address::abstract_name(&long)).is_err());
}

#[test]
fn a_listener_is_readable_when_somebody_comes() {
    watchdog();
    let listener = local_listener();
    assert!(listener.accept_timeout(Duration::from_millis(1)).unwrap().is_none());
    let _client = Client::connect(listener.address().clone()).unwrap();
    let deadline = multiproc_os::deadline::Deadline::NEVER;
    assert!(multiproc_os::poll::readable([listener.as_fd()], deadline).unwrap()[0]);
    assert!(listener.accept_timeout(Duration::ZERO).unwrap().is_some());
}
