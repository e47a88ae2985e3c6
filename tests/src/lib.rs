//! What the stories in `tests/` share.
#![allow(unsafe_code)] // One call, of alarm(2).

/// Runs the parts of a story one after the other, in a process with one thread, and prints what
/// libtest would print of them.
///
/// A story that takes longer than two minutes is ended by `SIGALRM`: a thread that watches would keep
/// the story from forking.
pub fn tell(parts: &[(&str, fn())]) {
    const LONGEST: u32 = 120;
    // SAFETY: sets a timer of the process, which nothing else here uses.
    unsafe { libc::alarm(LONGEST) };
    let count = parts.len();
    println!("\nrunning {count} tests");
    for (name, part) in parts {
        part();
        println!("test {name} ... ok");
    }
    println!(
        "\ntest result: ok. {count} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
}
