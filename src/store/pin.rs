//! Values that are read outside the shard's lock.
//!
//! While an item's `pins` are above 0, the bytes of its value stay where and as they are. The last unpin frees the item
//! if it was unlinked meanwhile. To drop a [`Pinned`] locks the shard and takes the pin off.
//!
//! Not here: values that are written outside the lock (`upload`).

use super::ItemId;
use super::memory::arena::Piece;
use super::shard::locked::{Locked, Shards};
use std::io::IoSlice;

/// A value that stays in place outside the lock.
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
    /// Keeps the value where and as it is, outside the lock, until the handle is dropped.
    pub fn pin(&mut self, id: ItemId) -> Pinned {
        self.add_pin(id);
        let len = self.window.chunk(id).len as usize;
        let mut extents = self.extents(id);
        let mut next = || extents.next(self).map(|(at, len)| self.window.lend(at, len));
        let first = next();
        let more = std::iter::from_fn(next).collect();
        Pinned { shards: self.shards().clone(), number: self.number, id, len, first, more }
    }
}

impl Pinned {
    /// The item.
    pub fn id(&self) -> ItemId {
        self.id
    }

    /// One of the runs of bytes that the value consists of.
    pub(super) fn piece(&self, number: usize) -> Option<&[u8]> {
        let piece = if number == 0 { self.first.as_ref() } else { self.more.get(number - 1) };
        piece.map(Piece::bytes)
    }

    /// Bytes of the value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Memory that the handle takes beside itself.
    pub fn held(&self) -> usize {
        self.more.capacity() * size_of::<Piece>()
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value from byte `skip` on.
    pub fn slices(&self, mut skip: usize) -> impl Iterator<Item = &[u8]> {
        self.first.iter().chain(&self.more).map(Piece::bytes).filter_map(move |bytes| {
            let from = skip.min(bytes.len());
            skip -= from;
            (from < bytes.len()).then(|| &bytes[from..])
        })
    }

    /// Appends the value from byte `skip` on to `slices`.
    pub fn io_slices<'a>(&'a self, skip: usize, slices: &mut Vec<IoSlice<'a>>) {
        slices.extend(self.slices(skip).map(IoSlice::new));
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.shards[self.number].unpin(self.id);
    }
}
