//! Values that are read outside the shard's lock.
//!
//! A pinned value is that of an item whose `pins` are above 0: its bytes stay where and as they are, and the last unpin
//! frees the item if it was unlinked meanwhile. A pin is given back when it is dropped, under the shard's lock.
//!
//! Not here: values that are written outside the lock (`upload`).

use super::handle::Store;
use super::memory::arena::Piece;
use super::shard::Shard;
use std::io::IoSlice;
use std::sync::Arc;

/// A value held in place outside the lock.
#[derive(Debug)]
pub struct Pinned {
    store: Arc<Store>,
    shard: usize,
    id: u32,
    len: usize,
    first: Option<Piece>,
    more: Vec<Piece>,
}

impl Pinned {
    pub(crate) fn new(store: &Arc<Store>, index: usize, shard: &mut Shard, id: u32) -> Option<Pinned> {
        if !shard.pin(id) {
            return None;
        }
        let len = shard.window.chunk(id).len as usize;
        let mut extents = shard.extents(id);
        let mut next = || extents.next(shard).map(|(at, len)| shard.window.lend(at, len));
        let first = next();
        let more = std::iter::from_fn(next).collect();
        Some(Pinned { store: store.clone(), shard: index, id, len, first, more })
    }

    /// Bytes of the value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends to `slices` what is left of the value from byte `skip` on.
    pub fn io_slices<'a>(&'a self, mut skip: usize, slices: &mut Vec<IoSlice<'a>>) {
        for bytes in self.first.iter().chain(&self.more).map(Piece::bytes) {
            if skip < bytes.len() {
                slices.push(IoSlice::new(&bytes[skip..]));
            }
            skip = skip.saturating_sub(bytes.len());
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.store.unpin(self.shard, self.id);
    }
}
