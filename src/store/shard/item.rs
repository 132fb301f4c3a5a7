//! A view of an item, while its shard is locked.
//!
//! Not here: where its parts lie (`memory::layout`).

use super::Shard;
use crate::store::ItemId;
use crate::store::memory::arena::offset;
use crate::store::memory::layout::{ItemHeader, state};

/// A view of an item, while its shard is locked.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    shard: &'a Shard,
    id: ItemId,
    header: &'a ItemHeader,
}

impl<'a> Item<'a> {
    #[inline]
    pub(crate) fn new(shard: &'a Shard, id: ItemId) -> Item<'a> {
        let header = shard.window.header(id);
        debug_assert!(!header.chunk.is(state::FREE) && !header.chunk.is_piece(), "not an item");
        Item { shard, id, header }
    }

    #[cfg(test)]
    pub(crate) fn header(&self) -> &'a ItemHeader {
        self.header
    }

    /// The key, raw.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        let window = &self.shard.window;
        window.bytes(offset(self.id) + window.key_at, usize::from(self.header.chunk.key_len))
    }

    /// Whether the key came base64-encoded.
    pub fn key_is_binary(&self) -> bool {
        self.header.chunk.is(state::BINARY_KEY)
    }

    /// What the client stored beside the value.
    #[inline]
    pub fn client_flags(&self) -> u32 {
        let (chunk, window) = (&self.header.chunk, &self.shard.window);
        if !chunk.is(state::CLIENT_FLAGS) {
            return 0;
        }
        let at = offset(self.id) + window.key_at + usize::from(chunk.key_len);
        u32::from_le_bytes(window.bytes(at, 4).try_into().expect("four bytes"))
    }

    /// The cas unique, 0 with `-C`.
    #[inline]
    pub fn cas(&self) -> u64 {
        self.shard.window.cas(self.id)
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
        self.header.chunk.is_fetched()
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
        let (chunk, window) = (&self.header.chunk, &self.shard.window);
        if chunk.is(state::CHUNKED) {
            return None;
        }
        Some(window.bytes(offset(self.id) + window.value_at(chunk), chunk.len as usize))
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
