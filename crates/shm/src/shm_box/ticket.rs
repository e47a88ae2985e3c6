use std::io;
use std::sync::{Arc, OnceLock};

use multiproc_os::memory::ticket;
use multiproc_wire::UniqueFd;

use super::part::Mapped;

/// The right to own a part, for the messages that carry it, and where it is mapped. Dropping it, with
/// the part, lets one receiver take it.
///
/// There is no descriptor until the part is first put into a message.
#[derive(Debug)]
pub(super) struct Ticket {
    fd: OnceLock<UniqueFd>,
    mapped: Arc<Mapped>,
}

impl Ticket {
    /// For a part that is mapped there.
    pub(super) fn new(mapped: Arc<Mapped>) -> Self {
        Ticket { fd: OnceLock::new(), mapped }
    }

    #[inline]
    pub(super) fn mapped(&self) -> &Arc<Mapped> {
        &self.mapped
    }

    pub(super) fn fd(&self) -> io::Result<&UniqueFd> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let new = UniqueFd::from(ticket::create()?);
        // Of two threads, both get the one of the first.
        Ok(self.fd.get_or_init(|| new))
    }

    /// The part becomes something else: what carries it can not be taken any more.
    pub(super) fn tear_up(mut self) -> Arc<Mapped> {
        self.fd.take();
        Arc::clone(&self.mapped)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(fd) = self.fd.get() else { return };
        if self.mapped.is_here() {
            // To unmap pages that were touched takes long: the message does it once it was sent.
            fd.leave(Arc::clone(&self.mapped) as _);
            // If it fails, nobody gets the part.
            let _offered = ticket::offer(fd);
        }
    }
}
