//! The settings of a store: what it is built with, and what can change while it runs.
//!
//! Not here: options of the command line (`config`).

/// A struct whose fields say their defaults.
macro_rules! with_defaults {
    ($(#[$of_struct:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$of_struct])*
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }
    };
}

/// How item sizes and class boundaries are calculated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accounting {
    /// By the bytes that an item really takes here.
    #[default]
    Native,
    /// By memcached's sizes, for operators who sized classes by hand.
    Memcached,
}

/// Which item of a class goes first when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LruPolicy {
    /// S3-FIFO over HOT, WARM and COLD.
    #[default]
    S3Fifo,
    /// As memcached: items that were fetched twice are kept from COLD's tail.
    Memcached,
}

/// What the page mover counts for most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutomoveWeight {
    /// Hits, of whatever size.
    Objects,
    /// A hit by the root of its size.
    #[default]
    Balanced,
    /// Bytes of hits.
    Bytes,
}

/// Bytes that the largest chunk has about, where nothing else is asked for; larger items are in pieces of it. So an item
/// wastes no more than a part of its last piece: 3 % of the memory, where chunks up to 512 KiB in steps of a quarter
/// wasted 12 %. A read finds the pieces of a megabyte in 76 places, which is one system call.
const PIECE: usize = 13_800;

/// Items above this would be in so many pieces that to free one would take a shard's lock for a while.
const PIECES_FOR: usize = 8 << 20;

/// Pages of a small cache: a class that is hardly used holds one page, so there should be more of them than classes.
const PAGES_LEAST: u64 = 128;

/// The page sizes in use. With pages of less than half a megabyte large chunks do not fill them as well, so a cache of
/// 64 MB has these already.
const PAGE_LEAST: usize = 64 << 10;
const PAGE_SMALL: usize = 512 << 10;

/// With this much memory pages are as large as they get.
const LARGE_MEMORY: u64 = 256 << 20;

with_defaults! {
    /// What a store is built with.
    #[derive(Clone, Debug)]
    pub struct StoreConfig {
        /// `-m`, in bytes.
        pub memory_limit: u64 = 64 << 20,
        /// Bytes of a slab page; 1 MiB but in tests.
        pub page_size: usize = 1 << 20,
        /// `-I`.
        pub item_size_max: usize = 1 << 20,
        /// `-n`.
        pub chunk_size: usize = 48,
        /// `-f`; None: not given, the store's own steps under native accounting, else 1.25.
        pub growth_factor: Option<f64> = None,
        /// `-o slab_sizes`.
        pub slab_sizes: Vec<usize> = Vec::new(),
        /// No option asks for classes or chunks: page size and largest chunk are by memory instead of those here.
        pub fits_memory: bool = false,
        /// `-o slab_chunk_max`, bytes.
        pub slab_chunk_max: usize = 512 << 10,
        /// `-o slab_accounting`.
        pub accounting: Accounting = Accounting::Native,
        /// `-o lru_policy`.
        pub lru_policy: LruPolicy = LruPolicy::S3Fifo,
        /// `-o automove_weight`.
        pub automove_weight: AutomoveWeight = AutomoveWeight::Balanced,
        /// `-o linearizable`: a read waits for the replicas, too, if what it has read was changed just now.
        pub linearizable: bool = false,
        /// `-C` turns it off.
        pub cas_enabled: bool = true,
        /// `-M` turns it off.
        pub evict: bool = true,
        /// `-L`: take and touch all memory at start; the limit is then fixed.
        pub preallocate: bool = false,
        /// `-e`: the file that is the memory of the items, and outlives the process.
        pub memory_file: Option<String> = None,
        /// How many shards; None: by memory and threads.
        pub shards: Option<usize> = None,
        /// Worker threads, for the number of shards.
        pub threads: usize = 4,
        /// `-o hashpower`.
        pub hash_power: Option<u8> = None,
        /// `-o no_hashexpand` turns it off.
        pub hash_expand: bool = true,
        /// `-o no_lru_maintainer` turns it off; without it the LRU is flat and nothing runs in the background.
        pub maintainer: bool = true,
        /// `-o no_lru_crawler` turns it off at start.
        pub crawler: bool = true,
        /// `-o no_slab_reassign` turns it off.
        pub slab_reassign: bool = true,
        /// `-o track_sizes`.
        pub track_sizes: bool = false,
        /// Bytes of the journal, which takes them when it is first read.
        pub journal_bytes: usize = 64 << 20,
        /// `-o tail_repair_time`; accepted for `stats settings`, no reference can leak here.
        pub tail_repair_time: u32 = 0,
        /// `-o managed`: the server is told its role, and serves nobody before that.
        pub managed: bool = false,
        /// `-o standby_reads`: a managed server answers reads while it is a standby.
        pub standby_reads: bool = false,
        /// What can change at run time.
        pub tuning: Tuning = Tuning::default(),
    }
}

with_defaults! {
    /// The store's settings that commands change at run time. Read as a whole, replaced as a whole.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Tuning {
        /// LRU in HOT, WARM and COLD; flat when false.
        pub segmented: bool = true,
        /// Largest share of HOT, percent.
        pub hot_pct: u32 = 20,
        /// Largest share of WARM, percent.
        pub warm_pct: u32 = 40,
        /// HOT items idle for longer than this times the age of COLD's tail go to COLD.
        pub hot_max_factor: f64 = 0.2,
        /// The same for WARM.
        pub warm_max_factor: f64 = 2.0,
        /// Items with a TTL up to this go to TEMP.
        pub temporary_ttl: Option<u32> = None,
        /// Page mover: 0 off, 1 gentle, 2 also on every eviction.
        pub automove: u8 = 1,
        /// A page moves only if the age of the youngest class is below that of the oldest times this.
        pub automove_ratio: f64 = 0.8,
        /// Seconds of history that the page mover looks at.
        pub automove_window: u32 = 10,
        /// Share of free memory that the page mover aims at; without extstore it is only for `stats settings`.
        pub automove_freeratio: f64 = 0.01,
        /// Microseconds between crawler slices.
        pub crawler_sleep_us: u32 = 100,
        /// How many items of each LRU a crawl looks at; 0 is all.
        pub crawler_tocrawl: u32 = 0,
    }
}

impl StoreConfig {
    /// The same with the page size and the largest chunk with which most fits into the memory, if it is to be so.
    pub fn fitted(mut self) -> StoreConfig {
        let may = self.fits_memory && self.accounting == Accounting::Native && self.item_size_max <= PIECES_FOR;
        if may {
            let share = (self.memory_limit / PAGES_LEAST) as usize;
            let largest = if self.memory_limit < LARGE_MEMORY { PAGE_SMALL } else { 1 << 20 };
            self.page_size = (1 << share.max(1).ilog2()).clamp(PAGE_LEAST, largest);
            self.slab_chunk_max = (self.page_size / self.page_size.div_ceil(PIECE)) & !7;
        }
        self
    }

    /// Whether the memory of pages is the store's for good: there all the time, or in a file.
    pub fn keeps_pages(&self) -> bool {
        self.preallocate || self.memory_file.is_some()
    }

    /// Checks that a store can be built with these settings. The error is one line for the operator.
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
