use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use serde::de::DeserializeOwned;

use crate::error::TaskError;
use crate::handle::TaskHandle;

/// Gives what comes of tasks as they are done, with the place of each among the handles.
///
/// # Examples
///
/// ```
/// use multiproc_pool::{Pool, as_completed};
///
/// multiproc_process::init();
/// let pool = Pool::builder().workers(2).build()?;
/// let later = (1..=3).map(|x| pool.apply_async(|x: u32| x * x, x)).collect::<Result<Vec<_>, _>>()?;
/// for (index, result) in as_completed(later) {
///     assert_eq!(result? as usize, (index + 1) * (index + 1));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<R: DeserializeOwned>(
    handles: impl IntoIterator<Item = TaskHandle<R>>,
) -> AsCompleted<R> {
    let rung = Arc::new(Rung::default());
    let handles: Vec<_> = handles.into_iter().map(Some).collect();
    rung.bells().queue.extend(0..handles.len());
    AsCompleted { left: handles.len(), handles, rung }
}

/// What comes of tasks, as they are done: see [`as_completed`].
///
/// With feature `stream` it is a `Stream` as well.
#[must_use = "the results are lost unless they are taken"]
pub struct AsCompleted<R> {
    handles: Vec<Option<TaskHandle<R>>>,
    left: usize,
    rung: Arc<Rung>,
}

/// Which handles are to be looked at.
#[derive(Default)]
struct Rung {
    bells: Mutex<Bells>,
    one: Condvar,
}

#[derive(Default)]
struct Bells {
    queue: VecDeque<usize>,
    waker: Option<Waker>,
}

/// Rung when a task is done.
struct Bell {
    index: usize,
    rung: Arc<Rung>,
}

impl<R: DeserializeOwned> AsCompleted<R> {
    /// Looks at the handles that are to be looked at.
    fn look(&mut self) -> Option<(usize, Result<R, TaskError>)> {
        loop {
            let index = self.rung.bells().queue.pop_front()?;
            let Some(handle) = self.handles.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            let waker = Waker::from(Arc::new(Bell { index, rung: Arc::clone(&self.rung) }));
            let polled = Pin::new(handle).poll(&mut Context::from_waker(&waker));
            if let Poll::Ready(result) = polled {
                self.handles[index] = None;
                self.left -= 1;
                return Some((index, result));
            }
        }
    }

    #[cfg(feature = "stream")]
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<(usize, Result<R, TaskError>)>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.rung.bells().waker = Some(context.waker().clone());
        match self.look() {
            Some(result) => Poll::Ready(Some(result)),
            None => Poll::Pending,
        }
    }
}

impl<R: DeserializeOwned> Iterator for AsCompleted<R> {
    type Item = (usize, Result<R, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            if let Some(result) = self.look() {
                return Some(result);
            }
            let mut bells = self.rung.bells();
            while bells.queue.is_empty() {
                bells = self.rung.one.wait(bells).unwrap_or_else(PoisonError::into_inner);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R: DeserializeOwned> ExactSizeIterator for AsCompleted<R> {}

impl Rung {
    fn bells(&self) -> MutexGuard<'_, Bells> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut bells = self.rung.bells();
        bells.queue.push_back(self.index);
        let waker = bells.waker.take();
        drop(bells);
        self.rung.one.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R> fmt::Debug for AsCompleted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left).finish_non_exhaustive()
    }
}
