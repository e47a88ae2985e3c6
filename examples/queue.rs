//! Passes items from a producer to a consumer through a queue.

use multiproc::{Process, Queue};

fn producer(queue: Queue<i32>) {
    for i in 0..5 {
        queue.put(i).unwrap();
        println!("Produced: {i}");
    }
    // Signals the end: the consumer's loop ends once the queue is empty.
    queue.close();
}

fn consumer(queue: Queue<i32>) -> Vec<i32> {
    let mut items = Vec::new();
    for item in &queue {
        let item = item.unwrap();
        println!("Consumed: {item}");
        items.push(item);
    }
    items
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let queue = Queue::new()?;

    let p1 = Process::spawn(producer, queue.clone())?;
    let p2 = Process::spawn(consumer, queue)?;

    p1.join()?;
    assert_eq!(p2.join()?, [0, 1, 2, 3, 4]);
    Ok(())
}
