//! Dumps: all items for a client, while everything else goes on.
//!
//! ```text
//! shard 0: bucket 0, 8, 4, 12, 2 …   a few under one lock   ─> shard 1 … ─> end
//! ```
//!
//! Buckets come in the order of their numbers with the bits reversed. So the items that were seen are always those
//! whose hash, read from its lowest bit on, is below some number, however the table grows meanwhile. A client may stop
//! reading until the table is a thousand times as large, and the dump goes on in the buckets of that table.
//!
//! A dump goes through the hash table even if a client asks for LRU classes. Items move between the lists of a class in
//! both directions, so that a dump of lists would miss some items and see others twice. In the table each has one
//! place.
//!
//! Invariants: an item of the requested classes that stays from the dump's beginning to its end is seen exactly once.
//! One call looks at [`BUCKETS`] buckets at most under one lock, and at no further bucket after [`ITEMS`] items.
//!
//! Not here: how items are printed (`command::dump`), how many dumps there may be (`slots`).

use super::lock_time::Holder;
use super::shard::table::MAX_BUCKETS;
use super::{ClassSet, Item, Store};
use crate::sync::lock;
use std::sync::Arc;
use std::time::Instant;

/// Buckets looked at under one lock: about a hundred items in a full table.
const BUCKETS: usize = 16;

/// After so many items a call looks at no further bucket. In a table that may not grow, a bucket can have any number of
/// items.
const ITEMS: usize = 128;

/// Bits of a bucket's number.
const BITS: u32 = MAX_BUCKETS.ilog2();

/// A dump, and how far it has got. Dropping it ends the dump.
#[derive(Debug)]
pub struct Dump {
    store: Arc<Store>,
    classes: ClassSet,
    slot: u64,
    shard: usize,
    /// The hashes below this number of [`BITS`] bits have been seen in the shard. See the module's head.
    at: usize,
}

impl Store {
    /// Begins a dump, for metadump and mgdump, if there is a slot for it.
    pub fn dump(self: &Arc<Store>, classes: ClassSet) -> Option<Dump> {
        let slot = lock(&self.core.dumps).take(Instant::now())?;
        Some(Dump { store: self.clone(), classes, slot, shard: 0, at: 0 })
    }
}

impl Dump {
    /// Calls `each` with the live items of the next few buckets, perhaps none, under the shard's lock. False when the
    /// dump is at its end.
    pub fn next(&mut self, each: &mut dyn FnMut(Item<'_>)) -> bool {
        if self.shard == self.store.shards.len() {
            return false;
        }
        let shard = self.store.lock_timed(self.shard, Holder::Walk);
        // A table never shrinks: it has, and will have, at least so many buckets, a power of two.
        let size_bits = shard.table.buckets().ilog2();
        let (mut buckets, mut items) = (0, 0);
        while buckets < BUCKETS && items < ITEMS && self.at >> BITS == 0 {
            shard.table.visit(reversed(self.at), 1 << size_bits, |id| {
                items += 1;
                let class = shard.listed_class(id, shard.window.chunk(id));
                if self.classes.0 >> class & 1 != 0 && shard.death(id).is_none() {
                    each(shard.item(id));
                }
            });
            self.at += 1 << (BITS - size_bits);
            buckets += 1;
        }
        if self.at >> BITS != 0 {
            (self.shard, self.at) = (self.shard + 1, 0);
        }
        true
    }

    /// Says that the client has taken what it was sent. False if another dump has taken the place of this one.
    pub fn goes_on(&self) -> bool {
        lock(&self.store.core.dumps).keep(self.slot, Instant::now())
    }
}

/// A number of [`BITS`] bits with its bits reversed.
fn reversed(at: usize) -> usize {
    at.reverse_bits() >> (usize::BITS - BITS)
}

impl Drop for Dump {
    fn drop(&mut self) {
        lock(&self.store.core.dumps).give_back(self.slot);
    }
}

#[cfg(test)]
#[path = "tests/dump.rs"]
mod tests;
