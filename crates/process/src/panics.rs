//! What a panic said, noted by a hook while it happens.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::Panic;

thread_local! {
    static LAST: Cell<Option<Panic>> = const { Cell::new(None) };
}

/// Set where every panic is carried home and none needs to be printed.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Prints no panics in this process any more.
pub fn be_quiet() {
    QUIET.store(true, Relaxed);
}

/// Runs the function and gives what it panicked with.
pub fn catch<R>(function: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(function)).map_err(|payload| {
        // A payload may panic in its own destructor.
        std::mem::forget(payload);
        take_last()
    })
}

/// From now on notes panics, and calls `report` where a panic ends the process at once. What printed
/// panics before still does.
pub(crate) fn watch(report: impl Fn(Panic) + Send + Sync + 'static) {
    let before = take_hook();
    set_hook(Box::new(move |info| {
        if !QUIET.load(Relaxed) {
            before(info);
        }
        let panic = note(info);
        if cfg!(panic = "abort") {
            report(panic);
        } else {
            LAST.set(Some(panic));
        }
    }));
}

/// Takes the last panic of this thread.
fn take_last() -> Panic {
    LAST.take().unwrap_or_else(|| Panic {
        // `resume_unwind` calls no hook.
        message: "(unwound without a message)".into(),
        location: None,
        backtrace: None,
    })
}

fn note(info: &PanicHookInfo<'_>) -> Panic {
    let backtrace = Backtrace::capture();
    Panic {
        message: info.payload_as_str().unwrap_or("(not text)").to_string(),
        location: info.location().map(ToString::to_string),
        backtrace: (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string()),
    }
}
