//! What the server runs before it serves.

use std::io;
use std::sync::{Mutex, PoisonError};

use multiproc_os::fork::threads;
use multiproc_os::image::{ENTRY_SIZE, Entry};

use crate::error::{Error, Kind};
use crate::panics;

/// The function for servers that are started from now on.
static PRELOAD: Mutex<Option<Preload>> = Mutex::new(None);

/// The second is the code that calls the function.
pub(super) type Preload = Entry<(), ()>;

/// Has the fork server run a function once, before it forks off children: what it loads into memory is
/// there for every child, and shared until a child writes to it.
///
/// A server that runs already is replaced at the next spawn, which waits until the function has
/// returned. Until the old one has ended, after its last child, a thread of this process waits for it,
/// and [`StartMethod::Fork`](crate::StartMethod::Fork) is refused. It is for the children of this process, not for those that they start in their turn.
///
/// The server has no standard streams, ignores `SIGINT`, and must stay single-threaded: threads that the
/// function starts must have ended when it returns.
///
/// # Errors
///
/// The function is in a shared library. One that panics, that ends the server or that leaves threads
/// is an error of each spawn.
///
/// # Examples
///
/// ```
/// use std::sync::OnceLock;
/// use multiproc_process::{Process, init, set_forkserver_preload};
///
/// static MODEL: OnceLock<Vec<u64>> = OnceLock::new();
///
/// fn load() {
///     MODEL.get_or_init(|| (0..1000).collect());
/// }
///
/// fn answer(question: usize) -> u64 {
///     // Where nothing was preloaded, it is loaded here.
///     load();
///     MODEL.get().unwrap()[question]
/// }
///
/// init();
/// set_forkserver_preload(load)?;
/// assert_eq!(Process::spawn(answer, 42)?.join()?, 42);
/// # Ok::<(), multiproc_process::Error>(())
/// ```
pub fn set_forkserver_preload(function: fn()) -> Result<(), Error> {
    let preload = Preload::new(function, |function, ()| function())
        .map_err(|source| Kind::Function { name: "(the fork server's preload)".into(), source })?;
    *PRELOAD.lock().unwrap_or_else(PoisonError::into_inner) = Some(preload);
    super::forget();
    Ok(())
}

/// The function's encoded form, if there is one.
pub(super) fn encoded() -> Option<[u8; ENTRY_SIZE]> {
    let preload = PRELOAD.lock().unwrap_or_else(PoisonError::into_inner);
    preload.as_ref().map(Preload::encode)
}

/// In the server.
pub(super) fn run(encoded: &[u8; ENTRY_SIZE]) -> Result<(), String> {
    let preload = Preload::decode(encoded).ok_or("it is not a function of this program")?;
    panics::watch(|_| {});
    panics::catch(|| preload.call(())).map_err(|panic| format!("it panicked: {panic}"))?;
    match threads() {
        Ok(1) => Ok(()),
        Ok(threads) => Err(format!(
            "it has left {} running, and the server must have one thread: join them",
            match threads {
                2 => "a thread".to_string(),
                _ => format!("{} threads", threads - 1),
            }
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// What a spawn says where the function has failed.
pub(super) fn failed(reason: &str) -> io::Error {
    io::Error::other(format!("the preload of its fork server has failed: {reason}"))
}
