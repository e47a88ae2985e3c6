//! Every handle travels as an argument, as a result, through a pipe and through a queue, under each
//! start method, and works where it arrives.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc::{
    Array, Barrier, BoundedSemaphore, Condition, Connection, Event, Fd, JoinableQueue, Lock,
    Process, Queue, RLock, Receiver, RwLock, Semaphore, Sender, Shared, ShmBox, StartMethod, Value,
    pipe,
};
use multiproc_tests::tell;
use serde::{Deserialize, Serialize};

const METHODS: [StartMethod; 3] = [StartMethod::ForkServer, StartMethod::Spawn, StartMethod::Fork];

fn main() {
    multiproc::init();
    tell(&[
        ("handles travel as arguments and come back in results", as_arguments),
        ("handles travel through pipes", through_pipes),
        ("handles travel through queues", through_queues),
        ("a handle made under one start method works under every other", across_methods),
    ]);
}

/// One of each.
#[derive(Serialize, Deserialize)]
struct Handles {
    queue: Queue<u32>,
    joinable: JoinableQueue<u32>,
    connection: Connection<u32>,
    sender: Sender<u32>,
    receiver: Receiver<u32>,
    lock: Lock,
    primitives: Primitives,
    value: Value<u64>,
    array: Array<u32>,
    memory: ShmBox<[u64]>,
    file: Fd<File>,
    stream: Fd<TcpStream>,
    more: Vec<Option<Value<u64>>>,
}

/// Locks and the like.
#[derive(Clone, Serialize, Deserialize)]
struct Primitives {
    rlock: RLock,
    rwlock: RwLock,
    semaphore: Semaphore,
    bounded: BoundedSemaphore,
    condition: Condition,
    event: Event,
    barrier: Barrier,
    shared: Shared<AtomicU64>,
}

impl Primitives {
    fn new() -> Self {
        Primitives {
            rlock: RLock::new().unwrap(),
            rwlock: RwLock::new().unwrap(),
            semaphore: Semaphore::new(1).unwrap(),
            bounded: BoundedSemaphore::new(2).unwrap(),
            condition: Condition::new().unwrap(),
            event: Event::new().unwrap(),
            barrier: Barrier::new(2).unwrap(),
            shared: Shared::new(AtomicU64::new(3)).unwrap(),
        }
    }

    /// In another process: leaves a trace in each.
    fn use_all(&self) {
        let _twice = (self.rlock.lock().unwrap(), self.rlock.lock().unwrap());
        drop(self.rwlock.read().unwrap());
        drop(self.rwlock.write().unwrap());
        self.semaphore.release();
        drop(self.bounded.acquire().unwrap());
        self.condition.notify_all();
        self.event.set();
        self.barrier.abort().unwrap();
        self.shared.fetch_add(1, Relaxed);
    }

    fn check(&self) {
        drop(self.rlock.lock().unwrap());
        drop(self.rwlock.write().unwrap());
        assert_eq!(self.semaphore.value(), 2);
        assert_eq!(self.bounded.value(), 2);
        assert!(self.event.is_set());
        assert!(self.barrier.is_broken());
        assert_eq!(self.shared.load(Relaxed), 4);
    }
}

/// What is kept to see what the other process did.
struct Kept {
    queue: Queue<u32>,
    joinable: JoinableQueue<u32>,
    connection: Connection<u32>,
    receiver: Receiver<u32>,
    _sender: Sender<u32>,
    lock: Lock,
    primitives: Primitives,
    value: Value<u64>,
    array: Array<u32>,
    file: File,
    stream: TcpStream,
}

fn make() -> (Handles, Kept) {
    let queue = Queue::new().unwrap();
    let joinable = JoinableQueue::bounded(2).unwrap();
    joinable.put(30).unwrap();
    let (connection, other_end) = pipe().unwrap();
    let (sender, receiver) = pipe::one_way().unwrap();
    let (other_sender, other_receiver) = pipe::one_way().unwrap();
    other_sender.send(77).unwrap();
    let lock = Lock::new().unwrap();
    let primitives = Primitives::new();
    let value = Value::new(1u64).unwrap();
    let array = Array::from_slice(&[1u32, 2, 3]).unwrap();
    let file = tempfile::tempfile().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let handles = Handles {
        queue: queue.clone(),
        joinable: joinable.clone(),
        connection: other_end,
        sender,
        receiver: other_receiver,
        lock: lock.clone(),
        primitives: primitives.clone(),
        value: value.clone(),
        array: array.clone(),
        memory: ShmBox::from_slice(&[5; 1_000]).unwrap(),
        file: file.try_clone().unwrap().into(),
        stream: stream.into(),
        more: vec![None, Some(value.clone())],
    };
    let kept = Kept {
        queue,
        joinable,
        connection,
        receiver,
        _sender: other_sender,
        lock,
        primitives,
        value,
        array,
        file,
        stream: accepted,
    };
    (handles, kept)
}

/// In another process: uses each of them.
fn use_all(mut handles: Handles) -> Handles {
    handles.queue.put(10).unwrap();
    assert_eq!(*handles.joinable.get_task().unwrap(), 30);
    handles.joinable.put(31).unwrap();
    handles.connection.send(11).unwrap();
    handles.sender.send(12).unwrap();
    assert_eq!(handles.receiver.recv().unwrap(), 77);
    {
        let _held = handles.lock.lock().unwrap();
        *handles.value.lock().unwrap() += 1;
    }
    handles.primitives.use_all();
    handles.array.lock().unwrap()[1] = 20;
    assert!(handles.memory.iter().all(|word| *word == 5));
    handles.memory.fill(6);
    writeln!(handles.file, "written").unwrap();
    handles.stream.write_all(b"sent").unwrap();
    handles.more[1].as_ref().unwrap().update(|value| *value += 10).unwrap();
    handles
}

fn check(mut kept: Kept, handles: Handles) {
    assert_eq!(kept.queue.get().unwrap(), 10);
    assert_eq!(kept.joinable.unfinished().unwrap(), 1);
    assert_eq!(*kept.joinable.get_task().unwrap(), 31);
    kept.joinable.join().unwrap();
    assert_eq!(kept.connection.recv().unwrap(), 11);
    assert_eq!(kept.receiver.recv().unwrap(), 12);
    drop(kept.lock.lock().unwrap());
    kept.primitives.check();
    handles.primitives.check();
    assert_eq!(kept.value.get().unwrap(), 12);
    assert_eq!(kept.array.to_vec().unwrap(), [1, 20, 3]);
    kept.file.rewind().unwrap();
    let mut text = String::new();
    kept.file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "written\n");
    let mut bytes = [0; 4];
    kept.stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"sent");
    // What came back works here.
    assert!(handles.memory.iter().all(|word| *word == 6));
    handles.queue.put(1).unwrap();
    assert_eq!(kept.queue.get().unwrap(), 1);
    handles.connection.send(2).unwrap();
    assert_eq!(kept.connection.recv().unwrap(), 2);
    assert_eq!(handles.value.get().unwrap(), 12);
}

fn as_arguments() {
    for method in METHODS {
        let (handles, kept) = make();
        let process = Process::builder().start_method(method).spawn(use_all, handles).unwrap();
        check(kept, process.join().unwrap());
    }
}

fn through_pipes() {
    for method in METHODS {
        let (here, there) = pipe::<Handles>().unwrap();
        let child = |end: Connection<Handles>| end.send(use_all(end.recv().unwrap())).unwrap();
        let process = Process::builder().start_method(method).spawn(child, there).unwrap();
        let (handles, kept) = make();
        here.send(handles).unwrap();
        check(kept, here.recv().unwrap());
        process.join().unwrap();
    }
}

fn through_queues() {
    for method in METHODS {
        let (to, back) = (Queue::<Handles>::new().unwrap(), Queue::<Handles>::new().unwrap());
        let child = |(to, back): (Queue<Handles>, Queue<Handles>)| {
            for handles in &to {
                back.put(use_all(handles.unwrap())).unwrap();
            }
        };
        let argument = (to.clone(), back.clone());
        let process = Process::builder().start_method(method).spawn(child, argument).unwrap();
        for _ in 0..3 {
            let (handles, kept) = make();
            to.put(handles).unwrap();
            check(kept, back.get().unwrap());
        }
        to.close();
        process.join().unwrap();
    }
}

type Queues = (Queue<u32>, JoinableQueue<u32>);

fn across_methods() {
    // Made in a child of one kind, used in a child of another.
    for maker in METHODS {
        for user in METHODS {
            let make_there = |()| {
                let queues = (Queue::<u32>::new().unwrap(), JoinableQueue::<u32>::new().unwrap());
                (queues, Value::new(5u32).unwrap(), Primitives::new())
            };
            let made = Process::builder().start_method(maker).spawn(make_there, ()).unwrap();
            let (queues, value, primitives) = made.join().unwrap();
            queues.1.put(7).unwrap();
            let work = |(queues, value, primitives): (Queues, Value<u32>, Primitives)| {
                queues.0.put(value.get().unwrap()).unwrap();
                assert_eq!(*queues.1.get_task().unwrap(), 7);
                value.set(6).unwrap();
                primitives.use_all();
            };
            let argument = (queues.clone(), value.clone(), primitives.clone());
            let process = Process::builder().start_method(user).spawn(work, argument).unwrap();
            // Not the end of the process, but of the item.
            queues.1.join().unwrap();
            process.join().unwrap();
            assert_eq!((queues.0.get().unwrap(), value.get().unwrap()), (5, 6));
            primitives.check();
        }
    }
}
