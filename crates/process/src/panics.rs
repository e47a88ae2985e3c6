//! What a panic said, noted by a hook while it happens.

use std::any::Any;
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
        let panic = take_last(&*payload);
        // A payload may panic in its own destructor.
        std::mem::forget(payload);
        panic
    })
}

/// From now on notes panics, and calls `report` where a panic ends the process at once. What printed
/// panics before still does.
pub(crate) fn watch(report: impl Fn(Panic) + Send + Sync + 'static) {
    let before = take_hook();
    let owner = std::process::id();
    set_hook(Box::new(move |info| {
        if !QUIET.load(Relaxed) {
            before(info);
        }
        // A forked copy has a hook of its own, which calls this one.
        if std::process::id() != owner {
            return;
        }
        let panic = note(info);
        if cfg!(panic = "abort") {
            report(panic);
        } else {
            LAST.set(Some(panic));
        }
    }));
}

/// Says what the panic said that has unwound this thread with this payload.
fn take_last(payload: &(dyn Any + Send)) -> Panic {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or(NOT_TEXT);
    // `resume_unwind` calls no hook: what was noted last may be a panic that the function caught.
    LAST.take().filter(|noted| noted.message == message).unwrap_or_else(|| Panic {
        message: message.to_owned(),
        location: None,
        backtrace: None,
    })
}

/// Stands for a payload that is no text.
const NOT_TEXT: &str = "(not text)";

fn note(info: &PanicHookInfo<'_>) -> Panic {
    let backtrace = Backtrace::capture();
    Panic {
        message: info.payload_as_str().unwrap_or(NOT_TEXT).to_string(),
        location: info.location().map(ToString::to_string),
        backtrace: (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string()),
    }
}
