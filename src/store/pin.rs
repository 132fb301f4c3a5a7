//! Values that are read or written outside the shard's lock.
//!
//! ```text
//! Pinned   linked item, pins > 0: value bytes stay where and as they are; freed by the last unpin if unlinked
//! Upload   floating item, pins = 1: nobody but the uploader touches its value bytes
//! ```
//!
//! Both give back what they hold when they are dropped, and take the shard's lock for it.

use super::memory::arena::{Piece, offset};
use super::shard::Shard;
use super::shard::item::{Chunk, state};
use super::{AllocError, ItemSpec, Store};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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

/// An item on its way in: memory that only its owner writes, freed when dropped before it is finished.
#[derive(Debug)]
pub struct Upload {
    store: Arc<Store>,
    shard: usize,
    /// 0 when finished.
    id: u32,
    key: Piece,
    chunked: bool,
    /// Bytes of the value still to come.
    left: usize,
    room: Option<Piece>,
    /// Bytes of `room` that are filled.
    used: usize,
    /// What it counts for in [`crate::store::shard::Core::lent`].
    lent: u64,
}

impl Upload {
    pub(crate) fn new(
        store: &Arc<Store>,
        index: usize,
        spec: &ItemSpec<'_>,
        value_len: usize,
    ) -> Result<Upload, AllocError> {
        let mut shard = store.shard(index);
        let made = shard.make(spec, value_len);
        store.look_ahead(&mut shard);
        let id = made?;
        shard.window.chunk_mut(id).pins = 1;
        let chunk = *shard.window.chunk(id);
        let key = shard.window.lend(offset(id) + chunk.key_at(), spec.key.len());
        let chunked = chunk.is(state::CHUNKED);
        let room = (!chunked).then(|| shard.window.lend(offset(id) + chunk.value_at(), value_len));
        let size = shard.core.classes.size(shard.slab.class_of(id)) as u64;
        drop(shard);
        let store = store.clone();
        let mut upload = Upload { store, shard: index, id, key, chunked, left: value_len, room, used: 0, lent: 0 };
        upload.borrow(size)?;
        upload.room()?;
        Ok(upload)
    }

    /// The key it was made with.
    pub fn key(&self) -> &[u8] {
        self.key.bytes()
    }

    /// Where the next bytes go; not empty unless complete. For a value in chained chunks this may take one
    /// more chunk, and so the shard's lock.
    pub fn room(&mut self) -> Result<&mut [u8], AllocError> {
        if self.left > 0 && self.room.as_ref().is_none_or(|room| room.bytes().len() == self.used) {
            self.next_piece()?;
        }
        Ok(self.room.as_mut().map_or(&mut [], |room| &mut room.bytes_mut()[self.used..]))
    }

    /// Says that the first `n` bytes of the last room were filled.
    pub fn filled(&mut self, n: usize) {
        let room = self.room.as_ref().map_or(0, |room| room.bytes().len() - self.used);
        assert!(n <= room, "filled more than there was room");
        self.used += n;
        self.left -= n;
    }

    /// Whether every byte has arrived.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    /// Hands the item over to the holder of the shard's lock.
    pub(crate) fn finish(mut self, shard: &mut Shard) -> u32 {
        assert!(self.is_complete(), "finished before it was complete");
        let id = std::mem::take(&mut self.id);
        shard.window.chunk_mut(id).pins = 0;
        id
    }

    fn next_piece(&mut self) -> Result<(), AllocError> {
        assert!(self.chunked, "a value in one piece has all its room");
        let sizing = self.store.core.sizing;
        let payload = sizing.payload(self.left);
        self.borrow((payload + sizing.piece_overhead()).min(sizing.chunk_max) as u64)?;
        let mut shard = self.store.shard(self.shard);
        let piece = shard.add_piece(self.id, payload);
        self.store.look_ahead(&mut shard);
        let (piece, holds) = piece.ok_or(AllocError::NoMemory)?;
        self.room = Some(shard.window.lend(offset(piece) + size_of::<Chunk>(), holds.min(self.left)));
        self.used = 0;
        Ok(())
    }

    /// Counts `size` more bytes as lent. A single upload may always go on.
    fn borrow(&mut self, size: u64) -> Result<(), AllocError> {
        let core = &self.store.core;
        let most = core.pool.limit() / 2;
        let grown = |lent: u64| (lent == self.lent || lent + size <= most).then_some(lent + size);
        let lent = core.lent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        self.lent += lent.map(|_| size).map_err(|_| AllocError::NoMemory)?;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.store.core.lent.fetch_sub(self.lent, Ordering::Relaxed);
        if self.id != 0 {
            self.store.unpin(self.shard, self.id);
        }
    }
}

impl Store {
    fn unpin(&self, index: usize, id: u32) {
        // After a panic under the lock there is nothing left to give back to, and a second panic would hide it.
        if let Ok(mut shard) = self.slots[index].shard.lock() {
            shard.unpin(id);
        }
    }
}
