//! What is too large for a message travels by the object store.

use std::borrow::Cow;
use std::time::Duration;

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectMetadata, ObjectStore};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::connection::{Connection, Pause};
use crate::key::digest;
use crate::message::{Blob, Payload};

/// The store's own pieces.
const PIECE: usize = 512 << 10;

/// A store from which nothing has come for so long is asked anew.
const PATIENCE: Duration = Duration::from_secs(5);

/// It is not there, whatever was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Connection {
    /// Puts bytes into the store if they are too many for a message. Gives what stands for them.
    pub(crate) async fn put<'a>(
        &self,
        name: &'a str,
        bytes: &'a [u8],
    ) -> Result<Payload<'a>, String> {
        if bytes.len() <= self.most_inline() {
            return Ok(Payload::Inline(Blob::from(bytes)));
        }
        let metadata =
            ObjectMetadata { name: name.into(), chunk_size: Some(PIECE), ..Default::default() };
        let mut rest = bytes;
        let put = self.store().await?.put(metadata, &mut rest).await;
        put.map_err(|error| error.to_string())?;
        Ok(Payload::Stored { name: Cow::Borrowed(name), digest: digest(bytes) })
    }

    /// Gives the bytes that an object has, if they are those that the digest is of.
    pub(crate) async fn get(&self, name: &str, expected: [u8; 32]) -> Result<Bytes, Gone> {
        const ATTEMPTS: u32 = 5;
        let mut pause = Pause::default();
        for _ in 0..ATTEMPTS {
            match self.try_get(name).await {
                Ok(Some(bytes)) if digest(&bytes) == expected => return Ok(bytes.into()),
                Ok(_) => return Err(Gone),
                Err(_) => pause.wait().await,
            }
        }
        Err(Gone)
    }

    /// `None` if there is no such object.
    ///
    /// It asks for one piece after the other: the consumer that the client's own reader makes of the store
    /// was silent for seconds now and then.
    async fn try_get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let info = match self.store().await?.info(name).await {
            Ok(info) if info.deleted => return Ok(None),
            Ok(info) => info,
            Err(error) if error.kind() == InfoErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let stream = self.stream(format!("OBJ_{}", info.bucket)).await?;
        let subject = format!("$O.{}.C.{}", info.bucket, info.nuid);
        let mut bytes = Vec::with_capacity(info.size.min(1 << 30));
        let mut after = 0;
        for _ in 0..info.chunks {
            let piece = stream.direct_get_next_for_subject(&*subject, Some(after + 1));
            let piece = timeout(PATIENCE, piece).await;
            let piece = piece.map_err(|_| "nothing has come for too long")?;
            let piece = piece.map_err(|error| error.to_string())?;
            after = piece.sequence;
            bytes.extend_from_slice(&piece.payload);
        }
        Ok(Some(bytes))
    }

    /// Removes an object. If it cannot be, the store does it after a day.
    pub(crate) async fn remove(&self, name: &str) {
        if let Ok(store) = self.store().await {
            let _later = store.delete(name).await;
        }
    }

    /// Removes all objects whose names begin so.
    pub(crate) async fn remove_all(&self, prefix: &str) {
        let Ok(store) = self.store().await else { return };
        let Ok(Ok(mut objects)) = timeout(PATIENCE, store.list()).await else { return };
        while let Ok(Some(Ok(object))) = timeout(PATIENCE, objects.next()).await {
            if object.name.starts_with(prefix) {
                let _later = store.delete(&object.name).await;
            }
        }
    }

    async fn store(&self) -> Result<ObjectStore, String> {
        let bucket = self.names.payloads();
        match self.context.get_object_store(&bucket).await {
            Ok(store) => Ok(store),
            Err(_) => {
                self.set_up().await?;
                let store = self.context.get_object_store(&bucket).await;
                store.map_err(|error| error.to_string())
            }
        }
    }
}
