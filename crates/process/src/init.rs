use std::ffi::{c_char, c_int};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use multiproc_os::constructors::{Constructor, run_after};
use multiproc_os::exec::{is_marked, take_over};
use multiproc_wire::Endpoint;

use crate::child;
use crate::error::{Error, Kind};
use crate::fork_server;

/// The roles that a fresh copy of the program can have.
pub(crate) const SPAWNED: &str = "spawned";
pub(crate) const FORK_SERVER: &str = "fork-server";

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Marks where a child process leaves the way of the program: the first line of `main`.
///
/// In the program that a user starts it notes that it ran, and returns. In a child it runs the
/// child's function and never returns. It is Python's `if __name__ == "__main__":`.
///
/// Everything before it runs in every child too. A test or a library that has no `main` of its own
/// writes [`init_before_main!`](crate::init_before_main) instead.
///
/// # Examples
///
/// ```
/// use multiproc_process::Process;
///
/// fn main() -> Result<(), multiproc_process::Error> {
///     multiproc_process::init();
///     let process = Process::spawn(|name: String| format!("hello, {name}"), "world".to_string())?;
///     assert_eq!(process.join()?, "hello, world");
///     Ok(())
/// }
/// ```
pub fn init() {
    if INITIALISED.swap(true, Relaxed) {
        return;
    }
    match take_over() {
        Ok(None) => {}
        Ok(Some((role, line))) => {
            let line = Endpoint::from(line);
            match role.as_str() {
                SPAWNED => child::run_spawned(line),
                FORK_SERVER => fork_server::serve(line),
                _ => fail(&format!("a child process has the unknown role {role}")),
            }
        }
        Err(error) => fail(&format!("a child process cannot take over: {error}")),
    }
}

/// Does what [`init`] does before `main`, for tests and libraries that have no `main` of their own.
///
/// Write it once, at the top of a file. It adds an entry to the program's table of constructors,
/// which in a child first runs the constructors after it. What std sets up before `main` is missing
/// in such a child: a stack overflow ends it with a bare `SIGSEGV`, without std's message.
///
/// Needs a crate that does not `forbid(unsafe_code)`: the entry's section is named by an attribute
/// that the compiler counts as unsafe.
///
/// # Examples
///
/// ```
/// multiproc_process::init_before_main!();
///
/// # fn main() -> Result<(), multiproc_process::Error> {
/// let process = multiproc_process::Process::spawn(|x: i32| x + 1, 1)?;
/// assert_eq!(process.join()?, 2);
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! init_before_main {
    () => {
        const _: () = {
            #[used]
            #[allow(unsafe_code)]
            #[unsafe(link_section = ".init_array")]
            static ENTRY: $crate::__private::Constructor = {
                extern "C" fn enter(
                    argc: ::std::ffi::c_int,
                    argv: *const *const ::std::ffi::c_char,
                    envp: *const *const ::std::ffi::c_char,
                ) {
                    $crate::__private::init_from_constructor(&ENTRY, argc, argv, envp);
                }
                enter
            };
        };
    };
}

/// What [`init_before_main`](crate::init_before_main) runs.
pub fn init_from_constructor(
    own: &'static Constructor,
    argc: c_int,
    argv: *const *const c_char,
    envp: *const *const c_char,
) {
    if is_marked() {
        run_after(own, argc, argv, envp);
    }
    init();
}

/// Tells whether a child of this process would take over.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    if is_marked() {
        return Err(Kind::InsideUninitialisedChild { name: name.into() }.into());
    }
    if !INITIALISED.load(Relaxed) {
        return Err(Kind::NotInitialised.into());
    }
    Ok(())
}

fn fail(text: &str) -> ! {
    eprintln!("multiproc: {text}");
    exit(1)
}
