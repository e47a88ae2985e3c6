//! The pool over many machines on one machine: two agents of one worker each, and a server between.
//!
//! Beside it plain Redis streams: a driver that keeps as many entries in flight, and two workers that read,
//! answer and acknowledge them. Both servers write to a file, and flush it to the disk later.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use multiproc_bench::rounds::{Cost, Measure, beside, is_test, units};
use multiproc_nats::{Options, Pool};

const AREA: &str = "nats";
const AGENTS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// So many entries the driver of the rival has in flight; ours has as many chunks.
const WINDOW: usize = 64;

fn main() {
    multiproc::init();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--agent") => multiproc_nats::agent(&arguments[2], options()).unwrap(),
        Some("--redis-worker") => redis_worker(&arguments[2]),
        _ if is_test() => {}
        _ => measure(),
    }
}

fn options() -> Options {
    let workers = multiproc::Pool::builder().workers(1);
    Options::new(b"the key of the benchmark").workers(workers).window(WINDOW)
}

fn measure() {
    let Some(nats) = Server::start("nats-server", |port, dir| {
        ["-js", "-a", "127.0.0.1", "-p", port, "-sd", dir].map(String::from).to_vec()
    }) else {
        println!("skipped: nats-server is not installed");
        return;
    };
    let url = format!("nats://127.0.0.1:{}", nats.port);
    let agents: Vec<_> = (0..AGENTS).map(|_| Killed::start(&["--agent", &url])).collect();
    let pool = Pool::connect(&url, options()).unwrap();
    assert!(pool.wait_for_agents(AGENTS, PATIENCE));
    let redis = Server::start("redis-server", |port, dir| {
        let words = "--bind 127.0.0.1 --save  --appendonly yes --appendfsync everysec --dir";
        let words = words.split(' ').map(String::from);
        words.chain([dir.into(), "--port".into(), port.into()]).collect()
    });
    let port = redis.as_ref().map(|redis| redis.port.to_string());
    let workers: Vec<_> = port
        .iter()
        .flat_map(|port| (0..AGENTS).map(|_| Killed::start(&["--redis-worker", port])))
        .collect();
    let pids = |server: &Server, others: &[Killed]| -> Vec<u32> {
        others.iter().map(|each| each.0.id()).chain([server.process.0.id()]).collect()
    };
    let (ours, theirs) = (pids(&nats, &agents), redis.as_ref().map(|redis| pids(redis, &workers)));

    let run = |count: u64, chunk: usize, task: Task| -> Cost {
        beside(&ours, count, || match task {
            Task::Trivial => {
                let results = pool.with_chunk_size(chunk).map(|x: u64| x + 1, 0..count).unwrap();
                assert!(results.into_iter().eq(1..=count));
            }
            Task::Sleep => {
                let results = pool.with_chunk_size(chunk).map(rest, 0..count).unwrap();
                assert!(results.into_iter().eq(1..=count));
            }
        })
    };
    let rival = |count: u64, chunk: usize, task: Task| -> Cost {
        let (port, pids) = (port.as_deref().unwrap(), theirs.as_deref().unwrap());
        beside(pids, count, || redis_driver(port, count, chunk, task))
    };
    for (title, count, chunk, task) in [
        ("trivial tasks, chunks of 1", units(2000), 1, Task::Trivial),
        ("trivial tasks, chunks of 100", units(100_000), 100, Task::Trivial),
        ("tasks of 20 ms", units(100), 1, Task::Sleep),
    ] {
        let mut measure = Measure::of(AREA, title, "task")
            .ours("multiproc-nats", move || run(count, chunk, task));
        if redis.is_some() {
            measure = measure.peer("Redis streams", move || rival(count, chunk, task));
        }
        if let Task::Sleep = task {
            // Nothing but the tasks.
            measure = measure.limit("two threads", move || {
                beside(&[], count, || {
                    std::thread::scope(|scope| {
                        for _ in 0..AGENTS {
                            scope.spawn(|| {
                                assert!((0..count / AGENTS as u64).all(|x| rest(x) == x + 1))
                            });
                        }
                    });
                })
            });
        }
        measure.run();
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Task {
    Trivial,
    Sleep,
}

#[allow(clippy::disallowed_methods)] // It simulates work, without a processor that others need.
fn rest(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(20));
    x + 1
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Killed {
    fn start(arguments: &[&str]) -> Self {
        let exe = std::env::current_exe().unwrap();
        Killed(Command::new(exe).args(arguments).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

struct Server {
    process: Killed,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    /// `None` if it is not installed.
    fn start(program: &str, arguments: impl Fn(&str, &str) -> Vec<String>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(arguments(&port.to_string(), dir.path().to_str().unwrap()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Killed(command.spawn().ok()?);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "{program} does not come up");
            std::thread::yield_now();
        }
        Some(Server { process, port, _dir: dir })
    }
}

/// A connection that speaks Redis's protocol, with requests in flight.
struct Redis {
    reader: BufReader<TcpStream>,
    out: Vec<u8>,
}

#[derive(Debug)]
enum Reply {
    Nil,
    Bytes(Vec<u8>),
    List(Vec<Reply>),
}

impl Redis {
    fn connect(port: &str) -> Self {
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_nodelay(true).unwrap();
        Redis { reader: BufReader::new(stream), out: Vec::new() }
    }

    fn push(&mut self, words: &[&[u8]]) {
        self.out.extend(format!("*{}\r\n", words.len()).bytes());
        for word in words {
            self.out.extend(format!("${}\r\n", word.len()).bytes());
            self.out.extend(*word);
            self.out.extend(b"\r\n");
        }
    }

    fn flush(&mut self) {
        self.reader.get_mut().write_all(&self.out).unwrap();
        self.out.clear();
    }

    fn ask(&mut self, words: &[&[u8]]) -> Reply {
        self.push(words);
        self.flush();
        self.read()
    }

    fn read(&mut self) -> Reply {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match (kind, rest) {
            ("+" | ":", text) => Reply::Bytes(text.into()),
            ("$" | "*", "-1") => Reply::Nil,
            ("$", len) => {
                let mut bytes = vec![0; len.parse::<usize>().unwrap() + 2];
                self.reader.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Reply::Bytes(bytes)
            }
            ("*", len) => Reply::List((0..len.parse().unwrap()).map(|_| self.read()).collect()),
            other => panic!("{other:?}"),
        }
    }
}

impl Reply {
    fn list(self) -> Vec<Reply> {
        match self {
            Reply::List(list) => list,
            Reply::Nil => Vec::new(),
            Reply::Bytes(bytes) => panic!("{}", String::from_utf8_lossy(&bytes)),
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Reply::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// The ids and the values of the entries of the one stream that was read.
    fn entries(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(stream) = self.list().pop() else { return Vec::new() };
        let entries = stream.list().pop().map_or(Vec::new(), Reply::list);
        let entry = |entry: Reply| {
            let mut entry = entry.list().into_iter();
            let id = entry.next().unwrap().bytes();
            let value = entry.next().unwrap().list().pop().unwrap().bytes();
            (id, value)
        };
        entries.into_iter().map(entry).collect()
    }
}

/// Reads tasks, one entry after the other, runs them, and answers.
fn redis_worker(port: &str) {
    let mut redis = Redis::connect(port);
    redis.push(&[b"XGROUP", b"CREATE", b"tasks", b"workers", b"0", b"MKSTREAM"]);
    redis.flush();
    let mut line = String::new();
    // The second worker is told that the group is there.
    redis.reader.read_line(&mut line).unwrap();
    let own = std::process::id().to_string();
    loop {
        let read: [&[u8]; 11] = [
            b"XREADGROUP",
            b"GROUP",
            b"workers",
            own.as_bytes(),
            b"COUNT",
            b"1",
            b"BLOCK",
            b"0",
            b"STREAMS",
            b"tasks",
            b">",
        ];
        for (id, value) in redis.ask(&read).entries() {
            let (task, numbers) = value.split_first().unwrap();
            let results: Vec<u8> = numbers
                .chunks_exact(8)
                .map(|x| u64::from_le_bytes(x.try_into().unwrap()))
                .flat_map(|x| if *task == 0 { x + 1 } else { rest(x) }.to_le_bytes())
                .collect();
            redis.push(&[b"XADD", b"results", b"*", b"r", &results]);
            redis.push(&[b"XACK", b"tasks", b"workers", &id]);
            redis.push(&[b"XDEL", b"tasks", &id]);
            redis.flush();
            (0..3).for_each(|_| drop(redis.read()));
        }
    }
}

/// Has chunks in flight until all results are there.
fn redis_driver(port: &str, count: u64, chunk: usize, task: Task) {
    let mut redis = Redis::connect(port);
    let mut last = b"0".to_vec();
    redis.ask(&[b"DEL", b"results"]);
    let (mut sent, mut done, mut sum) = (0u64, 0u64, 0u64);
    while done < count {
        let mut pushed = 0;
        while sent < count && (sent - done) / (chunk as u64) < WINDOW as u64 {
            let numbers = sent..count.min(sent + chunk as u64);
            let mut value = vec![u8::from(task != Task::Trivial)];
            value.extend(numbers.clone().flat_map(u64::to_le_bytes));
            redis.push(&[b"XADD", b"tasks", b"*", b"t", &value]);
            (sent, pushed) = (numbers.end, pushed + 1);
        }
        if pushed > 0 {
            redis.flush();
            (0..pushed).for_each(|_| drop(redis.read()));
        }
        let read: [&[u8]; 8] =
            [b"XREAD", b"COUNT", b"64", b"BLOCK", b"0", b"STREAMS", b"results", &last];
        let entries = redis.ask(&read).entries();
        if let Some((id, _)) = entries.last() {
            last = id.clone();
        }
        for (id, value) in entries {
            let numbers = value.chunks_exact(8).map(|x| u64::from_le_bytes(x.try_into().unwrap()));
            sum += numbers.sum::<u64>();
            done += value.len() as u64 / 8;
            redis.push(&[b"XDEL", b"results", &id]);
            redis.flush();
            redis.read();
        }
    }
    assert_eq!(sum, count * (count + 1) / 2);
}
