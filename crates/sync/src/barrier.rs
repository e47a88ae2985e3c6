use std::fmt;
use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::futex::{self, Store};
use multiproc_os::patience::Patience;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::error::{LockError, MemoryError};
use crate::raw_lock::{NotTaken, RawLock, Wait};
use crate::region::{Header, Hold, Place, Words, sealed};
use crate::slots::{Slots, Watched, sleep};

/// A point at which so many threads, of all processes, wait for each other.
///
/// Once all parties have called [`wait`](Self::wait), all go on, and the barrier is as new. If one of
/// them gives up or dies while it waits, the barrier is *broken*: all who wait, and all who come, get an
/// error, until somebody calls [`reset`](Self::reset). A party that dies elsewhere is just not there; a
/// time limit is against that.
///
/// A clone, and what another process reads from a message, is the same barrier. It needs Linux 5.16.
///
/// # Examples
///
/// ```
/// use multiproc_sync::Barrier;
///
/// let barrier = Barrier::new(2)?;
/// std::thread::scope(|scope| {
///     let other = scope.spawn(|| barrier.wait().unwrap());
///     let index = barrier.wait().unwrap();
///     assert_eq!(index + other.join().unwrap(), 1);
/// });
/// # Ok::<(), multiproc_sync::MemoryError>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Barrier {
    place: Place<RawBarrier>,
}

/// A barrier's words, for structures in shared memory: 8 KiB. All zeros is no barrier: see
/// [`new`](Self::new).
///
/// # Examples
///
/// ```
/// use multiproc_sync::RawBarrier;
/// use zerocopy::{FromBytes, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout)]
/// #[repr(C)]
/// struct Race {
///     start: RawBarrier,
///     finish: RawBarrier,
/// }
///
/// let race = Race { start: RawBarrier::new(4), finish: RawBarrier::new(5) };
/// ```
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RawBarrier {
    /// [`CHANGES`], [`WATCH`], [`ENTRANCE`], and from [`PLACES`] a place for each thread that waits.
    locks: [RawLock; PLACES + Barrier::MAX_PARTIES as usize],
    /// For each place the round in which somebody has arrived there, and in the lower half his thread
    /// id; zero once he has gone.
    arrivals: [AtomicU64; Barrier::MAX_PARTIES as usize],
    parties: AtomicU32,
    /// How many have arrived in this round.
    arrived: AtomicU32,
    /// How many rounds have come to an end. Who waits and has not the watch sleeps on it too.
    round: AtomicU32,
    /// How many of them have come to a good end.
    completed: AtomicU32,
    broken: AtomicU32,
    /// Goes up before each change. The watch sleeps on it.
    announced: AtomicU32,
    reserved: [AtomicU32; 14],
}

/// Whoever changes anything but the locks holds it.
const CHANGES: usize = 0;
/// Whoever holds it has the *watch*: sleeps on all the places. All others that wait sleep on it, and on
/// the round: those of the next round may have the watch before they are awake.
const WATCH: usize = 1;
/// Where whoever finds no place stands in line.
const ENTRANCE: usize = 2;
const PLACES: usize = 3;

/// Why a wait at a barrier has failed: it is broken.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let barrier = multiproc_sync::Barrier::new(2)?;
/// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
/// assert!(error.is_timeout());
/// assert!(barrier.wait().unwrap_err().is_broken());
/// # Ok::<(), multiproc_sync::MemoryError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BarrierError(#[from] Broken);

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(
        "the barrier is broken: a party has died, given up or called abort: call reset once all \
         have stopped waiting"
    )]
    ByOther,
    #[error("not all parties have come to the barrier in time, which is broken now")]
    Timeout,
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// What a thread that waits knows of its round.
#[derive(Clone, Copy)]
struct Ticket {
    round: u32,
    completed: u32,
}

impl RawBarrier {
    /// Makes one for so many parties.
    ///
    /// # Panics
    ///
    /// If there are none, or more than [`Barrier::MAX_PARTIES`].
    ///
    /// # Examples
    ///
    /// ```
    /// let start = multiproc_sync::RawBarrier::new(4);
    /// ```
    pub const fn new(parties: u32) -> Self {
        assert!(
            0 < parties && parties <= Barrier::MAX_PARTIES,
            "a barrier is for one party at least, and MAX_PARTIES at the most"
        );
        RawBarrier {
            locks: [const { RawLock::new() }; _],
            arrivals: [const { AtomicU64::new(0) }; _],
            parties: AtomicU32::new(parties),
            arrived: AtomicU32::new(0),
            round: AtomicU32::new(0),
            completed: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            announced: AtomicU32::new(0),
            reserved: [const { AtomicU32::new(0) }; 14],
        }
    }

    fn places(&self) -> &[RawLock] {
        &self.locks[PLACES..]
    }

    /// Ends the round, for whoever holds `CHANGES`. Those who wait see it.
    fn end_round(&self, completed: bool) {
        self.arrived.store(0, SeqCst);
        if completed {
            self.completed.store(self.completed.load(SeqCst).wrapping_add(1), SeqCst);
        }
        // What they look at first comes last.
        add_and_wake(&self.round, u32::MAX);
    }

    /// The places where somebody has arrived in this round, but for one, and who it was.
    fn present(&self, round: u32, but: usize) -> impl Iterator<Item = (&RawLock, u32)> {
        let arrivals = self.places().iter().zip(&self.arrivals).enumerate();
        arrivals.filter_map(move |(index, (place, arrival))| {
            let arrival = arrival.load(SeqCst);
            let (in_round, thread) = ((arrival >> 32) as u32, arrival as u32);
            (index != but && in_round == round && thread != 0).then_some((place, thread))
        })
    }

    /// Tells whether somebody who has arrived in this round has died. For whoever holds `CHANGES` and
    /// has just got the place `own`, in which nobody waits.
    fn has_lost_a_party(&self, round: u32, own: usize) -> bool {
        let before = self.arrivals[own].load(SeqCst);
        (before >> 32) as u32 == round && before as u32 != 0
            || self.present(round, own).any(|(place, thread)| place.holder() != thread)
    }

    fn break_round(&self) {
        self.broken.store(1, SeqCst);
        self.end_round(false);
    }

    fn is_broken(&self) -> bool {
        self.broken.load(SeqCst) != 0
    }

    /// How the round of the ticket has ended; `None` if it has not.
    fn outcome(&self, ticket: Ticket) -> Option<Result<(), BarrierError>> {
        if self.round.load(SeqCst) == ticket.round {
            return None;
        }
        // Rounds that came after it cannot have been completed: this thread is a party of each that
        // is, or the barrier was made for fewer than use it.
        let completed = self.completed.load(SeqCst) != ticket.completed;
        Some(if completed { Ok(()) } else { Err(Broken::ByOther.into()) })
    }
}

impl Header for RawBarrier {
    const KIND: [u8; 8] = *b"barrier\0";
}

impl sealed::Sealed for RawBarrier {}

impl Words for RawBarrier {
    type Handle = Barrier;

    fn locks(&self) -> &[RawLock] {
        &self.locks
    }
}

impl Barrier {
    /// The most parties that there can be: the kernel lets a thread sleep on 128 words.
    pub const MAX_PARTIES: u32 = 126;

    /// Makes a barrier for so many parties.
    ///
    /// # Errors
    ///
    /// The system has no descriptor or address space left.
    ///
    /// # Panics
    ///
    /// If there are no parties, or more than [`MAX_PARTIES`](Self::MAX_PARTIES).
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiproc_sync::Barrier::new(1)?;
    /// assert_eq!(barrier.wait().unwrap(), 0);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn new(parties: u32) -> Result<Self, MemoryError> {
        Ok(Place::create("multiproc-barrier", RawBarrier::new(parties))?.into())
    }

    /// Waits for all parties. Gives how many had come before: each gets another number, from 0.
    ///
    /// # Errors
    ///
    /// The barrier is broken, or gets broken: a party has died while it waited, has given up, or has
    /// called [`abort`](Self::abort).
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiproc_sync::Barrier::new(1)?;
    /// if barrier.wait().unwrap() == 0 {
    ///     println!("one of the parties says so");
    /// }
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn wait(&self) -> Result<u32, BarrierError> {
        self.wait_until(Deadline::NEVER, || ())
    }

    /// Waits for all parties, for so long at the most: if the time is over, the barrier is broken, for
    /// all.
    ///
    /// The clock is the monotonic one. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait), or [`is_timeout`](BarrierError::is_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiproc_sync::Barrier::new(2)?;
    /// assert!(barrier.wait_timeout(Duration::ZERO).unwrap_err().is_timeout());
    /// assert!(barrier.is_broken());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<u32, BarrierError> {
        self.wait_until(Deadline::after(timeout), || ())
    }

    /// Waits for all parties; the last one that comes does something before any goes on.
    ///
    /// If that panics, the barrier is broken. It is a function of the call and not, as in Python, of
    /// the barrier, since a function means something in one program only.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiproc_sync::Barrier::new(1)?;
    /// barrier.wait_with(|| println!("all are here")).unwrap();
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[doc(alias = "action")]
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<u32, BarrierError> {
        self.wait_until(Deadline::NEVER, action)
    }

    /// Breaks the barrier: all who wait, and all who come, get an error.
    ///
    /// # Errors
    ///
    /// One of the rarer reasons that [`LockError`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiproc_sync::Barrier::new(2)?;
    /// barrier.abort()?;
    /// assert!(barrier.wait().unwrap_err().is_broken());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort(&self) -> Result<(), LockError> {
        let _changes = self.change(Deadline::NEVER)?;
        self.place.break_round();
        Ok(())
    }

    /// Makes the barrier as new. All who wait get the error that it was broken.
    ///
    /// # Errors
    ///
    /// One of the rarer reasons that [`LockError`] tells.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiproc_sync::Barrier::new(1)?;
    /// barrier.abort()?;
    /// barrier.reset()?;
    /// assert!(barrier.wait().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&self) -> Result<(), LockError> {
        let _changes = self.change(Deadline::NEVER)?;
        if self.place.arrived.load(SeqCst) > 0 {
            self.place.end_round(false);
        }
        self.place.broken.store(0, SeqCst);
        Ok(())
    }

    /// Tells whether the barrier is broken.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiproc_sync::Barrier::new(2)?;
    /// assert!(!barrier.is_broken());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_broken(&self) -> bool {
        self.place.is_broken()
    }

    /// For how many it is.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_sync::Barrier::new(3)?.parties(), 3);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn parties(&self) -> u32 {
        self.place.parties.load(Relaxed)
    }

    /// How many wait at the moment.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_sync::Barrier::new(3)?.waiting(), 0);
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    #[doc(alias = "n_waiting")]
    pub fn waiting(&self) -> u32 {
        self.place.arrived.load(SeqCst)
    }

    fn wait_until(&self, deadline: Deadline, action: impl FnOnce()) -> Result<u32, BarrierError> {
        let words = &*self.place;
        let (place, hold) =
            self.places().take(Wait::Until(deadline)).map_err(|error| self.not_arrived(error))?;
        let presence = Presence { arrival: &words.arrivals[place], hold };
        let changes = self.change(deadline).map_err(|error| self.not_arrived(error))?;
        let round = words.round.load(SeqCst);
        if words.has_lost_a_party(round, place) {
            words.break_round();
        }
        if words.is_broken() {
            return Err(Broken::ByOther.into());
        }
        let ticket = Ticket { round, completed: words.completed.load(SeqCst) };
        let index = words.arrived.load(SeqCst);
        presence.tell(round);
        words.arrived.store(index + 1, SeqCst);
        if index + 1 >= self.parties() {
            let unless_it_panics = BreaksWhenDropped(words);
            action();
            std::mem::forget(unless_it_panics);
            words.end_round(true);
            return Ok(index);
        }
        drop(changes);
        self.wait_for_round(ticket, place, deadline)?;
        Ok(index)
    }

    fn wait_for_round(
        &self,
        ticket: Ticket,
        own: usize,
        deadline: Deadline,
    ) -> Result<(), BarrierError> {
        /// Of all barriers of this process: each wait shows how long one takes.
        static PATIENCE: Patience = Patience::new();
        PATIENCE.wait(
            || self.place.outcome(ticket).transpose(),
            || {
                let outcome = self.stand_by(ticket, own, deadline);
                if let Err(BarrierError(Broken::Lock(_))) = outcome {
                    // Nobody is to count on a party that does not wait.
                    self.give_up(ticket)?;
                }
                outcome
            },
        )
    }

    /// Waits for the watch, and has it then, until the round has ended.
    fn stand_by(&self, ticket: Ticket, own: usize, deadline: Deadline) -> Result<(), BarrierError> {
        let words = &*self.place;
        let this_round = (&words.round, ticket.round);
        let watch = self.place.hold_while(|words| &words.locks[WATCH], this_round, deadline);
        let Some(_watch) = watch.map_err(Broken::from)? else {
            return words.outcome(ticket).unwrap_or_else(|| self.give_up(ticket));
        };
        loop {
            let announced = words.announced.load(SeqCst);
            if let Some(outcome) = words.outcome(ticket) {
                return outcome;
            }
            if deadline.has_passed() {
                return self.give_up(ticket);
            }
            // Whoever has announced a change is done with it, or dead.
            match self.place.hold(|words| &words.locks[CHANGES], Wait::Until(deadline)) {
                Err(NotTaken::Held) => continue,
                changes => self.see_to(&changes.map_err(LockError::from).map_err(Broken::from)?),
            }
            let others = words.present(ticket.round, own);
            let others: Option<Watched<'_>> =
                others.map(|(place, thread)| place.watch_holder(thread)).collect();
            match others {
                Some(_) if words.outcome(ticket).is_some() => {}
                Some(mut watched) => {
                    watched.push((&words.announced, announced));
                    sleep(&watched, deadline).map_err(Broken::from)?;
                }
                // One has died, or has gone since the round has ended.
                None => {
                    let _changes = self.change(Deadline::NEVER).map_err(Broken::from)?;
                    if words.outcome(ticket).is_none() {
                        words.break_round();
                    }
                }
            }
        }
    }

    /// Breaks the barrier for a party that has tried to come in time.
    fn not_arrived(&self, error: LockError) -> BarrierError {
        if !error.is_timeout() {
            return Broken::Lock(error).into();
        }
        match self.abort() {
            Ok(()) => Broken::Timeout.into(),
            Err(error) => Broken::Lock(error).into(),
        }
    }

    /// Breaks the barrier for lack of time, unless the round has ended by now.
    fn give_up(&self, ticket: Ticket) -> Result<(), BarrierError> {
        let _changes = self.change(Deadline::NEVER).map_err(Broken::from)?;
        if let Some(outcome) = self.place.outcome(ticket) {
            return outcome;
        }
        self.place.break_round();
        Err(Broken::Timeout.into())
    }

    /// Begins a change. Who has the watch looks once it is made, or its maker has died.
    fn change(&self, deadline: Deadline) -> Result<Hold<'_>, LockError> {
        let changes = self.place.hold(|words| &words.locks[CHANGES], Wait::Until(deadline))?;
        add_and_wake(&self.place.announced, 1);
        self.see_to(&changes);
        Ok(changes)
    }

    /// Breaks the barrier if whoever has changed it last has died at it.
    fn see_to(&self, changes: &Hold<'_>) {
        if changes.is_poisoned() {
            self.place.break_round();
            changes.take_poison();
        }
    }

    fn places(&self) -> Slots<'_, RawBarrier> {
        static PATIENCE: Patience = Patience::new();
        Slots {
            place: &self.place,
            gate: |words| &words.locks[ENTRANCE],
            slots: RawBarrier::places,
            count: Self::MAX_PARTIES as usize,
            patience: &PATIENCE,
        }
    }
}

/// Adds one to the word and wakes who sleeps on it, up to so many.
fn add_and_wake(word: &AtomicU32, most: u32) {
    // The kernel's store is none that the language knows of.
    fence(SeqCst);
    if futex::store_and_wake(word, Store::Add(1), most).is_err() {
        word.fetch_add(1, SeqCst);
        futex::wake(word, most);
    }
}

/// That a thread is in a place. Dropping it clears the arrival, and then the place.
struct Presence<'a> {
    arrival: &'a AtomicU64,
    hold: Hold<'a>,
}

impl Presence<'_> {
    /// Says who has arrived, and when.
    fn tell(&self, round: u32) {
        self.arrival.store(u64::from(round) << 32 | u64::from(self.hold.holder()), SeqCst);
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if self.hold.is_of_this_process() {
            self.arrival.store(0, SeqCst);
        }
    }
}

/// Breaks the barrier when the last party panics.
struct BreaksWhenDropped<'a>(&'a RawBarrier);

impl Drop for BreaksWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.break_round();
    }
}

impl BarrierError {
    /// Tells whether the barrier was broken, by anybody, for whatever reason.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiproc_sync::Barrier::new(2)?;
    /// barrier.abort()?;
    /// assert!(barrier.wait().unwrap_err().is_broken());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_broken(&self) -> bool {
        matches!(self.0, Broken::ByOther | Broken::Timeout)
    }

    /// Tells whether the time that this call was given was over.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_sync::Barrier;
    ///
    /// let error = Barrier::new(2)?.wait_timeout(Duration::ZERO).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok::<(), multiproc_sync::MemoryError>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Broken::Timeout)
    }
}

impl From<BarrierError> for io::Error {
    fn from(error: BarrierError) -> Self {
        let kind = match &error.0 {
            Broken::ByOther => io::ErrorKind::ConnectionAborted,
            Broken::Timeout => io::ErrorKind::TimedOut,
            Broken::Lock(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl From<Place<RawBarrier>> for Barrier {
    fn from(place: Place<RawBarrier>) -> Self {
        Barrier { place }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties())
            .field("waiting", &self.waiting())
            .field("broken", &self.is_broken())
            .finish_non_exhaustive()
    }
}
