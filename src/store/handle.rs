//! The handle of a store: its shards, what they share, and the ways to a lock.
//!
//! ```text
//! Store ── cells: Mutex<Shard>, and what can be read of it without the lock (the table's address and size)
//!      └── core, settings, requests to the background, lock times
//!
//! prefetch          no lock       hold      a lock whose time is measured
//! prefetch_items    try_lock      shard     a lock
//! ```
//!
//! Not here: how a store is built (`mod`), what commands do with a locked shard (`locked`).

use super::config::Tuning;
use super::kinds::Hash;
use super::lock_time::{By, Held, Holds};
use super::memory::arena::Prefetcher;
use super::requests;
use super::shard::table;
use super::shard::{Core, Shard};
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The handle that everything outside holds.
#[derive(Debug)]
pub struct Store {
    pub(in crate::store) core: Arc<Core>,
    pub(in crate::store) slots: Box<[ShardCell]>,
    /// log2 of their number.
    pub(in crate::store) shard_bits: u32,
    pub(in crate::store) tuning: Mutex<Tuning>,
    pub(in crate::store) crawler: AtomicBool,
    pub(in crate::store) background: requests::BackgroundRequests,
    pub(in crate::store) holds: Holds,
}

/// One shard and what can be read without its lock.
#[derive(Debug)]
#[repr(align(128))]
pub(in crate::store) struct ShardCell {
    pub(in crate::store) shard: Mutex<Shard>,
    pub(in crate::store) prefetcher: Prefetcher,
    /// Buckets of the table, perhaps a little late.
    pub(in crate::store) buckets: AtomicUsize,
}

/// Keys that are looked for together by [`Store::prefetch_items`].
pub const AHEAD_MAX: usize = 16;

impl Store {
    /// Hashes a key, once per request.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> Hash {
        self.core.hash(key)
    }

    /// Hints the CPU to fetch what a lookup of `hash` will read first. Takes no lock.
    #[inline]
    pub fn prefetch(&self, hash: Hash) {
        let slot = &self.slots[self.shard_of(hash)];
        slot.prefetcher.line(table::address(hash, slot.buckets.load(Ordering::Relaxed)));
    }

    /// Hints the CPU to fetch the items of up to [`AHEAD_MAX`] keys, a little after [`Store::prefetch`] has fetched the
    /// ways to them.
    pub fn prefetch_items(&self, keys: &[(Hash, bool)]) {
        self.candidates(keys, (1 << keys.len()) - 1, |shard, id| shard.prefetch(id));
    }

    /// Hints the CPU to fetch what else sets may touch, a little after [`Store::prefetch_items`]: of those keys that are
    /// marked.
    pub fn prefetch_around(&self, keys: &[(Hash, bool)]) {
        let marked = keys.iter().rev().fold(0, |bits, &(_, marked)| bits << 1 | u32::from(marked));
        self.candidates(keys, marked, |shard, id| shard.prefetch_around(id));
    }

    /// Calls `each` with what [`Table::find`] would look at for these keys, as far as their bits are in `left`. Leaves
    /// out what is locked just now. Each shard is locked once.
    #[inline]
    fn candidates(&self, keys: &[(Hash, bool)], mut left: u32, each: impl Fn(&Shard, u32)) {
        assert!(keys.len() <= AHEAD_MAX, "too many keys at once");
        while left != 0 {
            let index = self.shard_of(keys[left.trailing_zeros() as usize].0);
            let shard = self.slots[index].shard.try_lock();
            let mut looked_at = left;
            while looked_at != 0 {
                let i = looked_at.trailing_zeros() as usize;
                looked_at &= looked_at - 1;
                let hash = keys[i].0;
                if self.shard_of(hash) == index {
                    left &= !(1 << i);
                    if let Ok(shard) = &shard {
                        shard.table.candidates(hash, |id| each(shard, id));
                    }
                }
            }
        }
    }

    /// The shard of a hash.
    #[inline]
    pub(in crate::store) fn shard_of(&self, hash: Hash) -> usize {
        (hash.0 >> 32 >> (32 - self.shard_bits)) as usize
    }

    /// Locks a shard by its number.
    #[inline]
    pub(in crate::store) fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        lock(&self.slots[index].shard)
    }

    /// Locks every shard, one after the other.
    pub(in crate::store) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..self.slots.len()).map(|index| self.shard(index))
    }

    /// Locks a shard, and notes for how long.
    pub(crate) fn hold(&self, index: usize, by: By) -> Held<'_> {
        Held::new(|| self.shard(index), &self.holds, by)
    }

    /// Does so with every shard, one after the other.
    pub(crate) fn hold_each(&self, by: By) -> impl Iterator<Item = Held<'_>> {
        (0..self.slots.len()).map(move |index| self.hold(index, by))
    }

    /// Takes a pin off an item.
    pub(in crate::store) fn unpin(&self, index: usize, id: u32) {
        // After a panic under the lock there is nothing left to give back to, and a second panic would hide it.
        if let Ok(mut shard) = self.slots[index].shard.lock() {
            shard.unpin(id);
        }
    }
}
