//! The lock of a shard, and who holds it.
//!
//! ```text
//! ShardCell ── lock ──> Locked: the shard, to be read and changed ── drop ──> what was changed is journalled,
//!                                                                             and the holder told of the record
//! ```
//!
//! Not here: what can be done with a shard (`shard`), how long it is locked (`lock_time`).

use super::Shard;
use super::table;
use crate::journal::acks::LastLsn;
use crate::store::memory::prefetcher::Prefetcher;
use crate::store::{ChangeSource, Hash, ItemId};
use crate::sync::lock;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockResult};

/// All shards of a store, by number. Whoever refers to their memory without a lock keeps them alive.
pub(crate) type Shards = Arc<[ShardCell]>;

/// A shard behind its lock, and what can be read of it without.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardCell {
    shard: Mutex<Shard>,
    prefetcher: Prefetcher,
    /// Buckets of the table, perhaps a little late.
    buckets: Arc<AtomicUsize>,
}

impl ShardCell {
    /// Puts a shard behind a lock.
    pub fn new(shard: Shard) -> ShardCell {
        let (prefetcher, buckets) = (shard.table.prefetcher(), shard.table.published());
        ShardCell { shard: Mutex::new(shard), prefetcher, buckets }
    }

    /// Hints the CPU to fetch what a lookup of `hash` will read first. Takes no lock.
    #[inline]
    pub fn prefetch(&self, hash: Hash) {
        self.prefetcher.line(table::address(hash, self.buckets.load(Ordering::Relaxed)));
    }

    /// The shard, to be read only, unless somebody has it locked just now.
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, Shard>> {
        self.shard.try_lock()
    }

    /// Takes a pin off an item.
    pub fn unpin(&self, id: ItemId) {
        // After a panic under the lock there is nothing left to give back to, and a second panic would hide it.
        if let Ok(mut shard) = self.shard.lock() {
            shard.unpin(id);
        }
    }
}

/// A locked shard.
#[derive(Debug)]
pub struct Locked<'a> {
    shards: &'a Shards,
    shard: MutexGuard<'a, Shard>,
    /// Who locked it wants to know what was journalled.
    last_lsn: Option<&'a LastLsn>,
    /// What it was locked for.
    hash: Hash,
}

impl<'a> Locked<'a> {
    /// Locks a shard for what nobody has asked for.
    pub fn new(shards: &'a Shards, number: usize) -> Locked<'a> {
        let mut shard = lock(&shards[number].shard);
        (shard.is_refused, shard.cas_max) = (false, 0);
        Locked { shards, shard, last_lsn: None, hash: Hash(0) }
    }

    /// Locks a shard for a request of `source`, or of a client if there is none, and of who wants to know what was
    /// journalled.
    #[inline]
    pub fn for_request(
        shards: &'a Shards,
        (number, hash): (usize, Hash),
        last_lsn: &'a LastLsn,
        source: Option<&Arc<ChangeSource>>,
    ) -> Locked<'a> {
        let mut shard = lock(&shards[number].shard);
        shard.window.work().begin();
        shard.is_refused = !shard.core.role.admits(source.map(|source| &**source));
        shard.cas_max = source.map_or(0, |source| source.cas_max());
        Locked { shards, shard, last_lsn: Some(last_lsn), hash }
    }

    /// All shards, this one among them.
    pub fn shards(&self) -> &'a Shards {
        self.shards
    }

    // Out of line, so that whoever unlocks a shard has only the question whether there is anything.
    #[inline(never)]
    fn settle(&mut self) {
        let lsn = self.shard.settle();
        if let Some(last_lsn) = self.last_lsn {
            last_lsn.note(lsn);
        }
        if let (Some(recent), Some(lsn)) = (&self.shard.core.recent, lsn) {
            recent.note(self.hash, lsn);
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.shard.is_unsettled {
            self.settle();
        }
        if self.last_lsn.is_some() {
            self.shard.window.work().end(self.shard.core.config.item_size_max);
        }
    }
}
