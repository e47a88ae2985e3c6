use multiproc_wire::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "pickle")]
use super::pickle;
use crate::error::{Error, Kind};

/// How values become bytes on a [`SocketConnection`](super::SocketConnection).
///
/// Both ends must agree. Bytes that are sent as bytes need none.
///
/// # Examples
///
/// ```
/// use multiproc_channel::{Codec, SocketOptions};
///
/// assert_eq!(Codec::default(), Codec::Postcard);
/// let options = SocketOptions::new().codec(Codec::Postcard);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Postcard, between programs in Rust.
    #[default]
    Postcard,
    /// Pickle, with Python: numbers, text, bytes, lists, tuples, dictionaries, `None`. A structure is a
    /// dictionary. Nothing that comes is called and no class made: a pickle that asks for that is an
    /// error, and so is one whose values are nested deeper than 128, or whose values would take more
    /// memory than 512 MiB and 64 times its length.
    #[cfg(feature = "pickle")]
    Pickle,
}

impl Codec {
    pub(super) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Message, Error> {
        let message = match self {
            Codec::Postcard => multiproc_wire::encode(value)?,
            #[cfg(feature = "pickle")]
            Codec::Pickle => serde_pickle::to_vec(&value, serde_pickle::SerOptions::new())
                .map(Message::from_bytes)
                .map_err(|error| Kind::Encode(error.to_string()))?,
        };
        if message.has_fds() {
            return Err(Kind::Handles.into());
        }
        Ok(message)
    }

    pub(super) fn decode<T: DeserializeOwned>(self, bytes: Vec<u8>) -> Result<T, Error> {
        match self {
            Codec::Postcard => Ok(multiproc_wire::decode(Message::from_bytes(bytes))?),
            #[cfg(feature = "pickle")]
            Codec::Pickle => {
                pickle::check(&bytes).map_err(|reason| Kind::Decode(reason.to_owned()))?;
                serde_pickle::from_slice(&bytes, serde_pickle::DeOptions::new())
                    .map_err(|error| Kind::Decode(error.to_string()).into())
            }
        }
    }
}
