//! What driver and agents say to each other. All of it is sealed: see [`Key`](crate::key::Key).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use multiproc_os::image::ENTRY_SIZE;
use multiproc_pool::TaskError;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::build::Build;
use crate::names::{ChunkId, Session};

/// A chunk of tasks of one function.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job<'a> {
    pub(crate) id: ChunkId,
    pub(crate) build: Build,
    /// How many workers may die of a task.
    pub(crate) attempts: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) entry: [u8; ENTRY_SIZE],
    /// How many arguments there are, each behind its length.
    pub(crate) count: u32,
    #[serde(borrow)]
    pub(crate) arguments: Payload<'a>,
}

/// What came of a chunk, or of a part of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report<'a> {
    pub(crate) id: ChunkId,
    pub(crate) agent: u64,
    /// How long the tasks have run, all together.
    pub(crate) nanos: u64,
    #[serde(borrow)]
    pub(crate) content: Content<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Content<'a> {
    /// The encoded [`Outcomes`].
    #[serde(borrow)]
    Outcomes(Payload<'a>),
    /// The chunk's payload is gone: it is to be sent once more.
    Lost,
    /// The chunk is none of this program's, and this is why.
    Refused(Cow<'a, str>),
}

/// What came of tasks of a chunk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcomes<'a> {
    /// By the task's number in the chunk.
    #[serde(borrow)]
    pub(crate) done: Vec<(u32, Outcome<'a>)>,
    /// The tasks that workers have died of and that are to be tried again, and how many.
    pub(crate) deaths: Vec<(u32, u32)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome<'a> {
    #[serde(borrow)]
    Returned(Blob<'a>),
    Failed(TaskError),
}

/// What may be too large for a message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Payload<'a> {
    #[serde(borrow)]
    Inline(Blob<'a>),
    /// An object of this name in the store, with this digest.
    Stored { name: Cow<'a, str>, digest: [u8; 32] },
}

/// A driver lives.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) session: Session,
}

/// A driver asks who is there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) session: Session,
    pub(crate) build: Build,
}

/// An agent says who it is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) id: u64,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) workers: u32,
    pub(crate) build: Build,
    pub(crate) state: AgentState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AgentState {
    Ready,
    /// It runs none of the driver's tasks, and this is why.
    Refuses(String),
    Leaving,
}

impl Agent {
    pub(crate) fn is_leaving(&self) -> bool {
        self.state == AgentState::Leaving
    }
}

/// The results of these tasks are not wanted any more.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cancel {
    pub(crate) session: Session,
    /// `None`: all of the session.
    pub(crate) job: Option<u64>,
}

/// Bytes, which are written and read as a whole.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blob<'a>(pub(crate) Cow<'a, [u8]>);

impl<'a> From<&'a [u8]> for Blob<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Blob(Cow::Borrowed(bytes))
    }
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Blob<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Blob::from(bytes))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Blob(Cow::Owned(bytes.to_vec())))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
                Ok(Blob(Cow::Owned(bytes)))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// Bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned(pub(crate) Vec<u8>);

impl Serialize for Owned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Owned(Blob::deserialize(deserializer)?.0.into_owned()))
    }
}

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
