//! What a store is built with, and what of it can change while it runs.
//!
//! Not here: options of the command line (`config`).

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

impl StoreConfig {
    /// Whether a store can be built with it. The error is one line for the operator.
    pub fn validate(&self) -> Result<(), String> {
        let chunk_max = self.slab_chunk_max;
        let problem = if !self.page_size.is_power_of_two() || self.page_size < 1024 {
            "the page size is not a power of two of at least 1024"
        } else if chunk_max > self.page_size || chunk_max < 512 || !chunk_max.is_multiple_of(8) {
            "slab_chunk_max is not a multiple of 8 between 512 and the page size"
        } else if self.item_size_max > 1 << 30 {
            "item_size_max is above 1 GiB"
        } else if self.growth_factor.is_some_and(|factor| factor.is_nan() || factor <= 1.0) {
            "the growth factor is not above 1"
        } else if self.slab_sizes.iter().any(|&size| size > chunk_max) || !self.slab_sizes.is_sorted() {
            "slab_sizes do not ascend up to slab_chunk_max"
        } else if self.chunk_size == 0 || self.chunk_size > chunk_max {
            "the chunk size is 0 or above slab_chunk_max"
        } else {
            return Ok(());
        };
        Err(problem.into())
    }
}
