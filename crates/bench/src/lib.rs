//! What the benchmarks share, and what becomes of their figures. The README says how they measure.
#![allow(clippy::unwrap_used)] // What fails here fails a measurement.

pub mod iceoryx;
pub mod machine;
pub mod plot;
pub mod pthread;
pub mod python;
pub mod report;
pub mod rounds;
pub mod row;

/// The environment variable that names the file to which rows are appended.
pub const ROWS: &str = "MULTIPROC_BENCH_ROWS";

/// The one that has benchmarks take less time.
pub const QUICK: &str = "MULTIPROC_BENCH_QUICK";

/// The one that names the Python interpreter.
pub const PYTHON: &str = "MULTIPROC_BENCH_PYTHON";
