//! What lies in a shard's memory, byte by byte.
//!
//! ```text
//! item      | ItemHeader 24 | cas 8, unless -C | key | client flags 4, unless 0 | value |
//! large     | ItemHeader 24 | cas | key | client flags | first piece 4, last piece 4, seal 4, unused 4 |   in a small chunk
//!   piece   | Chunk 16  | part of the value |      all but the last fill a chunk of the largest class
//! free      | Chunk 16  |
//!
//! Chunk         next 4, prev 4, state 2, pins 1, key length 1, length 4
//! ItemHeader    Chunk, expires_at 4, last access 4
//! Bucket        12 tags of 8 bits, overflow 4, 12 item ids of 32 bits
//! ```
//!
//! `next` and `prev` are LRU links of a linked item (next is towards the tail), the chain of a large item's
//! pieces, or the free list. `length` is the value's, and in a piece the id of its item.
//!
//! Invariants: `state` tells what a chunk is: FREE, PIECE, LINKED, or none of them: an item that is being made, or
//! one that was unlinked while pinned. Pieces of a chain lie in chain order, all but the last are full.
//!
//! In a memory file a seal of 4 bytes follows the value (`shard::seal`). Whoever changes what is written here raises
//! [`FORMAT`]: other versions of the server find the file.
//!
//! Not here: where in memory a chunk or a bucket lies (`arena`), what lies behind a header (`fields`), which chunks are
//! free (`slab`).

use crate::store::{ItemId, ItemSpec};
use crate::sys::cpu;

/// The number of this layout, and of what else a memory file holds: a page has the number of a slab class.
pub(crate) const FORMAT: u32 = 6;

/// Bytes of a seal.
pub(crate) const SEAL_BYTES: usize = 4;

/// The head of every chunk.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Chunk {
    /// Towards the tail of the LRU; the next piece; the next free chunk.
    pub next: ItemId,
    /// The other way.
    pub prev: ItemId,
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
pub struct ItemHeader {
    /// What every chunk has.
    pub chunk: Chunk,
    /// Second of expiry, 0 never.
    pub expires_at: u32,
    /// Second of the last access.
    pub last_access: u32,
}

const _: () = assert!(size_of::<Chunk>() == 16 && size_of::<ItemHeader>() == 24);

/// Bits of [`Chunk::state`].
pub(crate) mod state {
    /// Which LRU: HOT, WARM, COLD, TEMP.
    pub(crate) const LRU: u16 = 3;
    /// In the table and an LRU.
    pub(crate) const LINKED: u16 = 1 << 2;
    /// In a free list.
    pub(crate) const FREE: u16 = 1 << 3;
    /// With [`ACTIVE`] a number, the item's hit marks: 0 never fetched, 1 fetched and worn off, 2 fetched, 3 fetched
    /// again. In memcached's order 1 is fetched, and 3 again.
    pub(crate) const FETCHED: u16 = 1 << 4;
    /// The upper bit of the marks: the item has been fetched since it was last passed over.
    pub(crate) const ACTIVE: u16 = 1 << 5;
    /// Where the marks begin.
    pub(crate) const MARKS_SHIFT: u32 = 4;
    /// Meta stale mark.
    pub(crate) const STALE: u16 = 1 << 6;
    /// The win token was handed out.
    pub(crate) const WIN_SENT: u16 = 1 << 7;
    /// The key came base64-encoded.
    pub(crate) const BINARY_KEY: u16 = 1 << 8;
    /// Client flags follow the key.
    pub(crate) const CLIENT_FLAGS: u16 = 1 << 9;
    /// The value is in pieces.
    pub(crate) const CHUNKED: u16 = 1 << 10;
    /// A piece of a value; but of a linked item, [`RENEWED`].
    pub(crate) const PIECE: u16 = 1 << 11;
    /// Set in place since it was put in its list: when it is met at a tail it goes to the head of HOT. Only linked items
    /// have it, so it can be [`PIECE`]'s bit.
    pub(crate) const RENEWED: u16 = PIECE;
    /// The upper four bits number the flush_alls of the second of last access that came before it.
    pub(crate) const FLUSH_SHIFT: u32 = 12;
    /// What the seal of an item covers: what an answer depends on.
    pub(crate) const SEALED: u16 = STALE | WIN_SENT | BINARY_KEY | CLIENT_FLAGS | CHUNKED | !0 << FLUSH_SHIFT;
}

/// Bytes of a cas unique.
pub(crate) const CAS_BYTES: usize = 8;

/// Bytes of every item of a store before its key.
pub(crate) const fn head_bytes(has_cas: bool) -> usize {
    size_of::<ItemHeader>() + if has_cas { CAS_BYTES } else { 0 }
}

/// Bytes that a large item has in its value's place.
pub(crate) const CHAIN_BYTES: usize = 16;

/// Slots of a bucket.
pub(crate) const SLOTS: usize = 12;

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

    /// Whether a client has ever fetched it.
    #[inline]
    pub fn is_fetched(&self) -> bool {
        self.is(state::FETCHED | state::ACTIVE)
    }

    /// Whether it has been fetched since it was last passed over.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.is(state::ACTIVE)
    }

    /// Whether a linked item has been set in its place since it was put in its list.
    #[inline]
    pub fn is_renewed(&self) -> bool {
        self.is(state::RENEWED)
    }

    /// The hit marks of an item, 0 to 3. See [`state::FETCHED`].
    #[inline]
    pub fn marks(&self) -> u16 {
        (self.state & (state::FETCHED | state::ACTIVE)) >> state::MARKS_SHIFT
    }

    /// Sets the hit marks.
    #[inline]
    pub fn set_marks(&mut self, marks: u16) {
        self.state = self.state & !(state::FETCHED | state::ACTIVE) | marks << state::MARKS_SHIFT;
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

    /// Of a piece, the item.
    pub fn piece_of(&self) -> ItemId {
        debug_assert!(self.is_piece());
        ItemId(self.len)
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

    /// Bytes of the client flags.
    #[inline]
    pub fn flags_len(&self) -> usize {
        usize::from(self.state & state::CLIENT_FLAGS != 0) * 4
    }
}

impl ItemHeader {
    /// Last access and the flush_alls before it, in one number to compare with [`crate::journal::flush::FlushCut`].
    #[inline]
    pub fn stamp(&self) -> u64 {
        u64::from(self.last_access) << 4 | u64::from(self.chunk.state >> state::FLUSH_SHIFT)
    }

    /// Sets what [`ItemHeader::stamp`] gives.
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

/// One cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    pub tags: [u8; SLOTS],
    pub overflow: u32,
    pub ids: [ItemId; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// Slots with this tag.
    #[inline]
    pub(crate) fn matches(&self, tag: u8) -> Matches {
        let (eight, four) = self.tags.split_at(8);
        let eight = u64::from_le_bytes(eight.try_into().expect("eight tags"));
        let four = u32::from_le_bytes(four.try_into().expect("four tags"));
        Matches(cpu::equal_bytes(u128::from(four) << 64 | u128::from(eight), tag) & ((1 << SLOTS) - 1))
    }

    /// Puts an item into an empty slot; false when there is none.
    pub(crate) fn put(&mut self, tag: u8, id: ItemId) -> bool {
        let Some(empty) = self.matches(0).next() else { return false };
        self.tags[empty] = tag;
        self.ids[empty] = id;
        true
    }

    /// Whether no slot is used.
    pub(crate) fn is_empty(&self) -> bool {
        self.tags == [0; SLOTS]
    }
}

/// Slots, lowest first: a bit for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matches(u32);

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (slot < SLOTS).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_keeps_the_other_bits() {
        let mut header = ItemHeader::default();
        header.chunk.state = state::LINKED | state::CLIENT_FLAGS;
        header.set_stamp(77 << 4 | 15);
        assert_eq!((header.stamp(), header.last_access), (77 << 4 | 15, 77));
        header.set_stamp(78 << 4);
        assert_eq!(header.chunk.state, state::LINKED | state::CLIENT_FLAGS);
    }

    #[test]
    fn all_slots_with_a_tag() {
        let mut random = 1_u64;
        for round in 0..10_000 {
            let mut bucket = Bucket::default();
            for slot in &mut bucket.tags {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *slot = (random >> 60) as u8 * if round % 2 == 0 { 1 } else { 0x11 };
            }
            let tag = bucket.tags[round % SLOTS];
            let expected: Vec<usize> = (0..SLOTS).filter(|&slot| bucket.tags[slot] == tag).collect();
            assert_eq!(bucket.matches(tag).collect::<Vec<_>>(), expected);
        }
    }
}
