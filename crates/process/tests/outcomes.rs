//! Proves that `join` gives what the function returned, or says how the process ended, under each
//! start method.

mod common;

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, Write};
use std::panic;
use std::time::Duration;

use common::{METHODS, children, count_open, hang, set_variable};
use multiproc_os::deadline::Deadline;
use multiproc_process::{Error, Process, StartMethod, current_process, set_start_method};
use multiproc_wire::{Endpoint, Fd, encode};
use rustix::process::{Signal, getpid, getppid, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

fn main() {
    common::init();
    common::run(&[
        ("a_value_comes_back", a_value_comes_back),
        ("large_arguments_and_values_travel", large_arguments_and_values_travel),
        ("a_child_knows_who_it_is", a_child_knows_who_it_is),
        ("handles_travel_both_ways", handles_travel_both_ways),
        ("a_panic_comes_home", a_panic_comes_home),
        ("a_panic_comes_home_whatever_it_was_thrown_with", a_panic_comes_home_however_thrown),
        ("a_panic_comes_home_with_its_backtrace", a_panic_comes_home_with_its_backtrace),
        ("an_exit_code_is_told", an_exit_code_is_told),
        ("a_signal_is_told", a_signal_is_told),
        ("terminate_kill_and_other_signals", terminate_and_kill),
        ("an_early_interrupt_is_not_lost", an_early_interrupt_is_not_lost),
        ("a_signal_that_is_none_is_refused", a_signal_that_is_none_is_refused),
        ("the_default_start_method_can_be_set", the_default_start_method_can_be_set),
        ("an_argument_that_does_not_serialise_starts_nothing", argument_does_not_serialise),
        ("an_argument_that_does_not_deserialise_is_an_error", argument_does_not_deserialise),
        ("a_value_that_does_not_serialise_is_an_error", value_does_not_serialise),
        ("a_value_that_does_not_deserialise_is_an_error", value_does_not_deserialise),
        ("a_value_is_given_once", a_value_is_given_once),
        ("a_dropped_process_runs_on", a_dropped_process_runs_on),
        ("processes_nest", processes_nest),
        ("a_copy_of_a_copy_reports_to_its_own_parent", a_copy_reports_to_its_own_parent),
    ]);
}

fn spawn<A, R>(method: StartMethod, function: fn(A) -> R, argument: A) -> Process<R>
where
    A: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    // None outlives a test that fails.
    let builder = Process::builder().name("tester").daemon(true).start_method(method);
    builder.spawn(function, argument).unwrap()
}

/// What `join` says of a function that does not return a value.
fn failure<A>(method: StartMethod, function: fn(A), argument: A) -> Error
where
    A: Serialize + DeserializeOwned,
{
    spawn(method, function, argument).join().unwrap_err()
}

fn a_value_comes_back() {
    for method in METHODS {
        assert_eq!(spawn(method, |(a, b): (u64, u64)| a + b, (2, 3)).join().unwrap(), 5);
        assert_eq!(spawn(method, |()| (), ()).join().unwrap(), ());
        let text = spawn(method, |name: String| format!("hello, {name}"), "world".into());
        assert_eq!(text.join().unwrap(), "hello, world");
        let error: Result<(), String> = spawn(method, |()| Err("no".into()), ()).join().unwrap();
        assert_eq!(error, Err("no".into()), "an Err is a value like any other");
    }
}

fn large_arguments_and_values_travel() {
    // Both sides of the length above which a message goes through memory, and far above.
    for len in [65_500, 65_536, 65_600, 16 << 20] {
        for method in METHODS {
            let reversed = spawn(method, reverse, (0..len).map(|i| i as u8).collect());
            let expected: Vec<u8> = (0..len).rev().map(|i| i as u8).collect();
            assert!(reversed.join().unwrap() == expected, "{len} bytes under {method:?}");
        }
    }
}

fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

fn a_child_knows_who_it_is() {
    for method in METHODS {
        for daemon in [false, true] {
            let builder = Process::builder().name("named").daemon(daemon).start_method(method);
            let process = builder
                .spawn(
                    |()| {
                        let me = current_process();
                        (me.name().to_owned(), me.pid(), me.parent_pid(), me.is_daemon())
                    },
                    (),
                )
                .unwrap();
            let pid = process.pid();
            assert_eq!(process.name(), "named");
            let expected = ("named".into(), pid, Some(std::process::id()), daemon);
            assert_eq!(process.join().unwrap(), expected, "{method:?}");
        }
        let unnamed = Process::builder().start_method(method).spawn(|()| (), ()).unwrap();
        assert!(unnamed.name().starts_with("Process-"), "{}", unnamed.name());
        unnamed.join().unwrap();
    }
    let me = current_process();
    assert_eq!((me.name(), me.parent_pid(), me.is_daemon()), ("MainProcess", None, false));
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    file: Fd<File>,
    ends: Vec<Endpoint>,
    label: String,
}

fn handles_travel_both_ways() {
    for method in METHODS {
        let mut file = tempfile::tempfile().unwrap();
        let (here, there) = Endpoint::pair().unwrap();
        let parcel = Parcel {
            file: Fd::from(file.try_clone().unwrap()),
            ends: vec![there],
            label: "outward".into(),
        };
        let child = spawn(
            method,
            |mut parcel: Parcel| {
                write!(parcel.file, "written as {}", parcel.label).unwrap();
                let end = parcel.ends.pop().unwrap();
                end.send(&encode("from the child").unwrap(), Deadline::NEVER).unwrap();
                Parcel { ends: vec![end], label: "homeward".into(), ..parcel }
            },
            parcel,
        );
        let mut parcel = child.join().unwrap();
        assert_eq!(parcel.label, "homeward");
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "written as outward");
        assert_eq!(here.recv(Deadline::NEVER).unwrap(), Some("from the child".to_owned()));
        let again = parcel.ends.pop().unwrap();
        again.send(&encode(&7).unwrap(), Deadline::NEVER).unwrap();
        assert_eq!(here.recv(Deadline::NEVER).unwrap(), Some(7));
        drop(again);
        assert!(here.recv::<i32>(Deadline::NEVER).unwrap_err().is_closed(), "nobody kept the end");
    }
}

fn a_panic_comes_home() {
    for method in METHODS {
        let error = failure(method, |name: String| panic!("{name} is out"), "the cat".into());
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), "the cat is out");
        let location = panic.location().unwrap();
        assert!(location.contains("outcomes.rs:"), "{location}");
        assert_eq!(panic.backtrace(), None);
        let text = error.to_string();
        assert_eq!(text, format!("process tester panicked: the cat is out, at {location}"));
        assert_eq!((error.exit_code(), error.signal()), (None, None));
    }
}

fn a_panic_comes_home_however_thrown() {
    struct PanicsAgain;
    impl Drop for PanicsAgain {
        fn drop(&mut self) {
            panic!("once more");
        }
    }
    type Case = (fn(()), &'static str, bool);
    let cases: [Case; 6] = [
        (|()| panic::panic_any(17u8), "(not text)", true),
        (|()| panic::panic_any(PanicsAgain), "(not text)", true),
        (|()| panic::resume_unwind(Box::new("resumed")), "resumed", false),
        (
            |()| {
                let _caught = panic::catch_unwind(|| panic!("caught"));
                panic::resume_unwind(Box::new("another".to_owned()))
            },
            "another",
            false,
        ),
        (
            |()| {
                let _caught = panic::catch_unwind(|| panic!("caught"));
                std::process::exit(0)
            },
            "",
            false,
        ),
        (
            |()| {
                let thread = std::thread::spawn(|| panic!("in a thread"));
                panic::resume_unwind(thread.join().unwrap_err())
            },
            "in a thread",
            false,
        ),
    ];
    for method in METHODS {
        for (function, message, located) in cases {
            let error = failure(method, function, ());
            if message.is_empty() {
                assert_eq!(error.exit_code(), Some(0), "{error}");
                continue;
            }
            let panic = error.panic().unwrap();
            assert_eq!(panic.message(), message, "{method:?}");
            assert_eq!(panic.location().is_some(), located, "{method:?}: {message}");
        }
        // One that the function caught is no failure.
        let value = spawn(method, |()| panic::catch_unwind(|| panic!("caught")).is_err(), ());
        assert!(value.join().unwrap());
        // One in a thread that nobody joins is none either.
        let value = spawn(method, |()| std::thread::spawn(|| panic!("thread")).join().is_err(), ());
        assert!(value.join().unwrap());
    }
}

#[inline(never)]
fn a_function_with_a_name(_: ()) {
    panic!("where?");
}

fn a_panic_comes_home_with_its_backtrace() {
    set_variable("RUST_BACKTRACE", Some("1"));
    for method in METHODS {
        let error = failure(method, a_function_with_a_name, ());
        let backtrace = error.panic().unwrap().backtrace().unwrap();
        assert!(backtrace.contains("a_function_with_a_name"), "{method:?}: {backtrace}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    set_variable("RUST_BACKTRACE", None);
}

fn an_exit_code_is_told() {
    for method in METHODS {
        for code in [0, 3, 255] {
            let error = failure(method, |code: i32| std::process::exit(code), code);
            assert_eq!((error.exit_code(), error.signal()), (Some(code), None));
            let text = format!("process tester exited with code {code} before it returned a value");
            assert_eq!(error.to_string(), text);
            assert!(!error.is_no_hello() && error.panic().is_none());
        }
        let exits_in_a_thread = |()| {
            std::thread::spawn(|| std::process::exit(4));
            hang()
        };
        assert_eq!(failure(method, exits_in_a_thread, ()).exit_code(), Some(4));
    }
}

fn a_signal_is_told() {
    for method in METHODS {
        for (signal, name) in [(Signal::KILL, "SIGKILL"), (Signal::SEGV, "SIGSEGV")] {
            let kills_itself = |signal: i32| {
                // std's handler takes the first `SIGSEGV` for a fault, which would come again.
                kill_process(getpid(), Signal::from_named_raw(signal).unwrap()).unwrap();
                kill_process(getpid(), Signal::from_named_raw(signal).unwrap()).unwrap();
                hang()
            };
            let error = failure(method, kills_itself, signal.as_raw());
            assert_eq!((error.signal(), error.exit_code()), (Some(signal.as_raw()), None));
            let text = format!("process tester was killed by {name} before it returned a value");
            assert_eq!(error.to_string(), text, "{method:?}");
        }
        let error = failure(method, |()| std::process::abort(), ());
        assert!(error.to_string().contains("was killed by SIGABRT"), "{error}");
    }
}

fn an_early_interrupt_is_not_lost() {
    multiproc_os::context::ignore_interrupt(false);
    for method in METHODS {
        for _ in 0..100 {
            let process: Process<()> = spawn(method, |()| hang(), ());
            process.interrupt().unwrap();
            assert_eq!(process.join().unwrap_err().signal(), Some(2), "{method:?}");
        }
    }
}

fn a_signal_that_is_none_is_refused() {
    for method in METHODS {
        let process: Process<()> = spawn(method, |()| hang(), ());
        for none in [-1, 0, 1000] {
            let error = process.send_signal(none).unwrap_err();
            assert!(
                error.to_string().starts_with("cannot send a signal to process tester"),
                "{error}"
            );
        }
        assert!(process.is_alive());
        process.kill().unwrap();
        assert_eq!(process.join().unwrap_err().signal(), Some(9));
    }
}

fn the_default_start_method_can_be_set() {
    assert_eq!(StartMethod::ALL, METHODS);
    assert_eq!(StartMethod::default(), StartMethod::ForkServer);
    for method in METHODS {
        set_start_method(method);
        let parent = |()| {
            (getppid().unwrap().as_raw_nonzero().get(), format!("{:?}", StartMethod::default()))
        };
        let (parent, default) = Process::spawn(parent, ()).unwrap().join().unwrap();
        let ours = parent == getpid().as_raw_nonzero().get();
        assert_eq!(ours, method != StartMethod::ForkServer, "{method:?}");
        let begins_with =
            if method == StartMethod::Fork { method } else { StartMethod::ForkServer };
        assert_eq!(default, format!("{begins_with:?}"));
    }
    set_start_method(StartMethod::ForkServer);
}

fn terminate_and_kill() {
    // A child ignores it if this process does, as it may if it was started in the background.
    multiproc_os::context::ignore_interrupt(false);
    for method in METHODS {
        type End = fn(&Process<()>) -> Result<(), Error>;
        let usr1: End = |process| process.send_signal(10);
        for (end, signal) in [
            (Process::terminate as End, 15),
            (Process::kill, 9),
            (Process::interrupt, 2),
            (usr1, 10),
        ] {
            let mut process = spawn(method, |()| hang(), ());
            assert!(process.is_alive());
            assert_eq!(process.exit_status().unwrap(), None);
            end(&process).unwrap();
            end(&process).unwrap();
            let error = process.join_timeout(Duration::MAX).unwrap_err();
            assert_eq!(error.signal(), Some(signal), "{method:?}");
            assert!(!process.is_alive());
            assert!(process.exit_status().unwrap().is_some());
            end(&process).unwrap();
        }
    }
}

/// A type whose way to or from bytes fails as its field says.
#[derive(Debug)]
enum Awkward {
    FailsToSerialise,
    PanicsToSerialise,
    FailsToDeserialise,
    FailsToDeserialiseWithText,
    PanicsToDeserialise,
}

impl Serialize for Awkward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Awkward::FailsToSerialise => Err(ser::Error::custom("the moon is full")),
            Awkward::PanicsToSerialise => panic!("the sun is down"),
            Awkward::FailsToDeserialise => serializer.serialize_u8(0),
            Awkward::FailsToDeserialiseWithText => serializer.serialize_u8(1),
            Awkward::PanicsToDeserialise => serializer.serialize_u8(2),
        }
    }
}

impl<'de> Deserialize<'de> for Awkward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Err(de::Error::custom("a text that postcard does not keep")),
            1 => Err(multiproc_wire::fail("the tide is out")),
            _ => panic!("the stars are gone"),
        }
    }
}

fn argument_does_not_serialise() {
    for method in METHODS {
        spawn(method, |()| (), ()).join().unwrap();
        let (open, running) = (count_open(std::process::id()), children(std::process::id()));
        let builder = Process::builder().name("tester").start_method(method);
        let argument = vec![Awkward::FailsToSerialise];
        let error = builder.spawn(|_: Vec<Awkward>| (), argument).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("process tester: its argument: cannot serialise "), "{text}");
        assert!(text.contains("Awkward") && text.ends_with("the moon is full"), "{text}");

        // Handles that were encoded before the failure are closed with it.
        let (end, _other) = Endpoint::pair().unwrap();
        let argument = (end, Awkward::FailsToSerialise);
        let builder = Process::builder().start_method(method);
        assert!(builder.spawn(|_: (Endpoint, Awkward)| (), argument).is_err());
        drop(_other);
        assert_eq!(count_open(std::process::id()), open);
        assert_eq!(children(std::process::id()), running);
    }
}

fn argument_does_not_deserialise() {
    for method in METHODS {
        let error = failure(method, |_: Awkward| (), Awkward::FailsToDeserialise).to_string();
        assert!(error.contains("its argument: cannot read the message as"), "{error}");
        let error = failure(method, |_: Awkward| (), Awkward::FailsToDeserialiseWithText);
        assert!(error.to_string().ends_with("the tide is out"), "{error}");
        let error = failure(method, |_: Awkward| (), Awkward::PanicsToDeserialise);
        assert_eq!(error.panic().unwrap().message(), "the stars are gone", "{error}");
    }
}

fn value_does_not_serialise() {
    for method in METHODS {
        let error = spawn(method, |()| Awkward::FailsToSerialise, ()).join().unwrap_err();
        assert!(error.to_string().ends_with("the moon is full"), "{error}");
        let error = spawn(method, |()| Awkward::PanicsToSerialise, ()).join().unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "the sun is down");
    }
}

fn value_does_not_deserialise() {
    for method in METHODS {
        let error = spawn(method, |()| Awkward::FailsToDeserialise, ()).join().unwrap_err();
        assert!(error.to_string().starts_with("the value of process tester: "), "{error}");
        let process = spawn(method, |()| Awkward::FailsToDeserialiseWithText, ());
        let error = process.join().unwrap_err();
        assert!(error.to_string().ends_with("the tide is out"), "{error}");
    }
}

fn a_value_is_given_once() {
    for method in METHODS {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let waits = |mut reader: Fd<PipeReader>| {
            reader.read_exact(&mut [0]).unwrap();
            "done".to_owned()
        };
        let mut process = spawn(method, waits, reader.into());
        assert_eq!(process.try_join().unwrap(), None);
        assert_eq!(process.join_timeout(Duration::from_millis(5)).unwrap(), None);
        assert!(process.is_alive());
        writer.write_all(&[1]).unwrap();
        assert_eq!(process.join_timeout(Duration::MAX).unwrap().as_deref(), Some("done"));
        assert!(!process.is_alive());
        let text = "the value of process tester was taken by an earlier join";
        assert_eq!(process.try_join().unwrap_err().to_string(), text);
        assert!(process.exit_status().unwrap().unwrap().success());
        assert_eq!(process.join().unwrap_err().to_string(), text);
    }
}

fn a_dropped_process_runs_on() {
    for method in METHODS {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (gate, mut open) = std::io::pipe().unwrap();
        let answers = |(mut gate, mut writer): (Fd<PipeReader>, Fd<PipeWriter>)| {
            gate.read_exact(&mut [0]).unwrap();
            writer.write_all(b"ran on").unwrap();
        };
        drop(spawn(method, answers, (gate.into(), writer.into())));
        open.write_all(&[1]).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ran on", "{method:?}");
        common::wait_for_threads();
    }
}

/// Gives the numbers of the processes from here down.
fn descend((levels, method): (u32, Method)) -> Vec<u32> {
    let mut pids = vec![std::process::id()];
    if levels > 1 {
        let below = spawn(method.into(), descend, (levels - 1, method));
        let pid = below.pid();
        let deeper = below.join().unwrap();
        assert_eq!(deeper[0], pid);
        pids.extend(deeper);
    }
    pids
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Method(u8);

impl From<Method> for StartMethod {
    fn from(Method(index): Method) -> Self {
        METHODS[usize::from(index)]
    }
}

fn processes_nest() {
    for index in 0..3 {
        let mut pids = descend((4, Method(index)));
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 4);
    }
}

fn a_copy_reports_to_its_own_parent() {
    for method in METHODS {
        let outer = |()| {
            let inner = Process::fork(|| -> () { panic!("inner") }).unwrap();
            inner.join().unwrap_err().panic().unwrap().message().to_owned()
        };
        assert_eq!(spawn(method, outer, ()).join().unwrap(), "inner", "{method:?}");
    }
    let captured = [1, 2, 3];
    assert_eq!(Process::fork(|| captured.iter().sum::<i32>()).unwrap().join().unwrap(), 6);
}
