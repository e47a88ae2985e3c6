//! Proves which events a subscriber is told, under each start method.

mod common;

use std::fmt::{Debug, Write};
use std::sync::Mutex;

use common::{METHODS, hang};
use multiproc_process::{Process, StartMethod, active_children};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

fn main() {
    common::init();
    tracing::subscriber::set_global_default(Recorder).unwrap();
    common::run(&[
        ("a_start_and_an_end_are_told_once", a_start_and_an_end),
        ("signals_are_told", signals_are_told),
        ("a_start_that_fails_is_not_told", a_start_that_fails),
    ]);
}

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes each event as one line.
struct Recorder;

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}:", metadata.level(), metadata.target()));
        event.record(&mut line);
        EVENTS.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

/// What was told since the last call.
fn events() -> Vec<String> {
    std::mem::take(&mut *EVENTS.lock().unwrap())
}

/// How the event of a child called `tester` reads.
fn line(message: &str, pid: u32, rest: &str) -> String {
    let rest = if rest.is_empty() { String::new() } else { format!(" {rest}") };
    format!("DEBUG multiproc::process: message={message} name=\"tester\" pid={pid}{rest}")
}

fn spawn(method: StartMethod, function: fn(())) -> Process {
    let builder = Process::builder().name("tester").daemon(true).start_method(method);
    builder.spawn(function, ()).unwrap()
}

fn a_start_and_an_end() {
    for method in METHODS {
        let mut process = spawn(method, |()| ());
        let pid = process.pid();
        assert_eq!(events(), [line("started", pid, &format!("method={method:?}"))]);
        process.join_timeout(std::time::Duration::MAX).unwrap();
        process.exit_status().unwrap();
        drop(process);
        assert_eq!(events(), [line("ended", pid, "status=exit status: 0")]);
    }
}

fn signals_are_told() {
    for method in METHODS {
        let process = spawn(method, |()| -> () { hang() });
        let pid = process.pid();
        assert_eq!(events().len(), 1);
        // Of these it takes no notice.
        process.send_signal(libc::SIGCONT).unwrap();
        process.send_signal(libc::SIGURG).unwrap();
        active_children().unwrap()[0].terminate().unwrap();
        process.join().unwrap_err();
        let expected = [
            line("signalled", pid, "signal=18"),
            line("signalled", pid, "signal=23"),
            line("signalled", pid, "signal=15"),
            line("ended", pid, "status=signal: 15 (SIGTERM)"),
        ];
        assert_eq!(events(), expected);
    }
}

fn a_start_that_fails() {
    for method in METHODS {
        let builder = Process::builder().start_method(method).niceness(100);
        builder.spawn(|()| (), ()).unwrap_err();
        assert_eq!(events(), [] as [String; 0]);
    }
}
