//! What lies in a chunk, and how large an item is.
//!
//! ```text
//! item      | Header 32                 | key | client flags 4, unless 0 | value |
//! large     | Header 32 | first piece 4, last piece 4, unused 8 | key | client flags |     in a small chunk
//!   piece   | Chunk 16  | part of the value |      all but the last fill a chunk of the largest class
//! free      | Chunk 16  |
//!
//! Chunk     next 4, prev 4, state 2, pins 1, key length 1, length 4
//! Header    Chunk, cas 8, expires_at 4, last access 4
//! ```
//!
//! `next` and `prev` are LRU links of a linked item (next is towards the tail), the chain of a large item's
//! pieces, or the free list. `length` is the value's, and in a piece the id of its item.
//!
//! Invariants: `state` tells what a chunk is: FREE, PIECE, LINKED, or none of them: an item that is being made, or
//! one that was unlinked while pinned. Pieces of a chain lie in chain order, all but the last are full.

use super::Shard;
use crate::store::memory::arena::offset;
use crate::store::{Accounting, ItemSpec, StoreConfig};

/// The head of every chunk.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Chunk {
    /// Towards the tail of the LRU; the next piece; the next free chunk.
    pub next: u32,
    /// The other way.
    pub prev: u32,
    /// Bits of [`state`].
    pub state: u16,
    /// Holders outside the lock, that keep the item where and as it is.
    pub pins: u8,
    /// Bytes of the key.
    pub key_len: u8,
    /// Bytes of the value; of a piece: its item.
    pub len: u32,
}

/// The head of an item.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Header {
    /// What every chunk has.
    pub chunk: Chunk,
    /// The cas unique.
    pub cas: u64,
    /// Second of expiry, 0 never.
    pub expires_at: u32,
    /// Second of the last access.
    pub last_access: u32,
}

const _: () = assert!(size_of::<Chunk>() == 16 && size_of::<Header>() == 32);

/// Bits of [`Chunk::state`].
pub mod state {
    /// Which LRU: HOT, WARM, COLD, TEMP.
    pub const LRU: u16 = 3;
    /// In the table and an LRU.
    pub const LINKED: u16 = 1 << 2;
    /// In a free list.
    pub const FREE: u16 = 1 << 3;
    /// A client fetched it.
    pub const FETCHED: u16 = 1 << 4;
    /// A client fetched it again.
    pub const ACTIVE: u16 = 1 << 5;
    /// Meta stale mark.
    pub const STALE: u16 = 1 << 6;
    /// The win token was handed out.
    pub const WIN_SENT: u16 = 1 << 7;
    /// The key came base64-encoded.
    pub const BINARY_KEY: u16 = 1 << 8;
    /// Client flags follow the key.
    pub const CLIENT_FLAGS: u16 = 1 << 9;
    /// The value is in pieces.
    pub const CHUNKED: u16 = 1 << 10;
    /// A piece of a value; but of a linked item, [`RENEWED`].
    pub const PIECE: u16 = 1 << 11;
    /// Set in place since it was put in its list: when it is met at a tail it goes to the head of HOT. Only linked items
    /// have it, so it can be [`PIECE`]'s bit.
    pub const RENEWED: u16 = PIECE;
    /// The upper four bits number the flush_alls of the second of last access that came before it.
    pub const FLUSH_SHIFT: u32 = 12;
}

/// Bytes of a large item between header and key.
const CHAIN_BYTES: usize = 16;

/// memcached's header, piece header, cas, and the line end it stores with the value.
const MC_HEADER: usize = 48;
const MC_CAS: usize = 8;
const MC_LINE_END: usize = 2;

impl ItemSpec<'_> {
    /// What it says in an item's state.
    #[inline]
    pub(crate) fn bits(&self) -> u16 {
        let flags = if self.client_flags != 0 { state::CLIENT_FLAGS } else { 0 };
        flags | if self.key_is_binary { state::BINARY_KEY } else { 0 }
    }
}

impl Chunk {
    /// Whether any of the bits is set.
    #[inline]
    pub fn is(&self, bits: u16) -> bool {
        self.state & bits != 0
    }

    /// Sets or clears bits.
    #[inline]
    pub fn set(&mut self, bits: u16, on: bool) {
        if on {
            self.state |= bits;
        } else {
            self.state &= !bits;
        }
    }

    /// Whether it is a piece of a value.
    #[inline]
    pub fn is_piece(&self) -> bool {
        self.state & (state::LINKED | state::PIECE) == state::PIECE
    }

    /// Whether there is nothing, not even a free chunk: its page is being emptied.
    pub fn is_gone(&self) -> bool {
        let what = state::LINKED | state::FREE | state::PIECE;
        !self.is(what) && self.key_len == 0
    }

    /// The list it is in.
    #[inline]
    pub fn lru(&self) -> usize {
        usize::from(self.state & state::LRU)
    }

    /// Where the key begins, from the chunk's begin.
    #[inline]
    pub fn key_at(&self) -> usize {
        size_of::<Header>() + usize::from(self.state & state::CHUNKED != 0) * CHAIN_BYTES
    }

    /// Where the value begins when it is in one piece.
    #[inline]
    pub fn value_at(&self) -> usize {
        self.key_at() + usize::from(self.key_len) + self.flags_len()
    }

    #[inline]
    fn flags_len(&self) -> usize {
        usize::from(self.state & state::CLIENT_FLAGS != 0) * 4
    }
}

impl Header {
    /// Last access and the flush_alls before it, in one number to compare with [`crate::journal::flush::Cut`].
    #[inline]
    pub fn stamp(&self) -> u64 {
        u64::from(self.last_access) << 4 | u64::from(self.chunk.state >> state::FLUSH_SHIFT)
    }

    /// Sets what [`Header::stamp`] gives.
    #[inline]
    pub fn set_stamp(&mut self, stamp: u64) {
        self.last_access = (stamp >> 4) as u32;
        self.chunk.state &= (1 << state::FLUSH_SHIFT) - 1;
        self.chunk.state |= ((stamp & 15) as u16) << state::FLUSH_SHIFT;
    }

    /// Whether its time has come.
    #[inline]
    pub fn is_expired(&self, now: u32) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }
}

/// How sizes are reckoned.
#[derive(Clone, Copy, Debug)]
pub struct Sizing {
    memcached: bool,
    cas: bool,
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
            cas: config.cas_enabled,
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
        let head = match (self.memcached, self.cas) {
            (false, _) => size_of::<Header>(),
            (true, true) => MC_HEADER + MC_CAS + 1,
            (true, false) => MC_HEADER + 1,
        };
        head + key_len + if has_flags { 4 } else { 0 }
    }
}

/// A view of an item, while its shard is locked.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    shard: &'a Shard,
    id: u32,
    header: &'a Header,
}

impl<'a> Item<'a> {
    #[inline]
    pub(crate) fn new(shard: &'a Shard, id: u32) -> Item<'a> {
        let header = shard.window.header(id);
        debug_assert!(!header.chunk.is(state::FREE) && !header.chunk.is_piece(), "not an item");
        Item { shard, id, header }
    }

    #[cfg(test)]
    pub(crate) fn header(&self) -> &'a Header {
        self.header
    }

    /// The key, raw.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        let chunk = &self.header.chunk;
        self.shard.window.bytes(offset(self.id) + chunk.key_at(), usize::from(chunk.key_len))
    }

    /// Whether the key came base64-encoded.
    pub fn key_is_binary(&self) -> bool {
        self.header.chunk.is(state::BINARY_KEY)
    }

    /// What the client stored beside the value.
    #[inline]
    pub fn client_flags(&self) -> u32 {
        let chunk = &self.header.chunk;
        if !chunk.is(state::CLIENT_FLAGS) {
            return 0;
        }
        let at = offset(self.id) + chunk.key_at() + usize::from(chunk.key_len);
        u32::from_le_bytes(self.shard.window.bytes(at, 4).try_into().expect("four bytes"))
    }

    /// The cas unique, 0 with `-C`.
    #[inline]
    pub fn cas(&self) -> u64 {
        self.header.cas
    }

    /// Second of expiry, 0 never.
    #[inline]
    pub fn expires_at(&self) -> u32 {
        self.header.expires_at
    }

    /// Second of the last access.
    #[inline]
    pub fn last_access(&self) -> u32 {
        self.header.last_access
    }

    /// Whether a client ever fetched it.
    pub fn is_fetched(&self) -> bool {
        self.header.chunk.is(state::FETCHED)
    }

    /// Meta stale mark.
    pub fn is_stale(&self) -> bool {
        self.header.chunk.is(state::STALE)
    }

    /// Whether the win token was handed out.
    pub fn is_win_sent(&self) -> bool {
        self.header.chunk.is(state::WIN_SENT)
    }

    /// Whether the value is in chained chunks.
    #[inline]
    pub fn is_chunked(&self) -> bool {
        self.header.chunk.is(state::CHUNKED)
    }

    /// Bytes of the value.
    #[inline]
    pub fn value_len(&self) -> usize {
        self.header.chunk.len as usize
    }

    /// The value, when it is in one piece.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        let chunk = &self.header.chunk;
        if chunk.is(state::CHUNKED) {
            return None;
        }
        Some(self.shard.window.bytes(offset(self.id) + chunk.value_at(), chunk.len as usize))
    }

    /// Appends the value to `out`.
    #[inline]
    pub fn copy_value(&self, out: &mut Vec<u8>) {
        if let Some(value) = self.value() {
            return out.extend_from_slice(value);
        }
        out.reserve(self.value_len());
        let mut extents = self.shard.extents(self.id);
        while let Some((at, len)) = extents.next(self.shard) {
            out.extend_from_slice(self.shard.window.bytes(at, len));
        }
    }

    /// Size by the store's accounting, as `me` and metadump print it.
    #[inline]
    pub fn size(&self) -> usize {
        let chunk = &self.header.chunk;
        self.shard.core.sizing.total(chunk.key_len.into(), chunk.is(state::CLIENT_FLAGS), chunk.len as usize)
    }

    /// The slab class it is listed in.
    #[inline]
    pub fn class(&self) -> u8 {
        self.shard.listed_class(self.id, &self.header.chunk)
    }
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
    }

    #[test]
    fn a_stamp_keeps_the_other_bits() {
        let mut header = Header::default();
        header.chunk.state = state::LINKED | state::CLIENT_FLAGS;
        header.set_stamp(77 << 4 | 15);
        assert_eq!((header.stamp(), header.last_access), (77 << 4 | 15, 77));
        header.set_stamp(78 << 4);
        assert_eq!(header.chunk.state, state::LINKED | state::CLIENT_FLAGS);
    }
}
