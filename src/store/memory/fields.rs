//! Where the fields of an item lie behind its header, and the one that may not be there.
//!
//! Not here: their order (`layout`), the pieces of a value (`shard::value`).

use super::arena::{Window, offset};
use super::layout::{CAS_BYTES, Chunk, ItemHeader};
use crate::store::ItemId;

impl Window {
    /// Where the value begins, or the ends of the chain that has it, from the chunk's begin.
    #[inline]
    pub fn value_at(&self, chunk: &Chunk) -> usize {
        self.key_at + usize::from(chunk.key_len) + chunk.flags_len()
    }

    /// The cas unique of an item, 0 with `-C`.
    #[inline]
    pub fn cas(&self, id: ItemId) -> u64 {
        if !self.has_cas() {
            return 0;
        }
        let cas = self.bytes(offset(id) + size_of::<ItemHeader>(), CAS_BYTES);
        u64::from_le_bytes(cas.try_into().expect("eight bytes"))
    }

    /// Sets what [`Window::cas`] gives, and gives it; with `-C` it sets nothing.
    #[inline]
    pub fn set_cas(&mut self, id: ItemId, cas: u64) -> u64 {
        if !self.has_cas() {
            return 0;
        }
        self.bytes_mut(offset(id) + size_of::<ItemHeader>(), CAS_BYTES).copy_from_slice(&cas.to_le_bytes());
        cas
    }

    #[inline]
    fn has_cas(&self) -> bool {
        self.key_at > size_of::<ItemHeader>()
    }
}
