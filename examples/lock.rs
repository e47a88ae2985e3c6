//! Guards a shared balance with a lock, so that no change to it is lost.

use std::thread;
use std::time::Duration;

use multiproc::{Lock, Process, Value};

fn change((balance, lock, amount): (Value<f64>, Lock, f64)) {
    for _ in 0..100 {
        {
            // Reading and writing are two steps; the lock makes them one.
            let _held = lock.lock().unwrap();
            let old = balance.get().unwrap();
            balance.set(old + amount).unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let balance = Value::new(1000.0)?;
    let lock = Lock::new()?;

    let deposit = Process::spawn(change, (balance.clone(), lock.clone(), 10.0))?;
    let withdraw = Process::spawn(change, (balance.clone(), lock, -10.0))?;

    deposit.join()?;
    withdraw.join()?;

    println!("Final balance: ${:.2}", balance.get()?);
    assert_eq!(balance.get()?, 1000.0);
    Ok(())
}
