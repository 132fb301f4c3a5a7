//! The bytes of values: where they lie, how they are put there, and the pieces of large ones.
//!
//! Not here: the bytes of a chunk (`memory::layout`).

use super::Shard;
use crate::store::memory::arena::offset;
use crate::store::memory::layout::{Chunk, state};
use crate::store::{AllocError, ItemId, ItemSpec, Part};

impl Shard {
    /// Where the bytes of a value lie.
    #[inline]
    pub fn extents(&self, id: ItemId) -> Extents {
        let chunk = self.window.chunk(id);
        let left = chunk.len as usize;
        if chunk.is(state::CHUNKED) {
            Extents { whole: None, piece: self.chain(id).0, left }
        } else {
            Extents { whole: Some(offset(id) + self.window.value_at(chunk)), piece: ItemId::NONE, left }
        }
    }

    /// The class of the next piece of a value of which so much is still to be held.
    pub fn piece_class(&self, payload: usize) -> u8 {
        let sizing = &self.core.sizing;
        self.core.classes.of(payload.saturating_add(sizing.piece_overhead()).min(sizing.chunk_max))
    }

    /// The classes of the chunks with which an item begins: its head or all of it, and its first piece.
    pub fn first_classes(&self, spec: &ItemSpec<'_>, value_len: usize) -> [Option<u8>; 2] {
        let (sizing, classes) = (&self.core.sizing, &self.core.classes);
        let (key_len, has_flags) = (spec.key.len(), spec.client_flags != 0);
        let total = sizing.total(key_len, has_flags, value_len);
        if total <= sizing.chunk_max {
            return [Some(classes.of(total)), None];
        }
        let piece = (total <= sizing.item_max).then(|| self.piece_class(sizing.payload(value_len)));
        [Some(classes.of(sizing.head(key_len, has_flags))), piece]
    }

    /// Adds a piece to a floating item; `payload` is what is still to be held. Its id and how much it can hold.
    pub fn add_piece(&mut self, item: ItemId, payload: usize) -> Option<(ItemId, usize)> {
        let overhead = self.core.sizing.piece_overhead();
        let largest = self.core.classes.largest();
        // When the best class for the tail has no memory, a chunk of the largest may do.
        let id = self.alloc(self.piece_class(payload)).or_else(|| self.alloc(largest))?;
        let (first, last) = self.chain(item);
        *self.window.chunk_mut(id) = Chunk { prev: last, state: state::PIECE, len: item.0, ..Chunk::default() };
        if last == ItemId::NONE {
            self.set_chain(item, id, id);
        } else {
            self.window.chunk_mut(last).next = id;
            self.set_chain(item, first, id);
        }
        Some((id, self.core.classes.size(self.slab.class_of(id)) - overhead))
    }

    /// First and last piece of a large item, 0 none.
    pub fn chain(&self, id: ItemId) -> (ItemId, ItemId) {
        let bytes = self.window.bytes(offset(id) + self.window.value_at(self.window.chunk(id)), 8);
        let id_at = |at: usize| ItemId(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")));
        (id_at(0), id_at(4))
    }

    /// Sets what [`Shard::chain`] gives.
    pub fn set_chain(&mut self, id: ItemId, first: ItemId, last: ItemId) {
        let at = offset(id) + self.window.value_at(self.window.chunk(id));
        let bytes = self.window.bytes_mut(at, 8);
        bytes[..4].copy_from_slice(&first.0.to_le_bytes());
        bytes[4..].copy_from_slice(&last.0.to_le_bytes());
    }

    /// Takes over a floating item from who has filled it outside the lock; `sum` is of its pieces, if it is in pieces.
    pub fn take_over(&mut self, id: ItemId, sum: Option<u64>) -> Result<ItemId, AllocError> {
        self.window.chunk_mut(id).pins = 0;
        if !self.may_add() {
            self.free(id);
            return Err(AllocError::NoMemory);
        }
        self.seal_filled(id, sum);
        Ok(id)
    }

    pub(super) fn make_pieces(&mut self, id: ItemId, value_len: usize) -> Result<(), AllocError> {
        if !self.window.chunk(id).is(state::CHUNKED) {
            return Ok(());
        }
        let mut left = value_len;
        while left > 0 {
            let Some((_, holds)) = self.add_piece(id, self.core.sizing.payload(left)) else {
                self.free(id);
                return Err(AllocError::NoMemory);
            };
            left = left.saturating_sub(holds);
        }
        Ok(())
    }

    pub(super) fn free_pieces(&mut self, id: ItemId) {
        let mut piece = self.chain(id).0;
        while piece != ItemId::NONE {
            let chunk = self.window.chunk_mut(piece);
            assert!(chunk.is_piece() && chunk.piece_of() == id, "a chain leads astray");
            let next = chunk.next;
            chunk.state = 0;
            self.slab.put(piece, &mut self.window);
            piece = next;
        }
    }

    pub(super) fn part_len(&self, part: &Part<'_>) -> usize {
        match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Value(id) => self.window.chunk(*id).len as usize,
        }
    }

    /// Keeps the items among `parts` from eviction.
    pub(super) fn keep(&mut self, parts: &[Part<'_>]) {
        for part in parts {
            if let Part::Value(id) = part {
                self.add_pin(*id);
            }
        }
    }

    /// Ends what [`Shard::keep`] began. A new item among `parts` stays: it is nobody's yet.
    pub(super) fn unkeep(&mut self, parts: &[Part<'_>]) {
        for part in parts {
            if let Part::Value(id) = part {
                self.unkeep_one(*id);
            }
        }
    }

    #[inline]
    pub(super) fn fill(&mut self, id: ItemId, parts: &[Part<'_>]) {
        let mut extents = self.extents(id);
        let mut to = (0, 0);
        for part in parts {
            match part {
                Part::Bytes(bytes) => self.write(&mut extents, &mut to, bytes),
                Part::Value(from) => self.copy_from(&mut extents, &mut to, *from),
            }
        }
    }

    #[inline]
    fn write(&mut self, extents: &mut Extents, to: &mut (usize, usize), mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (at, n) = self.room(extents, to, bytes.len());
            let (now, later) = bytes.split_at(n);
            self.window.bytes_mut(at, n).copy_from_slice(now);
            bytes = later;
        }
    }

    fn copy_from(&mut self, extents: &mut Extents, to: &mut (usize, usize), id: ItemId) {
        let mut from = self.extents(id);
        while let Some((mut start, mut len)) = from.next(self) {
            while len > 0 {
                let (at, n) = self.room(extents, to, len);
                self.window.copy(start, at, n);
                start += n;
                len -= n;
            }
        }
    }

    /// Takes up to `wanted` bytes of the room for a value.
    #[inline]
    fn room(&self, extents: &mut Extents, to: &mut (usize, usize), wanted: usize) -> (usize, usize) {
        if to.1 == 0 {
            *to = extents.next(self).expect("a value is longer than its room");
        }
        let (at, n) = (to.0, wanted.min(to.1));
        *to = (at + n, to.1 - n);
        (at, n)
    }
}

/// A walk over the places of a value's bytes, in order.
#[derive(Clone, Debug)]
pub struct Extents {
    whole: Option<usize>,
    piece: ItemId,
    left: usize,
}

impl Extents {
    /// Offset in the window and length of the next run of bytes; never an empty one.
    #[inline]
    pub fn next(&mut self, shard: &Shard) -> Option<(usize, usize)> {
        if self.left == 0 {
            return None;
        }
        let (at, len) = match self.whole {
            Some(at) => (at, self.left),
            None => self.next_piece(shard)?,
        };
        self.left -= len;
        Some((at, len))
    }

    fn next_piece(&mut self, shard: &Shard) -> Option<(usize, usize)> {
        if self.piece == ItemId::NONE {
            return None;
        }
        let chunk = shard.window.chunk(self.piece);
        assert!(chunk.is_piece(), "a chain leads astray");
        let holds = shard.core.classes.size(shard.slab.class_of(self.piece)) - shard.core.sizing.piece_overhead();
        let at = offset(self.piece) + size_of::<Chunk>();
        self.piece = chunk.next;
        Some((at, holds.min(self.left)))
    }
}
