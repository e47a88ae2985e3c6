//! What becomes of the benchmarks' figures. A crate of its own, so that who makes or tests the report does
//! not compile all peers for it.
#![allow(clippy::unwrap_used)] // What fails here fails a measurement.

pub mod machine;
pub mod plot;
pub mod report;
pub mod row;

/// The environment variable that names the file to which rows are appended.
pub const ROWS: &str = "MULTIPROC_BENCH_ROWS";

/// The one that has benchmarks take less time.
pub const QUICK: &str = "MULTIPROC_BENCH_QUICK";

/// The one that names the Python interpreter.
pub const PYTHON: &str = "MULTIPROC_BENCH_PYTHON";
