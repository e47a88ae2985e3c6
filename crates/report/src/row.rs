//! What one contender needed: a line of JSON.

use serde::{Deserialize, Serialize};

/// What a contender stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What nobody can beat who does the same: raw system calls, the plain work without a pool.
    Limit,
    /// This project. The first of them in a measure is what the others are compared with.
    Ours,
    /// Another library for processes.
    Peer,
    /// Python's standard library, or one for Python.
    Python,
    /// Threads of one process, which share memory and die together.
    Threads,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// Nanoseconds.
    Time,
    /// Bytes.
    Memory,
}

/// What a contender of a measure needed for one unit, in each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The benchmark that it comes from.
    pub area: String,
    /// What was done.
    pub measure: String,
    /// Where: on one core, or on two.
    pub place: String,
    /// What one unit is.
    pub unit: String,
    /// What is counted.
    pub quantity: Quantity,
    /// Whether the measure is among the few for the first page.
    pub headline: bool,
    /// The name of the curve that the measure is a point of, and where on it.
    pub curve: Option<(String, f64)>,
    /// Who did it.
    pub name: String,
    /// What that is.
    pub kind: Kind,
    /// On the clock: a figure for each round.
    pub wall: Vec<f64>,
    /// Of all processors together; empty where it is not known.
    pub cpu: Vec<f64>,
}

impl Row {
    /// Tells whether both are contenders of the same measure.
    pub fn meets(&self, other: &Row) -> bool {
        (&self.area, &self.measure, &self.place) == (&other.area, &other.measure, &other.place)
    }
}

/// A middle figure, and how far the others are from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// A tenth of the figures is below; of ten or fewer, none.
    pub low: f64,
    /// The middle.
    pub median: f64,
    /// A tenth of them is above; of ten or fewer, none.
    pub high: f64,
}

impl Spread {
    /// Of these figures; `None` if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let last = figures.len().checked_sub(1)?;
        let cut = if last < 10 { 0 } else { last / 10 };
        Some(Spread {
            low: figures[cut],
            median: (figures[last / 2] + figures[last.div_ceil(2)]) / 2.0,
            high: figures[last - cut],
        })
    }

    /// Of how many times as much the one needed as the other, round by round.
    pub fn of_ratios(figures: &[f64], reference: &[f64]) -> Option<Self> {
        Self::of(figures.iter().zip(reference).map(|(figure, reference)| figure / reference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_of_the_figures() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { low: 1.0, median: 2.0, high: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { low: 1.0, median: 2.5, high: 4.0 }));
        let many = Spread::of((0..=100).map(f64::from));
        assert_eq!(many, Some(Spread { low: 10.0, median: 50.0, high: 90.0 }));
    }

    #[test]
    fn ratios_are_those_of_each_round() {
        let ratios = Spread::of_ratios(&[2.0, 30.0, 4.0], &[1.0, 10.0, 1.0]);
        assert_eq!(ratios, Some(Spread { low: 2.0, median: 3.0, high: 4.0 }));
    }
}
