//! Proves that a program built with `panic = "abort"` gets the text of its children's panics.
//!
//! It is built here, as a package of its own: a profile's `panic` is not heeded for tests.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn panics_come_home_from_programs_that_abort() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    // It is kept, so that only the first run has to build all.
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic-abort");
    fs::create_dir_all(package.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"panic-abort\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nmultiproc-process = {{ path = {:?} }}\n\n\
         [profile.dev]\npanic = \"abort\"\ndebug = false\n",
        own.display().to_string()
    );
    write_if_changed(&package.join("Cargo.toml"), &manifest);
    let program = fs::read_to_string(own.join("tests/panic_abort/program.rs")).unwrap();
    write_if_changed(&package.join("src/main.rs"), &program);
    // The versions that are at hand.
    fs::copy(own.join("../../Cargo.lock"), package.join("Cargo.lock")).unwrap();

    let output = Command::new("timeout")
        .args(["300", env!("CARGO"), "run", "--quiet", "--offline"])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text == "all went well\n", "{text}\n{errors}");
}

/// Leaves the file's time as it is if nothing is new.
fn write_if_changed(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).unwrap();
    }
}
