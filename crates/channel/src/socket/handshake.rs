//! CPython's mutual proof that both ends know the same key, without any of them telling it.
//!
//! | | listener | client |
//! | --- | --- | --- |
//! | 1 | `#CHALLENGE#` and a message | |
//! | 2 | | the message's digest under the key |
//! | 3 | `#WELCOME#`, or `#FAILURE#` and the end | |
//! | 4 | | `#CHALLENGE#` and a message |
//! | 5 | the message's digest under the key | |
//! | 6 | | `#WELCOME#`, or `#FAILURE#` and the end |
//!
//! Up to Python 3.11 a message is 20 random bytes, and its digest is HMAC-MD5. From 3.12 on the message is
//! `{sha256}` and 40 random bytes, and the digest `{sha256}` and the HMAC. Older ones answer such a
//! message with the bare HMAC-MD5 of all of it.

use hmac::{EagerHash, Hmac, KeyInit, Mac};

use crate::error::{Error, Kind};

/// How the two ends of a connection prove that they know the key, from the weakest to the strongest.
///
/// # Examples
///
/// ```
/// use multiproc_channel::Digest;
///
/// assert!(Digest::Md5 < Digest::Sha256);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Digest {
    /// HMAC-MD5, all that Python up to 3.11 knows.
    Md5,
    /// HMAC-SHA-256, from Python 3.12 on.
    #[default]
    Sha256,
    /// HMAC-SHA-384.
    Sha384,
}

/// The proof in progress, step by step, without a socket.
pub(crate) struct Handshake {
    key: Vec<u8>,
    /// What is weaker is refused.
    weakest: Digest,
    listens: bool,
    next: Next,
}

enum Next {
    /// The digest of this message.
    Digest(Vec<u8>),
    /// `#WELCOME#`.
    Welcome,
    /// `#CHALLENGE#`.
    Challenge,
    Nothing,
}

/// What is to be done after a frame has come.
pub(crate) struct Step {
    /// The frames to be sent.
    pub(crate) send: Vec<Vec<u8>>,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// Another frame is to come.
    More,
    /// Both ends have proved it.
    Done,
    Refused(Error),
}

/// No frame of a handshake is longer.
pub(crate) const LONGEST: usize = 256;

const CHALLENGE: &[u8] = b"#CHALLENGE#";
const WELCOME: &[u8] = b"#WELCOME#";
const FAILURE: &[u8] = b"#FAILURE#";

impl Handshake {
    /// As the one who listens, who speaks first.
    pub(crate) fn listener(key: &[u8], weakest: Digest) -> Result<(Self, Vec<u8>), Error> {
        let message = message()?;
        let frame = [CHALLENGE, &message].concat();
        let next = Next::Digest(message);
        Ok((Handshake { key: key.to_owned(), weakest, listens: true, next }, frame))
    }

    /// As the one who connects.
    pub(crate) fn client(key: &[u8], weakest: Digest) -> Self {
        Handshake { key: key.to_owned(), weakest, listens: false, next: Next::Challenge }
    }

    /// Takes the frame that has come.
    pub(crate) fn step(&mut self, frame: &[u8]) -> Step {
        self.try_step(frame).unwrap_or_else(|refused| refused)
    }

    fn try_step(&mut self, frame: &[u8]) -> Result<Step, Step> {
        let (send, outcome) = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Digest(message) => {
                self.verify(&message, frame)
                    .map_err(|error| Step { send: vec![FAILURE.to_owned()], ..refused(error) })?;
                let outcome = if self.listens {
                    self.next = Next::Challenge;
                    Outcome::More
                } else {
                    Outcome::Done
                };
                (vec![WELCOME.to_owned()], outcome)
            }
            Next::Challenge => {
                let answer = self.answer(frame).map_err(refused)?;
                self.next = Next::Welcome;
                (vec![answer], Outcome::More)
            }
            Next::Welcome if frame != WELCOME => {
                let text = if frame == FAILURE {
                    "the other end does not accept our key"
                } else {
                    "the other end neither accepts our key nor refuses it"
                };
                return Err(refused(Kind::Authentication(text).into()));
            }
            Next::Welcome if self.listens => (Vec::new(), Outcome::Done),
            Next::Welcome => {
                let message = message().map_err(refused)?;
                let challenge = [CHALLENGE, &message].concat();
                self.next = Next::Digest(message);
                (vec![challenge], Outcome::More)
            }
            Next::Nothing => (Vec::new(), Outcome::More),
        };
        Ok(Step { send, outcome })
    }

    /// The digest that a challenge asks for.
    fn answer(&self, frame: &[u8]) -> Result<Vec<u8>, Error> {
        let Some(message) = frame.strip_prefix(CHALLENGE) else {
            return Err(Kind::Authentication("the other end does not ask for a key").into());
        };
        let (digest, _) = parse(message)?;
        self.accept(digest.unwrap_or(Digest::Md5))?;
        Ok(match digest {
            Some(digest) => [digest.prefix(), &digest.of(&self.key, message)].concat(),
            None => Digest::Md5.of(&self.key, message),
        })
    }

    fn verify(&self, message: &[u8], response: &[u8]) -> Result<(), Error> {
        let (digest, proof) = parse(response)?;
        let digest = digest.unwrap_or(Digest::Md5);
        self.accept(digest)?;
        if !digest.verify(&self.key, message, proof) {
            return Err(Kind::Authentication("the other end has another key").into());
        }
        Ok(())
    }

    fn accept(&self, digest: Digest) -> Result<(), Error> {
        if digest < self.weakest {
            let text = "the other end proves its key by a weaker digest than asked for: \
                        Python up to 3.11 knows `Digest::Md5` only";
            return Err(Kind::Authentication(text).into());
        }
        Ok(())
    }
}

fn refused(error: Error) -> Step {
    Step { send: Vec::new(), outcome: Outcome::Refused(error) }
}

/// What is to be digested: it names the digest, and nobody has seen it before.
fn message() -> Result<Vec<u8>, Error> {
    let mut random = [0; 40];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok([Digest::Sha256.prefix(), &random].concat())
}

/// The digest that is named in front, and what comes after it. Without one, it is the old form.
fn parse(bytes: &[u8]) -> Result<(Option<Digest>, &[u8]), Error> {
    const OLD_MESSAGE: usize = 20;
    const OLD_DIGEST: usize = 16;
    if matches!(bytes.len(), OLD_MESSAGE | OLD_DIGEST) {
        return Ok((None, bytes));
    }
    let named = Digest::ALL.into_iter().find_map(|digest| {
        let rest = bytes.strip_prefix(digest.prefix())?;
        Some((Some(digest), rest))
    });
    let text = "the other end proves its key by a digest that is not known here";
    named.ok_or_else(|| Kind::Authentication(text).into())
}

impl Digest {
    const ALL: [Digest; 3] = [Digest::Md5, Digest::Sha256, Digest::Sha384];

    fn prefix(self) -> &'static [u8] {
        match self {
            Digest::Md5 => b"{md5}",
            Digest::Sha256 => b"{sha256}",
            Digest::Sha384 => b"{sha384}",
        }
    }

    fn of(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self {
            Digest::Md5 => mac::<md5::Md5>(key, message).finalize().into_bytes().to_vec(),
            Digest::Sha256 => mac::<sha2::Sha256>(key, message).finalize().into_bytes().to_vec(),
            Digest::Sha384 => mac::<sha2::Sha384>(key, message).finalize().into_bytes().to_vec(),
        }
    }

    /// Compares in a time that tells nothing.
    fn verify(self, key: &[u8], message: &[u8], proof: &[u8]) -> bool {
        match self {
            Digest::Md5 => mac::<md5::Md5>(key, message).verify_slice(proof).is_ok(),
            Digest::Sha256 => mac::<sha2::Sha256>(key, message).verify_slice(proof).is_ok(),
            Digest::Sha384 => mac::<sha2::Sha384>(key, message).verify_slice(proof).is_ok(),
        }
    }
}

fn mac<D: EagerHash>(key: &[u8], message: &[u8]) -> Hmac<D>
where
    Hmac<D>: Mac + KeyInit,
{
    let mut mac = match <Hmac<D> as KeyInit>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("an HMAC takes keys of any length"),
    };
    mac.update(message);
    mac
}
