//! Futures, polled once or to their end.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_core::Stream;

use super::watchdog;

/// Runs a future on a runtime with one thread.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    watchdog();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

/// Polls a future once and drops it.
pub(crate) async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

pub(crate) async fn next<S: Stream + Unpin>(mut stream: S) -> Option<S::Item> {
    poll_fn(|context| pin!(&mut stream).poll_next(context)).await
}
