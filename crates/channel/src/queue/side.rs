//! The socket over which items with handles travel, each with a number.

use multiproc_os::deadline::Deadline;
use multiproc_wire::{Endpoint, Error, Message, SharedFd};
use serde::{Deserialize, Serialize};

/// Both ends of the socket, for whoever holds the queue's lock.
#[derive(Serialize, Deserialize)]
pub(super) struct Side {
    sender: Endpoint<SharedFd>,
    receiver: Endpoint<SharedFd>,
}

impl Side {
    pub(super) fn new() -> Result<Self, Error> {
        let (sender, receiver) = Endpoint::pair_of()?;
        Ok(Side { sender, receiver })
    }

    /// Sends an item. Returns `false` if the socket is full, or as many descriptors are under way, over
    /// whatever sockets, as this user may have.
    pub(super) fn send(&self, number: u64, item: &Message) -> Result<bool, Error> {
        let parts = [&number.to_le_bytes(), item.bytes()];
        self.sender.send_parts(parts, &item.fds(), Deadline::now())
    }

    /// Receives the item with this number, and throws away those before it. `None` if it is gone.
    pub(super) fn receive(&self, number: u64) -> Result<Option<Message>, Error> {
        loop {
            let received = self.receiver.recv_with(Deadline::now(), |mut reader| {
                let found: [u8; 8] = reader.read()?;
                Ok::<_, Error>((u64::from_le_bytes(found), reader.into_message()?))
            })?;
            match received.transpose()? {
                None => return Ok(None),
                Some((found, item)) if found == number => return Ok(Some(item)),
                Some(_) => {}
            }
        }
    }

    /// Throws away what is there.
    pub(super) fn clear(&self) -> Result<(), Error> {
        while self.receiver.recv_with(Deadline::now(), |_| ())?.is_some() {}
        Ok(())
    }
}
