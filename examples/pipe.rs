//! Sends a message from one process to another through a pipe.

use multiproc::{Connection, Process, pipe};

fn sender(conn: Connection<String>) {
    conn.send("Hello from the sender process!".to_string()).unwrap();
}

fn receiver(conn: Connection<String>) -> String {
    let message = conn.recv().unwrap();
    println!("Received: {message}");
    message
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let (parent_conn, child_conn) = pipe()?;

    // A connection has one owner: each moves to its process, and is closed when that ends.
    let p1 = Process::spawn(sender, child_conn)?;
    let p2 = Process::spawn(receiver, parent_conn)?;

    p1.join()?;
    assert_eq!(p2.join()?, "Hello from the sender process!");
    Ok(())
}
