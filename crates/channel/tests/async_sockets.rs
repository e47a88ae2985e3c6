//! Proves that connections between programs are accepted, made and used by tasks as by threads, and that
//! a future which is dropped loses no connection and cuts no message.

mod common;

use std::net::TcpStream;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use common::tasks::{once, run};
use common::{spawn, watchdog};
use multiproc_channel::{Address, Client, Listener, SocketConnection};

multiproc_process::init_before_main!();

fn listener() -> Listener {
    Listener::builder().authkey("key").bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap()
}

fn port(listener: &Listener) -> u16 {
    let Address::Tcp(address) = listener.address() else { unreachable!("it listens at a port") };
    address.port()
}

fn connect(port: u16) -> SocketConnection {
    let address = Address::tcp(("127.0.0.1", port)).unwrap();
    Client::builder().authkey("key").connect(address).unwrap()
}

#[test]
fn tasks_meet_at_every_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let name = Address::abstract_name(format!("multiproc-test-{}", path.display()));
    for address in [Address::path(path), name, Address::tcp("127.0.0.1:0").unwrap()] {
        for key in [None, Some("key")] {
            let mut options = Client::builder();
            if let Some(key) = key {
                options = options.authkey(key);
            }
            let listener = options.bind(address.clone()).unwrap();
            run(async {
                let (client, accepted) = tokio::join!(
                    options.connect_async(listener.address().clone()),
                    listener.accept_async(),
                );
                let (client, accepted) = (client.unwrap(), accepted.unwrap());
                client.send_async("hello").await.unwrap();
                assert_eq!(accepted.recv_async::<String>().await.unwrap(), "hello");
                let large = vec![7; 5 << 20];
                let (sent, received) =
                    tokio::join!(accepted.send_bytes_async(&large), client.recv_bytes_async());
                sent.unwrap();
                assert!(received.unwrap() == large);
                drop(client);
                assert!(accepted.recv_async::<u8>().await.unwrap_err().is_closed());
            });
        }
    }
}

#[test]
fn an_accept_that_is_dropped_loses_no_connection() {
    const MANY: u32 = 100;
    let listener = listener();
    let child = spawn(
        |port: u16| (0..MANY).for_each(|number| connect(port).send(&number).unwrap()),
        port(&listener),
    );
    run(async {
        for number in 0..MANY {
            let connection = loop {
                if let Some(accepted) = once(listener.accept_async()).await {
                    break accepted.unwrap();
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(connection.recv_async::<u32>().await.unwrap(), number);
        }
    });
    child.join().unwrap();
}

#[test]
fn accepts_take_turns_and_who_gives_up_leaves_it_to_the_next() {
    let listener = listener();
    run(async {
        let mut gives_up = Box::pin(listener.accept_async());
        assert!(once(gives_up.as_mut()).await.is_none());
        let (mut one, mut two) = (pin!(listener.accept_async()), pin!(listener.accept_async()));
        assert!(once(one.as_mut()).await.is_none() && once(two.as_mut()).await.is_none());
        let clients =
            [(); 2].map(|()| spawn(|port| connect(port).send(&1).unwrap(), port(&listener)));
        drop(gives_up);
        for accepted in [one.await, two.await] {
            assert_eq!(accepted.unwrap().recv_async::<i32>().await.unwrap(), 1);
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn a_thread_and_a_task_accept_at_once() {
    watchdog();
    let listener = listener();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| listener.accept().unwrap().recv::<i32>().unwrap());
        run(async {
            let mut accepted = pin!(listener.accept_async());
            assert!(once(accepted.as_mut()).await.is_none());
            let client = |port| connect(port).send(&1).unwrap();
            let clients = [(); 2].map(|()| spawn(client, port(&listener)));
            assert_eq!(accepted.await.unwrap().recv_async::<i32>().await.unwrap(), 1);
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        assert_eq!(thread.join().unwrap(), 1);
    });
}

#[test]
fn a_task_goes_on_with_whom_a_thread_has_left() {
    watchdog();
    let listener = listener();
    let address = listener.address().clone();
    let options = Client::builder().authkey("key");
    run(async {
        let mut accepted = pin!(listener.accept_async());
        assert!(once(accepted.as_mut()).await.is_none());
        // It is connected, and has not answered the challenge when the other has.
        let mut slow = pin!(options.connect_async(address.clone()));
        assert!(once(slow.as_mut()).await.is_none());
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| listener.accept().unwrap().recv::<i32>().unwrap());
            options.connect(address.clone()).unwrap().send(&1).unwrap();
            assert_eq!(thread.join().unwrap(), 1);
        });
        let (accepted, slow) = tokio::join!(accepted, slow);
        slow.unwrap().send(&2).unwrap();
        assert_eq!(accepted.unwrap().recv::<i32>().unwrap(), 2);
    });
}

#[test]
fn a_silent_peer_is_refused_in_time() {
    let options = Client::builder().authkey("key").timeout(Duration::from_millis(50));
    let listener = options.bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    let _silent = TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
    // Connected, and nobody accepts.
    let mute = Listener::bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    run(async {
        let (accepted, connected) =
            tokio::join!(listener.accept_async(), options.connect_async(mute.address().clone()),);
        assert!(accepted.unwrap_err().is_timeout());
        assert!(connected.unwrap_err().is_timeout());
    });
}

#[test]
fn a_send_that_is_dropped_sends_all_or_nothing() {
    const MANY: usize = 100;
    let listener = listener();
    let child = spawn(
        |port: u16| {
            let connection = connect(port);
            let mut numbers = Vec::new();
            loop {
                let bytes = connection.recv_bytes().unwrap();
                if bytes.is_empty() {
                    return numbers;
                }
                // Whole, and nothing of another.
                assert!(bytes.len() == 300_000 && bytes.iter().all(|byte| *byte == bytes[0]));
                numbers.push(bytes[0]);
            }
        },
        port(&listener),
    );
    let (mut sent, mut begun) = (Vec::new(), Vec::new());
    run(async {
        let connection = listener.accept_async().await.unwrap();
        for number in 0..MANY {
            let bytes = vec![number as u8; 300_000];
            match once(connection.send_bytes_async(&bytes)).await {
                Some(done) => {
                    done.unwrap();
                    sent.push(number as u8);
                }
                None => begun.push(number as u8),
            }
            if number % 10 == 9 {
                // The one that blocks ends what was begun, too.
                connection.send_bytes(&bytes).unwrap();
                sent.push(number as u8);
            }
        }
        connection.send_bytes_async(&[]).await.unwrap();
    });
    let received: Vec<u8> = child.join().unwrap();
    assert!(received.is_sorted());
    assert!(sent.iter().all(|number| received.contains(number)));
    assert!(received.iter().all(|number| sent.contains(number) || begun.contains(number)));
    assert!(received.len() > sent.len(), "no message that was begun was sent");
}

#[test]
fn what_has_come_of_a_message_is_kept() {
    let listener = Listener::bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    let client = Client::connect(listener.address().clone()).unwrap();
    let connection = listener.accept().unwrap();
    run(async {
        assert!(once(connection.recv_bytes_async()).await.is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| client.send_bytes(&[7; 10 << 20]).unwrap());
            // Large enough to come in many parts.
            loop {
                let mut future = pin!(once(connection.recv_bytes_async()));
                let polled = futures_poll(future.as_mut());
                if let Some(bytes) = polled {
                    assert!(bytes.unwrap() == [7; 10 << 20]);
                    break;
                }
                std::thread::yield_now();
            }
        });
    });
}

/// The value of a future that is ready at once.
fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("it is polled once"),
    }
}
