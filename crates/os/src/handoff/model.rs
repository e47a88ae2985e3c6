//! The protocol in every interleaving of two threads that send and two that receive, each of which may
//! stop for ever between any two steps, or end as a process that was killed: what was sent comes once,
//! whole and in its order, and what was handed to the dead was on its way when they died.
//!
//! The steps are taken one after the other, as on machines with strong ordering. Plain attempts are no part
//! of it.
//!
//! Each rule is also left out once, to show that it is needed and that this test sees it.

use std::collections::HashSet;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// Nobody compares the counts before a packet is handed over.
    HandsOverAlways,
    /// A packet for the socket is counted after it was sent.
    CountsAfterSending,
    /// A packet from the socket is counted before it is taken.
    CountsBeforeTaking,
    /// A side on which a sender is late can be opened again at once.
    OpensAgain,
    /// Another sender mends a broken side.
    MendsForOthers,
    /// The kernel does not take a dead receiver's number out.
    DiesUnseen,
    /// What is in the socket is taken while the side is open.
    TakesWhileOpen,
}

const SENDERS: usize = 2;
const RECEIVERS: usize = 2;
/// How many packets each thread sends.
const PACKETS: [u8; SENDERS] = [2, 1];
const MOST: usize = 3;

/// A packet: the sender and its number, from 1.
type Packet = (u8, u8);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    receiver: u8,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Sender {
    Start,
    /// It has seen an open side.
    Saw(State),
    /// It has read the count of those that were sent.
    Compares(State, u8),
    Compared(State),
    /// It is writing.
    Half(State),
    Whole(State),
    ToSocket,
    Counted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Receiver {
    Start,
    /// It has a packet out of the socket.
    Took(Packet),
    /// It has counted one that it is yet to take.
    Counted,
    /// It has found an idle side.
    Saw,
    Open,
    Closing,
    HalfRead(Option<Packet>),
    Read(Packet, Option<Packet>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    mutation: u8,
    state: State,
    halves: [Option<Packet>; 2],
    sent: u8,
    received: u8,
    socket: [Option<Packet>; MOST],
    senders: [(Sender, u8); SENDERS],
    receivers: [Receiver; RECEIVERS],
    /// How many threads receive.
    receiving: u8,
    /// And which thread it came to.
    came: [Option<(Packet, u8)>; MOST],
    /// The receiving process was killed, and that is known.
    dead: bool,
    wrong: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Idle,
    Open,
    Written,
    Full,
    Broken,
}

use Phase::*;

const NOBODY: u8 = 0;
const NOBODY_IDLE: State = State { receiver: NOBODY, phase: Idle };

impl World {
    fn start(receiving: u8, mutation: Mutation) -> Self {
        World {
            mutation: mutation as u8,
            state: State { receiver: NOBODY, phase: Idle },
            halves: [None; 2],
            sent: 0,
            received: 0,
            socket: [None; MOST],
            senders: [(Sender::Start, 1); SENDERS],
            receivers: [Receiver::Start; RECEIVERS],
            receiving,
            came: [None; MOST],
            dead: false,
            wrong: None,
        }
    }

    fn leaves_out(&self, mutation: Mutation) -> bool {
        self.mutation == mutation as u8
    }

    fn go_on(self, mut add: impl FnMut(World)) {
        for (number, packets) in PACKETS.into_iter().enumerate() {
            if self.senders[number].1 <= packets {
                self.send(number, &mut add);
            }
        }
        if self.dead {
            return;
        }
        for number in 0..usize::from(self.receiving) {
            self.receive(number, &mut add);
        }
        let mut killed = World { dead: true, ..self };
        if self.state.receiver != NOBODY && !self.leaves_out(Mutation::DiesUnseen) {
            killed.state.receiver = u8::MAX;
        }
        add(killed);
    }

    fn send(self, number: usize, add: &mut impl FnMut(World)) {
        let (at, packet) = self.senders[number];
        let packet = (number as u8 + 1, packet);
        let to = |at| {
            let mut next = self;
            next.senders[number].0 = at;
            next
        };
        let done = |mut next: World| {
            next.senders[number] = (Sender::Start, packet.1 + 1);
            next
        };
        match at {
            Sender::Start if self.state.phase == Open => add(to(Sender::Saw(self.state))),
            Sender::Start if self.leaves_out(Mutation::MendsForOthers) => {
                let mends = self.state.phase == Broken;
                let state = if mends { NOBODY_IDLE } else { self.state };
                add(World { state, ..to(Sender::ToSocket) });
            }
            Sender::Start => add(to(Sender::ToSocket)),
            Sender::Saw(open) if self.leaves_out(Mutation::HandsOverAlways) => {
                add(to(Sender::Compared(open)));
            }
            Sender::Saw(open) => add(to(Sender::Compares(open, self.sent))),
            Sender::Compares(open, sent) if sent == self.received => {
                add(to(Sender::Compared(open)));
            }
            Sender::Compares(..) => add(to(Sender::ToSocket)),
            Sender::Compared(open) if self.state == open && open.receiver <= RECEIVERS as u8 => {
                let wrong = self.dead.then_some("it is handed to one that is known to be dead");
                add(World {
                    state: State { phase: Written, ..open },
                    wrong,
                    ..to(Sender::Half(open))
                });
            }
            Sender::Compared(_) => add(to(Sender::ToSocket)),
            Sender::Half(open) => {
                let mut next = to(Sender::Whole(open));
                next.halves[0] = Some(packet);
                add(next);
            }
            Sender::Whole(open) => {
                let mut next = to(Sender::ToSocket);
                next.halves[1] = Some(packet);
                // The last step is one with this: what happens in between others do not see.
                let written = State { phase: Written, ..open };
                if self.state == written {
                    next.state.phase = Full;
                    next = done(next);
                } else if self.state.phase == Broken {
                    next.state = NOBODY_IDLE;
                }
                add(next);
            }
            Sender::ToSocket if self.leaves_out(Mutation::CountsAfterSending) => {
                add(World { socket: pushed(self.socket, packet), ..to(Sender::Counted) });
            }
            Sender::ToSocket => add(World { sent: self.sent + 1, ..to(Sender::Counted) }),
            Sender::Counted if self.leaves_out(Mutation::CountsAfterSending) => {
                add(done(World { sent: self.sent + 1, ..self }));
            }
            // With nobody there it is an error.
            Sender::Counted if self.dead => add(done(self)),
            Sender::Counted => add(done(World { socket: pushed(self.socket, packet), ..self })),
        }
    }

    fn receive(self, number: usize, add: &mut impl FnMut(World)) {
        let thread = number as u8 + 1;
        let to = |at| {
            let mut next = self;
            next.receivers[number] = at;
            next
        };
        let back = to(Receiver::Start);
        match self.receivers[number] {
            Receiver::Start => {
                if let Some((packet, popped)) = self.popped() {
                    add(if self.leaves_out(Mutation::CountsBeforeTaking) {
                        World { received: self.received + 1, ..to(Receiver::Counted) }
                    } else {
                        World { socket: popped.socket, ..to(Receiver::Took(packet)) }
                    });
                }
                if self.sent == self.received && self.state == NOBODY_IDLE {
                    add(to(Receiver::Saw));
                }
            }
            Receiver::Took(packet) => {
                add(World { received: self.received + 1, ..back }.with(packet, thread));
            }
            Receiver::Counted => match self.popped() {
                Some((packet, popped)) => {
                    add(World { socket: popped.socket, ..back }.with(packet, thread));
                }
                None => add(back),
            },
            Receiver::Saw if self.state == NOBODY_IDLE => {
                let open = State { receiver: thread, phase: Open };
                add(World { state: open, ..to(Receiver::Open) });
            }
            Receiver::Saw => add(back),
            Receiver::Open => {
                if self.leaves_out(Mutation::TakesWhileOpen)
                    && let Some((packet, popped)) = self.popped()
                {
                    add(World { received: self.received + 1, ..popped }.with(packet, thread));
                }
                add(to(Receiver::Closing));
            }
            Receiver::Closing => {
                match self.state.phase {
                    Open => add(World { state: NOBODY_IDLE, ..back }),
                    Full => add(to(Receiver::HalfRead(self.halves[0]))),
                    // Enough of waiting.
                    Written if self.leaves_out(Mutation::OpensAgain) => {
                        add(World { state: NOBODY_IDLE, ..back });
                    }
                    Written => add(World { state: State { phase: Broken, ..NOBODY_IDLE }, ..back }),
                    _ => add(World { wrong: Some("another has closed it"), ..self }),
                }
            }
            Receiver::HalfRead(first) => {
                let mut next = match first {
                    Some(packet) => to(Receiver::Read(packet, self.halves[1])),
                    None => World { wrong: Some("nothing was written"), ..self },
                };
                next.state = NOBODY_IDLE;
                add(next);
            }
            Receiver::Read(packet, second) if second == Some(packet) => {
                add(back.with(packet, thread))
            }
            Receiver::Read(..) => add(World { wrong: Some("it is of two packets"), ..self }),
        }
    }

    /// The first packet in the socket, and the world without it.
    fn popped(self) -> Option<(Packet, World)> {
        let packet = self.socket[0]?;
        let mut socket = self.socket;
        socket.rotate_left(1);
        socket[MOST - 1] = None;
        Some((packet, World { socket, ..self }))
    }

    /// After the packet has come to the thread.
    fn with(mut self, packet: Packet, thread: u8) -> World {
        let count = self.came.iter().flatten().count();
        if self.came.iter().flatten().any(|(came, _)| *came == packet) {
            self.wrong = Some("it comes twice");
            return self;
        }
        // What comes to another thread may have been taken before, and be told later.
        let later =
            |(came, to): &(Packet, u8)| *to == thread && came.0 == packet.0 && came.1 > packet.1;
        if self.came.iter().flatten().any(later) {
            self.wrong = Some("it comes after a later one");
        }
        self.came[count] = Some((packet, thread));
        self
    }

    /// Tells what is wrong when nothing is left to be done.
    fn check_end(&self) -> Option<&'static str> {
        let sent = self.senders.iter().map(|(_, next)| usize::from(next - 1)).sum::<usize>();
        let came = self.came.iter().flatten().count();
        (!self.dead && came != sent).then_some("it is lost")
    }
}

fn pushed(mut socket: [Option<Packet>; MOST], packet: Packet) -> [Option<Packet>; MOST] {
    if let Some(place) = socket.iter_mut().find(|place| place.is_none()) {
        *place = Some(packet);
    }
    socket
}

/// Looks at all worlds that can be: gives how many there are, or what is wrong with one.
fn explore(receiving: u8, mutation: Mutation) -> Result<usize, &'static str> {
    let start = World::start(receiving, mutation);
    let mut seen = HashSet::from([start]);
    let mut left = vec![start];
    while let Some(world) = left.pop() {
        if let Some(wrong) = world.wrong {
            return Err(wrong);
        }
        world.go_on(|next| {
            if next != world && seen.insert(next) {
                left.push(next);
            }
        });
        let idle = |receiver: &Receiver| *receiver == Receiver::Start;
        let sent = |((_, next), all): (&(Sender, u8), u8)| *next > all;
        let at_rest = world.senders.iter().zip(PACKETS).all(sent)
            && world.receivers.iter().all(idle)
            && world.socket[0].is_none();
        if let (true, Some(wrong)) = (at_rest, world.check_end()) {
            return Err(wrong);
        }
    }
    Ok(seen.len())
}

#[test]
fn what_is_sent_comes_once_whole_and_in_order() {
    for receiving in [1, 2] {
        let worlds = explore(receiving, Mutation::None).unwrap();
        assert!(worlds > 10_000, "{worlds}");
    }
}

#[test]
fn each_rule_is_needed() {
    let broken = |receiving, mutation| explore(receiving, mutation).unwrap_err();
    let order = "it comes after a later one";
    assert_eq!(broken(1, Mutation::HandsOverAlways), order);
    assert_eq!(broken(1, Mutation::CountsAfterSending), order);
    assert_eq!(broken(2, Mutation::CountsBeforeTaking), order);
    assert_eq!(broken(1, Mutation::OpensAgain), "it is of two packets");
    assert_eq!(broken(1, Mutation::MendsForOthers), "it is of two packets");
    assert_eq!(broken(1, Mutation::TakesWhileOpen), order);
    assert_eq!(broken(1, Mutation::DiesUnseen), "it is handed to one that is known to be dead");
}
