//! What the benchmarks share. The README says how they measure.
#![allow(clippy::unwrap_used)] // What fails here fails a measurement.

pub mod iceoryx;
pub mod pthread;
pub mod python;
pub mod rounds;
