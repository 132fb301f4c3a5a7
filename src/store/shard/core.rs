//! What all shards of a store share.

use super::recent::RecentChanges;
use crate::clock::Clock;
use crate::journal::Journal;
use crate::journal::flush::Flush;
use crate::store::copy_line::CopyLine;
use crate::store::events::Events;
use crate::store::lent::Loans;
use crate::store::memory::arena::WINDOW_AHEAD;
use crate::store::memory::classes::Classes;
use crate::store::memory::pool::PagePool;
use crate::store::memory::sizing::Sizing;
use crate::store::memory_file::MemoryFile;
use crate::store::requests::BackgroundRequests;
use crate::store::slots::DumpSlots;
use crate::store::{Copied, Hash, KeyRanges, Role, StoreConfig};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What all shards share.
#[derive(Debug)]
pub struct Core {
    pub config: StoreConfig,
    pub clock: Arc<Clock>,
    pub sizing: Sizing,
    pub classes: Classes,
    pub pool: PagePool,
    pub flush: Flush,
    pub events: Events,
    pub journal: Journal,
    pub ranges: KeyRanges,
    pub requests: BackgroundRequests,
    pub role: Role,
    pub copied: Copied,
    /// With `-o linearizable`.
    pub recent: Option<RecentChanges>,
    /// The last cas unique that was given.
    pub cas: AtomicU64,
    /// Who appends to large values.
    pub copy_line: Arc<CopyLine>,
    /// Bytes of chunks that clients' uploads hold.
    pub lent: AtomicU64,
    /// Bytes of items that are read outside of the lock and are in no table any more.
    pub floating: AtomicU64,
    /// Uploads.
    pub loans: Loans,
    /// When a store was last refused for want of memory, in milliseconds since boot; 0 never.
    pub refused_at: AtomicU64,
    /// Dumps that clients have begun.
    pub dumps: Mutex<DumpSlots>,
    pub hash_seed: u64,
    /// log2 of the number of shards.
    pub shard_bits: u32,
    /// With `-e`.
    pub memory_file: Option<MemoryFile>,
}

impl Core {
    /// Hashes a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> Hash {
        Hash(xxhash_rust::xxh3::xxh3_64_with_seed(key, self.hash_seed))
    }

    /// The shard of a hash.
    #[inline]
    pub fn shard_of(&self, hash: Hash) -> usize {
        (hash.0 >> 32 >> (32 - self.shard_bits)) as usize
    }

    /// Whether pages will be taken for which memory is got ahead of need. The last ones are ready already: what the shards
    /// had ready beyond the limit would be 4 to 6 MiB each, of a cache that is full for ever.
    pub fn gets_ahead(&self) -> bool {
        let left = self.pool.limit().saturating_sub(self.pool.taken());
        // With all memory taken at start there is none to wait for.
        !self.config.preallocate && left > (WINDOW_AHEAD << self.shard_bits) as u64
    }

    /// The next cas unique, 0 with `-C`.
    #[inline]
    pub fn next_cas(&self) -> u64 {
        if self.config.cas_enabled { self.cas.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 }
    }

    /// Raises the cas counter to at least `cas`, which the source of another server's changes has sent, unless that is
    /// above `max`: a cas that is given after taking over must not be one that a client already holds for an older value.
    /// A client's own explicit cas raises nothing, as in memcached.
    #[inline]
    pub fn follow_cas(&self, cas: u64, max: u64) {
        if cas <= max && cas > self.cas.load(Ordering::Relaxed) {
            self.cas.fetch_max(cas, Ordering::Relaxed);
        }
    }
}
