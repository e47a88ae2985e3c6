//! Exercise: several producers and several consumers at one bounded queue.

use std::thread;
use std::time::Duration;

use multiproc::{Process, Queue};

const PRODUCERS: u32 = 3;
const CONSUMERS: u32 = 4;
const ITEMS: u32 = 8;

fn producer((queue, number): (Queue<u32>, u32)) {
    for item in number * 100..number * 100 + ITEMS {
        // Waits while the queue is full, so that a fast producer cannot fill the memory.
        queue.put(item).unwrap();
        println!("Producer {number}: put {item}");
    }
}

fn consumer((queue, number): (Queue<u32>, u32)) -> Vec<u32> {
    let mut items = Vec::new();
    for item in &queue {
        let item = item.unwrap();
        thread::sleep(Duration::from_millis(20)); // simulates the work
        println!("Consumer {number}: processed {item}");
        items.push(item);
    }
    items
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let queue = Queue::bounded(5)?;

    let consumers = (1..=CONSUMERS)
        .map(|number| Process::spawn(consumer, (queue.clone(), number)))
        .collect::<Result<Vec<_>, _>>()?;
    let producers = (1..=PRODUCERS)
        .map(|number| Process::spawn(producer, (queue.clone(), number)))
        .collect::<Result<Vec<_>, _>>()?;

    for producer in producers {
        producer.join()?;
    }
    queue.close(); // ends the loops of all consumers, once the queue is empty

    let mut all = Vec::new();
    for (number, consumer) in (1..).zip(consumers) {
        let items = consumer.join()?;
        println!("Consumer {number} processed {} items", items.len());
        all.extend(items);
    }
    all.sort_unstable();
    let put = (1..=PRODUCERS).flat_map(|number| (0..ITEMS).map(move |i| number * 100 + i));
    assert!(all.iter().copied().eq(put), "an item was lost or came twice: {all:?}");
    println!("{} items put, each processed once", all.len());
    Ok(())
}
