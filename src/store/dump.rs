//! Dumps: walks of all items for a client, beside everything else.
//!
//! ```text
//! shard 0: bucket 0, 8, 4, 12, 2 …   a few under one lock   ─> shard 1 … ─> end
//! ```
//!
//! Buckets come in the order of their numbers' bits reversed. What has been seen is then everything whose hash, read
//! from its lowest bit on, is below some number, whatever the table's size was meanwhile: a client that stops reading
//! until the table is a thousand times as large goes on in buckets of that table.
//!
//! A dump walks the hash table also where a client asked for LRU classes: items move between the lists of a class, in
//! both directions, so that a walk of lists would miss some and see others twice. The table has one place for each.
//!
//! Invariants: an item of the asked classes that stays from the dump's beginning to its end is seen exactly once; one
//! call holds a lock for [`BUCKETS`] buckets at most, and takes no further one after [`ITEMS`] items.
//!
//! Not here: how items are printed (`command::dump`).

use super::lock_time::Holder;
use super::shard::table::MAX_BUCKETS;
use super::{ClassSet, Item, Store};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Buckets looked at under one lock: about a hundred items in a full table.
const BUCKETS: usize = 16;

/// After so many items there is no further bucket: one of a table that may not grow can have any number.
const ITEMS: usize = 128;

/// Bits of the number of a bucket.
const BITS: u32 = MAX_BUCKETS.ilog2();

/// Dumps at a time. Each is work without end for a client that takes it; memcached has one.
pub(super) const DUMPS_MAX: u64 = 4;

/// Where a dump has got to. Dropping it ends the dump.
#[derive(Debug)]
pub struct Dump {
    store: Arc<Store>,
    classes: ClassSet,
    shard: usize,
    /// What is below this, of [`BITS`] bits, has been seen of the shard. See the module's head.
    at: usize,
}

impl Store {
    /// metadump and mgdump; None while there are [`DUMPS_MAX`].
    pub fn dump(self: &Arc<Store>, classes: ClassSet) -> Option<Dump> {
        let more = |dumps| (dumps < DUMPS_MAX).then_some(dumps + 1);
        self.core.dumps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Dump { store: self.clone(), classes, shard: 0, at: 0 })
    }
}

impl Dump {
    /// Hands the live items of the next few buckets to `each`, perhaps none, under the shard's lock; false when there
    /// are no more.
    pub fn next(&mut self, each: &mut dyn FnMut(Item<'_>)) -> bool {
        if self.shard == self.store.shards.len() {
            return false;
        }
        let shard = self.store.lock_timed(self.shard, Holder::Walk);
        // Every size that a table has is kept by all later ones.
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
}

/// A number of [`BITS`] bits, read from the other end.
fn reversed(at: usize) -> usize {
    at.reverse_bits() >> (usize::BITS - BITS)
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.store.core.dumps.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "tests/dump.rs"]
mod tests;
