//! A short packet that is handed to a thread which waits for it, without a system call.
//!
//! Two ends share memory. Whoever waits to receive *opens* its side for as long as it yields; whoever sends
//! meanwhile writes the packet there, and it is received as soon as it is whole. Everything else goes through
//! the socket that the ends have besides, which alone tells that one of them is gone, and which can be
//! polled: a side is never open but within the call that waits.
//!
//! # One side
//!
//! | `state` | whose it is | next |
//! | --- | --- | --- |
//! | idle | | open, by a receiver |
//! | open | the thread's whose number the word has | being written, by a sender; idle, by the receiver |
//! | being written | one sender's | full, by that; broken, by the receiver, after a while |
//! | full | the receiver's | idle |
//! | broken | the sender's, which is late | idle, by that |
//!
//! *The order is that of the calls to send.* `sent` counts the packets for the socket, before each goes
//! there; `received` those that were taken out, after each. A packet is handed over only after both were
//! the same: then all is taken out that the sender, or a thread that it knows of, has sent before. Since no
//! packet is taken out of the socket by the thread that has the side open, nothing overtakes what was handed
//! over. Whoever has one of the ends counts, whether it hands anything over or not.
//!
//! | dies | then |
//! | --- | --- |
//! | the receiver, while open or being written | the kernel takes its number out of the word (see [`robust`](crate::robust)) before anybody can know that it has ended: nothing is handed over, and the socket tells the sender |
//! | the receiver, while full | the packet was in its hands |
//! | a sender, while it writes | the packet was never sent; the receiver waits for a moment, and the side stays broken |
//! | a sender, after it has counted and before it sends | the counts differ for good: all goes through the socket |
//! | the receiver, in a plain attempt (see below) | its count stays; the socket tells a sender with descriptors |
//!
//! A sender that is stopped while it writes finds the side broken when it goes on, mends it and uses the
//! socket. Until then nobody else writes there.
//!
//! # Descriptors
//!
//! They come with packets through the socket, out of which `recvmsg(2)` takes them; `recv(2)` costs less, and
//! loses them. So attempts to receive are *plain* until the other end has first sent any. It announces
//! that (`attaches`), and goes on when no plain attempt is under way: either it sees that one is, or that sees
//! the announcement. A receiver that is stopped in one, which takes half a microsecond, keeps the first
//! packet with descriptors waiting. Nothing tells when it goes on, so that its sender tries again.
//!
//! # Signals
//!
//! A lock that is taken by a signal's handler ends the announcement to the kernel, until the waiting thread
//! looks again. If it is killed just then, one packet can still be handed to the dead, as one can lie in the
//! socket unread.
#![allow(unsafe_code)] // Makes references to atomics in shared memory, and has the kernel look at one.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use crate::memory::Mapping;
use crate::robust::{FUTEX_OFFSET, Links, Thread};

/// How long the shared memory is. As long as packets are short, two of its three pages are used.
pub const LEN: usize = 12 << 10;
/// The longest packet that is handed over: 4 KiB, and what a message has in front of them.
pub const ROOM: usize = (4 << 10) + 64;

const WORDS: usize = ROOM / size_of::<u64>();
const _: () = assert!(size_of::<[Lane; 2]>() <= LEN);

/// The words of one direction.
#[repr(C, align(64))]
struct Lane {
    /// So many, and above them how many plain attempts are under way.
    received: Line,
    sent: Line,
    attaches: Line,
    /// A [`State`]. The kernel changes the half of it that is the receiver's number.
    state: AtomicU64,
    _reserved: AtomicU64,
    links: Links,
    /// It begins in the same cache line.
    packet: [AtomicU64; WORDS],
}

/// A word with a cache line of its own.
#[repr(C, align(64))]
struct Line(AtomicU64);

/// What a plain attempt adds to `received`.
const PLAIN: u64 = 1 << 48;

/// Of `attaches`: no packet with descriptors was sent.
const NEVER: u64 = 0;
/// One is about to be sent. There may be plain attempts.
const SOON: u64 = 1;
/// There are no plain attempts any more.
const NOW: u64 = 2;

/// Where the kernel finds the receiver's number: in this half of the word.
const WORD_SHIFT: u32 = {
    let entry = offset_of!(Lane, links) + 2 * size_of::<usize>();
    let at = entry.strict_add_signed(FUTEX_OFFSET).strict_sub(offset_of!(Lane, state));
    assert!(at == 0 || at == 4);
    if cfg!(target_endian = "little") { 8 * at as u32 } else { 32 - 8 * at as u32 }
};

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    /// The thread that waits to receive; zero for none. What is no number is left by one that died.
    receiver: u32,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Open,
    Written,
    /// With a packet of so many bytes, for which there is room.
    Full(usize),
    Broken,
}

impl State {
    const RECEIVER: u32 = 0x3fff_ffff;
    const LEN_SHIFT: u32 = 8;

    #[inline]
    fn decode(word: u64) -> Self {
        let (receiver, rest) = ((word >> WORD_SHIFT) as u32, (word >> (32 - WORD_SHIFT)) as u32);
        let len = (rest >> Self::LEN_SHIFT) as usize;
        let phase = match rest & ((1 << Self::LEN_SHIFT) - 1) {
            0 => Phase::Idle,
            1 => Phase::Open,
            2 => Phase::Written,
            3 if len <= ROOM => Phase::Full(len),
            _ => Phase::Broken,
        };
        State { receiver, phase }
    }

    #[inline]
    fn encode(self) -> u64 {
        let rest = match self.phase {
            Phase::Idle => 0,
            Phase::Open => 1,
            Phase::Written => 2,
            Phase::Full(len) => 3 | (len as u64) << Self::LEN_SHIFT,
            Phase::Broken => 4,
        };
        u64::from(self.receiver) << WORD_SHIFT | rest << (32 - WORD_SHIFT)
    }

    /// Whether a thread that lives has opened it.
    #[inline]
    fn is_open(self) -> bool {
        self.phase == Phase::Open && (1..=Self::RECEIVER).contains(&self.receiver)
    }

    #[inline]
    fn with(self, phase: Phase) -> Self {
        State { phase, ..self }
    }
}

impl Phase {
    /// Of a side at which nobody waits.
    #[inline]
    fn with_nobody(self) -> State {
        State { receiver: 0, phase: self }
    }
}

/// Which of two ends one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one.
    Here,
    /// The other.
    There,
}

/// One of two ends that share memory.
#[derive(Debug)]
pub struct Handoff {
    mapping: Arc<Mapping>,
    side: Side,
}

/// What came of a wait for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A packet of so many bytes. As many were copied as there was room for.
    Packet(usize),
    /// None; there may be something in the socket.
    Nothing,
    /// None, and the caller has had enough of yielding.
    Enough,
}

impl Handoff {
    /// Takes shared memory that starts as zeros. `None` if it is too short.
    pub fn new(mapping: Arc<Mapping>, side: Side) -> Option<Self> {
        (mapping.len() >= LEN && mapping.as_ptr().cast::<[Lane; 2]>().is_aligned())
            .then_some(Handoff { mapping, side })
    }

    /// Hands the packet to a thread that waits at the other end. Tells whether it did; if not, it is to go
    /// through the socket.
    #[inline]
    pub fn give(&self, packet: &[u8]) -> bool {
        let lane = self.outgoing();
        let open = State::decode(lane.state.load(Relaxed));
        open.is_open() && packet.len() <= ROOM && lane.give(open, packet)
    }

    /// Tells whether somebody waits at the other end.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        State::decode(self.outgoing().state.load(Relaxed)).is_open()
    }

    /// Counts a packet that is about to be sent through the socket.
    #[inline]
    pub fn count_sent(&self) {
        self.outgoing().sent.0.fetch_add(1, Relaxed);
    }

    /// Takes back the count of a packet that was not sent.
    #[inline]
    pub fn count_unsent(&self) {
        self.outgoing().sent.0.fetch_sub(1, Relaxed);
    }

    /// Makes a plain attempt to receive from the socket, if no descriptors can come; counts the packet, if
    /// it says that there was one.
    #[inline]
    pub fn plainly<E>(
        &self,
        recv: impl FnOnce() -> Result<Option<usize>, E>,
    ) -> Option<Result<Option<usize>, E>> {
        let lane = self.incoming();
        if lane.attaches.0.load(Relaxed) != NEVER {
            return None;
        }
        lane.received.0.fetch_add(PLAIN, SeqCst);
        let received = (lane.attaches.0.load(SeqCst) == NEVER).then(recv);
        let count = u64::from(matches!(received, Some(Ok(Some(_)))));
        // As in `count_received`.
        lane.received.0.fetch_add(count.wrapping_sub(PLAIN), Release);
        received
    }

    /// Announces packets with descriptors; tells whether they may be sent by now.
    #[inline]
    pub fn may_attach(&self) -> bool {
        let lane = self.outgoing();
        let attaches = &lane.attaches.0;
        if attaches.load(Relaxed) == NOW {
            return true;
        }
        attaches.store(SOON, SeqCst);
        let ready = lane.received.0.load(SeqCst) < PLAIN;
        if ready {
            attaches.store(NOW, Relaxed);
        }
        ready
    }

    /// Counts a packet that has come through the socket.
    #[inline]
    pub fn count_received(&self) {
        // Whoever finds the count finds the packet gone.
        self.incoming().received.0.fetch_add(1, Release);
    }

    /// Tells whether there is, or will soon be, a packet in the socket.
    #[inline]
    pub fn is_expecting(&self) -> bool {
        self.incoming().is_expecting()
    }

    /// Waits for a packet for as long as `yields` says, which yields in between, and does not panic: after it
    /// said no, or as soon as there may be something in the socket, it is over. `None` if the side cannot
    /// be opened, since another thread waits there, there is something in the socket, or it is broken.
    #[inline]
    pub fn take(&self, into: &mut [u8], yields: impl FnMut() -> bool) -> Option<Taken> {
        let lane = self.incoming();
        let idle = Phase::Idle.with_nobody();
        if lane.is_expecting() || lane.state.load(Relaxed) != idle.encode() {
            return None;
        }
        let thread = Thread::current().ok()?;
        let open = State { receiver: thread.id(), phase: Phase::Open };
        // SAFETY: the mapping stays until the call has ended.
        unsafe { thread.announce(&lane.links) };
        let taken = lane.replace(idle, open).then(|| lane.wait(thread, open, into, yields));
        thread.conclude();
        taken
    }

    #[inline]
    fn incoming(&self) -> &Lane {
        &self.lanes()[self.side as usize]
    }

    #[inline]
    fn outgoing(&self) -> &Lane {
        &self.lanes()[1 - self.side as usize]
    }

    #[inline]
    fn lanes(&self) -> &[Lane; 2] {
        // SAFETY: it is long enough and aligned, stays mapped, and has nothing but atomics, for which any
        // bits will do: all that this process does to it is atomic, and what others do is as if they did
        // so.
        unsafe { &*self.mapping.as_ptr().cast() }
    }
}

impl Lane {
    #[inline]
    fn is_expecting(&self) -> bool {
        self.sent.0.load(Relaxed) != self.received.0.load(Relaxed) % PLAIN
    }

    #[inline]
    fn replace(&self, old: State, new: State) -> bool {
        self.state.compare_exchange(old.encode(), new.encode(), AcqRel, Acquire).is_ok()
    }

    #[inline]
    fn give(&self, open: State, packet: &[u8]) -> bool {
        let written = open.with(Phase::Written);
        // Once it is so, it stays so for all that was sent before.
        if self.sent.0.load(Relaxed) != self.received.0.load(Acquire) % PLAIN
            || !self.replace(open, written)
        {
            return false;
        }
        self.write(packet);
        let given = self.replace(written, open.with(Phase::Full(packet.len())));
        if !given {
            let broken = Phase::Broken.with_nobody();
            let _by_a_death = self.replace(broken, Phase::Idle.with_nobody());
        }
        given
    }

    fn wait(
        &self,
        thread: Thread,
        open: State,
        into: &mut [u8],
        mut yields: impl FnMut() -> bool,
    ) -> Taken {
        /// So often it looks for a packet before it is time to look whether the other end is closed.
        const LOOKS: usize = 16;
        let mut nothing = Taken::Nothing;
        for _ in 0..LOOKS {
            if !yields() {
                nothing = Taken::Enough;
                break;
            }
            if self.state.load(Relaxed) != open.encode() || self.is_expecting() {
                break;
            }
            // SAFETY: as before. A lock in a signal's handler has ended it.
            unsafe { thread.announce_again(&self.links) };
        }
        let idle = Phase::Idle.with_nobody();
        if self.replace(open, idle) {
            return nothing;
        }
        let Some(len) = self.await_written() else { return nothing };
        self.read(len, into);
        // It is read before another is written.
        self.state.store(idle.encode(), Release);
        Taken::Packet(len)
    }

    /// Waits until what is being written is full, though not long.
    #[cold]
    fn await_written(&self) -> Option<usize> {
        /// A sender that takes longer has died or was stopped, or shares a core with too many.
        const LONGEST: Duration = Duration::from_millis(2);
        const SPINS: u32 = 100;
        let mut spins = 0;
        let mut since = None;
        loop {
            match State::decode(self.state.load(Acquire)).phase {
                Phase::Full(len) => return Some(len),
                Phase::Written if spins < SPINS => {
                    spins += 1;
                    std::hint::spin_loop();
                }
                Phase::Written if since.get_or_insert_with(Instant::now).elapsed() < LONGEST => {
                    rustix::thread::sched_yield();
                }
                _ => break,
            }
        }
        let broken = Phase::Broken.with_nobody().encode();
        match State::decode(self.state.swap(broken, AcqRel)).phase {
            Phase::Full(len) => Some(len),
            _ => None,
        }
    }

    /// For a packet for which there is room.
    #[inline]
    fn write(&self, packet: &[u8]) {
        let (chunks, rest) = packet.as_chunks();
        for (word, chunk) in self.packet.iter().zip(chunks) {
            word.store(u64::from_ne_bytes(*chunk), Relaxed);
        }
        if let (false, Some(word)) = (rest.is_empty(), self.packet.get(chunks.len())) {
            let mut last = [0; size_of::<u64>()];
            last[..rest.len()].copy_from_slice(rest);
            word.store(u64::from_ne_bytes(last), Relaxed);
        }
    }

    /// Copies as much of a packet as there is room for.
    #[inline]
    fn read(&self, len: usize, into: &mut [u8]) {
        let room = into.len().min(len);
        let (chunks, rest) = into[..room].as_chunks_mut();
        for (chunk, word) in chunks.iter_mut().zip(&self.packet) {
            *chunk = word.load(Relaxed).to_ne_bytes();
        }
        if let Some(word) = self.packet.get(chunks.len()) {
            let last = word.load(Relaxed).to_ne_bytes();
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
