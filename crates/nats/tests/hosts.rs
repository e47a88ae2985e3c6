//! Three hosts, as network namespaces: the link of one is cut in the middle of a job.

mod common;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Running, eventually, exe, lines, note, options, run, work};
use multiproc_nats::Pool;

fn main() {
    run(&[("a_link_is_cut_in_the_middle_of_a_job", a_link_is_cut_in_the_middle_of_a_job)], driver);
}

/// The server's host, and one for each of two agents, which are linked to it alone.
struct Hosts {
    prefix: String,
}

const AGENTS: [u8; 2] = [1, 2];

impl Hosts {
    fn make() -> Result<Self, String> {
        let hosts = Hosts { prefix: format!("mp{}", std::process::id()) };
        ip(&format!("netns add {}", hosts.hub()))?;
        hosts.in_hub("link set lo up")?;
        for agent in AGENTS {
            let (host, hub) = (hosts.agent(agent), hosts.hub());
            ip(&format!("netns add {host}"))?;
            let (near, far) = (hosts.link(agent), format!("{}f{agent}", hosts.prefix));
            ip(&format!("link add {near} netns {hub} type veth peer name {far} netns {host}"))?;
            hosts.in_hub(&format!("addr add {}/24 dev {near}", address(agent, 1)))?;
            hosts.in_hub(&format!("link set {near} up"))?;
            ip(&format!("-n {host} addr add {}/24 dev {far}", address(agent, 2)))?;
            ip(&format!("-n {host} link set {far} up"))?;
        }
        Ok(hosts)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn agent(&self, number: u8) -> String {
        format!("{}-{number}", self.prefix)
    }

    fn link(&self, number: u8) -> String {
        format!("{}n{number}", self.prefix)
    }

    fn in_hub(&self, command: &str) -> Result<(), String> {
        ip(&format!("-n {} {command}", self.hub()))
    }

    /// Starts this binary on a host.
    fn start(&self, host: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).arg(exe()).args(arguments);
        Running::start(&mut command)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in AGENTS.map(|agent| self.agent(agent)).into_iter().chain([self.hub()]) {
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

/// The hub's address on an agent's link, or the agent's.
fn address(agent: u8, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, agent, end)
}

const PORT: &str = "4222";
const STEPS: u64 = 400;

fn a_link_is_cut_in_the_middle_of_a_job() {
    let hosts = match Hosts::make() {
        Ok(hosts) => hosts,
        Err(reason) => {
            println!("skipped: network namespaces cannot be made here: {reason}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (store, port_log) = (path("store"), path("log"));
    let server = ["--server", "-js", "-a", "0.0.0.0", "-p", PORT, "-sd", &store, "-l", &port_log];
    let _server = hosts.start(&hosts.hub(), &server);
    eventually("a server", || {
        std::fs::read_to_string(&port_log).is_ok_and(|log| log.contains("Server is ready"))
    });
    let _agents = AGENTS.map(|number| {
        let url = format!("nats://{}:{PORT}", address(number, 1));
        hosts.start(&hosts.agent(number), &["--agent", &url, "test", "1000", "2"])
    });
    let (log, done) = (path("steps"), path("done"));
    let url = format!("nats://127.0.0.1:{PORT}");
    let mut driver = hosts.start(&hosts.hub(), &["--driver", &url, &log, &done]);
    let by = |agent: u8| {
        let network = address(agent, 2).to_string();
        lines(&log).iter().filter(|line| line.ends_with(&network)).count()
    };
    eventually("steps on both hosts", || by(1) > 20 && by(2) > 20);
    hosts.in_hub(&format!("link set {} down", hosts.link(2))).unwrap();
    assert!(driver.wait().success());
    assert_eq!(lines(&done), ["all"]);
    // It is as good as before when the link is there again.
    hosts.in_hub(&format!("link set {} up", hosts.link(2))).unwrap();
    let before = by(2);
    let mut driver = hosts.start(&hosts.hub(), &["--driver", &url, &log, &done]);
    assert!(driver.wait().success());
    assert_eq!(lines(&done), ["all", "all"]);
    eventually("steps on the host that was cut off", || by(2) > before);
}

fn driver(arguments: &[String]) {
    let [url, log, done] = arguments else { panic!("{arguments:?}") };
    let pool = Pool::connect(url, options("test")).unwrap();
    let step = |(log, x): (String, u64)| {
        work(Duration::from_millis(10));
        note(&log, own_address());
        x
    };
    let results = pool.map(step, (0..STEPS).map(|x| (log.clone(), x))).unwrap();
    assert!(results.into_iter().eq(0..STEPS));
    note(done, "all");
}

/// The address of the one link that this host has.
fn own_address() -> String {
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    let mut before = "";
    for line in trie.lines() {
        if line.contains("host LOCAL") && before.contains("10.213.") {
            return before.trim_start_matches([' ', '|', '-']).trim().to_owned();
        }
        before = line;
    }
    "nowhere".into()
}
