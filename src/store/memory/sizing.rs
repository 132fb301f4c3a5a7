//! How large an item is, by the store's own reckoning or by memcached's.
//!
//! Not here: which chunk takes it (`classes`).

use super::layout::{CHAIN_BYTES, Chunk, SEAL_BYTES, head_bytes};
use crate::store::{Accounting, StoreConfig};

/// memcached's header, piece header, cas, and the line end it stores with the value.
const MC_HEADER: usize = 48;
const MC_CAS: usize = 8;
const MC_LINE_END: usize = 2;

/// How sizes are reckoned.
#[derive(Clone, Copy, Debug)]
pub struct Sizing {
    memcached: bool,
    /// Header, and what else each item has.
    fixed: usize,
    /// What follows a value.
    pub seal: usize,
    /// `-I`.
    pub item_max: usize,
    /// Items above this are in pieces.
    pub chunk_max: usize,
}

impl Sizing {
    /// As the configuration says.
    pub fn new(config: &StoreConfig) -> Sizing {
        Sizing {
            memcached: config.accounting == Accounting::Memcached,
            fixed: fixed(config),
            seal: seal(config),
            item_max: config.item_size_max,
            chunk_max: config.slab_chunk_max,
        }
    }

    /// Size of an item.
    #[inline]
    pub fn total(&self, key_len: usize, has_flags: bool, value_len: usize) -> usize {
        self.fixed(key_len, has_flags).saturating_add(self.payload(value_len))
    }

    /// Size of the chunk at the head of a large item.
    pub fn head(&self, key_len: usize, has_flags: bool) -> usize {
        self.fixed(key_len, has_flags) + if self.memcached { MC_HEADER } else { CHAIN_BYTES }
    }

    /// What pieces have to hold.
    #[inline]
    pub fn payload(&self, value_len: usize) -> usize {
        value_len.saturating_add(if self.memcached { MC_LINE_END } else { 0 })
    }

    /// What a piece takes of its chunk.
    pub fn piece_overhead(&self) -> usize {
        if self.memcached { MC_HEADER } else { size_of::<Chunk>() }
    }

    #[inline]
    fn fixed(&self, key_len: usize, has_flags: bool) -> usize {
        self.fixed + key_len + if has_flags { 4 } else { 0 }
    }
}

/// memcached's header has room for a seal.
fn fixed(config: &StoreConfig) -> usize {
    match (config.accounting, config.cas_enabled) {
        (Accounting::Native, has_cas) => head_bytes(has_cas) + seal(config),
        (Accounting::Memcached, true) => MC_HEADER + MC_CAS + 1,
        (Accounting::Memcached, false) => MC_HEADER + 1,
    }
}

fn seal(config: &StoreConfig) -> usize {
    if config.memory_file.is_some() { SEAL_BYTES } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memcached_sizes() {
        let config = StoreConfig { accounting: Accounting::Memcached, ..StoreConfig::default() };
        let with_cas = Sizing::new(&config);
        let without = Sizing::new(&StoreConfig { cas_enabled: false, ..config });
        assert_eq!(with_cas.total(10, false, 100), 169);
        assert_eq!(with_cas.total(10, true, 100), 173);
        assert_eq!(without.total(10, false, 100), 161);
        assert_eq!(with_cas.head(3, false), 108);
        assert_eq!(with_cas.total(3, false, 1_048_514), 1 << 20);
    }

    #[test]
    fn native_sizes() {
        let sizing = Sizing::new(&StoreConfig::default());
        assert_eq!(sizing.total(10, false, 100), 142);
        assert_eq!(sizing.total(10, true, 100), 146);
        assert_eq!(sizing.total(1, true, usize::MAX), usize::MAX);
        let without = Sizing::new(&StoreConfig { cas_enabled: false, ..StoreConfig::default() });
        assert_eq!((without.total(10, false, 100), without.head(3, false)), (134, 24 + 3 + 16));
    }
}
