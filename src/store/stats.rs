//! The numbers that a store tells of itself.
//!
//! Not here: how they are summed (`admin`), how they are printed (`command`).

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
