//! Taking over a process before its `main`.
#![allow(unsafe_code)] // Reads the linker's table of constructors and calls those of others.

use std::ffi::{c_char, c_int};

/// A function that the loader calls before `main`, an entry of `.init_array`.
pub type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

unsafe extern "C" {
    /// The end of the program's table of constructors, which the linker defines.
    static __init_array_end: [Option<Constructor>; 0];
}

/// Runs the constructors of the program that come after `own`.
///
/// Static constructors of linked C++ code must have run before any user code does; whoever takes
/// over in the middle of them runs the rest first. They run in that process only here, since it never
/// gets back to the loader.
pub fn run_after(
    own: &'static Constructor,
    argc: c_int,
    argv: *const *const c_char,
    envp: *const *const c_char,
) {
    let end = (&raw const __init_array_end).cast::<Option<Constructor>>();
    let mut next: *const Option<Constructor> = std::ptr::from_ref(own).cast();
    // An entry of a shared library's table would be outside; then there is nothing to run here.
    if next >= end {
        return;
    }
    loop {
        next = next.wrapping_add(1);
        if next >= end {
            return;
        }
        // SAFETY: `own` is an entry of the table, as its section says, and `next` lies between it and
        // the table's end. The loader calls each entry with these same arguments.
        if let Some(constructor) = unsafe { *next } {
            constructor(argc, argv, envp);
        }
    }
}
