//! Subscribers are told of workers and of what is handed in, and in a worker of each task.

mod common;

use std::fmt::{Debug, Write};
use std::sync::Mutex;

use common::watchdog;
use multiproc_pool::Pool;
use multiproc_process::init_before_main;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

init_before_main!();

static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes spans and events, each as one line.
struct Recorder;

impl Recorder {
    fn note(metadata: &Metadata<'_>, record: impl FnOnce(&mut Line)) {
        let mut line = Line(format!("{} {}", metadata.target(), metadata.name()));
        record(&mut line);
        TOLD.lock().unwrap().push(line.0);
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Self::note(span.metadata(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        Self::note(event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {
        TOLD.lock().unwrap().push("enter".into());
    }

    fn exit(&self, _: &Id) {
        TOLD.lock().unwrap().push("exit".into());
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

fn told() -> Vec<String> {
    std::mem::take(&mut *TOLD.lock().unwrap())
}

fn subscribe(_: ()) {
    tracing::subscriber::set_global_default(Recorder).unwrap();
}

#[test]
fn each_task_runs_within_a_span_of_its_own() {
    watchdog();
    subscribe(());
    let pool = Pool::builder().workers(1).initializer(subscribe, ()).build().unwrap();
    // What was told in the worker since the last task asked, as far as it is of tasks.
    let ask = |_: u32| -> Vec<String> {
        told().into_iter().filter(|line| !line.contains("event")).collect()
    };
    let told_there = pool.with_chunk_size(3).map(ask, 0..3).unwrap();
    let span = |number: u32| format!("multiproc::pool task number={number}");
    assert_eq!(told_there[0], [span(0), "enter".into()]);
    assert_eq!(told_there[1], ["exit".into(), span(1), "enter".into()]);
    assert_eq!(told_there[2], ["exit".into(), span(2), "enter".into()]);
    let killed = pool.apply(|()| -> () { std::process::abort() }, ());
    assert!(killed.is_err());
    // Another has taken its place.
    assert_eq!(pool.apply(|x: u32| x, 7).unwrap(), 7);
    pool.join().unwrap();
    let told_here = told();
    let count = |words: &[&str]| {
        told_here.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    assert!(count(&["worker=1", "worker started"]) == 1, "{told_here:#?}");
    assert!(count(&["worker=1", "tasks=3"]) == 1, "{told_here:#?}");
    assert!(count(&["tasks handed in", "tasks=3"]) == 1, "{told_here:#?}");
    assert!(count(&["worker=2", "worker started"]) == 1, "{told_here:#?}");
}
