//! Requests that have been read and wait for their turns.
//!
//! ```text
//!  events ──> read A, read B, read C, …  ──> turn A, turn B, turn C, …
//!                                              └── meanwhile D's item and G's bucket come into the cache
//! ```
//!
//! A lookup waits for memory twice, for a bucket and for an item, and with a million items each takes about 0.3 us: a
//! twelfth of a single get. Whoever knows the keys of the next turns can have both fetched while the kernel is sending.
//! A wave of 32 with this distance makes a single get cost 1.06 of `bench/floor` instead of 1.11, and `find` 0.7 % of
//! it instead of 7.4. All fetched before the first turn, a good part is out of the cache again when it is needed.
//!
//! Invariants: a connection is in the wave at most once, and only while it rests between two requests; before the next
//! poll its turn comes, or in a long wave its input goes back to it (`worker`).
//!
//! Not here: the turn (`conn`), and who may join (`worker`).

use super::conn::{Ahead, READ_BUFFER, Reason};
use crate::command::Wanted;
use crate::store::Store;
use std::ops::Range;

/// Most members: reading them takes 40 us, which is what the first of them waits.
const MEMBERS: usize = 32;

/// A wave that holds this much input takes no more, so that who comes last has room for a batch.
const BYTES: usize = READ_BUFFER / 4;

/// The item of the member this many turns ahead is fetched, and the bucket of the one twice as far.
const DISTANCE: usize = 3;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Wave {
    buffer: Box<[u8]>,
    /// Bytes of it that hold input.
    used: usize,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    /// The connection's slot.
    key: usize,
    read: Result<Range<usize>, Reason>,
    wanted: Option<Wanted>,
}

impl Wave {
    /// A wave without members.
    pub fn new() -> Wave {
        Wave { buffer: vec![0; READ_BUFFER].into(), used: 0, members: Vec::with_capacity(MEMBERS) }
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

    /// Adds the connection of slot `key`, which has read so many bytes to the room, or is to be closed. `wanted` tells
    /// what its input will need.
    pub fn join(
        &mut self,
        key: usize,
        read: Result<usize, Reason>,
        store: &Store,
        wanted: impl FnOnce(&[u8]) -> Option<Wanted>,
    ) {
        let read = read.map(|n| self.used..self.used + n);
        let wanted = read.as_ref().ok().and_then(|range| wanted(&self.buffer[range.clone()]));
        self.used = read.as_ref().map_or(self.used, |range| range.end);
        if let Some(wanted) = wanted
            && self.members.len() < 2 * DISTANCE
        {
            wanted.bucket(store);
        }
        self.members.push(Member { key, read, wanted });
    }

    /// Starts fetching what turns after that of member `i` will need.
    pub fn fetch_beyond(&self, i: usize, store: &Store) {
        let wanted = |i: usize| self.members.get(i).and_then(|member| member.wanted);
        if let Some(wanted) = wanted(i + 2 * DISTANCE) {
            wanted.bucket(store);
        }
        let items = if i == 0 { 1..DISTANCE + 1 } else { i + DISTANCE..i + DISTANCE + 1 };
        items.filter_map(wanted).for_each(|wanted| wanted.item(store));
        if let Some(wanted) = wanted(i + 1) {
            wanted.around(store);
        }
    }

    /// Slot and input of member `i`.
    pub fn member(&self, i: usize) -> (usize, Ahead<'_>) {
        let Member { key, read, .. } = &self.members[i];
        (*key, read.as_ref().map(|range| &self.buffer[range.clone()]).map_err(|&reason| reason))
    }

    /// Says that all have had their turns.
    pub fn clear(&mut self) {
        self.used = 0;
        self.members.clear();
    }
}
