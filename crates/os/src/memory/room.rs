//! Room for many bytes that are about to come.
#![allow(unsafe_code)] // Advises the kernel about the pages of a vector.

use std::collections::TryReserveError;
use std::ffi::c_void;

use rustix::mm::{Advice, madvise};

use super::page_size;

/// Less than that has no huge page in it for sure, however it lies.
const LARGE: usize = 4 << 20;

/// Reserves just the room that so many more bytes need.
///
/// Where it is large, the kernel is advised to put huge pages there, if it has any: to find and to clear
/// small ones, one by one while the bytes come, costs several times what it costs to copy these.
///
/// # Errors
///
/// As [`Vec::try_reserve_exact`].
///
/// # Examples
///
/// ```
/// let mut bytes = b"text".to_vec();
/// multiproc_os::memory::reserve(&mut bytes, 16 << 20)?;
/// assert!(bytes.capacity() >= 4 + (16 << 20));
/// assert_eq!(bytes, b"text");
/// # Ok::<(), std::collections::TryReserveError>(())
/// ```
pub fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), TryReserveError> {
    let before = bytes.capacity();
    bytes.try_reserve_exact(more)?;
    if bytes.capacity() >= LARGE && bytes.capacity() > before {
        advise(bytes);
    }
    Ok(())
}

#[cold]
fn advise(bytes: &mut Vec<u8>) {
    // From the beginning of its first page: what large allocations begin with is a few bytes of the
    // allocator's, without which the first huge page would be missed.
    let within = bytes.as_ptr() as usize % page_size() as usize;
    let start = bytes.as_mut_ptr().wrapping_byte_sub(within).cast::<c_void>();
    // SAFETY:
    // 1. the advice changes neither what the pages contain nor what may be done with them, so that it
    //    matters to nobody whose memory they are;
    // 2. all of the range is within pages of the vector's allocation.
    let advised = unsafe { madvise(start, within + bytes.capacity(), Advice::LinuxHugepage) };
    // Kernels without huge pages do without.
    let _unheeded = advised;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The flags of the mapping in which the address lies.
    fn flags(address: usize) -> String {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        for line in maps.lines() {
            let (first, rest) = line.split_once(' ').unwrap();
            if let Some((start, end)) = first.split_once('-') {
                let at = |text| usize::from_str_radix(text, 16).unwrap();
                within = (at(start)..at(end)).contains(&address);
            } else if within && first == "VmFlags:" {
                return rest.to_owned();
            }
        }
        String::new()
    }

    #[test]
    fn only_large_room_is_for_huge_pages() {
        let known = fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap();
        let mut bytes = vec![7; 9];
        reserve(&mut bytes, 2 * LARGE).unwrap();
        assert_eq!(bytes, [7; 9]);
        bytes.resize(LARGE, 8);
        assert_eq!((bytes[8], bytes[9], bytes[LARGE - 1]), (7, 8, 8));
        let advised = |address: usize| flags(address).split(' ').any(|flag| flag == "hg");
        assert_eq!(advised(bytes.as_ptr() as usize + LARGE), known);

        assert!(reserve(&mut bytes, usize::MAX).is_err());
        let mut short = Vec::new();
        reserve(&mut short, 1 << 20).unwrap();
        assert!(!advised(short.as_ptr() as usize + (1 << 19)));
    }
}
