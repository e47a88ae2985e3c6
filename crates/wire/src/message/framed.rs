//! A value behind its length: one byte, or if that is [`LONG`], four more with the length,
//! little-endian.

use crate::error::Error;

/// How long a frame is whose value is shorter than this says.
pub(super) const SHORT: usize = 1;
/// How long one is whose value is of any length.
pub(super) const WIDE: usize = 5;

/// How long the longest value is behind a short one.
pub(super) const LONGEST_SHORT: usize = LONG as usize - 1;

const LONG: u8 = u8::MAX;

/// Tells how many bytes the framed value has that these bytes begin with, its frame among them. `None` if
/// they end within the frame.
///
/// # Examples
///
/// ```
/// let mut message = multiproc_wire::Message::new();
/// message.push_framed(7u8)?;
/// assert_eq!(multiproc_wire::framed_len(message.bytes()), Some(message.bytes().len()));
/// assert_eq!(multiproc_wire::framed_len(&[]), None);
/// # Ok::<(), multiproc_wire::Error>(())
/// ```
#[inline]
pub fn framed_len(bytes: &[u8]) -> Option<usize> {
    let (frame, len) = read(bytes)?;
    frame.checked_add(len)
}

/// The value that the bytes begin with, and those behind it. `None` if it is cut short.
#[inline]
pub(super) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (frame, len) = read(bytes)?;
    bytes.get(frame..)?.split_at_checked(len)
}

/// How long the frame is, and the value behind it.
#[inline]
fn read(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.first()? {
        LONG => {
            let len = bytes.get(1..)?.first_chunk()?;
            Some((WIDE, u32::from_le_bytes(*len) as usize))
        }
        len => Some((SHORT, len.into())),
    }
}

/// Writes the frame that starts there of the value behind it. It has room for `frame` bytes, [`SHORT`] or
/// [`WIDE`]. Gives where the value ends then.
#[inline]
pub(super) fn write(
    bytes: &mut Vec<u8>,
    start: usize,
    frame: usize,
    end: usize,
) -> Result<usize, Error> {
    let len = end - start - frame;
    match bytes.get_mut(start) {
        Some(place) if frame == SHORT && len <= LONGEST_SHORT => {
            *place = len as u8;
            Ok(end)
        }
        _ => write_wide(bytes, start, frame, end),
    }
}

#[cold]
fn write_wide(bytes: &mut Vec<u8>, start: usize, frame: usize, end: usize) -> Result<usize, Error> {
    let value = start + frame;
    let Ok(len) = u32::try_from(end - value) else {
        return Err(Error::corrupt("one value of 4 GiB or more among several"));
    };
    let moved = start + WIDE;
    if moved > value {
        let missing = (end + moved - value).saturating_sub(bytes.len());
        bytes.resize(bytes.len() + missing, 0);
        bytes.copy_within(value..end, moved);
    }
    bytes[start] = LONG;
    bytes[start + 1..moved].copy_from_slice(&len.to_le_bytes());
    Ok(end + moved - value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_split_again() {
        for len in [0, 1, 253, 254, 255, 256, 70_000] {
            for frame in [SHORT, WIDE] {
                let value: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
                let mut bytes = vec![9; 3 + frame];
                bytes.extend(&value);
                let end = bytes.len();
                let end = write(&mut bytes, 3, frame, end).unwrap();
                assert_eq!((end, framed_len(&bytes[3..])), (bytes.len(), Some(end - 3)));
                bytes.extend(b"rest");
                assert_eq!(split(&bytes[3..]), Some((&*value, &b"rest"[..])));
                assert_eq!(split(&bytes[3..end - 1]), None);
            }
        }
    }

    #[test]
    fn lies_are_no_harm() {
        let lies: [&[u8]; 5] = [&[], &[1], &[LONG], &[LONG, 1, 0, 0], &[LONG, 255, 255, 255, 255]];
        for bytes in lies {
            assert_eq!(split(bytes), None);
        }
    }
}
