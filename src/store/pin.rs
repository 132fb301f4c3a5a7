//! Values that are read outside the shard's lock.
//!
//! A pinned value is that of an item whose `pins` are above 0: its bytes stay where and as they are, and the last unpin
//! frees the item if it was unlinked meanwhile. A pin is given back when it is dropped, under the shard's lock.
//!
//! Not here: values that are written outside the lock (`upload`).

use super::ItemId;
use super::memory::arena::Piece;
use super::shard::locked::{Locked, Shards};
use std::io::IoSlice;

/// A value held in place outside the lock.
#[derive(Debug)]
pub struct Pinned {
    shards: Shards,
    number: usize,
    id: ItemId,
    len: usize,
    first: Option<Piece>,
    more: Vec<Piece>,
}

impl Locked<'_> {
    /// Keeps the value where it is and as it is until the handle is dropped, outside the lock. None when too
    /// many hold it already: copy instead.
    pub fn pin(&mut self, id: ItemId) -> Option<Pinned> {
        if !self.add_pin(id) {
            return None;
        }
        let len = self.window.chunk(id).len as usize;
        let mut extents = self.extents(id);
        let mut next = || extents.next(self).map(|(at, len)| self.window.lend(at, len));
        let first = next();
        let more = std::iter::from_fn(next).collect();
        Some(Pinned { shards: self.shards().clone(), number: self.number, id, len, first, more })
    }
}

impl Pinned {
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
        self.shards[self.number].unpin(self.id);
    }
}
