//! What several of the programs need, or what would make one of them long.

pub mod filters;
pub mod page;
pub mod site;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressFinish};

/// Returns the photographs that come with the programs, sorted by name.
pub fn photos() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("photos");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut photos = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    photos.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    photos.sort();
    Ok(photos)
}

/// Makes the directory for what a program writes: its first argument, or `name` among the
/// temporary files.
pub fn output_dir(name: &str) -> Result<PathBuf> {
    let given = env::args_os().nth(1).map(PathBuf::from);
    let dir = given.unwrap_or_else(|| env::temp_dir().join(name));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Returns the last part of a path as text, without its extension.
pub fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Starts a progress bar, which is seen on a terminal only and is gone when it is dropped.
pub fn progress_bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64).with_finish(ProgressFinish::AndClear);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Prints a line as `println!` does, in the place of a progress bar, which comes back below it. The
/// bar may be another process's.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        println!("{}{}", $crate::clear_line(), format_args!($($text)*))
    };
}

/// What clears a line of the terminal, if the output goes to one.
pub fn clear_line() -> &'static str {
    if io::stdout().is_terminal() { "\r\x1b[K" } else { "" }
}

/// Returns what `work` returns, and how many seconds it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let started = Instant::now();
    let result = work();
    (result, started.elapsed().as_secs_f64())
}

/// Prints how many times faster the second time is than the first, and what to think if it is not.
pub fn print_speedup(sequential: f64, parallel: f64) {
    println!("Speedup: {:.2}x", sequential / parallel);
    if parallel > sequential {
        println!(
            "The pool was not faster: it needs CPUs that have nothing else to do (this program may\n\
             use {}), and more work than it takes to start it and to bring the work to it.",
            multiproc::cpu_count()
        );
    }
}
