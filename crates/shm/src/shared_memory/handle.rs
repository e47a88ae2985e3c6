//! How shared memory is made, found, and taken from messages.

use std::io;
use std::sync::Arc;

use multiproc_os::memory::named::Named;
use multiproc_os::memory::{Mapping, Memory};
use multiproc_wire::SharedFd;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Inner, SharedMemory};
use crate::error::{Error, Kind};

impl SharedMemory {
    pub(super) fn anonymous(len: usize) -> Result<Self, Error> {
        check_len(len)?;
        let make = || {
            let memory = Memory::create("multiproc-memory", len as u64)?;
            let mapping = memory.map(0, len)?;
            Ok((memory.into_fd(), mapping))
        };
        let (fd, mapping) = make().map_err(Kind::system("make"))?;
        Ok(Self::assemble(fd.into(), mapping, None))
    }

    /// Makes named memory that nobody sees before it is filled.
    pub(crate) fn create_filled(
        name: &str,
        len: usize,
        fill: impl FnOnce(&Mapping) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        check_len(len)?;
        let error = |source| Error::from(Kind::named("create", name)(source));
        let memory = Named::create(len as u64).map_err(error)?;
        let mapping = memory.map().map_err(error)?;
        fill(&mapping)?;
        memory.publish(name).map_err(error)?;
        Ok(Self::assemble(memory.into_fd().into(), mapping, Some(name.to_owned())))
    }

    pub(super) fn open_named(name: &str) -> Result<Self, Error> {
        let open = || {
            let memory = Named::open(name)?;
            let mapping = memory.map()?;
            Ok((memory.into_fd(), mapping))
        };
        let (fd, mapping) = open().map_err(Kind::named("open", name))?;
        Ok(Self::assemble(fd.into(), mapping, Some(name.to_owned())))
    }

    fn assemble(fd: SharedFd, mapping: Mapping, name: Option<String>) -> Self {
        SharedMemory { inner: Arc::new(Inner { fd, mapping, name }) }
    }

    fn receive(fd: SharedFd, name: Option<String>) -> Result<Self, Error> {
        let map = || match name {
            Some(_) => Named::from_fd(&fd)?.map(),
            // What has no name can not be cut short, or it is not ours.
            None => {
                let memory = Memory::from_fd(&fd)?;
                let len = usize::try_from(memory.len()?).map_err(io::Error::other)?;
                memory.map(0, len)
            }
        };
        let mapping = map().map_err(Kind::system("use"))?;
        if mapping.is_empty() {
            return Err(Kind::Foreign("any bytes").into());
        }
        Ok(Self::assemble(fd, mapping, name))
    }
}

fn check_len(len: usize) -> Result<(), Kind> {
    match len {
        0 => Err(Kind::Empty),
        len if isize::try_from(len).is_err() => Err(Kind::TooLong),
        _ => Ok(()),
    }
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.inner.fd, &self.inner.name).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (fd, name) = <(SharedFd, Option<String>)>::deserialize(deserializer)?;
        SharedMemory::receive(fd, name).map_err(multiproc_wire::fail)
    }
}
