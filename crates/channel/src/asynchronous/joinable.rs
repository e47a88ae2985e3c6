use serde::de::DeserializeOwned;
use tokio::io::Interest;

use super::when_ready;
use crate::error::Error;
use crate::{JoinableQueue, Task};

impl<T> JoinableQueue<T> {
    /// Waits until all items that were put in are done: [`join`](Self::join) for tasks.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = multiproc_channel::JoinableQueue::new()?;
    /// queue.put(1)?;
    /// let (joined, task) = tokio::join!(queue.join_async(), async {
    ///     tokio::task::yield_now().await;
    ///     queue.get_task_async().await.map(drop)
    /// });
    /// joined?;
    /// task?;
    /// assert_eq!(queue.unfinished()?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn join_async(&self) -> Result<(), Error> {
        let mut at_first = None;
        let attempt = || self.try_join_or_arm(&mut at_first);
        when_ready(self.done_signal()?, Interest::READABLE, attempt).await
    }
}

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Takes the next item, and waits while there is none: [`get_task`](Self::get_task) for tasks.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is done, no item was taken.
    ///
    /// # Errors
    ///
    /// As [`get_task`](Self::get_task).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = multiproc_channel::JoinableQueue::new()?;
    /// queue.put("item".to_string())?;
    /// let task = queue.get_task_async().await?;
    /// assert_eq!((task.as_str(), queue.unfinished()?), ("item", 1));
    /// drop(task);
    /// assert_eq!(queue.unfinished()?, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_task_async(&self) -> Result<Task<'_, T>, Error> {
        self.task(self.get_async().await)
    }
}
