//! A long body that is received while it is sent: see the crate's README.
//!
//! What is under way at a time is so little that it stays in the processor's cache, where memory
//! for all of it would have to be found, filled and given back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use multiproc_os::deadline::Deadline;
use multiproc_os::memory::{self, SealedFile, Unsealed};
use multiproc_os::poll;
use multiproc_os::socket::{self, Wait};

use crate::error::Error;

/// The longest packet, if there is memory for it: as long as leaves room for a second one in the buffer that sockets
/// usually have, 208 KiB, since one that has room left takes another.
const PIECE: usize = 192 << 10;

/// The sending end.
pub(crate) struct Outlet {
    socket: OwnedFd,
    /// What the receiver reads from, until it is sent.
    far: Option<OwnedFd>,
    rest: Unsealed,
    piece: usize,
}

impl Outlet {
    /// `None` if there is no room for the descriptors, or nobody is to yield.
    pub(crate) fn new() -> Option<Self> {
        if !multiproc_os::patience::is_on() || rests() {
            return None;
        }
        Self::make().ok()
    }

    fn make() -> io::Result<Self> {
        let (socket, far) = socket::pair()?;
        Ok(Outlet { socket, far: Some(far), rest: Unsealed::new()?, piece: PIECE })
    }

    /// What the receiver has to have: where the rest will be, and where it comes from.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let far = self.far.iter().map(AsFd::as_fd);
        std::iter::once(self.rest.as_fd()).chain(far).collect()
    }

    /// Sends the body, now that the receiver's end is under way: as much as the receiver takes at
    /// once, and what it leaves as memory. So it does not wait for a receiver that has something
    /// else to do.
    ///
    /// # Errors
    ///
    /// None says that it could be sent again: the receiver knows of it.
    pub(crate) fn send(mut self, body: [&[u8]; 2]) -> io::Result<()> {
        self.far = None;
        let sent = self.send_body(body);
        // Whoever was forked off meanwhile has the socket too. One that is closed has ended as well.
        let _ended = socket::finish(&self.socket);
        sent.map_err(io::Error::other)
    }

    fn send_body(&mut self, body: [&[u8]; 2]) -> io::Result<()> {
        let patience = patience(body[0].len() + body[1].len());
        for (index, part) in body.into_iter().enumerate() {
            match self.send_part(part, patience) {
                Ok(0) => {}
                Ok(left) => {
                    missed();
                    let rest = &part[part.len() - left..];
                    return self.rest.write(&[rest, if index == 0 { body[1] } else { &[] }]);
                }
                // It is received by nobody, as other messages to who is gone.
                Err(error) if socket::is_closed(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        succeeded();
        // On its processor, the receiver finds what came last in the cache, before more is sent.
        thread::yield_now();
        Ok(())
    }

    /// Tells how many bytes nobody takes.
    fn send_part(&mut self, part: &[u8], patience: Duration) -> io::Result<usize> {
        /// Longer than most pieces: others keep the processor busy, for whole time slices.
        const SLOW: Duration = Duration::from_millis(1);
        const LEAST: usize = 2 << 10;
        let mut left = part;
        let mut since: Option<Instant> = None;
        let mut lost = Duration::ZERO;
        while !left.is_empty() {
            let (piece, behind) = left.split_at(left.len().min(self.piece));
            match socket::send_bytes(&self.socket, piece, Wait::Try) {
                Ok(()) => {
                    left = behind;
                    let waited = since.take().map_or(Duration::ZERO, |since| since.elapsed());
                    if waited > SLOW {
                        lost += waited;
                    }
                    if lost > patience {
                        break;
                    }
                }
                Err(error) if socket::is_full(&error) => {
                    let waited = since.get_or_insert_with(Instant::now).elapsed();
                    if waited > patience {
                        break;
                    }
                    thread::yield_now();
                }
                Err(error) if socket::is_too_large(&error) && self.piece > LEAST => self.piece /= 2,
                Err(error) if socket::is_too_large(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(left.len())
    }
}

/// Waits until little is in the socket's buffer, as long as the receiver keeps up, and tells whether it is so.
pub(crate) fn await_room(socket: BorrowedFd<'_>) -> bool {
    // Who cannot ask is told by the attempt.
    let has_room = || poll::writable(socket, Deadline::now()).unwrap_or(true);
    if has_room() {
        return true;
    }
    if !multiproc_os::patience::is_on() || rests() {
        return false;
    }
    let (since, patience) = (Instant::now(), patience(0));
    while since.elapsed() < patience {
        thread::yield_now();
        if has_room() {
            succeeded();
            return true;
        }
    }
    missed();
    false
}

/// How long a receiver may take to begin or to go on: it may have to read and to get rid of the last
/// message first, or to find memory for this one. Memory for all of it costs both ends about as much
/// more than the stream, so that no more than that is lost.
fn patience(len: usize) -> Duration {
    const LEAST: Duration = Duration::from_micros(300);
    const EACH_MIB: u32 = 600;
    let mib = u32::try_from(len >> 20).unwrap_or(u32::MAX);
    LEAST + Duration::from_micros(mib.saturating_mul(EACH_MIB).into())
}

/// How many bodies are still to go through memory, since receivers did not keep up, and how many
/// did so the last time.
static REST: AtomicU32 = AtomicU32::new(0);
static LAST: AtomicU32 = AtomicU32::new(0);

fn rests() -> bool {
    let rest = REST.load(Relaxed);
    if rest > 0 {
        REST.store(rest - 1, Relaxed);
    }
    rest > 0
}

/// Attempts become rare where they fail again and again.
fn missed() {
    const MOST: u32 = 31;
    let next = (LAST.load(Relaxed) * 2 + 1).min(MOST);
    LAST.store(next, Relaxed);
    REST.store(next, Relaxed);
}

fn succeeded() {
    LAST.store(0, Relaxed);
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inlet {
    socket: OwnedFd,
    rest: File,
    len: usize,
    deadline: Deadline,
}

impl Inlet {
    /// Until the deadline, it waits for a sender that has stopped half-way.
    pub(crate) fn new(
        rest: OwnedFd,
        socket: OwnedFd,
        len: u64,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let no_socket = |_| Error::corrupt("its body comes from no socket");
        socket::check(&socket).map_err(no_socket)?;
        let len = usize::try_from(len).map_err(|_| Error::corrupt("it is longer than memory"))?;
        Ok(Inlet { socket, rest: rest.into(), len, deadline })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn to_vec(&self) -> Result<Vec<u8>, Error> {
        /// What is announced is believed so far, and then as much again as has come. It is no more
        /// than addresses until it comes.
        const BELIEVED: usize = 64 << 20;
        let mut bytes = Vec::new();
        while bytes.len() < self.len {
            let left = self.len - bytes.len();
            if bytes.capacity() - bytes.len() < left.min(PIECE) {
                let more = bytes.len().max(BELIEVED).min(left);
                memory::reserve(&mut bytes, more)
                    .map_err(|error| Error::io("receive", error.into()))?;
            }
            if self.receive(|| socket::recv_onto(&self.socket, &mut bytes))? == 0 {
                let rest = self.rest(bytes.len())?;
                rest.append_to(&mut bytes).map_err(|error| Error::io("read", error))?;
            }
        }
        // It may have taken more than it asked for, and more may have come.
        if bytes.len() > self.len { Err(too_long()) } else { Ok(bytes) }
    }

    /// Receives it to where it just fits.
    pub(crate) fn read(&self, room: &mut [u8]) -> Result<(), Error> {
        let mut received = 0;
        while received < room.len() {
            let left = &mut room[received..];
            match self.receive(|| socket::recv_into(&self.socket, left))? {
                0 => {
                    let rest = self.rest(received)?;
                    return rest
                        .read(&mut room[received..])
                        .map_err(|error| Error::io("read", error));
                }
                more => received += more,
            }
        }
        Ok(())
    }

    /// What was not sent over the socket, but for so many bytes that were.
    fn rest(&self, received: usize) -> Result<SealedFile, Error> {
        let cut = || Error::corrupt("its sender has gone before all of it was sent");
        let rest = self.rest.try_clone().map_err(|error| Error::io("open", error))?;
        let left = self.len - received;
        match SealedFile::check(rest.into(), left as u64) {
            Ok(rest) if rest.len() == left => Ok(rest),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                Err(Error::io("open", error))
            }
            _ => Err(cut()),
        }
    }

    /// Receives some bytes. None at the end.
    fn receive(&self, mut receive: impl FnMut() -> io::Result<usize>) -> Result<usize, Error> {
        /// A sender that goes on does so within this time.
        const PATIENCE: Duration = Duration::from_micros(300);
        /// Since a part has come, the rest is waited for, whatever the deadline is: twice so long,
        /// as the first time may have been over while all processes of a terminal were stopped.
        const GRACE: Duration = Duration::from_millis(500);
        let mut since: Option<Instant> = None;
        let mut written = None;
        loop {
            match receive() {
                Ok(received) => return Ok(received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if socket::is_closed(&error) => return Ok(0),
                Err(error) if socket::is_exhausted(&error) => {
                    return Err(Error::io("receive", error));
                }
                Err(error) => {
                    return Err(Error::corrupt(format!("its body does not come: {error}")));
                }
            }
            if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
                thread::yield_now();
                continue;
            }
            let until = match self.deadline.remaining() {
                Some(left) => Deadline::after(left.max(GRACE)),
                None => Deadline::NEVER,
            };
            match poll::readable([self.socket.as_fd()], until) {
                Ok([true]) => {}
                Ok([false]) => {
                    // It may be at the rest, which is long.
                    let size = self.rest.metadata().map_or(0, |of| of.len());
                    if written == Some(size) {
                        return Err(Error::corrupt("its sender has stopped half-way"));
                    }
                    written = Some(size);
                }
                Err(error) => return Err(Error::io("wait for", error)),
            }
        }
    }
}

fn too_long() -> Error {
    Error::corrupt("it is longer than its header says")
}

#[cfg(test)]
mod tests {
    use rustix::fs::SealFlags;
    use rustix::net::sockopt;

    use super::*;

    /// The outlet, and the inlet of so many bytes from it.
    fn ends(len: u64) -> (Outlet, Inlet) {
        let outlet = Outlet::make().unwrap();
        let [rest, socket] = outlet.fds().try_into().unwrap();
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let watchdog = Deadline::after(Duration::from_secs(20));
        let inlet = Inlet::new(own(rest), own(socket), len, watchdog).unwrap();
        (outlet, inlet)
    }

    #[test]
    fn a_buffer_of_any_size_takes_a_body_of_any() {
        for buffer in [1, 10_000, 100_000, PIECE] {
            for len in [1, 5000, PIECE, PIECE + 1, 3 << 20] {
                let body: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
                let (outlet, inlet) = ends(len as u64 + 3);
                sockopt::set_socket_send_buffer_size(&outlet.socket, buffer).unwrap();
                let received = thread::scope(|scope| {
                    let receiver = scope.spawn(|| inlet.to_vec());
                    outlet.send([&[1, 2, 3], &body]).unwrap();
                    receiver.join().unwrap().unwrap()
                });
                assert!(received[..3] == [1, 2, 3] && received[3..] == body, "{buffer} {len}");
            }
        }
    }

    #[test]
    fn what_nobody_takes_is_memory() {
        let body = vec![7; 3 << 20];
        let (outlet, inlet) = ends(body.len() as u64);
        // As one has that was forked off meanwhile.
        let _copy = outlet.socket.try_clone().unwrap();
        outlet.send([&[], &body]).unwrap();
        let mut room = vec![0; body.len()];
        inlet.read(&mut room).unwrap();
        assert!(room == body);
    }

    #[test]
    fn a_receiver_that_keeps_its_memory_writable_gets_an_error_and_no_second_message() {
        let body = vec![7; 3 << 20];
        let (outlet, inlet) = ends(body.len() as u64);
        rustix::fs::ftruncate(&outlet.rest, 4096).unwrap();
        rustix::fs::fcntl_add_seals(&outlet.rest, SealFlags::SHRINK).unwrap();
        let memory = memory::Memory::from_fd(outlet.rest.as_fd()).unwrap();
        let _mapping = memory.map(0, 4096).unwrap();
        let error = outlet.send([&[], &body]).unwrap_err();
        assert!(!socket::is_full(&error) && !socket::is_too_large(&error), "{error:?}");
        assert!(inlet.to_vec().is_err());
    }
}
