//! Lets four processes count in one shared value, and fill one shared array.

use std::thread;
use std::time::Duration;

use multiproc::{Array, Process, Value};

fn increment_counter((counter, table, place): (Value<i32>, Array<f64>, usize)) {
    for _ in 0..100 {
        *counter.lock().unwrap() += 1;
        table.lock().unwrap()[place] += 0.5;
        thread::sleep(Duration::from_millis(10));
    }
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let counter = Value::new(0)?;
    let table = Array::from_slice(&[0.0; 4])?;

    let processes = (0..4)
        .map(|place| Process::spawn(increment_counter, (counter.clone(), table.clone(), place)))
        .collect::<Result<Vec<_>, _>>()?;
    for process in processes {
        process.join()?;
    }

    println!("Final counter value: {}", counter.get()?);
    println!("Final array: {:?}", table.to_vec()?);
    assert_eq!(counter.get()?, 400);
    assert_eq!(table.to_vec()?, [50.0; 4]);
    Ok(())
}
