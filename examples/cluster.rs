//! One pool over several machines: two agents, one of which is killed in the middle of a job.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, process, thread};

use anyhow::Context;
use multiproc_nats::{Options, Pool};

fn count_primes(from: u64) -> usize {
    (from..from + 10_000)
        .filter(|&n| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| n % d > 0))
        .count()
}

/// Both sides share the key. A real one is random, and in a file that only they can read.
fn options() -> Options {
    let workers = multiproc::Pool::builder().workers(1);
    Options::new(b"the key of the demo").ack_wait(Duration::from_secs(1)).workers(workers)
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, url] = &arguments[..]
        && flag == "--agent"
    {
        return Ok(multiproc_nats::agent(url, options())?); // on another host, with the same program
    }

    let store = env::temp_dir().join(format!("multiproc-cluster-{}", process::id()));
    let Some((mut server, url)) = start_server(&store)? else {
        println!("This needs nats-server: `apt-get install nats-server`, or see https://nats.io");
        return Ok(());
    };
    let agent = || Command::new(env::current_exe()?).args(["--agent", &url]).spawn();
    let mut agents = [agent()?, agent()?];

    let pool = Pool::connect(&url, options())?; // the one line that differs from `Pool::new()`
    pool.wait_for_agents(2, Duration::from_secs(10));
    println!("{:#?}", pool.agents());
    let mut primes = 0;
    for (index, found) in pool.imap(count_primes, (0..200).map(|part| part * 10_000)).enumerate() {
        primes += found?;
        if index == 20 {
            agents[0].kill()?;
            println!("One agent was killed; what it had goes to the other.");
        }
    }
    println!("There are {primes} primes below 2,000,000.");
    assert_eq!(primes, 148_933);

    pool.join()?;
    for child in agents.iter_mut().chain([&mut server]) {
        child.kill()?;
        child.wait()?;
    }
    Ok(fs::remove_dir_all(store)?)
}

/// Starts a server on the loopback address. `None` if there is none on this machine.
fn start_server(store: &Path) -> anyhow::Result<Option<(Child, String)>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut server = Command::new("nats-server");
    server.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(store);
    let Ok(server) = server.stderr(Stdio::null()).spawn() else { return Ok(None) };
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(Some((server, format!("nats://127.0.0.1:{port}"))));
        }
        thread::sleep(Duration::from_millis(10));
    }
    None.context("the server does not come up")
}
