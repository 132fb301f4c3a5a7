//! What an item has behind its header.
//!
//! Not here: the order of these fields (`layout`), the pieces of a value (`shard::value`).

use super::arena::{Window, offset};
use super::layout::{CAS_BYTES, ItemHeader};
use crate::store::ItemId;

impl Window {
    /// The cas unique of an item.
    #[inline]
    pub fn cas(&self, id: ItemId) -> u64 {
        let cas = self.bytes(offset(id) + size_of::<ItemHeader>(), CAS_BYTES);
        u64::from_le_bytes(cas.try_into().expect("eight bytes"))
    }

    /// Sets what [`Window::cas`] gives.
    #[inline]
    pub fn set_cas(&mut self, id: ItemId, cas: u64) {
        self.bytes_mut(offset(id) + size_of::<ItemHeader>(), CAS_BYTES).copy_from_slice(&cas.to_le_bytes());
    }
}
