//! Functions that are called when results are there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Calls the function with what the future gives, in the thread that is there for that; or here, after
/// waiting, if no thread can be started.
pub fn call_with<F>(future: F, callback: impl FnOnce(F::Output) + Send + 'static)
where
    F: Future + Send + 'static,
{
    match caller() {
        Some(caller) => {
            let called = Box::pin(async move { callback(future.await) });
            // The thread ends with the process only.
            let _sent = caller.send(Arc::new(Call(Mutex::new(Some(called)))));
        }
        None => {
            let value = wait_for(future);
            let _panicked = catch_unwind(AssertUnwindSafe(|| callback(value)));
        }
    }
}

/// A function that waits for its argument.
struct Call(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        let _sent = caller().map(|caller| caller.send(self));
    }
}

impl Call {
    fn go_on(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut call = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(future) = &mut *call else { return };
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        if !matches!(polled, Ok(Poll::Pending)) {
            // What it has captured may panic as well.
            let _dropped = catch_unwind(AssertUnwindSafe(|| *call = None));
        }
    }
}

/// The thread that calls. `None` if it cannot be started now.
fn caller() -> Option<Sender<Arc<Call>>> {
    static CALLER: Mutex<Option<Sender<Arc<Call>>>> = Mutex::new(None);
    let mut caller = CALLER.lock().unwrap_or_else(PoisonError::into_inner);
    if caller.is_none() {
        let (sender, receiver): (_, Receiver<Arc<Call>>) = mpsc::channel();
        let thread = thread::Builder::new().name("multiproc-callbacks".into());
        thread.spawn(move || receiver.iter().for_each(Call::go_on)).ok()?;
        *caller = Some(sender);
    }
    caller.clone()
}

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_for<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
