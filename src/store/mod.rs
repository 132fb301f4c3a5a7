//! The store: items by key, within a memory limit.
//!
//! ```text
//! Store ── shard 0 ── Mutex<Shard> { table, slab classes and pages, LRUs, class counters }
//!      ├── shard 1 …                       a shard's code is single-threaded
//!      ├── arena   one reserved address range; shard i owns window i
//!      ├── pool    how many pages may still be taken, shared by all shards
//!      └── cas     the next cas unique
//! ```
//!
//! Invariants: no code holds two shard locks; an [`ItemId`] is valid only while the lock is held under
//! which it was got, unless it is pinned ([`Pinned`], [`Upload`]).
//!
//! Not here: sockets, protocol text, options. What a verb means is in `command`.

use crate::clock::Clock;
use std::io::IoSlice;
use std::sync::Arc;

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
pub struct Store {}

/// A locked shard.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Arc<Store>,
}

impl Store {
    /// Builds an empty store. The error is one line for the operator.
    pub fn new(_config: StoreConfig, _clock: Arc<Clock>) -> Result<Arc<Store>, String> {
        todo!()
    }

    /// Hashes a key, once per request.
    #[inline]
    pub fn hash(&self, _key: &[u8]) -> Hash {
        todo!()
    }

    /// Hints the CPU to fetch what a lookup of `hash` will read first. Takes no lock.
    #[inline]
    pub fn prefetch(&self, _hash: Hash) {}

    /// Locks the shard of `hash`.
    #[inline]
    pub fn lock(self: &Arc<Store>, _hash: Hash) -> Locked<'_> {
        todo!()
    }

    /// Makes room for a value that arrives in pieces. `TooLarge` and a first `NoMemory` show here.
    /// At most half of the memory limit is lent to uploads at a time; beyond that it is `NoMemory`.
    pub fn upload(
        self: &Arc<Store>,
        _hash: Hash,
        _spec: &ItemSpec<'_>,
        _value_len: usize,
    ) -> Result<Upload, AllocError> {
        todo!()
    }

    /// Whether an item of this shape is above `-I`. Pure arithmetic, no lock.
    pub fn is_too_large(&self, _key_len: usize, _client_flags: u32, _value_len: usize) -> bool {
        todo!()
    }
}

impl Locked<'_> {
    /// Finds a live item. An expired or flushed one is reclaimed on the way. Changes nothing else.
    #[inline]
    pub fn find(&mut self, _key: &[u8], _hash: Hash) -> Result<ItemId, Miss> {
        todo!()
    }

    /// The item behind an id.
    #[inline]
    pub fn item(&self, _id: ItemId) -> Item<'_> {
        todo!()
    }

    /// Notes a client's fetch: fetched, then active, as memcached's segmented LRU does.
    #[inline]
    pub fn bump(&mut self, _id: ItemId) {
        todo!()
    }

    /// Makes an item, not yet linked, whose value is `parts` in order. May evict others.
    pub fn create(&mut self, _spec: &ItemSpec<'_>, _parts: &[Part<'_>]) -> Result<ItemId, AllocError> {
        todo!()
    }

    /// Makes an unlinked item visible. `cas` None takes the next number (0 with `-C`). The key must not be
    /// in the table.
    pub fn link(&mut self, _id: ItemId, _hash: Hash, _cas: Option<u64>) {
        todo!()
    }

    /// Puts `new` in the place of `old`, which is unlinked and freed.
    pub fn replace(&mut self, _old: ItemId, _new: ItemId, _hash: Hash, _cas: Option<u64>) {
        todo!()
    }

    /// Takes an item out and frees it (once no [`Pinned`] holds it).
    pub fn unlink(&mut self, _id: ItemId, _hash: Hash) {
        todo!()
    }

    /// Frees an item that was created and not linked.
    pub fn abandon(&mut self, _id: ItemId) {
        todo!()
    }

    /// Takes over the item of a complete upload of this shard.
    pub fn finish(&mut self, _upload: Upload) -> ItemId {
        todo!()
    }

    /// The next cas unique, 0 with `-C`.
    pub fn next_cas(&mut self) -> u64 {
        todo!()
    }

    /// Sets the cas unique (0 stays with `-C`).
    pub fn set_cas(&mut self, _id: ItemId, _cas: u64) {
        todo!()
    }

    /// Sets the expiry.
    pub fn set_expires_at(&mut self, _id: ItemId, _expires_at: u32) {
        todo!()
    }

    /// Sets the last access to now.
    pub fn set_accessed(&mut self, _id: ItemId) {
        todo!()
    }

    /// Marks stale (meta `I`) or not.
    pub fn set_stale(&mut self, _id: ItemId, _stale: bool) {
        todo!()
    }

    /// Notes that a client was told to recache (meta `W`).
    pub fn set_win_sent(&mut self, _id: ItemId, _sent: bool) {
        todo!()
    }

    /// Overwrites the value with one of the same length, in place. False when somebody reads it just now
    /// or it is in chained chunks; then nothing changed.
    pub fn overwrite(&mut self, _id: ItemId, _value: &[u8]) -> bool {
        todo!()
    }

    /// Keeps the value where it is and as it is until the handle is dropped, outside the lock. None when too
    /// many hold it already: copy instead.
    pub fn pin(&mut self, _id: ItemId) -> Option<Pinned> {
        todo!()
    }

    /// Counts for `stats slabs`, under the class the item is listed in.
    #[inline]
    pub fn count(&mut self, _id: ItemId, _counter: ClassCounter) {
        todo!()
    }
}

/// A view of an item, while its shard is locked.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    _shard: std::marker::PhantomData<&'a ()>,
}

impl<'a> Item<'a> {
    /// The key, raw.
    pub fn key(&self) -> &'a [u8] {
        todo!()
    }
    /// Whether the key came base64-encoded.
    pub fn key_is_binary(&self) -> bool {
        todo!()
    }
    /// What the client stored beside the value.
    pub fn client_flags(&self) -> u32 {
        todo!()
    }
    /// The cas unique, 0 with `-C`.
    pub fn cas(&self) -> u64 {
        todo!()
    }
    /// Second of expiry, 0 never.
    pub fn expires_at(&self) -> u32 {
        todo!()
    }
    /// Second of the last access.
    pub fn last_access(&self) -> u32 {
        todo!()
    }
    /// Whether a client ever fetched it.
    pub fn is_fetched(&self) -> bool {
        todo!()
    }
    /// Meta stale mark.
    pub fn is_stale(&self) -> bool {
        todo!()
    }
    /// Whether the win token was handed out.
    pub fn is_win_sent(&self) -> bool {
        todo!()
    }
    /// Whether the value is in chained chunks.
    pub fn is_chunked(&self) -> bool {
        todo!()
    }
    /// Bytes of the value.
    pub fn value_len(&self) -> usize {
        todo!()
    }
    /// The value, when it is in one piece.
    pub fn value(&self) -> Option<&'a [u8]> {
        todo!()
    }
    /// Appends the value to `out`.
    pub fn copy_value(&self, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Size by the store's accounting, as `me` and metadump print it.
    pub fn size(&self) -> usize {
        todo!()
    }
    /// The slab class it is listed in.
    pub fn class(&self) -> u8 {
        todo!()
    }
}

/// A value held in place outside the lock.
#[derive(Debug)]
pub struct Pinned {}

impl Pinned {
    /// Bytes of the value.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Appends to `slices` what is left of the value from byte `skip` on.
    pub fn io_slices<'a>(&'a self, _skip: usize, _slices: &mut Vec<IoSlice<'a>>) {
        todo!()
    }
}

/// An item on its way in: memory that only its owner writes, freed when dropped before it is finished.
#[derive(Debug)]
pub struct Upload {}

impl Upload {
    /// The key it was made with.
    pub fn key(&self) -> &[u8] {
        todo!()
    }
    /// Where the next bytes go; not empty unless complete. For a value in chained chunks this may take one
    /// more chunk, and so the shard's lock.
    pub fn room(&mut self) -> Result<&mut [u8], AllocError> {
        todo!()
    }
    /// Says that the first `n` bytes of the last room were filled.
    pub fn filled(&mut self, _n: usize) {
        todo!()
    }
    /// Whether every byte has arrived.
    pub fn is_complete(&self) -> bool {
        todo!()
    }
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

/// What happened in the store without a client asking, for the `watch` streams.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A live item was evicted.
    Evict { key: Vec<u8>, fetched: bool, ttl: i64, last_access_age: u32, class: u8, size: usize },
    /// One LRU of one class was crawled.
    Crawled {
        class: u8,
        lru: u8,
        low_mark: u64,
        next_reclaims: u64,
        since_run: u64,
        next_run: u64,
        elapsed: u64,
        examined: u64,
        reclaimed: u64,
    },
    /// A page was moved, or could not be.
    SlabMove { src: u8, dst: u8, ok: bool },
}

/// Which events to keep for [`Store::take_events`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventMask {
    /// Keep `Evict`.
    pub evictions: bool,
    /// Keep `Crawled` and `SlabMove`.
    pub system: bool,
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

/// What a dump walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpOrder {
    /// The LRUs of these classes, tail to head. Items that move between lists meanwhile may be missed.
    Lru(ClassSet),
    /// The hash table; every item that stays is seen exactly once.
    Table,
}

/// Where a dump has got to. Dropping it ends the dump.
#[derive(Debug)]
pub struct Dump {}

impl Dump {
    /// Hands up to `max` live items to `each`, in slices under the shards' locks; false when there are no more.
    pub fn next(&mut self, _max: usize, _each: &mut dyn FnMut(Item<'_>)) -> bool {
        todo!()
    }
}

/// What administrative commands and statistics use.
impl Store {
    /// flush_all. `at` is a second as [`Clock::expires_at`] gives it; 0 or one that has passed is: now, and
    /// everything stored so far. A later one replaces a pending one and leaves what was flushed flushed.
    pub fn flush_all(&self, _at: u32) {
        todo!()
    }

    /// cache_memlimit; false when out of bounds or preallocated.
    pub fn set_memory_limit(&self, _bytes: u64) -> bool {
        todo!()
    }

    /// slabs reassign.
    pub fn reassign(&self, _src: i64, _dst: i64) -> Reassign {
        todo!()
    }

    /// lru_crawler crawl.
    pub fn crawl(&self, _classes: ClassSet) -> Crawl {
        todo!()
    }

    /// lru_crawler enable|disable. False when it is so already.
    pub fn enable_crawler(&self, _on: bool) -> bool {
        todo!()
    }

    /// Whether the crawler is enabled.
    pub fn crawler_enabled(&self) -> bool {
        todo!()
    }

    /// metadump, mgdump, and (limited by the caller) cachedump's walk.
    pub fn dump(self: &Arc<Store>, _order: DumpOrder) -> Dump {
        todo!()
    }

    /// stats cachedump: the COLD items of one class, head first, at most `limit` (0 all) while `each` says true.
    pub fn cachedump(&self, _class: u8, _limit: usize, _each: &mut dyn FnMut(Item<'_>) -> bool) {
        todo!()
    }

    /// The highest class number.
    pub fn largest_class(&self) -> u8 {
        todo!()
    }

    /// The settings of now.
    pub fn tuning(&self) -> Tuning {
        todo!()
    }

    /// Changes settings.
    pub fn tune(&self, _change: impl FnOnce(&mut Tuning)) {
        todo!()
    }

    /// What it was built with; `memory_limit` and `tuning` in it are those of the start.
    pub fn config(&self) -> &StoreConfig {
        todo!()
    }

    /// Numbers for `stats`.
    pub fn stats(&self) -> StoreStats {
        todo!()
    }

    /// Numbers per class, classes that hold a page or an item, ascending.
    pub fn class_stats(&self) -> Vec<ClassStats> {
        todo!()
    }

    /// stats reset.
    pub fn reset_stats(&self) {
        todo!()
    }

    /// stats sizes: (size rounded up to 32, items), None without `track_sizes`.
    pub fn sizes(&self) -> Option<Vec<(u64, u64)>> {
        todo!()
    }

    /// Which events to keep from now on.
    pub fn keep_events(&self, _mask: EventMask) {
        todo!()
    }

    /// Events since the last call, oldest first; at most a bounded number was kept.
    pub fn take_events(&self) -> Vec<Event> {
        todo!()
    }

    /// Starts the background threads (maintainer with mover and table growth, crawler). They stop when the
    /// returned handle is dropped.
    pub fn start_background(self: &Arc<Store>) -> Background {
        todo!()
    }

    /// Checks every structure of every shard against every other. For tests and debugging: it is slow.
    pub fn check(&self) -> Result<(), String> {
        todo!()
    }
}

/// The running background threads.
#[derive(Debug)]
pub struct Background {}
