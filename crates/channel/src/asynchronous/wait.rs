use std::os::fd::BorrowedFd;

use multiproc_os::deadline::Deadline;
use tokio::io::Interest;

use super::{any_ready, register};
use crate::Waitable;
use crate::error::Error;
use crate::wait::ready;

/// Waits until at least one of these is ready, and gives the indices of all that are:
/// [`wait`](crate::wait()) for tasks.
///
/// # Cancel safety
///
/// Dropping it changes nothing: it takes nothing from what it waits for.
///
/// # Errors
///
/// As [`wait`](crate::wait()), and if something among them is a file of a kind that cannot be waited for.
///
/// # Panics
///
/// Outside of a tokio runtime with I/O enabled.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Queue, pipe, wait_async};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let queue = Queue::<u32>::new()?;
/// let (here, there) = pipe::<u32>()?;
/// queue.put(1)?;
/// assert_eq!(wait_async(&[&here, &queue]).await?, [1]);
/// there.send(2)?;
/// assert_eq!(wait_async(&[&here, &queue]).await?, [0, 1]);
/// # Ok(())
/// # }
/// ```
pub async fn wait_async(objects: &[&(dyn Waitable + Sync)]) -> Result<Vec<usize>, Error> {
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let look = || {
        let objects: Vec<&dyn Waitable> = objects.iter().map(|object| *object as _).collect();
        ready(&objects, Deadline::now())
    };
    let mut indices = look()?;
    if indices.is_empty() {
        let fds: Vec<BorrowedFd<'_>> = objects.iter().map(|object| object.fd()).collect();
        let register = |fd: BorrowedFd<'_>| register(fd.try_clone_to_owned()?, Interest::READABLE);
        let registered = fds.into_iter().map(register).collect::<Result<Vec<_>, Error>>()?;
        while indices.is_empty() {
            any_ready(&registered).await?;
            indices = look()?;
        }
    }
    Ok(indices)
}
