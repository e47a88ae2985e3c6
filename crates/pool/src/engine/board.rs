//! The page that a worker and the parent share: who may begin which task, and the results that the
//! worker has finished and not sent yet, where its death does not reach them.

use std::fmt;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use multiproc_shm::Shared;
use multiproc_wire::{INLINE_MAX, Message, framed_len};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// The size of the outbox: as much as one packet holds. When it is full, the worker sends what it has.
const WORDS: usize = (INLINE_MAX - (4 << 10)) / size_of::<u64>();

/// The length of a result that is worth no word at a time.
const SHORT: usize = 32;

/// As an end, it stands before every task.
const DOOM: u32 = u32::MAX;

/// See the table in the crate's README.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Board(Shared<Words>);

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Words {
    claim: AtomicU64,
    started: AtomicU64,
    first: AtomicU64,
    kept: AtomicU64,
    outbox: [AtomicU64; WORDS],
}

/// The tasks that a worker may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// It has begun those before this one.
    pub(crate) next: u32,
    end: u32,
}

/// What a worker is to do when it comes to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Begin,
    /// The task was taken back.
    Skip,
    /// The worker is being killed.
    Die,
}

impl Board {
    pub(crate) fn new() -> Result<Self, multiproc_shm::Error> {
        Shared::zeroed().map(Board)
    }

    // The parent's side.

    /// Lets a worker that has nothing to do begin tasks from zero to `end`.
    pub(crate) fn reset(&self, end: u32) {
        // It has sent all that it had, but may die before it has said so here; its numbers start anew,
        // and would make those results pass for new ones.
        self.0.kept.store(0, Release);
        self.0.claim.store(Claim { next: 0, end }.pack(), Release);
    }

    pub(crate) fn claim(&self) -> Claim {
        Claim::unpack(self.0.claim.load(Acquire))
    }

    /// When the task was begun that was begun last, if it has a timeout: the time on the monotonic
    /// clock in nanoseconds.
    pub(crate) fn started(&self) -> u64 {
        self.0.started.load(Relaxed)
    }

    /// Lets the worker begin so many more.
    pub(crate) fn extend(&self, count: u32) {
        self.change(|claim| {
            (claim.end != DOOM).then(|| Claim { end: claim.end.saturating_add(count), ..claim })
        });
    }

    /// Takes back the last of the tasks that were not begun: so many of those as `share` says. Returns
    /// how many.
    pub(crate) fn take_back(&self, share: impl Fn(u32) -> u32) -> u32 {
        let mut taken = 0;
        self.change(|claim| {
            let left = claim.left();
            taken = share(left).min(left);
            (taken > 0).then(|| Claim { end: claim.end - taken, ..claim })
        });
        taken
    }

    /// Lets the worker begin no task after this one, which it has begun. Fails if it has begun
    /// another.
    pub(crate) fn doom(&self, task: u32) -> bool {
        let mut runs = false;
        self.change(|claim| {
            runs = claim.next == task + 1;
            runs.then_some(Claim { end: DOOM, ..claim })
        });
        runs
    }

    fn change(&self, change: impl FnMut(Claim) -> Option<Claim>) {
        let mut change = change;
        let mut before = self.0.claim.load(Acquire);
        while let Some(after) = change(Claim::unpack(before)) {
            match self.0.claim.compare_exchange_weak(before, after.pack(), AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    /// Gives what the worker has finished and not sent: the first of these tasks, how many there are,
    /// and the framed results. `None` if it has just emptied the outbox.
    pub(crate) fn outbox(&self) -> Option<(u32, u32, Message)> {
        let number = self.0.first.load(Acquire);
        let first = u32::try_from(number).ok()?;
        let (count, words) = halves(self.0.kept.load(Acquire));
        let words = self.0.outbox.get(..words as usize)?;
        let mut bytes = Vec::with_capacity(words.len() * size_of::<u64>());
        let mut rest = words.iter().map(|word| word.load(Relaxed).to_ne_bytes());
        for _ in 0..count {
            // Each begins with its length, and is filled up to whole words.
            let head = rest.next()?;
            let end = bytes.len() + framed_len(&head)?;
            bytes.extend(head);
            while bytes.len() < end {
                bytes.extend(rest.next()?);
            }
            bytes.truncate(end);
        }
        // Results only ever come behind others, so that what was counted has not changed, unless the
        // outbox was emptied meanwhile: then it has another number before it has another result.
        fence(Acquire);
        let same = self.0.first.load(Relaxed) == number;
        same.then(|| (first, count, Message::from_bytes(bytes)))
    }

    // The worker's side.

    /// Begins the task, or says why not.
    #[inline]
    pub(crate) fn begin(&self, task: u32) -> Turn {
        let mut before = self.0.claim.load(Acquire);
        loop {
            let claim = Claim::unpack(before);
            if claim.end == DOOM {
                return Turn::Die;
            }
            if claim.end <= task {
                return Turn::Skip;
            }
            let after = Claim { next: task + 1, ..claim }.pack();
            match self.0.claim.compare_exchange_weak(before, after, AcqRel, Acquire) {
                Ok(_) => return Turn::Begin,
                Err(now) => before = now,
            }
        }
    }

    /// Says when the task is begun that is begun next.
    pub(crate) fn note_start(&self, nanos: u64) {
        self.0.started.store(nanos, Relaxed);
    }

    /// Empties the outbox; the next result is that of this task.
    #[inline]
    pub(crate) fn clear_outbox(&self, first: u32) {
        self.0.kept.store(0, Release);
        self.0.first.store(first.into(), Release);
        fence(Release);
    }

    /// Puts a framed result behind the others. Returns whether there was room for it; if not, none may
    /// be put behind it before the outbox was emptied.
    #[inline]
    #[must_use]
    pub(crate) fn keep(&self, result: &[u8]) -> bool {
        let (count, start) = halves(self.0.kept.load(Relaxed));
        let len = result.len().div_ceil(size_of::<u64>());
        let range = start as usize..start as usize + len;
        let Some(place) = self.0.outbox.get(range) else { return false };
        if result.len() <= SHORT {
            // It has just been written byte by byte: the processor waits where it is read by the word.
            let bytes = |word: u64, byte: &u8| word >> u8::BITS | u64::from(*byte) << 56;
            for (chunk, word) in result.chunks(size_of::<u64>()).zip(place) {
                let unused = (size_of::<u64>() - chunk.len()) as u32 * u8::BITS;
                word.store((chunk.iter().fold(0, bytes) >> unused).to_le(), Relaxed);
            }
        } else {
            let words = result.chunks_exact(size_of::<u64>());
            let mut last = [0; size_of::<u64>()];
            let rest = words.remainder();
            last[..rest.len()].copy_from_slice(rest);
            let words = words.map(|chunk| chunk.first_chunk().copied().unwrap_or_default());
            for (bytes, word) in words.chain([last]).zip(place) {
                word.store(u64::from_ne_bytes(bytes), Relaxed);
            }
        }
        // The count is stored after the bytes: who is killed in between has not finished the result.
        self.0.kept.store(whole(count + 1, start + len as u32), Release);
        true
    }
}

impl Claim {
    /// How many tasks may be begun.
    pub(crate) fn left(self) -> u32 {
        if self.end == DOOM { 0 } else { self.end.saturating_sub(self.next) }
    }

    fn pack(self) -> u64 {
        whole(self.next, self.end)
    }

    fn unpack(word: u64) -> Self {
        let (next, end) = halves(word);
        Claim { next, end }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.claim()).finish()
    }
}

fn halves(word: u64) -> (u32, u32) {
    ((word >> u32::BITS) as u32, word as u32)
}

fn whole(high: u32, low: u32) -> u64 {
    u64::from(high) << u32::BITS | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_begun_until_they_are_taken_back() {
        let board = Board::new().unwrap();
        board.reset(4);
        assert_eq!(board.begin(0), Turn::Begin);
        assert_eq!(board.take_back(|left| left.div_ceil(2)), 2);
        assert_eq!(board.begin(1), Turn::Begin);
        assert_eq!(board.begin(2), Turn::Skip);
        assert_eq!(board.take_back(|left| left), 0);
    }

    #[test]
    fn only_the_task_that_runs_is_doomed() {
        let board = Board::new().unwrap();
        board.reset(3);
        assert!(!board.doom(0), "it was not begun");
        assert_eq!(board.begin(0), Turn::Begin);
        assert_eq!(board.begin(1), Turn::Begin);
        assert!(!board.doom(0), "it is over");
        assert!(board.doom(1));
        assert_eq!(board.begin(2), Turn::Die);
        board.extend(1);
        assert_eq!(board.begin(2), Turn::Die);
        assert_eq!(board.claim().next, 2);
    }

    #[test]
    fn the_outbox_gives_what_it_was_given() {
        let board = Board::new().unwrap();
        let mut message = Message::new();
        board.clear_outbox(7);
        for value in ["", "a", "four", "twelve bytes", "thirteen byte", &"long".repeat(100)] {
            let start = message.bytes().len();
            message.push_framed(value.to_string()).unwrap();
            assert!(board.keep(&message.bytes()[start..]));
        }
        let (first, count, kept) = board.outbox().unwrap();
        assert_eq!((first, count), (7, 6));
        assert_eq!(kept.bytes(), message.bytes());
    }

    #[test]
    fn the_outbox_refuses_what_has_no_room() {
        let board = Board::new().unwrap();
        board.clear_outbox(0);
        let mut message = Message::new();
        message.push_framed(vec![1u8; WORDS * size_of::<u64>() / 2]).unwrap();
        assert!(board.keep(message.bytes()));
        assert!(!board.keep(message.bytes()));
        assert_eq!(board.outbox().unwrap().1, 1);
    }

    const MANY: u32 = 1_000;

    /// Begins tasks until it is told not to. Gives how many it has begun.
    fn run(board: &Board) -> u32 {
        (0..MANY).take_while(|&task| board.begin(task) == Turn::Begin).count() as u32
    }

    #[test]
    fn each_task_is_begun_or_taken_back_and_none_both() {
        for round in 1..200 {
            let board = Board::new().unwrap();
            board.reset(MANY);
            let (begun, taken) = std::thread::scope(|scope| {
                let worker = scope.spawn(|| run(&board));
                let mut taken = 0;
                while !worker.is_finished() {
                    taken += board.take_back(|left| left.min(round % 7));
                }
                (worker.join().unwrap(), taken)
            });
            assert_eq!(begun + taken, MANY, "round {round}");
        }
    }

    #[test]
    fn none_is_begun_after_one_that_is_doomed() {
        for round in 1..200 {
            let board = Board::new().unwrap();
            board.reset(MANY);
            let (begun, doomed) = std::thread::scope(|scope| {
                let worker = scope.spawn(|| run(&board));
                let mut doomed = None;
                while doomed.is_none() && !worker.is_finished() {
                    let next = board.claim().next;
                    doomed = next.checked_sub(1).filter(|task| next > round && board.doom(*task));
                }
                (worker.join().unwrap(), doomed)
            });
            assert!(doomed.is_none_or(|task| begun == task + 1), "round {round}: {begun}");
        }
    }

    #[test]
    fn results_of_before_do_not_pass_for_those_of_new_tasks() {
        let board = Board::new().unwrap();
        board.reset(1);
        board.clear_outbox(0);
        let mut message = Message::new();
        message.push_framed(1u8).unwrap();
        assert!(board.keep(message.bytes()));
        // The worker has sent it, and is killed before it empties the outbox.
        board.reset(1);
        assert_eq!(board.outbox().unwrap().1, 0);
    }
}
