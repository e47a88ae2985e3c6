//! Hosts as network namespaces: the link of one is cut in the middle of a job.

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Running, eventually, exe, lines, messages_at, note, options, run, work};
use multiproc_nats::Pool;
use tempfile::TempDir;

fn main() {
    let tests: &[(&str, fn())] = &[
        ("a_link_is_cut_in_the_middle_of_a_job", a_link_is_cut_in_the_middle_of_a_job),
        ("the_driver_is_cut_off_for_long", the_driver_is_cut_off_for_long),
    ];
    run(tests, driver);
}

/// The server's host, and two others, which are linked to it alone.
struct Hosts {
    prefix: String,
    dir: TempDir,
}

const OTHERS: [u8; 2] = [1, 2];

impl Hosts {
    /// Makes them, with a server on the hub; says why if it cannot.
    fn make() -> Option<(Self, Running)> {
        let dir = tempfile::tempdir().unwrap();
        let hosts = Hosts { prefix: format!("mp{}", std::process::id()), dir };
        if let Err(reason) = hosts.link_all() {
            println!("skipped: network namespaces cannot be made here: {reason}");
            return None;
        }
        let (store, log) = (hosts.path("store"), hosts.path("log"));
        let server = ["--server", "-js", "-a", "0.0.0.0", "-p", PORT, "-sd", &store, "-l", &log];
        let server = hosts.start(&hosts.hub(), &server);
        eventually("a server", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("Server is ready"))
        });
        Some((hosts, server))
    }

    fn link_all(&self) -> Result<(), String> {
        let hub = self.hub();
        ip(&format!("netns add {hub}"))?;
        self.in_hub("link set lo up")?;
        for other in OTHERS {
            let host = self.host(other);
            ip(&format!("netns add {host}"))?;
            let (near, far) = (self.link(other), format!("{}f{other}", self.prefix));
            ip(&format!("link add {near} netns {hub} type veth peer name {far} netns {host}"))?;
            self.in_hub(&format!("addr add {}/24 dev {near}", address(other, 1)))?;
            self.in_hub(&format!("link set {near} up"))?;
            ip(&format!("-n {host} addr add {}/24 dev {far}", address(other, 2)))?;
            ip(&format!("-n {host} link set {far} up"))?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn host(&self, number: u8) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn link(&self, number: u8) -> String {
        format!("{}n{number}", self.prefix)
    }

    fn cut(&self, number: u8) {
        self.in_hub(&format!("link set {} down", self.link(number))).unwrap();
    }

    fn mend(&self, number: u8) {
        self.in_hub(&format!("link set {} up", self.link(number))).unwrap();
    }

    fn in_hub(&self, command: &str) -> Result<(), String> {
        ip(&format!("-n {} {command}", self.hub()))
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts this binary on a host.
    fn start(&self, host: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).arg(exe()).args(arguments);
        Running::start(&mut command)
    }

    fn agent(&self, number: u8) -> Running {
        let url = format!("nats://{}:{PORT}", address(number, 1));
        self.start(&self.host(number), &["--agent", &url, "test", "1000", "2"])
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in OTHERS.map(|other| self.host(other)).into_iter().chain([self.hub()]) {
            let _gone = ip(&format!("netns delete {host}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    if ran.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {said}")) }
}

/// The hub's address on another's link, or the other's.
fn address(other: u8, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, other, end)
}

const PORT: &str = "4222";
const STEPS: u64 = 400;

fn a_link_is_cut_in_the_middle_of_a_job() {
    let Some((hosts, _server)) = Hosts::make() else { return };
    let _agents = OTHERS.map(|number| hosts.agent(number));
    let (log, done) = (hosts.path("steps"), hosts.path("done"));
    let url = format!("nats://127.0.0.1:{PORT}");
    let run = || hosts.start(&hosts.hub(), &["--driver", &url, "10", &log, &done]);
    let by = |agent: u8| {
        let network = address(agent, 2).to_string();
        lines(&log).iter().filter(|line| line.ends_with(&network)).count()
    };
    let mut driver = run();
    eventually("steps on both hosts", || by(1) > 20 && by(2) > 20);
    hosts.cut(2);
    assert!(driver.wait().success());
    assert_eq!(lines(&done), ["all"]);
    // It is as good as before when the link is there again.
    hosts.mend(2);
    let before = by(2);
    assert!(run().wait().success());
    assert_eq!(lines(&done), ["all", "all"]);
    eventually("steps on the host that was cut off", || by(2) > before);
}

/// For longer than its lease: the agents have given it up, and what it had sent is gone.
fn the_driver_is_cut_off_for_long() {
    let Some((hosts, _server)) = Hosts::make() else { return };
    let _agent = hosts.agent(1);
    let (log, done) = (hosts.path("steps"), hosts.path("done"));
    let url = format!("nats://{}:{PORT}", address(2, 1));
    let mut driver = hosts.start(&hosts.host(2), &["--driver", &url, "50", &log, &done]);
    eventually("steps", || lines(&log).len() > 20);
    hosts.cut(2);
    let gone = hosts.path("gone");
    let url = format!("nats://127.0.0.1:{PORT}");
    assert!(hosts.start(&hosts.hub(), &["--driver", &url, &gone]).wait().success());
    assert_eq!(lines(&gone), ["gone"]);
    assert!(lines(&log).len() < STEPS as usize, "it was done before it could be given up");
    hosts.mend(2);
    // All that is left would take long.
    let _more = hosts.start(&hosts.hub(), &["--agent", &url, "test", "1000", "8"]);
    assert!(driver.wait().success());
    assert_eq!(lines(&done), ["all"]);
}

fn driver(arguments: &[String]) {
    match arguments {
        [url, milliseconds, log, done] => {
            take_steps(url, Duration::from_millis(milliseconds.parse().unwrap()), log, done);
        }
        [url, gone] => {
            let empty = |stream| messages_at(url, stream).0 == 0;
            eventually("the end of all that was sent", || {
                empty("test-tasks") && empty("test-results")
            });
            note(gone, "gone");
        }
        _ => panic!("{arguments:?}"),
    }
}

/// Each takes so long.
fn take_steps(url: &str, time: Duration, log: &str, done: &str) {
    let pool = Pool::connect(url, options("test")).unwrap();
    let step = |(log, time, x): (String, Duration, u64)| {
        work(time);
        note(&log, own_address());
        x
    };
    let results = pool.map(step, (0..STEPS).map(|x| (log.to_owned(), time, x))).unwrap();
    assert!(results.into_iter().eq(0..STEPS));
    note(done, "all");
}

/// The address of the one link that this host has.
fn own_address() -> String {
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap();
    let mut before = "";
    for line in trie.lines() {
        if line.contains("host LOCAL") && before.contains("10.213.") {
            return before.trim_start_matches([' ', '|', '-']).trim().to_owned();
        }
        before = line;
    }
    "nowhere".into()
}
