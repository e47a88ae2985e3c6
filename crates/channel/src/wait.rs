use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::poll;

use crate::error::Error;
use crate::queue::{JoinableQueue, Queue};

/// Waits until at least one of these is ready, and gives the indices of all that are: Python's
/// `multiprocessing.connection.wait`.
///
/// Ready is
///
/// - a [`Connection`](crate::Connection), [`Receiver`](crate::Receiver) or
///   [`SocketConnection`](crate::SocketConnection) from which can be received, or whose other end is
///   closed;
/// - a [`Queue`] from which an item can be taken, or which is closed;
/// - a [`Listener`](crate::Listener) to which somebody connects, though that may not prove to know the key;
/// - a process, or a pidfd, that has ended;
/// - anything else with a descriptor that can be read.
///
/// Others may take what is there before this process does: then ask by `try_recv` or `try_get`, and
/// wait again.
///
/// Without a timeout it waits as long as it takes. Empty is the answer when the time is up, or if there
/// is nothing to wait for.
///
/// # Errors
///
/// The system refuses to wait, or the lock of a queue cannot be had.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use multiproc_channel::{Queue, pipe, wait};
/// use multiproc_process::{Process, init};
///
/// init();
/// let queue = Queue::new()?;
/// let (here, there) = pipe::<u32>()?;
/// let child = Process::spawn(|queue: Queue<u32>| queue.put(1).unwrap(), queue.clone())?;
///
/// // The item, the end of the child, or both.
/// assert!(!wait(&[&queue, &here, &child], None)?.is_empty());
/// there.send(2)?;
/// assert_eq!(wait(&[&here], Some(Duration::ZERO))?, [0]);
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait(objects: &[&dyn Waitable], timeout: Option<Duration>) -> Result<Vec<usize>, Error> {
    let deadline = match timeout {
        Some(timeout) => Deadline::after(timeout),
        None if objects.is_empty() => return Ok(Vec::new()),
        None => Deadline::NEVER,
    };
    loop {
        let indices = ready(objects, deadline)?;
        if !indices.is_empty() || deadline.has_passed() {
            return Ok(indices);
        }
    }
}

/// Waits until one of these may be ready, and gives the indices of those that are.
pub(crate) fn ready(objects: &[&dyn Waitable], deadline: Deadline) -> Result<Vec<usize>, Error> {
    let mut ready = Vec::with_capacity(objects.len());
    for object in objects {
        ready.push(object.arm()?);
    }
    let until = if ready.contains(&true) { Deadline::now() } else { deadline };
    let fds: Vec<BorrowedFd<'_>> = objects.iter().map(|object| object.fd()).collect();
    let readable = poll::any_readable(&fds, until)?;
    for ((ready, readable), object) in ready.iter_mut().zip(readable).zip(objects) {
        *ready = *ready || object.is_ready(readable)?;
    }
    Ok((0..ready.len()).filter(|index| ready[*index]).collect())
}

/// What [`wait`] waits for: a [`Queue`], or whatever has a descriptor.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Queue, Waitable, wait};
///
/// let (reader, writer) = std::io::pipe()?;
/// let queue = Queue::<u8>::new()?;
/// let mut objects: Vec<&dyn Waitable> = vec![&reader];
/// objects.push(&queue);
/// drop(writer);
/// assert_eq!(wait(&objects, None)?, [0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Waitable: sealed::Sealed {}

impl<T: AsFd> Waitable for T {}
impl<T> Waitable for Queue<T> {}
impl<T> Waitable for JoinableQueue<T> {}

mod sealed {
    use std::os::fd::BorrowedFd;

    use crate::error::Error;

    pub trait Sealed {
        /// Readable, once [armed](Self::arm), when it may be ready.
        fn fd(&self) -> BorrowedFd<'_>;

        /// Tells whether it is ready now; if not, makes its descriptor readable when it is.
        fn arm(&self) -> Result<bool, Error> {
            Ok(false)
        }

        /// Tells whether it is ready, where its descriptor is readable or not.
        fn is_ready(&self, readable: bool) -> Result<bool, Error> {
            Ok(readable)
        }
    }
}

impl<T: AsFd> sealed::Sealed for T {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl<T> sealed::Sealed for Queue<T> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.items_signal()
    }

    fn arm(&self) -> Result<bool, Error> {
        self.arm_items()
    }

    fn is_ready(&self, readable: bool) -> Result<bool, Error> {
        if readable { self.has_item_or_end() } else { Ok(false) }
    }
}

impl<T> sealed::Sealed for JoinableQueue<T> {
    fn fd(&self) -> BorrowedFd<'_> {
        Queue::fd(self)
    }

    fn arm(&self) -> Result<bool, Error> {
        Queue::arm(self)
    }

    fn is_ready(&self, readable: bool) -> Result<bool, Error> {
        Queue::is_ready(self, readable)
    }
}
