//! The store: items by key, within a memory limit.
//!
//! ```text
//! Store ── shard 0 ── Mutex<Shard> { table, slab classes and pages, LRUs, class counters }
//!      ├── shard 1 …                       a shard's code is single-threaded
//!      └── core    what all share: page pool, cas counter, flush_all, events, classes
//!
//! mod.rs    what the outside sees        entry.rs  a locked shard, what commands call
//! admin.rs  flush, statistics            lend.rs   values used outside the lock
//! shard.rs  making, linking, unlinking   lru.rs    lists, bumps, eviction
//! slab.rs   classes, pages, chunks       table.rs  hash table
//! item.rs   layout and sizes             arena.rs  address ranges; all unsafe code
//! flush.rs  what flush_all has taken     check.rs  everything against everything
//! hold.rs   how long locks are held      safety.rs which changes replicas have
//! ahead.rs  memory before it is needed   dump.rs   all items, for a client
//! journal.rs  every change, in order     walk.rs  what its readers are sent
//! background.rs  the threads behind it   maintainer.rs, crawler.rs, mover.rs  what it does
//! ```
//!
//! Invariants: no code holds two shard locks; an [`ItemId`] is valid only while the lock is held under
//! which it was got, unless it is pinned ([`Pinned`], [`Upload`]).
//!
//! Not here: sockets, protocol text, options. What a verb means is in `command`.

mod admin;
mod background;
mod dump;
mod events;
mod lock_time;
mod memory;
mod pin;
mod resync;
mod shard;
#[cfg(test)]
pub(crate) mod tests;

pub use background::Background;
pub use dump::Dump;
pub use events::{Event, EventMask};
pub use lock_time::{By, Holds};
pub use pin::{Pinned, Upload};
pub use resync::{Feed, Step};
pub use shard::item::Item;
pub use shard::locked::Locked;

use crate::clock::Clock;
use crate::journal::Journal;
use crate::journal::acks::{LastLsn, Safety};
use crate::journal::flush::Flush;
use events::Events;
use memory::arena::{self, Prefetcher};
use memory::slab::{Classes, PagePool};
use shard::item::Sizing;
use shard::table::{self, Table};
use shard::{Core, Shard};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

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

/// The hash of a key: picks the shard, the bucket and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

/// Names an item of one shard, while that shard is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemId(pub(crate) u32);

/// How item sizes and class boundaries are reckoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accounting {
    /// By what the item really takes here.
    #[default]
    Native,
    /// By memcached's sizes, for operators who sized classes by hand.
    Memcached,
}

/// What a store is built with.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `-m`, in bytes.
    pub memory_limit: u64,
    /// Bytes of a slab page; 1 MiB but in tests.
    pub page_size: usize,
    /// `-I`.
    pub item_size_max: usize,
    /// `-n`.
    pub chunk_size: usize,
    /// `-f`; None: not given, the store's own steps under native accounting, else 1.25.
    pub growth_factor: Option<f64>,
    /// `-o slab_sizes`.
    pub slab_sizes: Vec<usize>,
    /// `-o slab_chunk_max`, bytes.
    pub slab_chunk_max: usize,
    /// `-o slab_accounting`.
    pub accounting: Accounting,
    /// `-C` turns it off.
    pub cas_enabled: bool,
    /// `-M` turns it off.
    pub evict: bool,
    /// `-L`: take and touch all memory at start; the limit is then fixed.
    pub preallocate: bool,
    /// How many shards; None: by memory and threads.
    pub shards: Option<usize>,
    /// Worker threads, for the number of shards.
    pub threads: usize,
    /// `-o hashpower`.
    pub hash_power: Option<u8>,
    /// `-o no_hashexpand` turns it off.
    pub hash_expand: bool,
    /// `-o no_lru_maintainer` turns it off; without it the LRU is flat and nothing runs in the background.
    pub maintainer: bool,
    /// `-o no_lru_crawler` turns it off at start.
    pub crawler: bool,
    /// `-o no_slab_reassign` turns it off.
    pub slab_reassign: bool,
    /// `-o track_sizes`.
    pub track_sizes: bool,
    /// Bytes of the journal, which takes them when it is first read.
    pub journal_bytes: usize,
    /// `-o tail_repair_time`; accepted for `stats settings`, no reference can leak here.
    pub tail_repair_time: u32,
    /// What can change at run time.
    pub tuning: Tuning,
}

/// The store's settings that commands change at run time. Read as a whole, replaced as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// LRU in HOT, WARM and COLD; flat when false.
    pub segmented: bool,
    /// Largest share of HOT, percent.
    pub hot_pct: u32,
    /// Largest share of WARM, percent.
    pub warm_pct: u32,
    /// HOT items idle for longer than this times the age of COLD's tail go to COLD.
    pub hot_max_factor: f64,
    /// The same for WARM.
    pub warm_max_factor: f64,
    /// Items with a TTL up to this go to TEMP.
    pub temporary_ttl: Option<u32>,
    /// Page mover: 0 off, 1 gentle, 2 also on every eviction.
    pub automove: u8,
    /// Youngest class must be younger than the oldest times this.
    pub automove_ratio: f64,
    /// Seconds of history it looks at.
    pub automove_window: u32,
    /// Share of free memory it aims at (only for `stats settings` without extstore).
    pub automove_freeratio: f64,
    /// Microseconds between crawler slices.
    pub crawler_sleep_us: u32,
    /// Items per LRU a crawl looks at, 0 all.
    pub crawler_tocrawl: u32,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            segmented: true,
            hot_pct: 20,
            warm_pct: 40,
            hot_max_factor: 0.2,
            warm_max_factor: 2.0,
            temporary_ttl: None,
            automove: 1,
            automove_ratio: 0.8,
            automove_window: 10,
            automove_freeratio: 0.01,
            crawler_sleep_us: 100,
            crawler_tocrawl: 0,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            memory_limit: 64 << 20,
            page_size: 1 << 20,
            item_size_max: 1 << 20,
            chunk_size: 48,
            growth_factor: None,
            slab_sizes: Vec::new(),
            slab_chunk_max: 512 << 10,
            accounting: Accounting::Native,
            cas_enabled: true,
            evict: true,
            preallocate: false,
            shards: None,
            threads: 4,
            hash_power: None,
            hash_expand: true,
            maintainer: true,
            crawler: true,
            slab_reassign: true,
            track_sizes: false,
            journal_bytes: 64 << 20,
            tail_repair_time: 0,
            tuning: Tuning::default(),
        }
    }
}

/// Why a lookup found nothing. An expired or flushed item is reclaimed by the lookup that meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No such key.
    NotFound,
    /// Its time had come.
    Expired,
    /// flush_all had taken it.
    Flushed,
}

/// Why an item could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// Its size is above `-I`.
    TooLarge,
    /// No free chunk, and nothing may be evicted.
    NoMemory,
}

/// What a new item is made from.
#[derive(Clone, Copy, Debug)]
pub struct ItemSpec<'a> {
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// The key came base64-encoded.
    pub key_is_binary: bool,
    /// Opaque to the server.
    pub client_flags: u32,
    /// As [`Clock::expires_at`] gives it.
    pub expires_at: u32,
}

/// A piece of a new item's value.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes from outside.
    Bytes(&'a [u8]),
    /// The value of an item of the same shard. It is kept from eviction while the new item is made.
    Value(ItemId),
}

/// The per-class counters that commands count under the shard's lock, for `stats slabs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassCounter {
    /// get: found.
    GetHits,
    /// A store's item was allocated.
    SetCmds,
    /// touch, gat: found.
    TouchHits,
    /// delete: found.
    DeleteHits,
    /// incr: found.
    IncrHits,
    /// decr: found.
    DecrHits,
    /// cas: stored.
    CasHits,
    /// cas: another value was there.
    CasBadval,
}

/// The handle that everything outside holds.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    slots: Box<[Slot]>,
    /// log2 of their number.
    shard_bits: u32,
    tuning: Mutex<Tuning>,
    crawler: AtomicBool,
    background: background::State,
    holds: Holds,
}

/// One shard and what can be read without its lock.
#[derive(Debug)]
#[repr(align(128))]
struct Slot {
    shard: Mutex<Shard>,
    prefetcher: Prefetcher,
    /// Buckets of the table, perhaps a little late.
    buckets: AtomicUsize,
}

/// Keys that are looked for together by [`Store::prefetch_items`].
pub const AHEAD_MAX: usize = 16;

impl Store {
    /// Builds an empty store. The error is one line for the operator.
    pub fn new(config: StoreConfig, clock: Arc<Clock>) -> Result<Arc<Store>, String> {
        validate(&config)?;
        let shards = shard_count(&config);
        let mut tuning = config.tuning.clone();
        tuning.segmented &= config.maintainer;
        let journal = Journal::new(clock.clone(), config.journal_bytes, shards, first_buckets(&config, shards));
        let core = Arc::new(Core {
            clock,
            journal,
            follows: AtomicBool::new(false),
            sizing: Sizing::new(&config),
            classes: Classes::new(&config, shards),
            pool: PagePool::new(config.page_size, config.memory_limit),
            flush: Flush::default(),
            events: Events::default(),
            safety: Safety::default(),
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
            background: background::State::default(),
            holds: Holds::default(),
            core,
        }))
    }

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

    /// Locks the shard of `hash`.
    #[inline]
    pub fn lock(self: &Arc<Store>, hash: Hash) -> Locked<'_> {
        Locked::new(self, self.shard_of(hash), None)
    }

    /// As [`Store::lock`], for who wants to know the last change that is journalled meanwhile.
    #[inline]
    pub fn lock_for<'a>(self: &'a Arc<Store>, hash: Hash, last_lsn: &'a LastLsn) -> Locked<'a> {
        Locked::new(self, self.shard_of(hash), Some(last_lsn))
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

    /// Which changes are safe to tell clients of.
    #[inline]
    pub fn safety(&self) -> &Safety {
        &self.core.safety
    }

    /// The shard of a hash.
    #[inline]
    fn shard_of(&self, hash: Hash) -> usize {
        (hash.0 >> 32 >> (32 - self.shard_bits)) as usize
    }

    /// Locks a shard by its number.
    #[inline]
    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.slots[index].shard.lock().expect("a shard that panicked is not used any more")
    }

    /// Locks every shard, one after the other.
    fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        (0..self.slots.len()).map(|index| self.shard(index))
    }
}

/// Least address space of a shard, as a multiple of its share of the memory limit: shards fill unevenly, and
/// the limit may be raised.
const WINDOW_SLACK: usize = 2;

/// Bytes of items per bucket of the largest table: [`table::LOAD`] items of the smallest size, and some reserve.
const WINDOW_PER_BUCKET: usize = 256;

/// Reserves as much address space as ids reach, which costs nothing; or less where its amount is limited
/// (`ulimit -v`, valgrind), down to what the memory limit needs.
fn reserve_slots(core: &Arc<Core>, tuning: &Tuning, shards: usize) -> std::io::Result<Box<[Slot]>> {
    let needed = WINDOW_SLACK * (core.config.memory_limit as usize / shards + core.config.page_size);
    // miri has no address space to waste.
    let mut window = if cfg!(miri) { needed } else { arena::WINDOW_MAX };
    loop {
        let slots: std::io::Result<_> = (0..shards).map(|_| Slot::new(core, tuning, shards, window)).collect();
        if slots.is_ok() || window / 2 < needed {
            return slots;
        }
        window /= 2;
    }
}

impl Slot {
    fn new(core: &Arc<Core>, tuning: &Tuning, shards: usize, window: usize) -> std::io::Result<Slot> {
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
        Ok(Slot { shard: Mutex::new(shard), prefetcher, buckets })
    }
}

/// Buckets of a shard's empty table.
fn first_buckets(config: &StoreConfig, shards: usize) -> usize {
    let buckets = config.hash_power.map_or(BUCKETS, |power| 1 << u32::from(power).saturating_sub(BUCKET_POWER));
    (buckets / shards).max(1)
}

fn validate(config: &StoreConfig) -> Result<(), String> {
    let chunk_max = config.slab_chunk_max;
    let problem = if !config.page_size.is_power_of_two() || config.page_size < 1024 {
        "the page size is not a power of two of at least 1024"
    } else if chunk_max > config.page_size || chunk_max < 512 || !chunk_max.is_multiple_of(8) {
        "slab_chunk_max is not a multiple of 8 between 512 and the page size"
    } else if config.item_size_max > 1 << 30 {
        "item_size_max is above 1 GiB"
    } else if config.growth_factor.is_some_and(|factor| factor.is_nan() || factor <= 1.0) {
        "the growth factor is not above 1"
    } else if config.slab_sizes.iter().any(|&size| size > chunk_max) || !config.slab_sizes.is_sorted() {
        "slab_sizes do not ascend up to slab_chunk_max"
    } else if config.chunk_size == 0 || config.chunk_size > chunk_max {
        "the chunk size is 0 or above slab_chunk_max"
    } else {
        return Ok(());
    };
    Err(problem.into())
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

/// An answer of [`Store::reassign`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassign {
    /// Queued.
    Ok,
    /// Source and destination are one class.
    Same,
    /// No such class.
    BadClass,
    /// The source has fewer than two pages.
    NoSpare,
    /// A page is on the move already.
    Busy,
}

/// An answer of [`Store::crawl`] and [`Store::dump`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crawl {
    /// Started.
    Ok,
    /// Another runs.
    Busy,
    /// Nothing to look at.
    NotStarted,
}

/// A set of slab classes, bit i for class i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSet(pub u64);

impl ClassSet {
    /// All that items can have.
    pub const ALL: ClassSet = ClassSet(!1);
}

/// Store-wide numbers for `stats`, all shards together. Counters are since the last reset.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStats {
    pub memory_limit: u64,
    pub bytes: u64,
    pub curr_items: u64,
    pub total_items: u64,
    pub hash_power_level: u32,
    pub hash_bytes: u64,
    pub hash_is_expanding: bool,
    pub slab_global_page_pool: u64,
    pub total_malloced: u64,
    pub malloc_fails: u64,
    pub slab_reassign_rescues: u64,
    pub slab_reassign_chunk_rescues: u64,
    pub slab_reassign_inline_reclaim: u64,
    pub slab_reassign_busy_items: u64,
    pub slab_reassign_busy_deletes: u64,
    pub slab_reassign_busy_nomem: u64,
    pub slab_reassign_last_busy_status: &'static str,
    pub slab_reassign_running: bool,
    pub slabs_moved: u64,
    pub lru_crawler_running: bool,
    pub lru_crawler_starts: u64,
    pub lru_maintainer_juggles: u64,
    /// Second of the last flush_all on the store's clock, 0 none.
    pub oldest_live: u32,
}

/// Numbers of one slab class, all shards together, for `stats items` and `stats slabs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassStats {
    pub class: u8,
    pub chunk_size: u64,
    pub chunks_per_page: u64,
    pub total_pages: u64,
    pub used_chunks: u64,
    pub free_chunks: u64,
    pub number: u64,
    pub number_hot: u64,
    pub number_warm: u64,
    pub number_cold: u64,
    pub number_temp: u64,
    pub age_hot: u64,
    pub age_warm: u64,
    pub age: u64,
    pub mem_requested: u64,
    pub evicted: u64,
    pub evicted_nonzero: u64,
    pub evicted_time: u64,
    pub outofmemory: u64,
    pub tailrepairs: u64,
    pub reclaimed: u64,
    pub expired_unfetched: u64,
    pub evicted_unfetched: u64,
    pub evicted_active: u64,
    pub crawler_reclaimed: u64,
    pub crawler_items_checked: u64,
    pub lrutail_reflocked: u64,
    pub moves_to_cold: u64,
    pub moves_to_warm: u64,
    pub moves_within_lru: u64,
    pub direct_reclaims: u64,
    pub lru_bumps_dropped: u64,
    pub hits_to_hot: u64,
    pub hits_to_warm: u64,
    pub hits_to_cold: u64,
    pub hits_to_temp: u64,
    pub get_hits: u64,
    pub cmd_set: u64,
    pub delete_hits: u64,
    pub incr_hits: u64,
    pub decr_hits: u64,
    pub cas_hits: u64,
    pub cas_badval: u64,
    pub touch_hits: u64,
}
