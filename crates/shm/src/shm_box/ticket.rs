use std::io;
use std::sync::OnceLock;

use multiproc_os::memory::ticket;
use multiproc_os::robust;
use multiproc_wire::UniqueFd;

/// The right to own a part, for the messages that carry it. Dropping it, with the part, lets one
/// receiver take it.
///
/// There is none until the part is first put into a message.
#[derive(Debug)]
pub(super) struct Ticket {
    fd: OnceLock<UniqueFd>,
    generation: u32,
}

impl Ticket {
    /// For a part that the process of this generation owns.
    pub(super) fn new(generation: u32) -> Self {
        Ticket { fd: OnceLock::new(), generation }
    }

    pub(super) fn get(&self) -> io::Result<&UniqueFd> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let new = UniqueFd::from(ticket::create()?);
        // Of two threads, both get the one of the first.
        Ok(self.fd.get_or_init(|| new))
    }

    /// The part becomes something else: what carries it can not be taken any more.
    pub(super) fn tear_up(mut self) {
        self.fd.take();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(fd) = self.fd.get() else { return };
        if robust::generation().is_ok_and(|generation| generation == self.generation) {
            // If it fails, nobody gets the part.
            let _offered = ticket::offer(fd);
        }
    }
}
