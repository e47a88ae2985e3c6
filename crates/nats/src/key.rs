//! What driver and agents prove to each other that their messages come from them by.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// So many bytes a key has at least.
pub(crate) const LEAST: usize = 16;

/// The proof comes first, then the kind of the message, then the message.
const PROOF: usize = 32;

/// A key that is shared by driver and agents.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

/// Says what a message is, so that none passes for one of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Sort {
    Job = 1,
    Report,
    Lease,
    Hello,
    Agent,
    Cancel,
}

/// Why a message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it was not made with our key, or was altered")]
    Forged,
    #[error("it cannot be read")]
    Corrupt,
}

impl Key {
    pub(crate) fn new(key: &[u8]) -> Self {
        match Hmac::new_from_slice(key) {
            Ok(mac) => Key(mac),
            Err(_) => unreachable!("an HMAC takes a key of any length"),
        }
    }

    /// Puts the proof before a message.
    pub(crate) fn seal<T: Serialize>(&self, sort: Sort, message: &T) -> Result<Vec<u8>, String> {
        let mut sealed = vec![0; PROOF];
        sealed.push(sort as u8);
        postcard::serialize_with_flavor(message, Append(&mut sealed))
            .map_err(|error| error.to_string())?;
        let proof = self.proof(&sealed[PROOF..]).finalize().into_bytes();
        sealed[..PROOF].copy_from_slice(&proof);
        Ok(sealed)
    }

    /// Checks the proof, and only then reads the message.
    pub(crate) fn open<'a, T: Deserialize<'a>>(
        &self,
        sort: Sort,
        sealed: &'a [u8],
    ) -> Result<T, Refused> {
        let (proof, rest) = sealed.split_at_checked(PROOF).ok_or(Refused::Forged)?;
        self.proof(rest).verify_slice(proof).map_err(|_| Refused::Forged)?;
        let (&first, message) = rest.split_first().ok_or(Refused::Forged)?;
        if first != sort as u8 {
            return Err(Refused::Forged);
        }
        postcard::from_bytes(message).map_err(|_| Refused::Corrupt)
    }

    fn proof(&self, message: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(message)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The digest that binds a payload to the message that names it.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Has postcard append to a vector, whole slices at a time.
pub(crate) struct Append<'a>(pub(crate) &'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened() {
        let key = Key::new(b"a key of the tests");
        let sealed = key.seal(Sort::Job, &(7u32, "text")).unwrap();
        assert_eq!(key.open(Sort::Job, &sealed), Ok((7u32, "text")));
    }

    #[test]
    fn no_bit_may_change() {
        let key = Key::new(b"a key of the tests");
        let sealed = key.seal(Sort::Job, &(7u32, "text")).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let opened = key.open::<(u32, &str)>(Sort::Job, &altered);
            assert_eq!(opened, Err(Refused::Forged), "bit {bit}");
        }
        for len in 0..sealed.len() {
            let opened = key.open::<(u32, &str)>(Sort::Job, &sealed[..len]);
            assert_eq!(opened, Err(Refused::Forged), "{len} bytes");
        }
    }

    #[test]
    fn another_key_or_sort_is_refused() {
        let key = Key::new(b"a key of the tests");
        let sealed = key.seal(Sort::Report, &7u32).unwrap();
        assert_eq!(key.open::<u32>(Sort::Job, &sealed), Err(Refused::Forged));
        let other = Key::new(b"A key of the tests");
        assert_eq!(other.open::<u32>(Sort::Report, &sealed), Err(Refused::Forged));
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key::new(b"a key of the tests")), "Key");
    }
}
