use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What holds for the tasks that are handed in through one handle of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) chunk_size: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) priority: i32,
    pub(crate) progress: Option<Observer>,
}

/// Is told how many tasks are done, and of how many.
#[derive(Clone)]
pub(crate) struct Observer(pub(crate) Arc<dyn Fn(usize, usize) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}
