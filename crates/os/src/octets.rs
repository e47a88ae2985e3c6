//! Vectors of bytes among values of any type.
//!
//! Serialisation takes a `Vec<u8>` for a sequence of values, one after the other. Where such a vector is
//! the whole value, its bytes can be copied at once, which costs a tenth.
#![allow(unsafe_code)] // Takes a type for what it is.

use std::any::TypeId;
use std::mem::{self, ManuallyDrop};

/// Gives the bytes if the value is a `Vec<u8>`.
///
/// # Examples
///
/// ```
/// use multiproc_os::octets;
///
/// assert_eq!(octets::of(&vec![1u8, 2]), Some(&[1, 2][..]));
/// assert_eq!(octets::of(&vec![1i8, 2]), None);
/// ```
#[inline]
pub fn of<T: ?Sized>(value: &T) -> Option<&[u8]> {
    if !is_vector::<T>() {
        return None;
    }
    // SAFETY: `T` is this very type.
    Some(unsafe { &*(&raw const *value).cast::<Vec<u8>>() })
}

/// Gives the vector as a `T`, if that is a `Vec<u8>`.
///
/// # Errors
///
/// It is another type: the vector comes back.
///
/// # Examples
///
/// ```
/// use multiproc_os::octets;
///
/// assert_eq!(octets::into::<Vec<u8>>(vec![1, 2]), Ok(vec![1, 2]));
/// assert_eq!(octets::into::<String>(vec![65]), Err(vec![65]));
/// ```
#[inline]
pub fn into<T>(bytes: Vec<u8>) -> Result<T, Vec<u8>> {
    if !is_vector::<T>() {
        return Err(bytes);
    }
    let bytes = ManuallyDrop::new(bytes);
    // SAFETY:
    // 1. `T` is this very type;
    // 2. what is copied is dropped once, as the copy.
    Ok(unsafe { mem::transmute_copy::<ManuallyDrop<Vec<u8>>, T>(&bytes) })
}

/// Tells whether `T` is `Vec<u8>`, which the compiler knows.
#[inline(always)]
pub fn is_vector<T: ?Sized>() -> bool {
    typeid::of::<T>() == TypeId::of::<Vec<u8>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_vector_of_bytes_is_taken_for_one() {
        fn any_is_vector<'a>(text: &'a str) -> bool {
            is_vector::<&'a str>() || is_vector::<Vec<&'a u8>>() || of::<&'a str>(&text).is_some()
        }
        assert!(!any_is_vector(&String::from_utf8_lossy(b"text")));
        assert!(of::<[u8]>(&[1, 2]).is_none());
        assert!(of(&Box::<[u8]>::from([1, 2])).is_none());
        assert!(of(&Some(vec![1u8])).is_none());
        assert!(of::<dyn std::fmt::Debug>(&vec![1u8]).is_none());

        let bytes = vec![7; 9000];
        let at = bytes.as_ptr();
        assert_eq!(of(&bytes), Some(&[7; 9000][..]));
        let bytes: Vec<u8> = into(bytes).unwrap();
        assert_eq!((bytes.as_ptr(), bytes.len()), (at, 9000));
        let bytes = into::<Vec<i8>>(bytes).unwrap_err();
        assert_eq!((bytes.as_ptr(), bytes.len()), (at, 9000));
    }
}
