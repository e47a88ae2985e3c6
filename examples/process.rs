//! Runs a function in another process and waits for it.

use std::thread;
use std::time::Duration;

use multiproc::Process;

fn process_function(_: ()) {
    println!("Process ID: {}", multiproc::current_process().pid());
    println!("Process running...");
    thread::sleep(Duration::from_secs(2));
    println!("Process completed.");
}

fn main() -> anyhow::Result<()> {
    multiproc::init();

    println!("Starting the process...");
    let process = Process::spawn(process_function, ())?;

    process.join()?;
    println!("Main program continues...");
    Ok(())
}
