//! Each thing that the umbrella re-exports is there under its name and does something.

use multiproc::{
    ActiveChild, Address, Array, Barrier, BoundedSemaphore, Client, Condition, Connection, Event,
    Failure, Fd, JoinableQueue, Limit, Listener, Lock, LockGuard, ParentProcess, Pool, Process,
    Queue, RLock, Receiver, RwLock, Semaphore, Sender, ShareableList, Shared, SharedMemory, ShmArc,
    ShmBox, SocketConnection, StartMethod, Stateful, Task, Value, Waitable, active_children,
    as_completed, cpu_count, current_process, init_before_main, parent_process, pipe,
    set_forkserver_preload, set_start_method, wait, wait_async,
};

init_before_main!();

#[test]
fn process() {
    let builder = Process::builder().name("child").start_method(StartMethod::default());
    let process: Process<String> =
        builder.spawn(|()| current_process().name().to_string(), ()).unwrap();
    assert_eq!(process.join().unwrap(), "child");
    assert!(cpu_count() > 0);
    set_start_method(StartMethod::ForkServer);
    let (go, wait) = pipe::one_way::<u8>().unwrap();
    let child = |wait: Receiver<u8>| {
        let parent: ParentProcess = parent_process().unwrap().unwrap();
        (parent.pid(), wait.recv().unwrap())
    };
    let child = Process::builder().limit(Limit::OpenFiles, 100).spawn(child, wait).unwrap();
    let children: Vec<ActiveChild> = active_children().unwrap();
    assert!(children.iter().any(|active| active.pid() == child.pid()));
    go.send(7).unwrap();
    assert_eq!(child.join().unwrap(), (std::process::id(), 7));
    assert!(parent_process().unwrap().is_none());
    set_forkserver_preload(|| ()).unwrap();
}

#[test]
fn pool() {
    let pool = Pool::builder().workers(1).build().unwrap();
    assert_eq!(pool.map(|x: i32| -x, [1, 2]).unwrap(), [-1, -2]);
}

#[test]
fn pipes_and_queue() {
    let (here, there): (Connection<i32>, Connection<i32>) = pipe().unwrap();
    here.send(1).unwrap();
    assert_eq!(there.recv().unwrap(), 1);
    let (sender, receiver): (Sender<i32>, Receiver<i32>) = pipe::one_way().unwrap();
    sender.send(2).unwrap();
    assert_eq!(receiver.recv().unwrap(), 2);
    let queue = Queue::bounded(1).unwrap();
    queue.put(Fd::from(std::fs::File::open("/dev/null").unwrap())).unwrap();
    assert!(queue.get().is_ok());
    let joinable = JoinableQueue::new().unwrap();
    joinable.put(1).unwrap();
    let objects: [&dyn Waitable; 3] = [&queue, &here, &joinable];
    assert_eq!(wait(&objects, None).unwrap(), [2]);
    let task: Task<'_, i32> = joinable.get_task().unwrap();
    drop(task);
    joinable.join().unwrap();
}

#[test]
fn tasks() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let queue = Queue::new().unwrap();
        queue.put_async(1).await.unwrap();
        assert_eq!(wait_async(&[&queue]).await.unwrap(), [0]);
        assert_eq!(queue.get_async().await.unwrap(), 1);
    });
}

#[test]
fn listener_and_client() {
    let listener = Listener::bind(Address::tcp("127.0.0.1:0").unwrap()).unwrap();
    let client = Client::connect(listener.address().clone()).unwrap();
    client.send(&3u8).unwrap();
    let accepted: SocketConnection = listener.accept().unwrap();
    assert_eq!(accepted.recv::<u8>().unwrap(), 3);
}

#[test]
fn shared_memory_and_lock() {
    let lock = Lock::new().unwrap();
    let guard: LockGuard<'_> = lock.lock().unwrap();
    drop(guard);
    assert_eq!(Value::new(3u8).unwrap().get().unwrap(), 3);
    assert_eq!(Array::from_slice(&[1u16, 2]).unwrap().to_vec().unwrap(), [1, 2]);
    assert_eq!(ShmBox::from_slice(&[1u32, 2]).unwrap()[1], 2);
    assert_eq!(ShmArc::from_slice(&[1u64, 2]).unwrap()[1], 2);
    assert_eq!(SharedMemory::new(3).unwrap().len(), 3);
    assert_eq!(ShareableList::new([7.into()]).unwrap().count(7).unwrap(), 1);
}

#[test]
fn primitives() {
    let rlock = RLock::new().unwrap();
    let (_outer, _inner) = (rlock.lock().unwrap(), rlock.lock().unwrap());
    let rwlock = RwLock::new().unwrap();
    drop(rwlock.read().unwrap());
    drop(rwlock.write().unwrap());
    let semaphore = Semaphore::new(1).unwrap();
    semaphore.acquire().unwrap();
    let bounded = BoundedSemaphore::new(1).unwrap();
    let _permit = bounded.acquire().unwrap();
    assert_eq!((semaphore.value(), bounded.value()), (0, 0));
    let event = Event::new().unwrap();
    event.set();
    event.wait();
    Condition::new().unwrap().notify_all();
    assert_eq!(Barrier::new(1).unwrap().wait().unwrap(), 0);
    let shared = Shared::new(multiproc::sync::RawEvent::new()).unwrap();
    assert!(!shared.handle(|event| event).is_set());
}

#[test]
fn modules() {
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<multiproc::process::Error>();
    is_error::<multiproc::pool::Error>();
    is_error::<multiproc::pool::TaskError>();
    is_error::<multiproc::pool::MapError<u8>>();
    is_error::<multiproc::pool::ChunksError<u8>>();
    is_error::<multiproc::channel::Error>();
    is_error::<multiproc::channel::SendError<u8>>();
    is_error::<multiproc::shm::Error>();
    is_error::<multiproc::sync::LockError>();
    is_error::<multiproc::sync::BarrierError>();
}

#[test]
fn handles_go_between_threads() {
    fn is_send<T: Send>() {}
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Process<u8>>();
    is_send_and_sync::<Pool>();
    is_send_and_sync::<Pool<Stateful<u8>>>();
    is_send_and_sync::<Failure>();
    is_send_and_sync::<Queue<u8>>();
    is_send_and_sync::<Connection<u8>>();
    is_send_and_sync::<Sender<u8>>();
    is_send_and_sync::<Receiver<u8>>();
    is_send_and_sync::<Listener>();
    is_send_and_sync::<SocketConnection>();
    is_send_and_sync::<Lock>();
    is_send_and_sync::<RLock>();
    is_send_and_sync::<RwLock>();
    is_send_and_sync::<Semaphore>();
    is_send_and_sync::<BoundedSemaphore>();
    is_send_and_sync::<Condition>();
    is_send_and_sync::<Event>();
    is_send_and_sync::<Barrier>();
    is_send_and_sync::<Value<u8>>();
    is_send_and_sync::<Array<u8>>();
    is_send_and_sync::<ShmBox<[u8]>>();
    is_send_and_sync::<ShmArc<[u8]>>();
    is_send_and_sync::<SharedMemory>();
    is_send_and_sync::<ShareableList>();
    is_send::<multiproc::pool::TaskHandle<u8>>();
    is_send::<multiproc::pool::MapHandle<u8>>();
}

#[test]
fn the_pools_names_work_together() {
    let pool = Pool::builder().workers(1).state(|start: u32| start, 1).build().unwrap();
    let next = |count: &mut u32, by: u32| -> Result<u32, Failure> {
        *count += by;
        Ok("4".parse::<u32>()? + *count)
    };
    let later = (0..3).map(|by| pool.apply_async(next, by)).collect::<Result<Vec<_>, _>>().unwrap();
    let mut sums: Vec<u32> =
        as_completed(later).map(|(_, result)| result.unwrap().unwrap()).collect();
    sums.sort();
    assert_eq!(sums, [5, 6, 8]);
}
