use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::image::ENTRY_SIZE;
use multiproc_process::Panic;
use multiproc_shm::{Recall, ShmBox};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::child::{TaskEntry, run_chunks};
use crate::engine::job::Jobs;
use crate::engine::{Batch, Shared};
use crate::error::{Error, Kind, TaskError, TaskKind};
use crate::handle::read;
use crate::mode::Mode;
use crate::pool::Pool;

/// What slices in shared memory have as elements.
pub trait Element: FromBytes + IntoBytes + Immutable + KnownLayout + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + 'static> Element for T {}

/// So many chunks for each worker are under way at a time: each takes descriptors.
const UNDER_WAY: usize = 3;

/// How long a worker that has died, or is dying, may keep a chunk.
const PATIENCE: Duration = Duration::from_secs(10);

impl<M: Mode> Pool<M> {
    /// Divides the slice into chunks of `len` elements, of which the last may be shorter, and runs the
    /// function on each and its index, in the workers. Nothing is copied.
    ///
    /// Each worker owns the chunk that it works on, and nobody else can reach it: what the borrow
    /// checker promises for `slice::chunks_mut` and threads, this promises for processes.
    ///
    /// # Errors
    ///
    /// Some chunks failed: the error says which, and why. All of the slice is back then as well, with
    /// what the workers had written.
    ///
    /// # Panics
    ///
    /// If `len` is zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    /// use multiproc_shm::ShmBox;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let mut pixels = ShmBox::<[u8]>::zeroed(1 << 20)?;
    /// pool.for_each_chunk_mut(&mut pixels, 64 << 10, |chunk, index| chunk.fill(index as u8))?;
    /// assert_eq!((pixels[0], pixels[(1 << 20) - 1]), (0, 15));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "par_chunks_mut")]
    pub fn for_each_chunk_mut<T: Element>(
        &self,
        slice: &mut ShmBox<[T]>,
        len: usize,
        function: M::ChunkTask<T, ()>,
    ) -> Result<(), ChunksError<()>> {
        self.map_chunks_mut(slice, len, function).map(drop)
    }

    /// Does what [`for_each_chunk_mut`](Pool::for_each_chunk_mut) does, and gives what the function has
    /// returned for each chunk, in order.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// If `len` is zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Pool;
    /// use multiproc_shm::ShmBox;
    ///
    /// multiproc_process::init();
    /// let pool = Pool::builder().workers(2).build()?;
    /// let mut numbers = ShmBox::from_slice(&[3, 1, 2, 9, 7, 8])?;
    /// let sort = |chunk: &mut [i32], _index| {
    ///     chunk.sort();
    ///     chunk[0]
    /// };
    /// assert_eq!(pool.map_chunks_mut(&mut numbers, 3, sort)?, [1, 7]);
    /// assert_eq!(*numbers, [1, 2, 3, 7, 8, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_chunks_mut<T: Element, R>(
        &self,
        slice: &mut ShmBox<[T]>,
        len: usize,
        function: M::ChunkTask<T, R>,
    ) -> Result<Vec<R>, ChunksError<R>>
    where
        R: Serialize + DeserializeOwned,
    {
        let entry =
            TaskEntry::new(function, run_chunks::<M, T, R>).map_err(Kind::Function)?.encode();
        let batch = self.batch(entry, None);
        let ranges = ranges(slice.len(), len);
        let mut lent = Lent::new(self.shared(), batch, slice, len);
        let outcomes = lent.run(entry, self.workers().saturating_mul(UNDER_WAY));
        let lost = lent.come_home();
        let mut outcomes = outcomes?;
        for index in lost {
            outcomes[index] = Err(TaskError::not_run("the chunk is lost: a process keeps it"));
        }
        if outcomes.iter().all(Result::is_ok) {
            return Ok(outcomes.into_iter().flatten().collect());
        }
        Err(ChunksError { cause: None, outcomes: ranges.zip(outcomes).collect() })
    }
}

/// Where the chunks are.
fn ranges(all: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..all).step_by(len).map(move |start| start..all.min(start + len))
}

/// A slice whose chunks are with workers. They come home also when this is dropped while unwinding.
struct Lent<'a, T: Element> {
    shared: &'a Arc<Shared>,
    batch: Arc<Batch>,
    slice: &'a mut ShmBox<[T]>,
    chunks: Vec<Chunk<T>>,
}

enum Chunk<T> {
    Here(ShmBox<[T]>),
    Away(Recall<[T]>),
    Lost,
}

impl<'a, T: Element> Lent<'a, T> {
    fn new(
        shared: &'a Arc<Shared>,
        batch: Arc<Batch>,
        slice: &'a mut ShmBox<[T]>,
        len: usize,
    ) -> Self {
        let chunks = mem::take(slice).into_chunks(len);
        Lent { shared, batch, slice, chunks: chunks.into_iter().map(Chunk::Here).collect() }
    }

    /// Has the function run on each chunk, on so many at a time.
    fn run<R: DeserializeOwned>(
        &mut self,
        entry: [u8; ENTRY_SIZE],
        room: usize,
    ) -> Result<Vec<Result<R, TaskError>>, Error> {
        let count = self.chunks.len();
        let mut outcomes: Vec<_> = (0..count).map(|_| None).collect();
        let (mut sent, mut done) = (0, 0);
        while done < count {
            while sent < count && sent - done < room {
                self.send(entry, sent)?;
                sent += 1;
            }
            let Some(part) = self.batch.take(Deadline::NEVER) else { break };
            read::<(ShmBox<[T]>, Result<R, Panic>)>(part, |index, outcome| {
                let Some(place @ Chunk::Away(_)) = self.chunks.get_mut(index) else { return };
                outcomes[index] = Some(match outcome {
                    Ok((chunk, outcome)) => {
                        place.arrive(chunk);
                        outcome.map_err(|panic| TaskKind::Panicked(panic).into())
                    }
                    Err(error) => Err(error),
                });
                done += 1;
            });
            if let Some(observer) = &self.batch.options.progress {
                (observer.0)(done, count);
            }
        }
        let missing = || Err(TaskKind::Cancelled.into());
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect())
    }

    fn send(&mut self, entry: [u8; ENTRY_SIZE], index: usize) -> Result<(), Error> {
        let Some(Chunk::Here(chunk)) = self.chunks.get_mut(index) else { return Ok(()) };
        let recall = chunk.recallable().map_err(Kind::Chunk)?;
        let chunk = mem::take(chunk);
        self.chunks[index] = Chunk::Away(recall);
        let mut jobs = Jobs::new(entry, &self.batch, index);
        jobs.push((chunk, index))?;
        self.shared.submit(jobs.finish().0)
    }

    /// Makes the slice whole again. Gives the chunks that are lost.
    fn come_home(&mut self) -> Vec<usize> {
        if self.chunks.iter().any(|chunk| matches!(chunk, Chunk::Away(_))) {
            // Whoever has one of them still is not to have it any longer.
            self.shared.cancel(&self.batch);
            while let Some(unread) = self.batch.take(Deadline::now()) {
                drop(unread);
            }
            self.chunks.iter_mut().for_each(Chunk::call);
        }
        let mut lost = Vec::new();
        let mut here = Vec::new();
        for (index, chunk) in mem::take(&mut self.chunks).into_iter().enumerate() {
            match chunk {
                Chunk::Here(chunk) => here.push(chunk),
                Chunk::Away(_) | Chunk::Lost => lost.push(index),
            }
        }
        match ShmBox::join(here) {
            Ok(slice) => *self.slice = slice,
            // With one lost, no slice is left.
            Err(_) if lost.is_empty() => lost.push(0),
            Err(_) => {}
        }
        lost
    }
}

impl<T: Element> Chunk<T> {
    /// It has come back by itself.
    fn arrive(&mut self, chunk: ShmBox<[T]>) {
        let mut chunk = chunk;
        if let Chunk::Away(recall) = mem::replace(self, Chunk::Lost) {
            recall.give_up(&mut chunk);
        }
        *self = Chunk::Here(chunk);
    }

    /// Gets it back from whoever has it, and has ended.
    fn call(&mut self) {
        *self = match mem::replace(self, Chunk::Lost) {
            Chunk::Away(recall) => recall.recall_timeout(PATIENCE).map_or(Chunk::Lost, Chunk::Here),
            other => other,
        };
    }
}

impl<T: Element> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        if !self.chunks.is_empty() {
            let _lost = self.come_home();
        }
    }
}

/// Chunks on which a function did not return, together with what it returned for the others.
///
/// # Examples
///
/// ```
/// use multiproc_pool::Pool;
/// use multiproc_shm::ShmBox;
///
/// multiproc_process::init();
/// let pool = Pool::builder().workers(2).build()?;
/// let mut numbers = ShmBox::from_slice(&[1, 2, 3, 4, 5, 6, 7])?;
/// let double = |chunk: &mut [i32], index| {
///     chunk.iter_mut().for_each(|x| *x *= 2);
///     if index == 1 { std::process::abort() }
/// };
/// let error = pool.for_each_chunk_mut(&mut numbers, 3, double).unwrap_err();
/// let (range, failure) = error.failures().next().unwrap();
/// assert!(range == (3..6) && failure.is_death());
/// assert_eq!(*numbers, [2, 4, 6, 8, 10, 12, 14]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ChunksError<R> {
    cause: Option<Error>,
    outcomes: Vec<(Range<usize>, Result<R, TaskError>)>,
}

impl<R> ChunksError<R> {
    /// The chunks that failed, by the indices of their elements, and why.
    pub fn failures(&self) -> impl Iterator<Item = (Range<usize>, &TaskError)> {
        let failed = |(range, outcome): &(Range<usize>, Result<R, TaskError>)| match outcome {
            Ok(_) => None,
            Err(_) => Some(range.clone()),
        };
        self.outcomes.iter().filter_map(move |each| failed(each).zip(each.1.as_ref().err()))
    }

    /// What came of each chunk, in order, with the indices of its elements. Empty if the pool took none.
    pub fn into_outcomes(self) -> Vec<(Range<usize>, Result<R, TaskError>)> {
        self.outcomes
    }

    /// Why the pool took no chunk, or not all.
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_ref()
    }
}

impl<R> From<Error> for ChunksError<R> {
    fn from(cause: Error) -> Self {
        ChunksError { cause: Some(cause), outcomes: Vec::new() }
    }
}

impl<R> From<Kind> for ChunksError<R> {
    fn from(kind: Kind) -> Self {
        Error::from(kind).into()
    }
}

impl<R> fmt::Display for ChunksError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cause) = &self.cause {
            return cause.fmt(f);
        }
        let mut failures = self.failures();
        let Some((range, error)) = failures.next() else { return f.write_str("no chunk failed") };
        let count = failures.count() + 1;
        let all = self.outcomes.len();
        write!(f, "{count} of {all} chunks failed; the first, elements {range:?}, {error}")
    }
}

impl<R> fmt::Debug for ChunksError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be large, or secret.
        write!(f, "ChunksError({self})")
    }
}

impl<R> std::error::Error for ChunksError<R> {}
