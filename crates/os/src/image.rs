//! Functions as offsets from the base of the program's own image.
//!
//! A child runs the very same file, so an offset names the same function there, wherever the kernel
//! has put the image.
#![allow(unsafe_code)] // Turns a checked offset into a function, and reads the program headers.

use std::any::{TypeId, type_name};
use std::ffi::c_int;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// A function, and the code that knows its types and can call it, as it travels to a child.
///
/// `C` is what the call is given, and `O` what it gives. Both are the same on either side, which the
/// encoded form's tag makes sure of.
pub struct Entry<C, O> {
    function: fn(),
    call: fn(fn(), C) -> O,
}

/// The function is not in the program's own image.
#[derive(Debug)]
pub struct ForeignFunction {
    type_name: &'static str,
}

/// The size of an encoded [`Entry`].
pub const ENTRY_SIZE: usize = 24;

impl<C: 'static, O: 'static> Entry<C, O> {
    /// Pairs `function` with `call`, which gets it back with its types.
    ///
    /// # Errors
    ///
    /// One of them is in a shared library, or this is one: a child could not find it by its offset.
    pub fn new<F: Function>(function: F, call: fn(F, C) -> O) -> Result<Self, ForeignFunction> {
        let image = Image::get();
        for address in [function.address(), call as usize] {
            if !image.contains(address) {
                return Err(ForeignFunction { type_name: type_name::<F>() });
            }
        }
        let function = function.address() as *const ();
        // SAFETY: 1. All `fn` pointers have one size and may be cast into each other; `function` is
        // not called as `fn()` but handed to `call`. 2. `call` differs from the type that it is cast
        // to in one argument only, a `fn` pointer on both sides, since only those are a `Function`,
        // and these are ABI-compatible (see "ABI compatibility" of the primitive type `fn` in std's
        // documentation).
        let (function, call) = unsafe {
            (
                std::mem::transmute::<*const (), fn()>(function),
                std::mem::transmute::<fn(F, C) -> O, fn(fn(), C) -> O>(call),
            )
        };
        Ok(Entry { function, call })
    }

    /// Runs the function.
    pub fn call(&self, context: C) -> O {
        (self.call)(self.function, context)
    }

    /// The form in which it travels.
    pub fn encode(&self) -> [u8; ENTRY_SIZE] {
        let base = Image::get().base;
        let mut bytes = [0; ENTRY_SIZE];
        let offsets = [self.function as usize - base, self.call as usize - base];
        let words = [offsets[0] as u64, offsets[1] as u64, Self::tag()];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads the form in which it travels. `None` if it is not one of this program's.
    ///
    /// The bytes must come from a process that runs the same image, see [`identity`]: they say which
    /// code is run. What can be checked is checked: that both offsets lie in executable memory of the
    /// image, and that `C` and `O` are those of the sender.
    pub fn decode(bytes: &[u8; ENTRY_SIZE]) -> Option<Self> {
        let word =
            |index: usize| bytes[index * 8..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if word(2)? != Self::tag() {
            return None;
        }
        let image = Image::get();
        let address = |offset: u64| {
            let address = image.base.checked_add(usize::try_from(offset).ok()?)?;
            image.contains(address).then_some(address as *const ())
        };
        let (function, call) = (address(word(0)?)?, address(word(1)?)?);
        // SAFETY: the offsets were made by `encode` in a process that runs this image, of an `Entry`
        // with this tag, so that they point to functions of the very types that `new` cast from.
        let (function, call) = unsafe {
            (
                std::mem::transmute::<*const (), fn()>(function),
                std::mem::transmute::<*const (), fn(fn(), C) -> O>(call),
            )
        };
        Some(Entry { function, call })
    }

    /// Tells kinds of entries apart. Type ids are the same in every run of one binary.
    fn tag() -> u64 {
        let mut hasher = DefaultHasher::new();
        (TypeId::of::<C>(), TypeId::of::<O>()).hash(&mut hasher);
        hasher.finish()
    }
}

/// A `fn` pointer, of whatever type.
pub trait Function: Copy + sealed::Sealed {
    /// Where its code is.
    fn address(self) -> usize;
}

mod sealed {
    /// Only `fn` pointers implement it: [`Entry::new`](super::Entry::new) relies on that.
    pub trait Sealed {}
}

macro_rules! functions {
    ($($(for<$($life:lifetime),+>)? fn($($argument:ty),*) with <$($name:ident $(: $size:tt Sized)?),*>;)+) => {$(
        impl<R, $($name $(: $size Sized)?),*> sealed::Sealed for $(for<$($life),+>)? fn($($argument),*) -> R {}

        impl<R, $($name $(: $size Sized)?),*> Function for $(for<$($life),+>)? fn($($argument),*) -> R {
            fn address(self) -> usize {
                self as usize
            }
        }
    )+};
}

functions! {
    fn() with <>;
    fn(A) with <A>;
    for<'a> fn(&'a mut S, A) with <S: ?Sized, A>;
    for<'a> fn(&'a C, A) with <C, A>;
    for<'a, 'b> fn(&'a mut S, &'b C, A) with <S, C, A>;
    for<'a, 'b> fn(&'a mut S, &'b mut T, A) with <S, T: ?Sized, A>;
}

impl<C, O> Clone for Entry<C, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, O> Copy for Entry<C, O> {}

impl<C, O> fmt::Debug for Entry<C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

impl fmt::Display for ForeignFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} is not in the program's own image but in a shared library, so that a child \
             process cannot find it: link the library statically, or pass a function of the program",
            self.type_name
        )
    }
}

impl std::error::Error for ForeignFunction {}

/// Names the program's image: equal in all processes that run the same file.
///
/// It tells honest programs apart and is no secret.
pub fn identity() -> std::io::Result<u64> {
    static IDENTITY: OnceLock<u64> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(*identity);
    }
    let file = std::fs::metadata("/proc/self/exe")?;
    let image = Image::get();
    let mut hasher = DefaultHasher::new();
    (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()).hash(&mut hasher);
    (identity as *const () as usize - image.base).hash(&mut hasher);
    Ok(*IDENTITY.get_or_init(|| hasher.finish()))
}

/// Where the main program lies in memory.
struct Image {
    base: usize,
    executable: Vec<Range<usize>>,
}

impl Image {
    fn get() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| {
            let mut image = Image { base: 0, executable: Vec::new() };
            // SAFETY: the callback has the type asked for and gets the pointer given here, to a value
            // that outlives the call.
            unsafe { libc::dl_iterate_phdr(Some(read_main), (&raw mut image).cast()) };
            image
        })
    }

    fn contains(&self, address: usize) -> bool {
        self.executable.iter().any(|range| range.contains(&address))
    }
}

/// Reads the first object, which is the main program, and stops there.
extern "C" fn read_main(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    image: *mut libc::c_void,
) -> c_int {
    // SAFETY: `dl_iterate_phdr` gives a valid object and the pointer that `Image::get` gave it, which
    // nothing else uses during the call.
    let (info, image) = unsafe { (&*info, &mut *image.cast::<Image>()) };
    image.base = info.dlpi_addr as usize;
    if !info.dlpi_phdr.is_null() {
        // SAFETY: the program headers are mapped as long as the object is: for ever, for the main one.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
                let start = image.base + header.p_vaddr as usize;
                image.executable.push(start..start + header.p_memsz as usize);
            }
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(x: u64) -> u64 {
        x * 2
    }

    fn call(function: fn(u64) -> u64, context: u64) -> String {
        function(context).to_string()
    }

    #[test]
    fn an_entry_survives_its_journey() {
        let entry = Entry::<u64, String>::new(double as fn(u64) -> u64, call).unwrap();
        let entry = Entry::<u64, String>::decode(&entry.encode()).unwrap();
        assert_eq!(entry.call(21), "42");
    }

    #[test]
    fn a_foreign_function_is_refused() {
        extern "C" fn getpid_like() {}
        assert!(Image::get().contains(getpid_like as *const () as usize));
        assert!(!Image::get().contains(libc::getpid as *const () as usize));
    }

    #[test]
    fn lies_are_refused() {
        let good = Entry::<u64, String>::new(double as fn(u64) -> u64, call).unwrap().encode();
        assert!(Entry::<u64, u64>::decode(&good).is_none(), "another kind of entry");
        for byte in 0..ENTRY_SIZE {
            let mut bad = good;
            bad[byte] ^= 0x80;
            if byte % 8 >= 4 || byte >= 16 {
                assert!(Entry::<u64, String>::decode(&bad).is_none(), "byte {byte}");
            }
        }
    }
}
