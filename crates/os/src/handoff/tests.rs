use crate::memory::Memory;

use super::*;

fn memory() -> Memory {
    Memory::create("test", LEN as u64).unwrap()
}

fn ends(memory: &Memory) -> [Handoff; 2] {
    [Side::Here, Side::There]
        .map(|side| Handoff::new(Arc::new(memory.map(0, LEN).unwrap()), side).unwrap())
}

/// Waits to be handed a packet of up to so many bytes, while this is done once.
fn take(end: &Handoff, room: usize, act: impl FnOnce()) -> (Option<Taken>, Vec<u8>) {
    let mut room = vec![0; room];
    let mut act = Some(act);
    let yields = || {
        let first = act.take();
        first.map(|act| act()).is_some()
    };
    (end.take(&mut room, yields), room)
}

#[test]
fn packets_of_any_length_are_handed_over_in_both_directions() {
    let [here, there] = ends(&memory());
    for len in (0..200).chain(ROOM - 9..=ROOM) {
        let packet: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        for (from, to) in [(&here, &there), (&there, &here)] {
            let (taken, room) = take(to, ROOM + 9, || assert!(from.give(&packet)));
            assert_eq!(taken, Some(Taken::Packet(len)));
            assert_eq!(room[..len], packet);
        }
        // What does not fit is told, and gone.
        if let Some(less) = len.checked_sub(1) {
            let (taken, room) = take(&there, less, || assert!(here.give(&packet)));
            assert_eq!(taken, Some(Taken::Packet(len)));
            assert_eq!(room, packet[..less]);
        }
    }
    let long = [7; ROOM + 1];
    assert_eq!(take(&there, 2 * ROOM, || assert!(!here.give(&long))).0, Some(Taken::Enough));
}

#[test]
fn nothing_is_handed_over_unless_somebody_waits() {
    let [here, there] = ends(&memory());
    assert!(!here.give(b"1"));
    // Whoever waits at the same end waits elsewhere.
    let (taken, _) = take(&there, 9, || {
        assert_eq!(take(&there, 9, || ()).0, None);
        assert!(!there.give(b"2"), "not at the other end");
        assert!(here.give(b"3"));
        assert!(!here.give(b"4"), "one at a time");
    });
    assert_eq!(taken, Some(Taken::Packet(1)));
    assert!(!here.give(b"5"));
    assert_eq!(take(&there, 9, || ()).0, Some(Taken::Enough));
}

#[test]
fn nothing_overtakes_what_is_in_the_socket() {
    let [here, there] = ends(&memory());
    let (taken, _) = take(&there, 9, || {
        here.count_sent();
        assert!(!here.give(b"1"));
    });
    assert_eq!(taken, Some(Taken::Nothing), "there is something in the socket");
    assert!(there.is_expecting() && !here.is_expecting());
    assert_eq!(take(&there, 9, || ()).0, None);
    there.count_received();
    let (taken, _) = take(&there, 9, || assert!(here.give(b"2")));
    assert_eq!(taken, Some(Taken::Packet(1)));

    here.count_sent();
    here.count_unsent();
    let (taken, _) = take(&there, 9, || assert!(here.give(b"3")));
    assert_eq!(taken, Some(Taken::Packet(1)));
}

#[test]
fn threads_hand_over_in_their_order() {
    const EACH: u32 = 2000;
    let memory = memory();
    let [here, there] = ends(&memory);
    std::thread::scope(|scope| {
        for sender in [0u32, 1] {
            let here = &here;
            scope.spawn(move || {
                for number in 0..EACH {
                    let packet = [sender.to_le_bytes(), number.to_le_bytes()].concat();
                    while !here.give(&packet) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut next = [0; 2];
        while next != [EACH; 2] {
            let mut packet = [0; 8];
            let mut left = 10;
            let yields = || {
                std::thread::yield_now();
                left -= 1;
                left > 0
            };
            if let Some(Taken::Packet(len)) = there.take(&mut packet, yields) {
                assert_eq!(len, packet.len());
                let [sender, number] = [&packet[..4], &packet[4..]]
                    .map(|word| u32::from_le_bytes(word.try_into().unwrap()));
                assert_eq!(number, next[sender as usize]);
                next[sender as usize] += 1;
            }
        }
    });
}

#[test]
fn a_sender_that_is_late_finds_the_side_broken_and_mends_it() {
    let memory = memory();
    let [here, there] = ends(&memory);
    let lane = here.outgoing();
    let word = || State::decode(lane.state.load(Relaxed));
    let mut late = None;
    let (taken, _) = take(&there, 9, || {
        let open = word();
        assert!(open.is_open() && lane.replace(open, open.with(Phase::Written)));
        late = Some(open.with(Phase::Written));
    });
    assert_eq!(taken, Some(Taken::Nothing));
    assert!(word() == Phase::Broken.with_nobody());
    assert_eq!(take(&there, 9, || ()).0, None);
    // What `give` does then.
    assert!(!lane.replace(late.unwrap(), late.unwrap().with(Phase::Full(1))));
    assert!(lane.replace(Phase::Broken.with_nobody(), Phase::Idle.with_nobody()));
    let (taken, _) = take(&there, 9, || assert!(here.give(b"1")));
    assert_eq!(taken, Some(Taken::Packet(1)));
}

#[test]
fn descriptors_wait_for_plain_attempts_and_end_them() {
    type Received = Result<Option<usize>, ()>;
    let [here, there] = ends(&memory());
    let plainly = |received: Received| there.plainly(|| received);
    here.count_sent();
    assert_eq!(plainly(Err(())), Some(Err(())));
    assert_eq!(plainly(Ok(None)), Some(Ok(None)));
    assert!(there.is_expecting());
    assert_eq!(plainly(Ok(Some(7))), Some(Ok(Some(7))));
    assert!(!there.is_expecting(), "it was counted");

    let attempt: Option<Received> = there.plainly(|| {
        assert!(!here.may_attach(), "one is under way");
        assert!(there.may_attach(), "the other way there is none");
        // Another thread begins none.
        assert_eq!(plainly(Ok(Some(7))), None);
        Ok(None)
    });
    assert_eq!(attempt, Some(Ok(None)));
    assert!(here.may_attach());
    assert_eq!(plainly(Ok(None)), None);
    assert!(here.may_attach());
    let (taken, _) = take(&there, 9, || assert!(here.give(b"1")));
    assert_eq!(taken, Some(Taken::Packet(1)), "packets are handed over all the same");
}

#[test]
fn whatever_is_in_the_memory_is_no_harm() {
    let memory = memory();
    let [here, there] = ends(&memory);
    let words = memory.map(0, LEN).unwrap();
    // The side that `there` opens is the second one.
    let set = |word: u64| words.store(size_of::<Lane>() + offset_of!(Lane, state), word).unwrap();
    let lens = [0, 1, ROOM as u32 + 1, u32::MAX];
    for rest in (0..9).flat_map(|phase| lens.map(|len| phase | len << State::LEN_SHIFT)) {
        for receiver in [0, 1, 1 << 29, 1 << 30, u32::MAX] {
            let word = u64::from(receiver) << WORD_SHIFT | u64::from(rest) << (32 - WORD_SHIFT);
            set(word);
            here.give(b"packet");
            set(word);
            let _whatever = take(&there, 9, || ());
            // While it is open.
            set(0);
            let (taken, _) = take(&there, 9, || set(word));
            if let Some(Taken::Packet(len)) = taken {
                assert!(len <= ROOM);
            } else {
                assert_eq!(take(&there, 9, || ()).0, None, "it is broken");
            }
        }
    }
}

#[test]
fn memory_that_is_too_short_is_refused() {
    let memory = Memory::create("test", LEN as u64 - 1).unwrap();
    assert!(Handoff::new(Arc::new(memory.map(0, LEN - 1).unwrap()), Side::Here).is_none());
}
