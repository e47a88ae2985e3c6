#![allow(unsafe_code)] // Makes slices of a mapping, for the one owner of its range.

use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::memory::{Frozen, Mapping, Memory};
use multiproc_os::{poll, robust};
use multiproc_wire::SharedFd;
use zerocopy::{FromBytes, IntoBytes};

use super::ticket::Ticket;
use crate::error::Kind;
use crate::unique::new_id;

/// A range of shared memory, not empty, that has one owner: this.
///
/// The ranges of all parts of one memory, in all processes, are disjoint.
#[derive(Debug)]
pub(super) struct Part {
    memory: Memory<SharedFd>,
    /// Tells memory from other memory.
    id: u128,
    /// In bytes from the memory's start.
    range: Range<u64>,
    /// With a mapping that covers the range, perhaps shared with other parts.
    ticket: Ticket,
    /// Open for as long as the part, or what was made of it, has an owner or is under way.
    leases: Vec<SharedFd>,
}

/// A part of memory in the address space of one process, but not of its children.
#[derive(Debug)]
pub(super) struct Mapped {
    mapping: ManuallyDrop<Mapping>,
    /// Where it starts in the memory.
    at: u64,
    generation: u64,
}

/// What a message says of a part, beside its descriptors.
pub(super) type Place = (u128, u64, u64);

impl Part {
    /// Makes memory of `len` zero bytes, and the part that is all of it.
    pub(super) fn create(len: u64) -> Result<Self, Kind> {
        let memory = Memory::create("multiproc-box", len).map_err(Kind::system("make"))?;
        let memory = Memory::from_fd(SharedFd::from(memory.into_fd()));
        let memory = memory.map_err(Kind::system("make"))?;
        let mapped = Mapped::new(&memory, 0..len)?;
        Ok(Self::assemble(memory, new_id(), 0..len, mapped, Vec::new()))
    }

    /// Takes a part that came in a message; `take` says whether it may.
    pub(super) fn receive(
        memory: SharedFd,
        (id, start, end): Place,
        leases: Vec<SharedFd>,
        take: impl FnOnce() -> std::io::Result<bool>,
    ) -> Result<Self, Kind> {
        let memory = Memory::from_fd(memory).map_err(Kind::system("use"))?;
        if start >= end {
            return Err(Kind::Foreign("such a slice"));
        }
        let mapped = Mapped::new(&memory, start..end)?;
        // What can fail has been done.
        if take().map_err(Kind::system("take"))? {
            Ok(Self::assemble(memory, id, start..end, mapped, leases))
        } else {
            Err(Kind::NotOffered)
        }
    }

    fn assemble(
        memory: Memory<SharedFd>,
        id: u128,
        range: Range<u64>,
        mapped: Arc<Mapped>,
        leases: Vec<SharedFd>,
    ) -> Self {
        Part { memory, id, range, ticket: Ticket::new(mapped), leases }
    }

    #[inline]
    fn mapped(&self) -> &Arc<Mapped> {
        self.ticket.mapped()
    }

    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// For a message.
    pub(super) fn parcel(&self) -> Result<(&SharedFd, &Ticket, Place, &[SharedFd]), Kind> {
        if !self.mapped().is_here() {
            return Err(Kind::Forked);
        }
        let place = (self.id, self.range.start, self.range.end);
        Ok((self.memory.fd(), &self.ticket, place, &self.leases))
    }

    /// Has the descriptor kept open for as long as the part has an owner, and says where the part is.
    pub(super) fn lease(&mut self, lease: SharedFd) -> (Memory<SharedFd>, Place) {
        self.leases.push(lease);
        (self.memory.clone(), (self.id, self.range.start, self.range.end))
    }

    /// Closes descriptors whose other end is closed.
    pub(super) fn end_leases(&mut self) {
        let listens =
            |lease: &mut SharedFd| !poll::hung_up(lease, Deadline::now()).unwrap_or(false);
        self.leases.retain_mut(listens);
    }

    /// Takes a part that has no owner any more.
    pub(super) fn recall(
        memory: Memory<SharedFd>,
        (id, start, end): Place,
    ) -> Result<Self, (Kind, Memory<SharedFd>)> {
        match Mapped::new(&memory, start..end) {
            Ok(mapped) => Ok(Self::assemble(memory, id, start..end, mapped, Vec::new())),
            Err(kind) => Err((kind, memory)),
        }
    }

    /// Divides it; neither part is empty.
    pub(super) fn split_at(self, len: u64) -> (Self, Self) {
        let Part { memory, id, range, ticket, leases } = self;
        assert!(len > 0 && len < range.end - range.start, "one of the parts would be empty");
        let mapped = ticket.tear_up();
        let middle = range.start + len;
        (
            Self::assemble(
                memory.clone(),
                id,
                range.start..middle,
                Arc::clone(&mapped),
                leases.clone(),
            ),
            Self::assemble(memory, id, middle..range.end, mapped, leases),
        )
    }

    /// Tells whether `next` starts where this ends.
    pub(super) fn is_followed_by(&self, next: &Part) -> Result<(), &'static str> {
        if self.id != next.id {
            Err("they are of different memory")
        } else if self.range.end != next.range.start {
            Err("they are not adjacent, or out of order")
        } else {
            Ok(())
        }
    }

    /// Finds a mapping that covers the parts, which follow each other, as one.
    pub(super) fn map_joined(parts: &[&Part]) -> Result<Joint, Kind> {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
            return Err(Kind::Join("there are none"));
        };
        if parts.iter().any(|part| !part.mapped().is_here()) {
            return Err(Kind::Forked);
        }
        let range = first.range.start..last.range.end;
        let mapped = if parts.iter().all(|part| Arc::ptr_eq(part.mapped(), first.mapped())) {
            Arc::clone(first.mapped())
        } else {
            Mapped::new(&first.memory, range.clone())?
        };
        Ok(Joint { range, mapped })
    }

    /// Makes one part of those for which the joint was found.
    pub(super) fn join(parts: Vec<Part>, joint: Joint) -> Option<Part> {
        let Joint { range, mapped } = joint;
        let mut joined = None;
        let mut all_leases = Vec::new();
        for Part { memory, id, ticket, leases, .. } in parts {
            ticket.tear_up();
            all_leases.extend(leases);
            joined.get_or_insert((memory, id));
        }
        joined.map(|(memory, id)| Self::assemble(memory, id, range, mapped, all_leases))
    }

    /// Makes memory of which this is all unchangeable. If that fails, the part comes back, unless it
    /// could not be mapped again.
    pub(super) fn freeze(self) -> Result<Frozen<SharedFd>, (Kind, Option<Box<Self>>)> {
        let all = match self.memory.len() {
            Ok(len) => self.range == (0..len),
            Err(error) => return Err((Kind::system("freeze")(error), Some(Box::new(self)))),
        };
        if !self.mapped().is_here() {
            return Err((Kind::Forked, Some(Box::new(self))));
        }
        if !all {
            return Err((Kind::Partial, Some(Box::new(self))));
        }
        let Part { memory, id, range, ticket, leases } = self;
        let back = |memory, mapped| Box::new(Self::assemble(memory, id, range, mapped, leases));
        let mapped = match Arc::try_unwrap(ticket.tear_up()) {
            Ok(mapped) => mapped,
            Err(mapped) => return Err((Kind::InUse, Some(back(memory, mapped)))),
        };
        let (mapping, generation) = mapped.into_mapping();
        freeze_once_alone(memory, mapping).map_err(|(error, memory, mapping)| {
            let mapping = mapping.filter(|mapping| mapping.keep_from_forks().is_ok());
            let part = mapping.map(|mapping| {
                let mapping = ManuallyDrop::new(mapping);
                back(memory, Arc::new(Mapped { mapping, at: 0, generation }))
            });
            let kind = match error.kind() {
                ErrorKind::ResourceBusy => Kind::InUse,
                _ => Kind::system("freeze")(error),
            };
            (kind, part)
        })
    }

    /// Where the range is mapped.
    ///
    /// # Panics
    ///
    /// If this is a child of the owner.
    #[inline]
    fn start(&self) -> NonNull<u8> {
        let mapped = self.mapped();
        assert!(mapped.is_here(), "the slice belongs to the process that forked this one");
        let offset = (self.range.start - mapped.at) as usize;
        // SAFETY: the mapping covers the range, and is not at address zero.
        unsafe { NonNull::new_unchecked(mapped.mapping.as_ptr().add(offset)) }
    }
}

/// Freezes memory, and waits for that while it is mapped elsewhere, though not long: whoever has sent it
/// unmaps it just after.
fn freeze_once_alone<F: AsFd>(
    mut memory: Memory<F>,
    mut mapping: Mapping,
) -> Result<Frozen<F>, (io::Error, Memory<F>, Option<Mapping>)> {
    const PAUSE: Duration = Duration::from_millis(1);
    // Some twenty times what the kernel takes for each GiB, and as long as a busy machine may let the
    // sender wait.
    let patience = Duration::from_secs(2 + (mapping.len() as u64 >> 30));
    let deadline = Deadline::after(patience);
    loop {
        match Frozen::freeze(memory, mapping) {
            Err((error, there, Some(again)))
                if error.kind() == ErrorKind::ResourceBusy && !deadline.has_passed() =>
            {
                // Nothing tells when memory is unmapped.
                #[allow(clippy::disallowed_methods)]
                thread::sleep(PAUSE);
                (memory, mapping) = (there, again);
            }
            result => return result,
        }
    }
}

/// What [`Part::join`] makes of its parts.
pub(super) struct Joint {
    range: Range<u64>,
    mapped: Arc<Mapped>,
}

/// The elements of a part, or of none.
#[inline]
pub(super) fn elements<T: FromBytes + IntoBytes>(part: Option<&Part>, len: usize) -> &[T] {
    let start = start(part, len);
    // SAFETY: `start` checks that so many are there, and aligned.
    // 1. Any bytes are a `T`.
    // 2. The part is the only owner of the range in any process, and borrowed: nobody writes to it.
    unsafe { slice::from_raw_parts(start.as_ptr(), len) }
}

/// The elements of a part, or of none, to be changed.
#[inline]
pub(super) fn elements_mut<T: FromBytes + IntoBytes>(
    part: Option<&mut Part>,
    len: usize,
) -> &mut [T] {
    let start = start(part.as_deref(), len);
    // SAFETY: as in `elements`, and the part is borrowed exclusively. All bytes of a `T` are bytes.
    unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) }
}

#[inline]
fn start<T>(part: Option<&Part>, len: usize) -> NonNull<T> {
    let start = part.map_or(NonNull::dangling(), |part| part.start().cast::<T>());
    let there = part.map_or(0, Part::len);
    assert!(len as u64 * size_of::<T>() as u64 <= there && start.is_aligned());
    start
}

impl Mapped {
    fn new(memory: &Memory<SharedFd>, range: Range<u64>) -> Result<Arc<Self>, Kind> {
        let generation = robust::generation().map_err(Kind::system("map"))?;
        let len = usize::try_from(range.end - range.start).map_err(|_| Kind::TooLong)?;
        let mapping = memory.map(range.start, len).map_err(Kind::system("map"))?;
        // A child would be a second owner.
        mapping.keep_from_forks().map_err(Kind::system("map"))?;
        let mapping = ManuallyDrop::new(mapping);
        Ok(Arc::new(Mapped { mapping, at: range.start, generation }))
    }

    fn into_mapping(self) -> (Mapping, u64) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after that.
        (unsafe { ManuallyDrop::take(&mut this.mapping) }, this.generation)
    }

    /// Tells whether this is the process that made it, and not a child.
    #[inline]
    pub(super) fn is_here(&self) -> bool {
        robust::generation().is_ok_and(|generation| generation == self.generation)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // In a child, something else may be at the place by now.
        if self.is_here() {
            // SAFETY: it is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.mapping) };
        }
    }
}
