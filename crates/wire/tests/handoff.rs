//! Proves that a packet is handed over whole or not at all, at whatever instruction one of the two is
//! stopped or killed, and that both know which of it is so.
//!
//! One of the two runs instruction by instruction and is stopped after the first, the second, and so
//! on, each time as another process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use multiproc_harness::trace::{Moment, Traced, Way};
use multiproc_os::deadline::Deadline;
use multiproc_os::handoff::{Handoff, LEN, Side, Taken};
use multiproc_os::memory::{Mapping, Memory};
use multiproc_wire::{Attempt, Endpoint, Message, SharedFd, encode};

fn main() {
    multiproc_harness::run(&[
        ("handing_over_needs_no_system_call", handing_over_needs_no_system_call),
        ("a_receiver_is_stopped_anywhere", a_receiver_is_stopped_anywhere),
        ("nothing_is_handed_to_one_that_was_killed", nothing_is_handed_to_one_that_was_killed),
        ("a_sender_is_stopped_anywhere", a_sender_is_stopped_anywhere),
        ("a_sender_is_killed_anywhere", a_sender_is_killed_anywhere),
        ("no_plain_attempt_meets_descriptors", no_plain_attempt_meets_descriptors),
        ("descriptors_wait_for_a_stopped_receiver", descriptors_wait_for_a_stopped_receiver),
        ("descriptors_wait_for_no_killed_receiver", descriptors_wait_for_no_killed_receiver),
    ]);
}

const PACKET: &[u8] = b"a packet of 25 bytes, odd";

fn ends() -> [Handoff; 2] {
    let memory = Memory::create("test", LEN as u64).unwrap();
    [Side::Here, Side::There]
        .map(|side| Handoff::new(Arc::new(memory.map(0, LEN).unwrap()), side).unwrap())
}

/// Waits to be handed a packet while this goes on. Tells whether one came, which is whole then. `None`
/// if the side cannot be opened.
fn take(end: &Handoff, meanwhile: impl FnOnce()) -> Option<bool> {
    let mut meanwhile = Some(meanwhile);
    let mut room = [0; 100];
    let yields = || {
        if let Some(meanwhile) = meanwhile.take() {
            meanwhile();
        }
        false
    };
    match end.take(&mut room, yields)? {
        Taken::Packet(len) => {
            assert_eq!(&room[..len], PACKET);
            Some(true)
        }
        Taken::Nothing | Taken::Enough => Some(false),
    }
}

/// A process that is about to act and then to tell what came of it.
fn traced(act: impl FnOnce() -> bool) -> (Traced, Report) {
    let report = Report(Memory::create("test", 8).unwrap().map(0, 8).unwrap());
    // What a thread finds out about itself the first time is no part of the act.
    let before = || _ = take(&ends()[0], || ());
    let traced = Traced::start(before, || report.0.store(0, 1 + u64::from(act())).unwrap());
    (traced, report)
}

/// What a process tells, also when it is gone.
struct Report(Mapping);

impl Report {
    fn told(self) -> bool {
        let word = self.0.load(0).unwrap();
        assert_ne!(word, 0, "it has told nothing");
        word == 2
    }
}

/// Does it with each number of instructions, until it says that there are no more. Tells how often
/// it gave `true`.
fn at_each_instruction(mut act: impl FnMut(Moment<'_>, u64) -> (Option<u64>, bool)) -> u32 {
    let way = Way::default();
    let (length, _) = act(way.to_the_end(), u64::MAX);
    let mut times = 0;
    for after in 0..length.unwrap() {
        multiproc_harness::watchdog();
        times += u32::from(act(way.after(after), after).1);
    }
    times
}

fn handing_over_needs_no_system_call() {
    const MANY: usize = 100;
    let [here, there] = ends();
    let calls = |times: usize| {
        let hand_over = || (0..times).all(|_| take(&there, || assert!(here.give(PACKET))).unwrap());
        let (both, report) = traced(hand_over);
        let calls = both.system_calls().len();
        assert!(report.told());
        calls
    };
    assert_eq!(calls(MANY), calls(0));
}

fn a_receiver_is_stopped_anywhere() {
    let given = at_each_instruction(|moment, after| {
        let [here, there] = ends();
        let (receiver, report) = traced(|| take(&there, || ()).unwrap());
        let mut given = false;
        let length = receiver.run_on(moment, || {
            given = here.give(PACKET);
            true
        });
        if length.is_some() {
            return (length, false);
        }
        assert_eq!(report.told(), given, "after {after} instructions");
        assert!(!here.give(PACKET), "nobody waits any more");
        (length, given)
    });
    assert!(given > 3, "{given}");
}

fn nothing_is_handed_to_one_that_was_killed() {
    let mut deaths = 0;
    at_each_instruction(|moment, after| {
        let [here, there] = ends();
        let (receiver, _report) = traced(|| take(&there, || ()).unwrap());
        let length = receiver.run(moment, || ());
        assert!(!here.give(PACKET), "killed after {after} instructions");
        deaths += 1;
        (length, false)
    });
    assert!(deaths > 30, "{deaths}");
}

fn a_sender_is_stopped_anywhere() {
    let came = at_each_instruction(|moment, after| {
        let [here, there] = ends();
        let (sender, report) = traced(|| there.give(PACKET));
        let mut length = None;
        let came = take(&here, || length = sender.advance(moment)).unwrap();
        sender.finish(length.is_some());
        assert_eq!(report.told(), came, "after {after} instructions");
        assert!(works(&here, &there), "after {after} instructions");
        (length, came)
    });
    assert!(came > 3, "{came}");
}

fn a_sender_is_killed_anywhere() {
    let mut broken = 0;
    let came = at_each_instruction(|moment, _| {
        let [here, there] = ends();
        let (sender, _report) = traced(|| there.give(PACKET));
        let mut length = None;
        let came = take(&here, || length = sender.run(moment, || ())).unwrap();
        broken += u32::from(!works(&here, &there));
        (length, came)
    });
    assert!(came > 3 && broken > 3, "{came}, {broken}");
}

fn no_plain_attempt_meets_descriptors() {
    let mut attempts = 0;
    let allowed = at_each_instruction(|moment, after| {
        let [here, there] = ends();
        let attempted = Memory::create("test", 8).unwrap().map(0, 8).unwrap();
        let (receiver, report) = traced(|| {
            let recv = || {
                attempted.store(0, 1).unwrap();
                Ok::<_, ()>(None)
            };
            there.plainly(recv).is_some()
        });
        let mut seen = None;
        let length = receiver.run_on(moment, || {
            seen = Some((attempted.load(0), here.may_attach()));
            true
        });
        let Some((before, allowed)) = seen else { return (length, false) };
        let came = attempted.load(0) == Some(1);
        assert_eq!(report.told(), came);
        attempts += u32::from(came);
        assert!(!allowed || before == attempted.load(0), "after {after} instructions");
        assert!(here.may_attach());
        (length, allowed)
    });
    assert!(allowed > 10 && attempts > 10, "{allowed}, {attempts}");
}

/// Has a process make one plain attempt to receive and stops it after some instructions, of which several
/// are within the attempt, each time as another process.
fn at_some_instructions(mut act: impl FnMut(Traced, Report, Moment<'_>, [Endpoint; 2])) {
    let receiver = || {
        let (here, there) = Endpoint::pair_with_memory().unwrap();
        let receive = || there.recv::<SharedFd>(Deadline::now()).is_ok_and(|fd| fd.is_some());
        let (receiver, report) = traced(receive);
        (receiver, report, [here, there])
    };
    let way = Way::default();
    let (first, ..) = receiver();
    let length = first.run(way.to_the_end(), || ()).unwrap();
    for after in (0..length).step_by(29) {
        multiproc_harness::watchdog();
        let (receiver, report, ends) = receiver();
        act(receiver, report, way.after(after), ends);
    }
}

fn handle() -> Message {
    encode(&SharedFd::from(OwnedFd::from(File::open("/dev/null").unwrap()))).unwrap()
}

fn descriptors_wait_for_a_stopped_receiver() {
    let message = handle();
    let mut waited = 0;
    at_some_instructions(|receiver, report, moment, [here, there]| {
        let mut attempt = None;
        receiver.run_on(moment, || {
            attempt = Some(here.attempt(&message).unwrap());
            true
        });
        // It may have come to its end a little sooner.
        let Some(attempt) = attempt else { return };
        let sent = attempt == Attempt::Sent;
        assert!(sent || attempt == Attempt::Busy);
        let came = report.told();
        assert!(sent || !came);
        waited += u32::from(!sent);
        if !sent {
            assert!(here.send(&message, Deadline::now()).unwrap());
        }
        // With its descriptor, whoever receives it.
        let received = there.recv::<SharedFd>(Deadline::now()).unwrap();
        assert_eq!(received.is_some(), !came);
    });
    assert!(waited > 0);
}

fn descriptors_wait_for_no_killed_receiver() {
    let message = handle();
    at_some_instructions(|receiver, _, moment, [here, there]| {
        drop(there);
        receiver.run(moment, || ());
        assert!(here.send(&message, Deadline::NEVER).unwrap_err().is_closed());
    });
}

/// Whether another packet can be handed over. If not, the side cannot be opened either.
fn works(here: &Handoff, there: &Handoff) -> bool {
    let mut given = false;
    let came = take(here, || given = there.give(PACKET));
    assert_eq!(came.unwrap_or(false), given);
    assert_eq!(came.is_some(), given);
    given
}
