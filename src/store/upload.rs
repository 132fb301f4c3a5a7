//! Values that arrive in pieces, written in place outside the shard's lock.
//!
//! ```text
//! new ──> floating item, pins = 1 ── room, filled, room … ──> complete ── finish, under the lock ──> an item to link
//!             │ dropped before that: freed, under the lock
//! ```
//!
//! Invariants: only the uploader touches the bytes of the value, between `begin_use` and `end_use` of its loan; `Core::lent`
//! counts the bytes of all uploads.
//!
//! Not here: who loses its memory to whom (`lent`), what is linked, and when (`command`).

use super::lent::Loan;
use super::memory::arena::{Piece, offset};
use super::memory::layout::{Chunk, state};
use super::shard::Core;
use super::shard::locked::{Locked, Shards};
use super::shard::seal::piece_sum;
use super::{AllocError, ItemId, ItemSpec};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An item that is arriving: memory that only this handle writes. It is freed when the handle is dropped before it is
/// finished.
#[derive(Debug)]
pub struct Upload {
    shards: Shards,
    core: Arc<Core>,
    number: usize,
    /// NONE when finished.
    id: ItemId,
    loan: Arc<Loan>,
    /// Among [`Core::loans`].
    entry: usize,
    /// Bytes that have come since the loan was told of some.
    untold: usize,
    chunked: bool,
    /// Bytes of the value still to come.
    left: usize,
    room: Option<Piece>,
    /// Bytes of `room` that are filled.
    used: usize,
    /// In a memory file: what the pieces that are filled add to the item's seal.
    sum: u64,
}

impl Upload {
    /// Makes room in a shard. This may fail with `TooLarge` or `NoMemory`.
    pub fn new(shards: &Shards, number: usize, spec: &ItemSpec<'_>, value_len: usize) -> Result<Upload, AllocError> {
        let mut shard = Locked::new(shards, number);
        let made = shard.make(spec, value_len);
        shard.look_ahead();
        let id = made?;
        shard.window.chunk_mut(id).pins = 1;
        let chunk = *shard.window.chunk(id);
        let chunked = chunk.is(state::CHUNKED);
        let room = (!chunked).then(|| shard.window.lend(offset(id) + chunk.value_at(), value_len));
        let (core, size) = (shard.core.clone(), shard.core.classes.size(shard.slab.class_of(id)) as u64);
        drop(shard);
        let (shards, (loan, entry)) = (shards.clone(), core.loans.enter(number, id));
        let left = value_len;
        let mut upload =
            Upload { shards, core, number, id, loan, entry, untold: 0, chunked, left, room, used: 0, sum: 0 };
        upload.borrow(size)?;
        upload.room()?;
        upload.loan.end_use();
        Ok(upload)
    }

    /// Where the next bytes go, until [`Upload::filled`] is called; empty only when the value is complete. For a value in
    /// chained chunks this may take one more chunk, and so lock the shard. The error is, too, that it stood still for so
    /// long that others have its memory.
    pub fn room(&mut self) -> Result<&mut [u8], AllocError> {
        if !self.loan.begin_use() {
            return Err(AllocError::NoMemory);
        }
        if self.left > 0 && self.room.as_ref().is_none_or(|room| room.bytes().len() == self.used) {
            self.next_piece()?;
        }
        Ok(self.room.as_mut().map_or(&mut [], |room| &mut room.bytes_mut()[self.used..]))
    }

    /// Notes that the first `n` bytes of the last room were filled.
    pub fn filled(&mut self, n: usize) {
        let room = self.room.as_ref().map_or(0, |room| room.bytes().len() - self.used);
        assert!(n <= room, "filled more than there was room");
        self.used += n;
        self.left -= n;
        self.assert_sound();
        if n > 0 && self.chunked && self.core.sizing.seal > 0 {
            self.sum_up();
        }
        self.untold += n;
        if self.loan.note_bytes(self.untold) {
            self.untold = 0;
        }
        self.loan.end_use();
    }

    /// Outside the lock, where it costs nobody else's time.
    fn sum_up(&mut self) {
        if let Some(room) = self.room.as_ref().filter(|room| room.bytes().len() == self.used) {
            self.sum = piece_sum(self.core.hash_seed, room.bytes(), self.sum);
        }
    }

    /// Whether every byte has arrived.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    fn next_piece(&mut self) -> Result<(), AllocError> {
        assert!(self.chunked, "a value in one piece has all its room");
        let sizing = self.core.sizing;
        let payload = sizing.payload(self.left);
        self.borrow((payload + sizing.piece_overhead()).min(sizing.chunk_max) as u64)?;
        let mut shard = Locked::new(&self.shards, self.number);
        let piece = shard.add_piece(self.id, payload);
        shard.look_ahead();
        let (piece, holds) = piece.ok_or(AllocError::NoMemory)?;
        self.room = Some(shard.window.lend(offset(piece) + size_of::<Chunk>(), holds.min(self.left)));
        self.used = 0;
        self.assert_sound();
        Ok(())
    }

    /// After each step: what is still to come fits in the room, or another piece is taken for the rest.
    fn assert_sound(&self) {
        let room = self.room.as_ref().map_or(0, |room| room.bytes().len() - self.used);
        assert!(room <= self.left && (self.chunked || room == self.left), "an upload's room is miscounted");
    }

    /// Counts `size` more bytes of uploads. An upload that is the only one may always go on.
    fn borrow(&mut self, size: u64) -> Result<(), AllocError> {
        let core = &self.core;
        let (most, mine) = (core.pool.limit() / 2, self.loan.bytes.load(Ordering::Relaxed));
        let grown = |lent: u64| (lent == mine || lent + size <= most).then_some(lent + size);
        while core.lent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
            if !revoke_silent(&self.shards, core) {
                return Err(AllocError::NoMemory);
            }
        }
        self.loan.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }
}

/// Takes the memory of the upload that has been silent for longest. False when none was.
pub(super) fn revoke_silent(shards: &Shards, core: &Core) -> bool {
    let Some(loan) = core.loans.revoke_silent() else { return false };
    core.lent.fetch_sub(loan.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    shards[loan.shard].unpin(loan.id);
    true
}

impl Locked<'_> {
    /// Takes over the item of a complete upload of this shard.
    pub fn finish(&mut self, mut upload: Upload) -> Result<ItemId, AllocError> {
        assert_eq!(upload.number, self.number, "an upload of another shard");
        assert!(upload.is_complete(), "finished before it was complete");
        if !upload.loan.begin_use() {
            return Err(AllocError::NoMemory);
        }
        let id = std::mem::take(&mut upload.id);
        self.take_over(id, upload.chunked.then_some(upload.sum))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.core.loans.leave(self.entry);
        if !self.loan.begin_use() {
            return;
        }
        self.core.lent.fetch_sub(self.loan.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        if self.id != ItemId::NONE {
            self.shards[self.number].unpin(self.id);
        }
    }
}
