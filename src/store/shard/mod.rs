//! A shard: the items whose hashes begin with its number. All of it is behind one lock.
//!
//! ```text
//! make ──> (floating) ── link ──> LINKED: in the table and an LRU ── unlink ──> (floating) ── last unpin ──> FREE
//!              │ abandon ────────────────────────────────────────────── or at once when nobody pins it ──────^
//! ```
//!
//! Every change of what clients can see goes through `link`, `replace`, `unlink`, `overwrite` and the setters.
//!
//! Invariants: a linked item is in the table under its key's hash and in the list its state names; `bytes` is the
//! sum of the linked items' sizes.
//!
//! Not here: which list an item goes to and who is evicted (`lru`), chunks (`slab`).

mod check;
mod core;
mod evict;
pub mod item;
pub mod journaling;
pub mod lru;
pub mod table;

use super::memory::arena::{Window, offset};
use super::memory::classes::CLASSES;
use super::memory::layout::{Chunk, state};
use super::memory::slab::Slab;
use super::{AllocError, Hash, ItemSpec, Miss, Part, Tuning};
pub use core::Core;
use item::Item;
use lru::Lru;
use std::collections::BTreeMap;
use std::sync::Arc;
use table::Table;

/// Keys up to this are compared without a call.
const SHORT_KEY: usize = 40;

/// See the module's head.
#[derive(Debug)]
pub struct Shard {
    pub core: Arc<Core>,
    /// Copy of the store's, so that no lock is needed to read it.
    pub tuning: Tuning,
    pub window: Window,
    pub slab: Slab,
    pub table: Table,
    /// By class.
    pub lrus: Vec<Lru>,
    /// The item of an LRU that the crawler looks at next, or 0.
    pub cursor: u32,
    /// Bytes of the linked items.
    pub bytes: u64,
    /// Items ever linked, since the last reset.
    pub total_items: u64,
    /// Items by size rounded up to 32, divided by 32.
    pub sizes: Option<BTreeMap<usize, u64>>,
}

impl Shard {
    /// A shard without pages.
    pub fn new(core: Arc<Core>, tuning: Tuning, window: usize, table: Table) -> std::io::Result<Shard> {
        Ok(Shard {
            tuning,
            window: Window::new(window)?,
            slab: Slab::new(core.config.page_size),
            table,
            lrus: vec![Lru::default(); CLASSES],
            cursor: 0,
            bytes: 0,
            total_items: 0,
            sizes: core.config.track_sizes.then(BTreeMap::new),
            core,
        })
    }

    /// Finds a live item; one whose time has come is unlinked.
    #[inline]
    pub fn find(&mut self, key: &[u8], hash: Hash) -> Result<u32, Miss> {
        let id = self.locate(key, hash).ok_or(Miss::NotFound)?;
        match self.death(id) {
            None => Ok(id),
            Some(miss) => {
                self.note_gone(id);
                self.unlink(id, hash);
                Err(miss)
            }
        }
    }

    /// Finds an item, dead or alive.
    #[inline]
    fn locate(&self, key: &[u8], hash: Hash) -> Option<u32> {
        let window = &self.window;
        self.table.find(hash, |id| {
            let chunk = window.chunk(id);
            usize::from(chunk.key_len) == key.len() && same(window.bytes(offset(id) + chunk.key_at(), key.len()), key)
        })
    }

    /// Hints the CPU to fetch an item: all of a small one, the begin of a large one.
    #[inline]
    pub fn prefetch(&self, id: u32) {
        self.window.prefetch_lines(id, self.core.classes.size(self.slab.class_of(id)));
    }

    /// Hints the CPU to fetch the neighbours of an item in its list, in case a set of it needs another chunk.
    #[inline]
    pub fn prefetch_around(&self, id: u32) {
        let chunk = self.window.chunk(id);
        self.window.prefetch_head(chunk.next);
        self.window.prefetch_head(chunk.prev);
    }

    /// Why a linked item is not to be seen any more, None while it lives.
    #[inline]
    pub fn death(&self, id: u32) -> Option<Miss> {
        let header = self.window.header(id);
        let now = self.core.clock.now();
        if self.core.flush.cut(now).takes(header.stamp()) {
            Some(Miss::Flushed)
        } else if header.is_expired(now) {
            Some(Miss::Expired)
        } else {
            None
        }
    }

    /// The key of an item.
    #[inline]
    pub fn key(&self, id: u32) -> &[u8] {
        key_in(&self.window, id)
    }

    /// The class an item is listed in: the largest for one in pieces, else that of its chunk.
    #[inline]
    pub fn listed_class(&self, id: u32, chunk: &Chunk) -> u8 {
        if chunk.is(state::CHUNKED) { self.core.classes.largest() } else { self.slab.class_of(id) }
    }

    /// Makes a floating item whose value is `parts`.
    #[inline]
    pub fn create(&mut self, spec: &ItemSpec<'_>, parts: &[Part<'_>]) -> Result<u32, AllocError> {
        let value_len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(self.part_len(part)));
        let kept = self.keep(parts);
        let made = self.make(spec, value_len).and_then(|id| self.make_pieces(id, value_len).map(|()| id));
        self.unkeep(parts, kept);
        let id = made?;
        self.fill(id, parts);
        Ok(id)
    }

    /// Makes a floating item, the value not yet written and, for a large one, its pieces not yet there.
    #[inline]
    pub fn make(&mut self, spec: &ItemSpec<'_>, value_len: usize) -> Result<u32, AllocError> {
        let (key_len, has_flags) = (spec.key.len(), spec.client_flags != 0);
        assert!((1..=250).contains(&key_len), "a key of 1 to 250 bytes");
        let sizing = &self.core.sizing;
        let total = sizing.total(key_len, has_flags, value_len);
        if total > sizing.item_max {
            return Err(AllocError::TooLarge);
        }
        let chunked = total > sizing.chunk_max;
        let size = if chunked { sizing.head(key_len, has_flags) } else { total };
        let id = self.alloc(self.core.classes.of(size)).ok_or(AllocError::NoMemory)?;

        let bits = spec.bits() | if chunked { state::CHUNKED } else { 0 };
        let header = self.window.header_mut(id);
        header.chunk = Chunk { state: bits, key_len: key_len as u8, len: value_len as u32, ..Chunk::default() };
        header.cas = 0;
        header.expires_at = spec.expires_at;
        header.last_access = 0;
        let at = offset(id) + header.chunk.key_at();
        if chunked {
            self.set_chain(id, 0, 0);
        }
        self.window.bytes_mut(at, key_len).copy_from_slice(spec.key);
        if has_flags {
            self.window.bytes_mut(at + key_len, 4).copy_from_slice(&spec.client_flags.to_le_bytes());
        }
        Ok(id)
    }

    /// Makes a floating item visible.
    #[inline]
    pub fn link(&mut self, id: u32, hash: Hash, cas: Option<u64>) {
        self.enlist(id, cas);
        let Shard { table, window, core, .. } = self;
        table.insert(hash, id, |other| core.hash(key_in(window, other)), |other| window.prefetch(other));
    }

    /// Puts a floating item in the place of a linked one with the same key.
    #[inline]
    pub fn replace(&mut self, old: u32, new: u32, hash: Hash, cas: Option<u64>) {
        debug_assert_eq!(self.key(old), self.key(new));
        let stamp = self.window.header(old).stamp();
        self.table.replace(hash, old, new);
        self.delist(old);
        self.free(old);
        self.enlist(new, cas);
        // The old one was flushed since it was found. What was made from it came before the flush_all, too.
        if self.core.flush.cut(self.core.clock.now()).takes(stamp) {
            self.window.header_mut(new).set_stamp(stamp);
        }
    }

    /// Makes the live item of a key what a new one in its place would be, in the chunk that it has and mostly where it
    /// is in its list (see `lru`): that takes less than half of the cache lines that making, replacing and freeing take. None
    /// and no change where there is no such item, somebody reads it, another chunk is called for, or it is not certain
    /// that one could be had for a new item.
    #[inline]
    pub fn rewrite(&mut self, spec: &ItemSpec<'_>, hash: Hash, value: &[u8], cas: Option<u64>) -> Option<u32> {
        let id = self.locate(spec.key, hash)?;
        let (class, size) = self.may_rewrite(id, spec, value.len())?;
        let old_size = self.item(id).size();
        let cas = self.cas_to_give(cas);
        let header = self.window.header_mut(id);
        header.chunk.state = spec.bits() | state::LINKED | state::RENEWED | header.chunk.state & state::LRU;
        header.chunk.len = value.len() as u32;
        header.cas = cas;
        header.expires_at = spec.expires_at;
        let at = offset(id) + header.chunk.value_at();
        if spec.client_flags != 0 {
            self.window.bytes_mut(at - 4, 4).copy_from_slice(&spec.client_flags.to_le_bytes());
        }
        self.window.bytes_mut(at, value.len()).copy_from_slice(value);
        let now = self.stamp(id);
        self.recount(old_size, size);
        self.renew(class, id, (old_size, size), now);
        Some(id)
    }

    /// The class and size of the item as it will be, if it may.
    #[inline]
    fn may_rewrite(&self, id: u32, spec: &ItemSpec<'_>, value_len: usize) -> Option<(u8, usize)> {
        let Core { sizing, classes, config, .. } = &*self.core;
        let chunk = self.window.chunk(id);
        let size = sizing.total(spec.key.len(), spec.client_flags != 0, value_len);
        if chunk.pins > 0 || chunk.is(state::CHUNKED) || size > sizing.item_max.min(sizing.chunk_max) {
            return None;
        }
        let class = self.slab.class_of(id);
        let fits = classes.of(size) == class && self.death(id).is_none();
        // Without it a new chunk might be refused; in the flat LRU, asking for one reclaims.
        let certain = (config.evict || self.slab.has_ready(class)) && self.tuning.segmented;
        (fits && certain).then_some((class, size))
    }

    /// Takes a linked item out and frees it, or leaves that to the last unpin.
    #[inline]
    pub fn unlink(&mut self, id: u32, hash: Hash) {
        self.table.remove(hash, id);
        self.delist(id);
        self.free(id);
    }

    /// [`Shard::unlink`] for who does not know the hash.
    pub fn unlink_by_id(&mut self, id: u32) {
        self.note_gone(id);
        self.unlink(id, self.core.hash(self.key(id)));
    }

    /// Tells the journal of an item that goes without a client's asking.
    #[inline]
    fn note_gone(&self, id: u32) {
        if self.core.journal.enabled() {
            self.journal_gone(id);
        }
    }

    /// Frees a floating item unless it is pinned.
    #[inline]
    pub fn free(&mut self, id: u32) {
        let chunk = *self.window.chunk(id);
        assert!(!chunk.is(state::LINKED | state::FREE | state::PIECE), "not a floating item");
        if chunk.pins > 0 {
            return;
        }
        if chunk.is(state::CHUNKED) {
            self.free_pieces(id);
        }
        self.slab.put(id, &mut self.window);
    }

    /// Adds a pin; false when there are as many as can be counted.
    pub fn pin(&mut self, id: u32) -> bool {
        let chunk = self.window.chunk_mut(id);
        let Some(pins) = chunk.pins.checked_add(1) else { return false };
        chunk.pins = pins;
        true
    }

    /// Takes a pin off, and frees the item when it was the last one of a floating item.
    pub fn unpin(&mut self, id: u32) {
        let chunk = self.window.chunk_mut(id);
        chunk.pins = chunk.pins.checked_sub(1).expect("unpinned more than pinned");
        if chunk.pins == 0 && !chunk.is(state::LINKED) {
            self.free(id);
        }
    }

    /// Sets the last access to now. An item that was flushed since it was found stays flushed.
    #[inline]
    pub fn set_accessed(&mut self, id: u32) {
        let now = self.core.clock.now();
        let header = self.window.header_mut(id);
        if let Some(stamp) = self.core.flush.renewed(header.stamp(), now) {
            header.set_stamp(stamp);
        }
    }

    /// Overwrites the value in place, see [`super::Locked::overwrite`].
    pub fn overwrite(&mut self, id: u32, value: &[u8]) -> bool {
        let chunk = *self.window.chunk(id);
        if chunk.pins > 0 || chunk.is(state::CHUNKED) || chunk.len as usize != value.len() {
            return false;
        }
        self.window.bytes_mut(offset(id) + chunk.value_at(), value.len()).copy_from_slice(value);
        true
    }

    /// Where the bytes of a value lie.
    #[inline]
    pub fn extents(&self, id: u32) -> Extents {
        let chunk = self.window.chunk(id);
        let left = chunk.len as usize;
        if chunk.is(state::CHUNKED) {
            Extents { whole: None, piece: self.chain(id).0, left }
        } else {
            Extents { whole: Some(offset(id) + chunk.value_at()), piece: 0, left }
        }
    }

    /// Adds a piece to a floating item; `payload` is what is still to be held. Its id and how much it can hold.
    pub fn add_piece(&mut self, item: u32, payload: usize) -> Option<(u32, usize)> {
        let overhead = self.core.sizing.piece_overhead();
        let largest = self.core.classes.largest();
        let wanted = payload.saturating_add(overhead).min(self.core.sizing.chunk_max);
        // When the best class for the tail has no memory, a chunk of the largest may do.
        let id = self.alloc(self.core.classes.of(wanted)).or_else(|| self.alloc(largest))?;
        let (first, last) = self.chain(item);
        *self.window.chunk_mut(id) = Chunk { prev: last, state: state::PIECE, len: item, ..Chunk::default() };
        if last == 0 {
            self.set_chain(item, id, id);
        } else {
            self.window.chunk_mut(last).next = id;
            self.set_chain(item, first, id);
        }
        Some((id, self.core.classes.size(self.slab.class_of(id)) - overhead))
    }

    /// First and last piece of a large item, 0 none.
    pub fn chain(&self, id: u32) -> (u32, u32) {
        let bytes = self.window.bytes(offset(id) + 32, 8);
        let id_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        (id_at(0), id_at(4))
    }

    /// Sets what [`Shard::chain`] gives.
    pub fn set_chain(&mut self, id: u32, first: u32, last: u32) {
        let bytes = self.window.bytes_mut(offset(id) + 32, 8);
        bytes[..4].copy_from_slice(&first.to_le_bytes());
        bytes[4..].copy_from_slice(&last.to_le_bytes());
    }

    /// A view of an item.
    #[inline]
    pub fn item(&self, id: u32) -> Item<'_> {
        Item::new(self, id)
    }

    fn make_pieces(&mut self, id: u32, value_len: usize) -> Result<(), AllocError> {
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

    fn free_pieces(&mut self, id: u32) {
        let mut piece = self.chain(id).0;
        while piece != 0 {
            let chunk = self.window.chunk_mut(piece);
            assert!(chunk.is_piece() && chunk.len == id, "a chain leads astray");
            let next = chunk.next;
            chunk.state = 0;
            self.slab.put(piece, &mut self.window);
            piece = next;
        }
    }

    fn part_len(&self, part: &Part<'_>) -> usize {
        match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::Value(id) => self.window.chunk(id.0).len as usize,
        }
    }

    /// Keeps the items among `parts` from eviction. Says which were kept by this, one bit each.
    fn keep(&mut self, parts: &[Part<'_>]) -> u64 {
        let mut kept = 0;
        for (i, part) in parts.iter().enumerate() {
            if let Part::Value(id) = part {
                kept |= u64::from(self.pin(id.0)) << i;
            }
        }
        kept
    }

    fn unkeep(&mut self, parts: &[Part<'_>], kept: u64) {
        for (i, part) in parts.iter().enumerate() {
            if let Part::Value(id) = part
                && kept >> i & 1 != 0
            {
                self.window.chunk_mut(id.0).pins -= 1;
            }
        }
    }

    #[inline]
    fn fill(&mut self, id: u32, parts: &[Part<'_>]) {
        let mut extents = self.extents(id);
        let mut to = (0, 0);
        for part in parts {
            match part {
                Part::Bytes(bytes) => self.write(&mut extents, &mut to, bytes),
                Part::Value(from) => self.copy_from(&mut extents, &mut to, from.0),
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

    fn copy_from(&mut self, extents: &mut Extents, to: &mut (usize, usize), id: u32) {
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

    /// Puts an item in its list and into the sums.
    fn enlist(&mut self, id: u32, cas: Option<u64>) {
        let cas = self.cas_to_give(cas);
        let header = self.window.header_mut(id);
        assert!(!header.chunk.is(state::LINKED | state::FREE | state::PIECE), "linked twice");
        header.cas = cas;
        header.chunk.state |= state::LINKED;
        let (class, size) = (self.item(id).class(), self.item(id).size());
        let now = self.stamp(id);
        self.enroll(size);
        let lru = self.first_lru(id, now);
        self.push_in(class, id, lru, size);
    }

    /// Stamps an item that is stored now. The second that is.
    #[inline]
    fn stamp(&mut self, id: u32) -> u32 {
        let now = self.core.clock.now();
        let stamp = self.core.flush.stamp(now);
        self.window.header_mut(id).set_stamp(stamp);
        now
    }

    /// Adds to the sums what an item takes in the place of what it took.
    #[inline]
    fn recount(&mut self, old_size: usize, size: usize) {
        if self.sizes.is_some() {
            self.discount(old_size);
            return self.enroll(size);
        }
        self.bytes = self.bytes - old_size as u64 + size as u64;
        self.total_items += 1;
    }

    /// Enters the size of an item in the sums.
    #[inline]
    fn enroll(&mut self, size: usize) {
        self.bytes += size as u64;
        self.total_items += 1;
        if let Some(sizes) = &mut self.sizes {
            *sizes.entry(size.div_ceil(32)).or_insert(0) += 1;
        }
    }

    #[inline]
    fn cas_to_give(&self, cas: Option<u64>) -> u64 {
        match cas {
            None => self.core.next_cas(),
            Some(cas) if self.core.config.cas_enabled => cas,
            Some(_) => 0,
        }
    }

    /// The opposite of [`Shard::enlist`].
    fn delist(&mut self, id: u32) {
        let size = self.item(id).size();
        self.remove(id, size);
        self.window.chunk_mut(id).state &= !(state::LINKED | state::RENEWED);
        self.discount(size);
    }

    /// Takes the size of an item out of the sums.
    #[inline]
    fn discount(&mut self, size: usize) {
        self.bytes -= size as u64;
        if let Some(sizes) = &mut self.sizes {
            let count = sizes.get_mut(&size.div_ceil(32)).expect("its size was counted");
            *count -= 1;
            if *count == 0 {
                sizes.remove(&size.div_ceil(32));
            }
        }
    }
}

/// Whether two keys of the same length are the same. Most are short: eight bytes at a time, the last eight perhaps
/// twice, takes half of the instructions that calling `memcmp` takes.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else { return a == b };
    if a.len() > SHORT_KEY {
        return a == b;
    }
    let (eights_a, eights_b) = (a.chunks_exact(8), b.chunks_exact(8));
    last_a == last_b && std::iter::zip(eights_a, eights_b).all(|(a, b)| a == b)
}

/// The key of an item in a window.
#[inline]
pub fn key_in(window: &Window, id: u32) -> &[u8] {
    let chunk = window.chunk(id);
    window.bytes(offset(id) + chunk.key_at(), chunk.key_len.into())
}

/// A walk over the places of a value's bytes, in order.
#[derive(Clone, Debug)]
pub struct Extents {
    whole: Option<usize>,
    piece: u32,
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
        if self.piece == 0 {
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

#[cfg(test)]
mod tests {
    use crate::journal::acks::LastLsn;
    use crate::store::tests::rig::{TestStore, tiny};
    use crate::store::{ItemSpec, Part};
    use std::time::Instant;

    #[test]
    fn flush_alls_of_one_second_take_all() {
        let rig = TestStore::new(tiny());
        for round in 0..20 {
            (0..1000).for_each(|i| assert!(rig.set(&format!("key{i}"), b"value", 0)));
            rig.store.flush_all(0, None);
            assert!((0..1000).all(|i| rig.get(&format!("key{i}")).is_none()), "in round {round}");
            rig.store.check().unwrap();
        }
        assert!(rig.set("after", b"value", 0) && rig.get("after").is_some());
    }

    #[test]
    fn only_a_cas_of_a_source_is_followed_and_only_one_that_can_be_counted_up_to() {
        let rig = TestStore::new(tiny());
        let source = rig.store.announce(&[7], None, Instant::now()).expect("a source");
        let lsn = LastLsn::default();
        let table =
            [("a", Some(1000), true), ("b", Some(u64::MAX), true), ("evil", Some(5000), false), ("c", None, true)];
        for (key, cas, is_source) in table {
            let hash = rig.store.hash(key.as_bytes());
            let mut locked = rig.store.lock_for(hash, &lsn, is_source.then_some(&source));
            let spec = ItemSpec { key: key.as_bytes(), key_is_binary: false, client_flags: 0, expires_at: 0 };
            let id = locked.create(&spec, &[]).unwrap();
            locked.link(id, hash, cas);
            assert_eq!(locked.item(id).cas(), cas.unwrap_or(1001));
        }
    }

    #[test]
    fn what_meets_a_flush_all_halfway_does_not_escape_it() {
        let rig = TestStore::new(tiny());
        let keys: [&[u8]; 2] = [b"fetched", b"appended"];
        keys.iter().for_each(|key| assert!(rig.set(std::str::from_utf8(key).unwrap(), b"value", 0)));
        for key in keys {
            let hash = rig.store.hash(key);
            let mut locked = rig.store.lock(hash);
            let id = locked.find(key, hash).unwrap();
            // Another thread's flush_all, which has not locked this shard yet.
            assert!(rig.store.core.flush.now(rig.clock.now()));
            if key == b"fetched" {
                locked.set_accessed(id);
            } else {
                let spec = ItemSpec { key, key_is_binary: false, client_flags: 0, expires_at: 0 };
                let new = locked.create(&spec, &[Part::Value(id), Part::Bytes(b"more")]).unwrap();
                locked.replace(id, new, hash, None);
            }
            drop(locked);
            assert_eq!(rig.get(std::str::from_utf8(key).unwrap()), None);
            assert!(rig.set("appended", b"value", 0));
        }
        assert!(rig.get("appended").is_some());
    }
}
