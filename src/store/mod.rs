//! The store: items by key, within a memory limit.
//!
//! ```text
//! Store ── shard 0 ── Mutex<Shard> { table, slab classes and pages, LRUs, class counters }
//!      ├── shard 1 …                       a shard's code is single-threaded
//!      └── core    what all share: page pool, cas counter, flush_all, events, classes
//!
//! admin        flush_all, limits, statistics          kinds, config, stats   words, settings, numbers
//! background/  threads: LRUs, crawler, page mover     requests   what commands ask of the background
//! dump         all items, for a client                events     what watchers are told of
//! resync       what a consumer of the journal is sent sources    what other servers send here
//! role         who feeds it, and who may write        lock_time  how long locks are held
//! handle       the store's shards and the ways to a lock  locked  what commands call under it
//! pin, upload  values used outside the lock
//! shard/       one structure behind one lock: items, table, LRUs, eviction, journalling
//! memory/      address ranges, slab pages and classes, layout and sizes of what lies there
//! ```
//!
//! Invariants: no code holds two shard locks; an [`ItemId`] is valid only while the lock is held under
//! which it was got, unless it is pinned ([`Pinned`], [`Upload`]).
//!
//! Not here: sockets, protocol text, options. What a verb means is in `command`.

mod admin;
mod background;
mod config;
mod dump;
mod events;
mod handle;
mod kinds;
mod lock_time;
mod locked;
mod memory;
mod pin;
mod requests;
mod resync;
mod role;
mod shard;
mod sources;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

pub use background::Background;
pub use config::{Accounting, StoreConfig, Tuning};
pub use dump::Dump;
pub use events::{Event, EventMask};
pub use handle::{AHEAD_MAX, Store};
pub use kinds::{AllocError, ClassSet, Hash, ItemId, ItemSpec, KeyRanges, Miss, Part, Reassign};
pub use lock_time::{By, Holds};
pub use locked::Locked;
pub use pin::Pinned;
pub use resync::{Subscription, Update};
pub use role::{ChangeSource, Duty, Relation, Role, SourceError, Upstream};
pub use shard::item::Item;
pub use stats::{ClassCounters, ClassStats, StoreStats};
pub use upload::Upload;

use crate::clock::Clock;
use crate::journal::Journal;
use crate::journal::acks::LastLsn;
use crate::journal::flush::Flush;
use events::Events;
use handle::ShardCell;
use memory::arena;
use memory::classes::Classes;
use memory::pool::PagePool;
use memory::sizing::Sizing;
use shard::table::Table;
use shard::{Core, Shard};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

/// Most shards there may be: a window of address range each.
const SHARDS_MAX: usize = 1024;

/// Below this much memory each, more shards cost more (a page per class each) than they save.
const SHARD_MIN_BYTES: u64 = 256 << 20;

/// Half of what a shard's ids reach, so that an uneven spread does no harm.
const SHARD_MAX_BYTES: u64 = 16 << 30;

/// Buckets of an empty store: 512 KiB, as memcached's table.
const BUCKETS: usize = 1 << 13;

/// log2 of the 8-byte buckets of memcached that one of ours stands for.
const BUCKET_POWER: u32 = 3;

impl Store {
    /// Builds an empty store. The error is one line for the operator.
    pub fn new(config: StoreConfig, clock: Arc<Clock>) -> Result<Arc<Store>, String> {
        config.validate()?;
        let shards = shard_count(&config);
        let mut tuning = config.tuning.clone();
        tuning.segmented &= config.maintainer;
        let ranges = KeyRanges::new(shards, first_buckets(&config, shards));
        let journal = Journal::new(clock.clone(), config.journal_bytes, ranges.count());
        let core = Arc::new(Core {
            clock,
            journal,
            ranges,
            role: Role::default(),
            sizing: Sizing::new(&config),
            classes: Classes::new(&config, shards),
            pool: PagePool::new(config.page_size, config.memory_limit),
            flush: Flush::default(),
            events: Events::default(),
            cas: AtomicU64::new(1),
            lent: AtomicU64::new(0),
            dumps: AtomicU64::new(0),
            hash_seed: RandomState::new().hash_one(0),
            config,
        });
        let slots = reserve_slots(&core, &tuning, shards);
        Ok(Arc::new(Store {
            slots: slots.map_err(|error| format!("cannot reserve memory for items: {error}"))?,
            shard_bits: shards.ilog2(),
            tuning: Mutex::new(tuning),
            crawler: AtomicBool::new(core.config.crawler),
            background: requests::BackgroundRequests::default(),
            holds: Holds::default(),
            core,
        }))
    }

    /// Locks the shard of `hash`.
    #[inline]
    pub fn lock(self: &Arc<Store>, hash: Hash) -> Locked<'_> {
        Locked::new(self, self.shard_of(hash), None, None)
    }

    /// As [`Store::lock`], for a change that `source` has sent, if there is one; and for who wants to know the last
    /// change that is journalled meanwhile.
    #[inline]
    pub fn lock_for<'a>(
        self: &'a Arc<Store>,
        hash: Hash,
        last_lsn: &'a LastLsn,
        source: Option<&Arc<ChangeSource>>,
    ) -> Locked<'a> {
        Locked::new(self, self.shard_of(hash), Some(last_lsn), source)
    }

    /// Makes room for a value that arrives in pieces. `TooLarge` and a first `NoMemory` show here.
    /// At most half of the memory limit is lent to uploads at a time; beyond that it is `NoMemory`.
    pub fn upload(self: &Arc<Store>, hash: Hash, spec: &ItemSpec<'_>, value_len: usize) -> Result<Upload, AllocError> {
        Upload::new(self, self.shard_of(hash), spec, value_len)
    }

    /// Whether an item of this shape is above `-I`. Pure arithmetic, no lock.
    pub fn is_too_large(&self, key_len: usize, client_flags: u32, value_len: usize) -> bool {
        self.core.sizing.total(key_len, client_flags != 0, value_len) > self.core.sizing.item_max
    }
}

/// Least address space of a shard, as a multiple of its share of the memory limit: shards fill unevenly, and
/// the limit may be raised.
const WINDOW_SLACK: usize = 2;

/// Bytes of items per bucket of the largest table: [`table::LOAD`] items of the smallest size, and some reserve.
const WINDOW_PER_BUCKET: usize = 256;

/// Reserves as much address space as ids reach, which costs nothing; or less where its amount is limited
/// (`ulimit -v`, valgrind), down to what the memory limit needs.
fn reserve_slots(core: &Arc<Core>, tuning: &Tuning, shards: usize) -> std::io::Result<Box<[ShardCell]>> {
    let needed = WINDOW_SLACK * (core.config.memory_limit as usize / shards + core.config.page_size);
    // miri has no address space to waste.
    let mut window = if cfg!(miri) { needed } else { arena::WINDOW_MAX };
    loop {
        let slots: std::io::Result<_> = (0..shards).map(|_| ShardCell::new(core, tuning, shards, window)).collect();
        if slots.is_ok() || window / 2 < needed {
            return slots;
        }
        window /= 2;
    }
}

impl ShardCell {
    fn new(core: &Arc<Core>, tuning: &Tuning, shards: usize, window: usize) -> std::io::Result<ShardCell> {
        let config = &core.config;
        let table = Table::new(first_buckets(config, shards), config.hash_expand, window / WINDOW_PER_BUCKET)?;
        let (prefetcher, buckets) = (table.prefetcher(), AtomicUsize::new(table.buckets()));
        let mut shard = Shard::new(core.clone(), tuning.clone(), window, table)?;
        // A random get of 4 million items takes 0.5 us instead of 0.75. A small cache would rather stay small.
        if config.preallocate || config.memory_limit / shards as u64 >= SHARD_MIN_BYTES {
            shard.window.prefer_huge_pages();
            shard.table.prefer_huge_pages();
        }
        if config.preallocate && !shard.preallocate(config.memory_limit / shards as u64) {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        Ok(ShardCell { shard: Mutex::new(shard), prefetcher, buckets })
    }
}

/// Buckets of a shard's empty table.
fn first_buckets(config: &StoreConfig, shards: usize) -> usize {
    let buckets = config.hash_power.map_or(BUCKETS, |power| 1 << u32::from(power).saturating_sub(BUCKET_POWER));
    (buckets / shards).max(1)
}

/// A power of two: few for a small cache, enough for the threads, as many as ids need.
fn shard_count(config: &StoreConfig) -> usize {
    let limit = config.memory_limit;
    let worthwhile = 1 << (limit / SHARD_MIN_BYTES).max(1).ilog2();
    let useful = (config.threads.clamp(1, SHARDS_MAX) * 4).next_power_of_two();
    let needed = (limit.div_ceil(SHARD_MAX_BYTES) as usize).max(1).next_power_of_two();
    let count = config.shards.map_or(useful.min(worthwhile), |shards| shards.clamp(1, SHARDS_MAX).next_power_of_two());
    count.max(needed).min(SHARDS_MAX)
}
