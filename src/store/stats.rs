//! The statistics of a store.
//!
//! Not here: how they are summed (`admin`), how they are printed (`command`).

/// Store-wide numbers for `stats`, all shards together. Counters are since the last reset.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are memcached's")]
pub struct StoreStats {
    pub memory_limit: u64,
    pub bytes: u64,
    pub curr_items: u64,
    pub total_items: u64,
    pub hash_power_level: u32,
    pub hash_bytes: u64,
    pub hash_is_expanding: bool,
    /// New items whose keys were evicted a short while before.
    pub ghost_hits: u64,
    /// Memory of the keys that were evicted, beside the limit as the hash table's is.
    pub ghost_bytes: u64,
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

/// Declares [`ClassCounters`] and how those of two shards are added.
macro_rules! class_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is counted per slab class, under its shard's lock, since the last reset.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct ClassCounters {
            $($(#[$doc])* pub $name: u64,)*
            /// Idle seconds of the last item evicted.
            pub evicted_time: u64,
            /// Gets that found an item in HOT, WARM, COLD and TEMP.
            pub hits: [u64; 4],
        }

        impl ClassCounters {
            /// Adds the counters of another shard.
            pub fn add(&mut self, other: &ClassCounters) {
                $(self.$name += other.$name;)*
                self.evicted_time = self.evicted_time.max(other.evicted_time);
                std::iter::zip(&mut self.hits, other.hits).for_each(|(sum, hits)| *sum += hits);
            }
        }
    };
}

class_counters! {
    /// Live items removed for room.
    evicted,
    /// Of those, with an expiry.
    evicted_nonzero,
    /// Of those, never read.
    evicted_unfetched,
    /// Of those, read lately.
    evicted_active,
    /// Stores that got no memory.
    outofmemory,
    /// Expired items whose memory was used again.
    reclaimed,
    /// Expired items that were never read.
    expired_unfetched,
    /// Expired items that the crawler removed.
    crawler_reclaimed,
    /// Items that the crawler looked at.
    crawler_items_checked,
    /// Tails that were pinned, so that the item before them was taken.
    lrutail_reflocked,
    /// Items moved to the head of COLD.
    moves_to_cold,
    /// To the head of WARM.
    moves_to_warm,
    /// From the tail of a list to its head.
    moves_within_lru,
    /// Items evicted by a store and not by the maintainer.
    direct_reclaims,
    /// Stores whose item was allocated.
    cmd_set,
    /// touch, gat: found.
    touch_hits,
    /// delete: found.
    delete_hits,
    /// incr: found.
    incr_hits,
    /// decr: found.
    decr_hits,
    /// cas: stored.
    cas_hits,
    /// cas: another value was there.
    cas_badval,
}

/// Numbers of one slab class, all shards together, for `stats items` and `stats slabs`.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are memcached's")]
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
    pub counters: ClassCounters,
}
