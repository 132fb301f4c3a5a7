//! Requests that have been read and wait for their answers.
//!
//! ```text
//!  events ──> read A, read B, … ──> look at all ──> run A … H ──> write A … H ──> run I … P ──> write I … P
//!                                   fetch buckets    └─ meanwhile the items of I … P come into the cache
//! ```
//!
//! The kernel's code for one read or write drives the server's out of the first-level cache, and a lookup waits for
//! memory twice, for a bucket and for an item, 0.3 us each with a million items. So what the server does is done for
//! several members in a row, and what they need is fetched while the kernel works for others. Plain requests
//! ([`crate::command::Lone`]) are run so; whoever asks for anything else has a turn as it would alone. With this a
//! single set costs 1.03 of `bench/floor` instead of 1.11, a single get 1.04 instead of 1.05 to 1.09.
//!
//! Invariants: a connection is in the wave at most once, and only while it rests between two requests; before the next
//! poll it is answered, or in a long wave its input goes back to it (`worker`).
//!
//! Not here: turns and replies (`conn`), who may join, and when they are answered (`worker`).

use crate::command::Output;
use crate::net::conn::{Ahead, READ_BUFFER, Reason};
use std::ops::Range;

/// Most members: reading them takes 40 us, which is what the first of them waits.
pub const MEMBERS: usize = 32;

/// A wave that holds this much input takes no more, so that who comes last has room for a batch.
const BYTES: usize = READ_BUFFER / 4;

/// Memory kept for their replies: what a group of plain requests has, unless a large value had to be copied because too
/// many clients were about to be sent it.
const REPLIES_KEEP: usize = 64 << 10;

/// Members that are run before the first of them is written to.
pub const TOGETHER: usize = 8;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Wave {
    buffer: Box<[u8]>,
    /// Bytes of it that hold input.
    used: usize,
    members: Vec<Member>,
    replies: Output,
}

#[derive(Debug)]
struct Member {
    /// The connection's slot.
    key: usize,
    read: Result<Range<usize>, Reason>,
}

impl Wave {
    /// A wave without members.
    pub fn new() -> Wave {
        Wave {
            buffer: vec![0; READ_BUFFER].into(),
            used: 0,
            members: Vec::with_capacity(MEMBERS),
            replies: Output::default(),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether those who wait must have their turns before another one joins.
    pub fn is_full(&self) -> bool {
        self.members.len() >= MEMBERS || self.used >= BYTES
    }

    /// Where the next one reads to.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.used..]
    }

    /// Adds the connection of slot `key`, which has read so many bytes to the room, or is to be closed.
    pub fn join(&mut self, key: usize, read: Result<usize, Reason>) {
        let read = read.map(|n| self.used..self.used + n);
        self.used = read.as_ref().map_or(self.used, |range| range.end);
        self.members.push(Member { key, read });
    }

    /// All members, and where their replies go.
    pub fn members(&mut self) -> (Members<'_>, &mut Output) {
        (Members { buffer: &self.buffer, members: &self.members }, &mut self.replies)
    }

    /// Says that all have had their turns.
    pub fn clear(&mut self) {
        self.used = 0;
        self.members.clear();
        if self.replies.bytes.capacity() > REPLIES_KEEP {
            self.replies = Output::default();
        }
    }
}

/// The members of a wave.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    buffer: &'a [u8],
    members: &'a [Member],
}

impl<'a> Members<'a> {
    /// How many.
    pub fn len(self) -> usize {
        self.members.len()
    }

    /// Slot and input of one.
    #[inline]
    pub fn get(self, i: usize) -> (usize, Ahead<'a>) {
        let Member { key, read } = &self.members[i];
        (*key, read.as_ref().map(|range| &self.buffer[range.clone()]).map_err(|&reason| reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_reply_leaves_no_memory_behind() {
        let mut wave = Wave::new();
        for (len, kept) in [(10_000, 10_000), (2 << 20, 0)] {
            let (_, replies) = wave.members();
            replies.push(&vec![b'v'; len]);
            replies.bytes.clear();
            wave.clear();
            assert_eq!(wave.replies.bytes.capacity(), kept);
        }
    }
}
