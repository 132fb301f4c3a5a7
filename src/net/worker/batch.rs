//! Connections that have been read and wait for their answers.
//!
//! ```text
//!  events ──> read A, read B, … ──> cut, fetch and run up to 16 of their requests ──> write A, write B, … ──> the next 16
//! ```
//!
//! The kernel's code for one read or write drives the server's out of the first-level cache, and a lookup waits for
//! memory twice, for a bucket and for an item, 0.3 us each with a million items. So what the server does is done for
//! several connections in a row, and what they need is fetched together ([`crate::command::batch`]). With this a single
//! set costs 1.03 of `bench/floor` instead of 1.11, a single get 1.04 instead of 1.05 to 1.09.
//!
//! Invariants: a connection is a member at most once, and only while it rests between two requests; before the next
//! poll it is answered, or after a long time its input goes back to it (`worker`).
//!
//! Not here: turns and replies (`conn`), who may join, and when they are answered (`worker`).

use crate::net::conn::READ_BUFFER;
use std::ops::Range;

/// Most members: reading them takes 40 us, which is what the first of them waits.
pub(super) const MEMBERS: usize = 32;

/// A batch that holds this much input takes no more, so that who comes last has room for many
/// requests.
const BYTES: usize = READ_BUFFER / 4;

/// See the module's head.
#[derive(Debug)]
pub(super) struct ReadBatch {
    buffer: Box<[u8]>,
    /// Bytes of it that hold input.
    used: usize,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    /// The connection's slot.
    key: usize,
    read: Range<usize>,
}

impl ReadBatch {
    /// A batch without members.
    pub(super) fn new() -> ReadBatch {
        ReadBatch { buffer: vec![0; READ_BUFFER].into(), used: 0, members: Vec::with_capacity(MEMBERS) }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether those who wait must have their turns before another one joins.
    pub(super) fn is_full(&self) -> bool {
        self.members.len() >= MEMBERS || self.used >= BYTES
    }

    /// Where the next one reads to, at most so many bytes.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        let end = self.buffer.len().min(self.used + most);
        &mut self.buffer[self.used..end]
    }

    /// Adds the connection of slot `key`, which has read so many bytes to the room.
    #[inline]
    pub(super) fn join(&mut self, key: usize, n: usize) {
        let start = self.used;
        self.used += n;
        self.members.push(Member { key, read: start..self.used });
    }

    /// All members.
    pub(super) fn members(&self) -> Members<'_> {
        Members { buffer: &self.buffer, members: &self.members }
    }

    /// Says that all have been answered.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.members.clear();
    }
}

/// The members of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    buffer: &'a [u8],
    members: &'a [Member],
}

impl<'a> Members<'a> {
    /// How many.
    pub(super) fn len(self) -> usize {
        self.members.len()
    }

    /// Slot and input of one.
    #[inline]
    pub(super) fn get(self, i: usize) -> (usize, &'a [u8]) {
        let Member { key, read } = &self.members[i];
        (*key, &self.buffer[read.clone()])
    }
}
