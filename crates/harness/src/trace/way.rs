//! The way that a process takes, and how another gets to any place on it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// The instructions that a process ran through from its start to its end, one after the other.
///
/// Another that does the same is taken to any of them by a breakpoint shortly before, and some single
/// steps: so that it costs a proof not the square of their number.
#[derive(Debug, Default)]
pub struct Way {
    places: RefCell<Vec<Place>>,
    strayed: Cell<bool>,
}

#[derive(Debug)]
struct Place {
    /// Of the instruction that comes next.
    address: usize,
    /// The best place to stop at before this, or at this.
    stop: Stop,
}

/// Where an instruction comes up for the so-manieth time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) address: usize,
    pub(super) times: u64,
    /// How many instructions come before it.
    pub(super) done: u64,
}

/// When a traced process is stopped.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    pub(super) instructions: u64,
    pub(super) way: Option<&'a Way>,
}

/// So many single steps after its start.
impl From<u64> for Moment<'_> {
    fn from(instructions: u64) -> Self {
        Moment { instructions, way: None }
    }
}

impl Way {
    /// At the end, and the way there is remembered.
    pub fn to_the_end(&self) -> Moment<'_> {
        self.places.borrow_mut().clear();
        Moment { instructions: u64::MAX, way: Some(self) }
    }

    /// After so many instructions of the way that is remembered.
    pub fn after(&self, instructions: u64) -> Moment<'_> {
        Moment { instructions, way: Some(self) }
    }

    /// Tells whether the last process was elsewhere by then than the first one.
    pub fn was_strayed_from(&self) -> bool {
        self.strayed.get()
    }

    pub(super) fn is_known(&self) -> bool {
        !self.places.borrow().is_empty()
    }

    /// Remembers where each instruction is.
    pub(super) fn remember(&self, addresses: &[usize]) {
        /// In single steps: how long it takes to reach a breakpoint.
        const BREAKPOINT: u64 = 3;

        let mut seen = HashMap::new();
        let (mut cost, mut stop) = (u64::MAX, None);
        let places = addresses.iter().zip(0..).map(|(&address, done)| {
            let times = seen.entry(address).and_modify(|times| *times += 1).or_insert(1u64);
            cost = cost.saturating_add(1);
            let stop = stop.get_or_insert(Stop { address, times: *times, done });
            if *times * BREAKPOINT < cost {
                cost = *times * BREAKPOINT;
                *stop = Stop { address, times: *times, done };
            }
            Place { address, stop: *stop }
        });
        self.places.replace(places.collect());
    }

    /// Where to stop for whoever goes so far. `None` if single steps are as good.
    pub(super) fn stop_before(&self, instructions: u64) -> Option<Stop> {
        let places = self.places.borrow();
        let stop = places.get(usize::try_from(instructions).ok()?)?.stop;
        (stop.done > 0).then_some(stop)
    }

    /// Takes note of where a process is after so many instructions. `None`: at its end.
    pub(super) fn compare(&self, instructions: u64, address: Option<usize>) {
        let places = self.places.borrow();
        let place = usize::try_from(instructions).ok().and_then(|index| places.get(index));
        self.strayed.set(place.map(|place| place.address) != address);
    }
}
