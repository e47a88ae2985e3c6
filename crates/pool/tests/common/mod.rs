//! What the tests of the pool share.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use multiproc_wire::Fd;

/// Ends the test binary if it runs for too long.
pub(crate) fn watchdog() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            #[allow(clippy::disallowed_methods)] // The one thing that waits for time itself.
            std::thread::sleep(Duration::from_secs(120));
            eprintln!("the watchdog ends this test: it hangs");
            std::process::abort();
        });
    });
}

/// Sends `SIGKILL`.
pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// The argument of a task that says when it runs, and the end where that is heard.
pub(crate) fn task_that_waits() -> (Fd<File>, Running) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(writer)).into(), Running(reader))
}

pub(crate) struct Running(PipeReader);

impl Running {
    pub(crate) fn wait(mut self) {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
    }
}

/// Says that it runs, and never returns.
pub(crate) fn wait_for_ever<R>(says: &Fd<File>) -> R {
    let mut file: &File = says;
    file.write_all(b"r").unwrap();
    hang()
}

/// Never returns.
pub(crate) fn hang<R>() -> R {
    loop {
        std::thread::park();
    }
}
