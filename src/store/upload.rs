//! Values that arrive in pieces, written in place outside the shard's lock.
//!
//! ```text
//! new ──> floating item, pins = 1 ── room, filled, room … ──> complete ── finish, under the lock ──> an item to link
//!             │ dropped before that: freed, under the lock
//! ```
//!
//! The pieces of a large value are taken some at a time, so that one system call can fill them. Where the next one would lie
//! in memory that the system has yet to clear, the uploader waits until that is done ([`Upload::must_wait`]): a worker that
//! filled it first would be stopped for as long, and all its clients with it.
//!
//! Invariants: only the uploader touches the bytes of the value, between `begin_use` and `end_use` of its loan; `Core::lent`
//! counts the bytes of all uploads of clients.
//!
//! Not here: who loses its memory to whom (`lent`), what is linked, and when (`command`).

use super::lent::Loan;
use super::memory::arena::{Piece, offset};
use super::memory::layout::{Chunk, state};
use super::shard::Core;
use super::shard::locked::{Locked, Shards};
use super::shard::seal::piece_sum;
use super::{AllocError, ItemId, ItemSpec};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pieces that are ready to be filled: with 14 KB each, a little more than a socket holds. More are taken when half of them
/// are full.
pub const ROOMS_MAX: usize = 16;

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
    /// Its memory counts as lent, and may be taken away while nothing comes.
    is_lent: bool,
    /// Bytes of the value, and how many of them are still to come.
    len: usize,
    left: usize,
    /// What is to be filled next, in order.
    rooms: VecDeque<Piece>,
    /// Bytes of `rooms`.
    ready: usize,
    /// Bytes of the first of them that are filled.
    used: usize,
    /// In a memory file: what the pieces that are filled add to the item's seal.
    sum: u64,
}

impl Upload {
    /// Makes room in a shard for what a client sends. This may fail with `TooLarge` or `NoMemory`.
    pub fn new(shards: &Shards, number: usize, spec: &ItemSpec<'_>, value_len: usize) -> Result<Upload, AllocError> {
        Upload::begin(shards, (number, true), spec, value_len)
    }

    /// The same for what the server has already, one of which there is at a time: it never stands still, and takes nothing
    /// of what clients may.
    pub fn of_server(
        shards: &Shards,
        number: usize,
        spec: &ItemSpec<'_>,
        value_len: usize,
    ) -> Result<Upload, AllocError> {
        Upload::begin(shards, (number, false), spec, value_len)
    }

    fn begin(
        shards: &Shards,
        (number, is_lent): (usize, bool),
        spec: &ItemSpec<'_>,
        value_len: usize,
    ) -> Result<Upload, AllocError> {
        let mut shard = Locked::new(shards, number);
        let made = shard.make(spec, value_len);
        shard.look_ahead();
        let id = made?;
        shard.window.chunk_mut(id).pins = 1;
        let chunk = *shard.window.chunk(id);
        let chunked = chunk.is(state::CHUNKED);
        let rooms: VecDeque<Piece> = (!chunked)
            .then(|| shard.window.lend(offset(id) + shard.window.value_at(&chunk), value_len))
            .into_iter()
            .collect();
        let (core, size) = (shard.core.clone(), shard.core.classes.size(shard.slab.class_of(id)) as u64);
        drop(shard);
        let (shards, (loan, entry)) = (shards.clone(), core.loans.enter(number, id));
        let (len, left, ready) = (value_len, value_len, if chunked { 0 } else { value_len });
        let (untold, used, sum) = (0, 0, 0);
        let mut upload = Upload {
            shards,
            core,
            number,
            id,
            loan,
            entry,
            untold,
            chunked,
            is_lent,
            len,
            left,
            rooms,
            ready,
            used,
            sum,
        };
        upload.borrow(size)?;
        upload.prepare()?;
        upload.end_use();
        Ok(upload)
    }

    /// Whether memory for such a value is about to be got ahead of need, and is not there yet.
    pub fn must_wait_for(shards: &Shards, number: usize, spec: &ItemSpec<'_>, value_len: usize) -> bool {
        let shard = Locked::new(shards, number);
        let classes = shard.first_classes(spec, value_len);
        classes.into_iter().flatten().any(|class| shard.must_wait(class))
    }

    /// Whether the memory of what comes next is about to be got ahead of need, and is not there yet. Who does not wait is
    /// served all the same.
    pub fn must_wait(&self) -> bool {
        if !self.rooms.is_empty() || self.left == 0 || !self.chunked {
            return false;
        }
        let shard = Locked::new(&self.shards, self.number);
        shard.must_wait(shard.piece_class(self.core.sizing.payload(self.left)))
    }

    /// Where the next bytes go, until [`Upload::filled`] is called; empty only when the value is complete. For a value in
    /// chained chunks this may take more chunks, and so lock the shard. The error is, too, that it stood still for so
    /// long that others have its memory.
    pub fn room(&mut self) -> Result<&mut [u8], AllocError> {
        self.prepare()?;
        Ok(if self.left == 0 { &mut [] } else { &mut self.rooms[0].bytes_mut()[self.used..] })
    }

    /// The same, and what is ready behind it: at most `most` bytes, in at most [`ROOMS_MAX`] slices. How many bytes it is.
    pub fn rooms<'a>(&'a mut self, most: usize, mut each: impl FnMut(IoSliceMut<'a>)) -> Result<usize, AllocError> {
        self.prepare()?;
        let (mut skip, mut left) = (self.used, most);
        for room in self.rooms.iter_mut().map(Piece::bytes_mut) {
            let n = (room.len() - skip).min(left);
            if n == 0 {
                break;
            }
            each(IoSliceMut::new(&mut room[skip..skip + n]));
            (skip, left) = (0, left - n);
        }
        Ok(most - left)
    }

    /// Begins to use the memory, and sees to it that there is some.
    fn prepare(&mut self) -> Result<(), AllocError> {
        if !self.loan.begin_use() {
            return Err(AllocError::NoMemory);
        }
        let is_short = self.rooms.len() <= ROOMS_MAX / 2 && self.ready - self.used < self.left;
        if is_short
            && let Err(error) = self.next_pieces()
            && self.rooms.is_empty()
        {
            return Err(error);
        }
        self.assert_sound();
        Ok(())
    }

    /// Notes that the next `n` bytes were filled.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.ready - self.used, "filled more than there was room");
        self.used += n;
        self.left -= n;
        while let Some(room) = self.rooms.front().filter(|room| room.bytes().len() <= self.used) {
            // Outside the lock, where it costs nobody else's time.
            if self.chunked && self.core.sizing.seal > 0 {
                self.sum = piece_sum(self.core.hash_seed, room.bytes(), self.sum);
            }
            self.used -= room.bytes().len();
            self.ready -= room.bytes().len();
            self.rooms.pop_front();
        }
        self.assert_sound();
        self.untold += n;
        if self.loan.note_bytes(self.untold) {
            self.untold = 0;
        }
        self.end_use();
    }

    fn end_use(&self) {
        if self.is_lent {
            self.loan.end_use();
        }
    }

    /// Bytes of the value.
    pub fn value_len(&self) -> usize {
        self.len
    }

    /// Says that it waits for others from now on and not for its client: nobody takes its memory any more.
    pub fn keep(&self) {
        // If somebody has, that is found out when it is finished.
        self.loan.begin_use();
    }

    /// Whether uploads have so much memory that one that is complete is not to keep its own.
    pub fn is_scarce(&self) -> bool {
        self.core.lent.load(Ordering::Relaxed) > self.core.pool.limit() / 4
    }

    /// Whether every byte has arrived.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Takes pieces, until there are enough or there is no memory.
    fn next_pieces(&mut self) -> Result<(), AllocError> {
        assert!(self.chunked, "a value in one piece has all its room");
        let sizing = self.core.sizing;
        let mut left = self.left + self.used - self.ready;
        let most = (ROOMS_MAX - self.rooms.len()) * sizing.chunk_max;
        let mut asked = sizing.payload(left).min(most) as u64;
        self.borrow(asked)?;
        let mut shard = Locked::new(&self.shards, self.number);
        while left > 0 && self.rooms.len() < ROOMS_MAX {
            if !self.rooms.is_empty() && shard.must_wait(shard.piece_class(sizing.payload(left))) {
                drop(shard);
                self.repay(asked);
                return Ok(());
            }
            let Some((piece, holds)) = shard.add_piece(self.id, sizing.payload(left)) else {
                shard.look_ahead();
                return Err(AllocError::NoMemory);
            };
            let len = holds.min(left);
            self.rooms.push_back(shard.window.lend(offset(piece) + size_of::<Chunk>(), len));
            self.ready += len;
            left -= len;
            asked = asked.saturating_sub(len as u64);
        }
        shard.look_ahead();
        Ok(())
    }

    /// After each step: what is still to come fits in the room, or more pieces are taken for the rest.
    fn assert_sound(&self) {
        let room = self.ready - self.used;
        assert!(room <= self.left && (self.chunked || room == self.left), "an upload's room is miscounted");
    }

    /// Counts `size` more bytes of uploads. An upload that is the only one may always go on.
    fn borrow(&mut self, size: u64) -> Result<(), AllocError> {
        if !self.is_lent {
            return Ok(());
        }
        let core = &self.core;
        let (most, mine) = (lendable(core), self.loan.bytes.load(Ordering::Relaxed));
        let grown = |lent: u64| (lent == mine || lent + size <= most).then_some(lent + size);
        while core.lent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
            if !revoke_silent(&self.shards, core) {
                return Err(AllocError::NoMemory);
            }
        }
        self.loan.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Counts `size` bytes of uploads no more.
    fn repay(&self, size: u64) {
        if !self.is_lent {
            return;
        }
        self.loan.bytes.fetch_sub(size, Ordering::Relaxed);
        self.core.lent.fetch_sub(size, Ordering::Relaxed);
    }
}

/// What all uploads may have: half of the limit, or what the first pages of all classes leave of it, but a quarter at least. The
/// pieces of other values lie in what neither has.
fn lendable(core: &Core) -> u64 {
    let limit = core.pool.limit();
    let page = (core.config.page_size as u64) << core.shard_bits;
    let first_pages = page * u64::from(core.classes.largest());
    limit.saturating_sub(first_pages).clamp(limit / 4, limit / 2)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreConfig;
    use crate::store::tests::rig::TestStore;

    #[test]
    fn uploads_leave_memory_for_a_value_of_any_length() {
        let rig = TestStore::new(StoreConfig { fits_memory: true, ..StoreConfig::default() }.fitted());
        let classes = &rig.store.core.classes;
        // An item that fills a chunk of each class, so that it has its first page.
        for size in (1..=classes.largest()).map(|class| classes.size(class)) {
            let key = size.to_string();
            let len = size - rig.store.core.sizing.total(key.len(), true, 0);
            assert!(rig.set(&key, &vec![1; len], 0), "{len} bytes");
        }
        assert_eq!(rig.sum(|class| class.total_pages), u64::from(classes.largest()));
        let mut uploads = Vec::new();
        let is_full = (0..64).any(|i| {
            let key = format!("upload{i}").into_bytes();
            let spec = ItemSpec { key: &key, key_is_binary: false, client_flags: 0, expires_at: 0 };
            let Ok(mut upload) = rig.store.upload(rig.store.hash(&key), &spec, 1_000_000) else { return true };
            while let Ok(room @ [_, ..]) = upload.room() {
                let n = room.len();
                upload.filled(n);
            }
            let is_whole = upload.is_complete();
            uploads.push(upload);
            !is_whole
        });
        assert!(is_full, "there is no end to uploads");
        for len in (0..20).map(|doublings| 1 << doublings).chain([1_000_000]) {
            assert!(rig.set("value", &vec![2; len], 0), "{len} bytes");
        }
        assert!(uploads.len() > 16, "{}", uploads.len());
    }
}
