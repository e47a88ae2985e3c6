use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// How a child process comes into being.
///
/// | method | what the child has of the parent | costs | when |
/// | --- | --- | --- | --- |
/// | [`ForkServer`](StartMethod::ForkServer) | nothing but its argument | a fork of a small process | the default |
/// | [`Spawn`](StartMethod::Spawn) | nothing but its argument | the program starts anew | the parent must be the child's parent to the kernel |
/// | [`Fork`](StartMethod::Fork) | a copy of everything | a fork of the whole parent | large data that is only read, single-threaded programs |
///
/// Its default is [`ForkServer`](StartMethod::ForkServer), or what [`set_start_method`] has set.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, StartMethod, init};
///
/// init();
/// assert_eq!(StartMethod::default(), StartMethod::ForkServer);
/// let process = Process::builder().start_method(StartMethod::Spawn).spawn(|x: u64| x + 1, 1)?;
/// assert_eq!(process.join()?, 2);
/// # Ok::<(), multiproc_process::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// A clean, single-threaded copy of the program, started at the first spawn, forks off children.
    ForkServer,
    /// The program's own file is run anew, up to [`init`](crate::init).
    Spawn,
    /// The process is copied as it is. Refused while it has more than one thread.
    Fork,
}

impl StartMethod {
    /// All of them, the usual one first.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_process::{Process, StartMethod, init};
    ///
    /// init();
    /// for method in StartMethod::ALL {
    ///     let process = Process::builder().start_method(method).spawn(|x: u64| x + 1, 1)?;
    ///     assert_eq!(process.join()?, 2);
    /// #   if method == StartMethod::Spawn { break } // Fork refuses a process with threads.
    /// }
    /// # Ok::<(), multiproc_process::Error>(())
    /// ```
    #[doc(alias = "get_all_start_methods")]
    pub const ALL: [StartMethod; 3] =
        [StartMethod::ForkServer, StartMethod::Spawn, StartMethod::Fork];
}

impl Default for StartMethod {
    /// Gives what [`set_start_method`] has set.
    fn default() -> Self {
        let index = usize::from(DEFAULT.load(Relaxed));
        Self::ALL.get(index).copied().unwrap_or(StartMethod::ForkServer)
    }
}

/// An index into [`StartMethod::ALL`].
static DEFAULT: AtomicU8 = AtomicU8::new(0);

/// Sets how processes of this program come into being from now on where nothing else is said.
///
/// It is asked for when a builder is made. Children begin with
/// [`ForkServer`](StartMethod::ForkServer), but for forked ones, which are copies.
///
/// # Examples
///
/// ```
/// use multiproc_process::{Process, StartMethod, init, set_start_method};
///
/// init();
/// set_start_method(StartMethod::Spawn);
/// assert_eq!(StartMethod::default(), StartMethod::Spawn);
/// assert_eq!(Process::spawn(|x: u64| x + 1, 1)?.join()?, 2);
/// # Ok::<(), multiproc_process::Error>(())
/// ```
pub fn set_start_method(method: StartMethod) {
    let index = StartMethod::ALL.iter().position(|&other| other == method).unwrap_or(0);
    DEFAULT.store(u8::try_from(index).unwrap_or(0), Relaxed);
}
