//! The store: items by key, within a memory limit.
//!
//! ```text
//! Store ── shard 0 ── ShardCell: Mutex<Shard> { table, slab classes and pages, LRUs, class counters }
//!      ├── shard 1 …                       a shard's code is single-threaded
//!      └── core    what all shards share: page pool, cas counter, flush_all, events, classes
//!
//! admin        flush_all, limits, statistics          kinds, config, stats   small types, settings, numbers
//! background/  threads: LRUs, crawler, page mover     requests   what commands ask of the background
//! dump, cold   items, for a client to see              events     what watchers are told of
//! resync       what a consumer of the journal is sent sources    what other servers send here
//! role         who may write, read and be answered    lock_time  how long shards are locked
//! duties       taking a role
//! pin, upload  values used outside the lock            join, copy_line   appends to large ones
//! memory_file  a file that outlives the process           restart    the store out of it
//! shard/       one structure behind one lock: items, table, LRUs, eviction, journalling
//! memory/      address ranges, slab pages and classes, layout and sizes of what lies there
//! ```
//!
//! Invariants: no thread locks two shards at a time. An [`ItemId`] is valid only until the shard that gave it is
//! unlocked, unless the item is pinned ([`Pinned`], [`Upload`]).
//!
//! Not here: sockets, protocol text, options. What a verb means is in `command`.

mod admin;
mod background;
mod cold;
mod config;
mod copied;
mod copy_line;
mod dump;
mod duties;
mod events;
mod file_record;
mod join;
mod kinds;
mod lent;
mod lock_time;
mod memory;
mod memory_file;
mod pin;
mod refusals;
mod requests;
mod restart;
mod resync;
mod role;
mod shard;
mod slots;
mod sources;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

pub use background::{Background, BackgroundWorker};
pub use cold::ColdWalk;
pub use config::{Accounting, AutomoveWeight, LruPolicy, StoreConfig, Tuning};
pub use copied::{Copied, CopyState, CopyStatus, SyncProgress};
pub use copy_line::CopyPlace;
pub use dump::Dump;
pub use duties::RoleView;
pub use events::{Event, EventMask};
pub use join::{Join, JoinPins};
pub use kinds::{AllocError, ClassSet, Hash, ItemId, ItemSpec, KeyRanges, Miss, Part, Reassign};
pub use lock_time::{Holder, LockTimes};
pub use memory_file::MemoryFile;
pub use pin::Pinned;
pub use refusals::{EPOCH_MAX, KeyError, RoleError, SourceError};
pub use resync::{Subscription, Update};
pub use role::{ChangeSource, Duty, Relation, Role, RoleOrder, Upstream};
pub use shard::item::Item;
pub use shard::locked::Locked;
pub use stats::{ClassCounters, ClassStats, StoreStats};
pub use upload::{ROOMS_MAX, Upload};

use crate::clock::Clock;
use crate::journal::Journal;
use crate::journal::acks::LastLsn;
use crate::journal::flush::Flush;
use crate::sys::cpu::time_since_boot;
use events::Events;
use lent::Loans;
use lock_time::TimedShard;
use memory::arena::{self, FilePart, Window};
use memory::classes::Classes;
use memory::pool::PagePool;
use memory::sizing::Sizing;
use requests::BackgroundRequests;
use shard::locked::{ShardCell, Shards};
use shard::recent::RecentChanges;
use shard::table::Table;
use shard::{Core, Shard};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The most shards; each takes a window of address range.
const SHARDS_MAX: usize = 1024;

/// The least memory of a shard. Each shard takes a page for each class, and with less memory that costs more than
/// another lock saves.
const SHARD_MIN_BYTES: u64 = 256 << 20;

/// The most memory of a shard: half of what its ids reach, so that shards may fill unevenly.
const SHARD_MAX_BYTES: u64 = 16 << 30;

/// Buckets of an empty store: 512 KiB, as memcached's table.
const BUCKETS: usize = 1 << 13;

/// flush_all itself unlinks items of the last second in a shard that has at most its share of so many, so that a small
/// cache that was just filled is seen to be empty at once.
const FLUSH_AT_ONCE: usize = 4096;

/// Uploads that lose their memory at a time, when a store was refused.
const REVOKED_AT_ONCE: usize = 4;

/// Milliseconds after a refusal in which memory is short.
const STARVED_MS: u64 = 3000;

/// log2 of how many of memcached's 8-byte buckets count as one of ours.
const BUCKET_POWER: u32 = 3;

/// The handle by which everything outside of the store uses it.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    shards: Shards,
    /// log2 of the number of shards.
    shard_bits: u32,
    tuning: Mutex<Tuning>,
    crawler: AtomicBool,
    lock_times: LockTimes,
}

/// Keys that are looked for together by [`Store::prefetch_items`].
pub const AHEAD_MAX: usize = 16;

impl Store {
    /// Builds an empty store. The error is one line for the operator.
    pub fn new(config: StoreConfig, clock: Arc<Clock>) -> Result<Arc<Store>, String> {
        assert!(config.memory_file.is_none(), "its file was not opened");
        Store::build(config, clock, None)
    }

    fn build(config: StoreConfig, clock: Arc<Clock>, file: Option<MemoryFile>) -> Result<Arc<Store>, String> {
        let config = config.fitted();
        config.validate()?;
        let record = file.as_ref().map(MemoryFile::record);
        let shards = record.as_ref().map_or_else(|| shard_count(&config), |record| record.shards);
        let mut tuning = config.tuning.clone();
        tuning.segmented &= config.maintainer;
        let ranges = KeyRanges::new(shards, first_buckets(&config, shards));
        let journal = Journal::new(clock.clone(), config.journal_bytes, ranges.count());
        let core = Arc::new(Core {
            clock,
            journal,
            ranges,
            requests: BackgroundRequests::default(),
            role: Role::new(config.managed),
            copied: Copied::default(),
            recent: config.linearizable.then(RecentChanges::new),
            sizing: Sizing::new(&config),
            classes: Classes::new(&config, shards),
            pool: PagePool::new(config.page_size, config.memory_limit),
            flush: Flush::default(),
            events: Events::default(),
            cas: AtomicU64::new(1),
            copy_line: Arc::default(),
            lent: AtomicU64::new(0),
            floating: AtomicU64::new(0),
            loans: Loans::default(),
            refused_at: AtomicU64::new(0),
            dumps: Mutex::default(),
            hash_seed: record.as_ref().map_or_else(|| RandomState::new().hash_one(0), |record| record.hash_seed),
            shard_bits: shards.ilog2(),
            memory_file: file,
            config,
        });
        let reserved = match record {
            Some(record) => cells(&core, &tuning, shards, record.window),
            None => reserve(&core, &tuning, shards),
        };
        let cells = reserved.map_err(|error| format!("cannot reserve memory for items: {error}"))?;
        if core.config.preallocate {
            let share = core.config.memory_limit / shards as u64;
            (0..shards).for_each(|number| Locked::new(&cells, number).preallocate(share));
        }
        Ok(Arc::new(Store {
            shards: cells,
            shard_bits: shards.ilog2(),
            tuning: Mutex::new(tuning),
            crawler: AtomicBool::new(core.config.crawler),
            lock_times: LockTimes::default(),
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
        self.shards[self.shard_of(hash)].prefetch(hash);
    }

    /// Hints the CPU to fetch the items of up to [`AHEAD_MAX`] keys. Call it a little after [`Store::prefetch`], which
    /// fetches their buckets.
    pub fn prefetch_items(&self, keys: &[(Hash, bool)]) {
        self.candidates(keys, (1 << keys.len()) - 1, |shard, id| shard.prefetch(id));
    }

    /// Hints the CPU to fetch what else the sets among these keys may touch; those are marked. Call it a little after
    /// [`Store::prefetch_items`].
    pub fn prefetch_around(&self, keys: &[(Hash, bool)]) {
        let marked = keys.iter().rev().fold(0, |bits, &(_, marked)| bits << 1 | u32::from(marked));
        self.candidates(keys, marked, |shard, id| shard.prefetch_around(id));
    }

    /// Calls `each` with the items that [`Table::find`] would look at for those keys whose bits are in `left`. Skips
    /// shards that another thread has locked. Locks each shard once.
    #[inline]
    fn candidates(&self, keys: &[(Hash, bool)], mut left: u32, each: impl Fn(&Shard, ItemId)) {
        assert!(keys.len() <= AHEAD_MAX, "too many keys at once");
        while left != 0 {
            let index = self.shard_of(keys[left.trailing_zeros() as usize].0);
            let shard = self.shards[index].try_lock();
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
    pub fn lock(&self, hash: Hash) -> Locked<'_> {
        Locked::new(&self.shards, self.shard_of(hash))
    }

    /// As [`Store::lock`], for a change that `source` has sent, or a client if there is none. The last change that is
    /// journalled under the lock is written to `last_lsn`.
    #[inline(always)]
    pub fn lock_for<'a>(&'a self, hash: Hash, last_lsn: &'a LastLsn, source: Option<&Arc<ChangeSource>>) -> Locked<'a> {
        let locked = Locked::for_request(&self.shards, (self.shard_of(hash), hash), last_lsn, source);
        if let Some(recent) = &self.core.recent {
            see_recent(recent, hash, last_lsn);
        }
        locked
    }

    /// Makes room for a value that arrives in pieces. This may fail with `TooLarge` or `NoMemory`. Uploads take at most
    /// half of the memory limit at a time, or less where classes are many; beyond that the error is `NoMemory`.
    pub fn upload(&self, hash: Hash, spec: &ItemSpec<'_>, value_len: usize) -> Result<Upload, AllocError> {
        Upload::new(&self.shards, self.shard_of(hash), spec, value_len)
    }

    /// Whether the memory for such a value is about to be got ahead of need, and is not there yet: who waits a little for
    /// that is not stopped while the system clears it.
    pub fn must_wait_for(&self, hash: Hash, spec: &ItemSpec<'_>, value_len: usize) -> bool {
        Upload::must_wait_for(&self.shards, self.shard_of(hash), spec, value_len)
    }

    /// A place in the line of those who copy large values for appends.
    pub fn copy_place(&self) -> CopyPlace {
        CopyPlace::new(&self.core.copy_line)
    }

    /// Another number when who waits for that may look again.
    pub fn memory_looks(&self) -> u64 {
        self.core.requests.looks()
    }

    /// Notes that a store was refused for want of memory, and takes some from uploads that stand still.
    #[cold]
    pub fn note_refusal(&self) {
        self.core.refused_at.store(time_since_boot().as_millis() as u64, Ordering::Relaxed);
        (0..REVOKED_AT_ONCE).all(|_| upload::revoke_silent(&self.shards, &self.core));
    }

    /// Whether a store was refused in the last seconds: who stands still is to let go of what others need.
    pub fn is_starved(&self) -> bool {
        let at = self.core.refused_at.load(Ordering::Relaxed);
        at != 0 && time_since_boot().as_millis() as u64 <= at + STARVED_MS
    }

    /// The shard of a hash.
    #[inline]
    fn shard_of(&self, hash: Hash) -> usize {
        (hash.0 >> 32 >> (32 - self.shard_bits)) as usize
    }

    /// Locks a shard by its number.
    fn lock_number(&self, number: usize) -> Locked<'_> {
        Locked::new(&self.shards, number)
    }

    /// Locks every shard, one after the other.
    fn lock_each(&self) -> impl Iterator<Item = Locked<'_>> {
        (0..self.shards.len()).map(|number| self.lock_number(number))
    }

    /// Locks a shard, and notes for how long.
    fn lock_timed(&self, number: usize, holder: Holder) -> TimedShard<'_> {
        TimedShard::new(&self.shards, number, &self.lock_times, holder)
    }

    /// Locks every shard, one after the other, and notes for how long.
    fn lock_each_timed(&self, holder: Holder) -> impl Iterator<Item = TimedShard<'_>> {
        (0..self.shards.len()).map(move |number| self.lock_timed(number, holder))
    }

    /// Unlinks the dead items of small shards.
    fn unlink_dead(&self) {
        self.lock_each_timed(Holder::Walk).for_each(|mut shard| shard.unlink_dead(FLUSH_AT_ONCE >> self.shard_bits));
    }
}

/// The least address space of a shard, as a multiple of its share of the memory limit. It is more than one because
/// shards fill unevenly, and the limit may be raised.
const WINDOW_SLACK: usize = 2;

/// Bytes of items per bucket of the largest table: `table::LOAD` items of the smallest size, and some reserve.
const WINDOW_PER_BUCKET: usize = 256;

/// Reserves as much address space as ids reach, which costs nothing. Where address space is limited (`ulimit -v`,
/// valgrind) it reserves less, down to what the memory limit needs.
fn reserve(core: &Arc<Core>, tuning: &Tuning, shards: usize) -> std::io::Result<Shards> {
    let needed = WINDOW_SLACK * (core.config.memory_limit as usize / shards + core.config.page_size);
    // miri has no address space to waste.
    let mut window = if cfg!(miri) { needed } else { arena::WINDOW_MAX };
    loop {
        let cells = cells(core, tuning, shards, window);
        if cells.is_ok() || window / 2 < needed {
            return cells;
        }
        window /= 2;
    }
}

fn cells(core: &Arc<Core>, tuning: &Tuning, shards: usize, window: usize) -> std::io::Result<Shards> {
    (0..shards).map(|number| Ok(ShardCell::new(make_shard(core, number, tuning, shards, window)?))).collect()
}

fn make_shard(
    core: &Arc<Core>,
    number: usize,
    tuning: &Tuning,
    shards: usize,
    window: usize,
) -> std::io::Result<Shard> {
    let config = &core.config;
    let most = window / WINDOW_PER_BUCKET;
    // As large as it was, or is to be: what grows while it is filled costs every set something.
    let before = core.memory_file.as_ref().map_or(0, |file| file.record().buckets);
    let needed = (config.memory_limit / shards as u64) as usize / WINDOW_PER_BUCKET;
    let before = (before / shards + usize::from(number < before % shards)).min(most).min(needed);
    let first = first_buckets(config, shards);
    let table = Table::new(first.max(before), config.hash_expand, most);
    // There may be less memory than there was.
    let table = table.or_else(|_| Table::new(first, config.hash_expand, most))?;
    let part = core.memory_file.as_ref().map(|file| file.window(number)).map(|(file, at)| FilePart { file, at });
    let mut window = Window::new(window, part, config.cas_enabled)?;
    if window.is_in_file() && !window.extend(config.page_size) {
        return Err(std::io::Error::other("no room in the memory file"));
    }
    let mut shard = Shard::new(core.clone(), number, tuning.clone(), window, table);
    // With huge pages a random get of 4 million items takes 0.5 us and not 0.75. A small cache would rather stay small.
    if config.preallocate || config.memory_limit / shards as u64 >= SHARD_MIN_BYTES {
        shard.window.prefer_huge_pages();
        shard.table.prefer_huge_pages();
    }
    if config.preallocate && !shard.extend(config.memory_limit / shards as u64) {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    }
    Ok(shard)
}

/// Buckets of a shard's empty table.
fn first_buckets(config: &StoreConfig, shards: usize) -> usize {
    let buckets = config.hash_power.map_or(BUCKETS, |power| 1 << u32::from(power).saturating_sub(BUCKET_POWER));
    (buckets / shards).max(1)
}

/// memcached's power for a table of so many buckets: it doubles at 1.5 items for each of its 2^power.
fn hash_power(buckets: usize) -> u32 {
    (buckets * shard::table::LOAD * 2).div_ceil(3).next_power_of_two().ilog2()
}

/// The number of shards, a power of two: few for a small cache, enough for the threads, and as many as ids need.
fn shard_count(config: &StoreConfig) -> usize {
    let limit = config.memory_limit;
    let worthwhile = 1 << (limit / SHARD_MIN_BYTES).max(1).ilog2();
    let useful = (config.threads.clamp(1, SHARDS_MAX) * 4).next_power_of_two();
    let needed = (limit.div_ceil(SHARD_MAX_BYTES) as usize).max(1).next_power_of_two();
    let count = config.shards.map_or(useful.min(worthwhile), |shards| shards.clamp(1, SHARDS_MAX).next_power_of_two());
    count.max(needed).min(SHARDS_MAX)
}

// Out of line: few servers are linearizable, and the others have this question only.
#[inline(never)]
fn see_recent(recent: &RecentChanges, hash: Hash, last_lsn: &LastLsn) {
    last_lsn.see(recent.last(hash));
}
