//! Functions that are called when results are there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

/// Calls the function with what the future gives, in the thread that is there for that.
pub fn call_with<F>(future: F, callback: impl FnOnce(F::Output) + Send + 'static)
where
    F: Future + Send + 'static,
{
    let called = Box::pin(async move { callback(future.await) });
    Call::wake(Arc::new(Call(Mutex::new(Some(called)))));
}

/// A function that waits for its argument.
struct Call(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        // The thread ends with the process only.
        let _sent = caller().send(self);
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

fn caller() -> &'static Sender<Arc<Call>> {
    static CALLER: OnceLock<Sender<Arc<Call>>> = OnceLock::new();
    CALLER.get_or_init(|| {
        let (sender, receiver): (_, Receiver<Arc<Call>>) = mpsc::channel();
        let thread = thread::Builder::new().name("multiproc-callbacks".into());
        // Without the thread, the receiver is gone, and no function is called.
        let _started = thread.spawn(move || receiver.iter().for_each(Call::go_on));
        sender
    })
}
