use std::fmt;
use std::io::{PipeReader, pipe};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::memory::Memory;
use multiproc_os::poll;
use multiproc_wire::SharedFd;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ShmBox;
use super::part::{Part, Place};
use crate::error::{Error, Kind};

/// The right to have a slice back once nobody owns it any more: see [`ShmBox::recallable`].
///
/// It is the reading end of a pipe whose writing end travels with the slice. The kernel closes that when
/// the last process has ended that owned the slice, or a part of it, all threads of that process
/// included; and when a message is lost that carried it.
#[must_use = "the slice cannot be had back without"]
pub struct Recall<T: ?Sized> {
    /// `None` if there are no bytes.
    memory: Option<(Memory<SharedFd>, Place)>,
    lease: PipeReader,
    len: usize,
    elements: PhantomData<fn() -> T>,
}

/// Why a slice was not had back, and the right to try again.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use multiproc_shm::ShmBox;
///
/// let mut slice = ShmBox::from_slice(&[1, 2, 3])?;
/// let recall = slice.recallable()?;
/// let error = recall.recall_timeout(Duration::ZERO).unwrap_err();
/// assert!(error.is_timeout());
/// drop(slice);
/// assert_eq!(*error.into_recall().recall_timeout(Duration::ZERO)?, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(thiserror::Error)]
#[error("cannot have the slice back: {reason}")]
pub struct RecallError<T> {
    reason: Reason,
    recall: Box<Recall<[T]>>,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("it has an owner still")]
    Owned,
    #[error(transparent)]
    System(Error),
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> ShmBox<[T]> {
    /// Gives the right to have the slice back once it has no owner any more: because the process that
    /// owned it was killed, say. What is in it then is what that process had written.
    ///
    /// Each takes descriptors: two here, and one in the process that owns the slice.
    ///
    /// # Errors
    ///
    /// The process or the system has no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use multiproc_process::{Process, init};
    /// use multiproc_shm::ShmBox;
    ///
    /// init();
    /// let mut slice = ShmBox::from_slice(&[0, 0, 0])?;
    /// let recall = slice.recallable()?;
    /// let crash = |mut slice: ShmBox<[i32]>| -> () {
    ///     slice[1] = 7;
    ///     std::process::abort()
    /// };
    /// assert!(Process::spawn(crash, slice)?.join().is_err());
    /// assert_eq!(*recall.recall_timeout(Duration::MAX)?, [0, 7, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recallable(&mut self) -> Result<Recall<[T]>, Error> {
        let (lease, theirs) = pipe().map_err(Kind::system("watch"))?;
        let theirs = SharedFd::from(OwnedFd::from(theirs));
        let memory = self.part.as_mut().map(|part| part.lease(theirs));
        Ok(Recall { memory, lease, len: self.len, elements: PhantomData })
    }
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Recall<[T]> {
    /// Takes the slice back, once it has no owner any more, for which this waits no longer than
    /// `timeout`.
    ///
    /// # Errors
    ///
    /// The time was up, or the memory was [frozen](ShmBox::freeze), or cannot be mapped.
    pub fn recall_timeout(self, timeout: Duration) -> Result<ShmBox<[T]>, RecallError<T>> {
        let fail = |reason, recall| RecallError { reason, recall: Box::new(recall) };
        match poll::hung_up(&self.lease, Deadline::after(timeout)) {
            Ok(true) => {}
            Ok(false) => return Err(fail(Reason::Owned, self)),
            Err(error) => {
                return Err(fail(Reason::System(Kind::system("watch")(error).into()), self));
            }
        }
        let Recall { memory, lease, len, elements } = self;
        let part = match memory.map(|(memory, place)| (Part::recall(memory, place), place)) {
            None => None,
            Some((Ok(part), _)) => Some(part),
            Some((Err((kind, memory)), place)) => {
                let recall = Recall { memory: Some((memory, place)), lease, len, elements };
                return Err(fail(Reason::System(kind.into()), recall));
            }
        };
        Ok(ShmBox { part, len, _elements: PhantomData })
    }

    /// Gives up the right, after the slice, or what was made of it, has come back by itself: that keeps
    /// no descriptor for it then.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShmBox;
    ///
    /// let mut slice = ShmBox::from_slice(&[1, 2, 3])?;
    /// let recall = slice.recallable()?;
    /// recall.give_up(&mut slice);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn give_up(self, slice: &mut ShmBox<[T]>) {
        drop(self);
        if let Some(part) = &mut slice.part {
            part.end_leases();
        }
    }
}

impl<T> RecallError<T> {
    /// Gives the right back.
    pub fn into_recall(self) -> Recall<[T]> {
        *self.recall
    }

    /// Tells whether the slice had an owner still when the time was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self.reason, Reason::Owned)
    }
}

impl<T: ?Sized> fmt::Debug for Recall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recall").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for RecallError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecallError").field("reason", &self.reason).finish_non_exhaustive()
    }
}
