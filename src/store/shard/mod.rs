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
mod fifo;
pub(super) mod ghost;
mod idle;
pub(super) mod item;
mod journaling;
pub(super) mod locked;
pub(super) mod lru;
pub(super) mod page_gain;
mod pins;
pub(super) mod recent;
pub(super) mod restore;
pub(super) mod seal;
mod setters;
mod sums;
pub(super) mod table;
mod value;

pub(super) use core::Core;

use super::memory::arena::{Window, offset};
use super::memory::classes::CLASSES;
use super::memory::layout::{Chunk, state};
use super::memory::slab::Slab;
use super::{AllocError, Hash, ItemId, ItemSpec, Miss, Part, Tuning};
use crate::sys::process;
use ghost::Ghost;
use item::Item;
use journaling::Change;
use lru::{HOT, Lru};
use page_gain::PageGain;
use pins::Pins;
use std::collections::BTreeMap;
use std::sync::Arc;
use table::Table;

/// An item that would have expired within so many seconds is journalled with its value when it is touched: a copy of
/// it may be gone when it learns of that. As long as a consumer that has gone can go on where it was.
const TOUCH_LATEST: u32 = 60;

/// Bytes of memory that are taken at start before the next look at signals: some milliseconds.
const TOUCHED_AT_ONCE: usize = 16 << 20;

/// Keys up to this are compared without a call.
const SHORT_KEY: usize = 40;

/// See the module's head.
#[derive(Debug)]
pub struct Shard {
    pub core: Arc<Core>,
    /// Its place among the store's shards.
    pub number: usize,
    /// Copy of the store's, so that no lock is needed to read it.
    pub tuning: Tuning,
    pub window: Window,
    pub slab: Slab,
    pub table: Table,
    /// By class.
    pub lrus: Vec<Lru>,
    /// The item of an LRU that the crawler looks at next, or 0.
    pub cursor: ItemId,
    /// Keys that were evicted a short while ago.
    pub ghost: Ghost,
    /// What another page would be worth to its classes.
    pub gain: PageGain,
    /// The second of the last look for an idle page that has found none.
    idle_looked: u32,
    /// Chunks that have left their free list since it was locked.
    withdrawn: u32,
    /// Idle pages that went to another class at once.
    pub idle_pages: u64,
    /// New keys that it knew.
    pub ghost_hits: u64,
    /// Bytes of the linked items.
    pub bytes: u64,
    /// Items ever linked, since the last reset.
    pub total_items: u64,
    /// Items by size rounded up to 32, divided by 32.
    pub sizes: Option<BTreeMap<usize, u64>>,
    /// Pins that do not fit into chunks, and unlinked items that are pinned.
    pins: Pins,
    /// What was changed since it was locked, and is not yet journalled.
    changed: Change,
    /// The last change that was journalled since it was locked.
    appended: Option<u64>,
    /// There is one of these: the lock is not just given back.
    is_unsettled: bool,
    /// The role does not admit who has locked it. Nothing is found or made, so nothing can be changed either.
    is_refused: bool,
    /// Its memory is a file's: each item has a seal.
    is_sealed: bool,
    /// Who has locked it brings another server's changes, with their cas uniques, which are followed up to this one. For
    /// others it is 0.
    cas_max: u64,
}

impl Shard {
    /// A shard without pages.
    pub fn new(core: Arc<Core>, number: usize, tuning: Tuning, window: Window, table: Table) -> Shard {
        let is_sealed = window.is_in_file();
        Shard {
            number,
            tuning,
            window,
            slab: Slab::new(core.config.page_size),
            table,
            lrus: vec![Lru::default(); CLASSES],
            cursor: ItemId::NONE,
            ghost: Ghost::default(),
            gain: PageGain::default(),
            idle_looked: u32::MAX,
            withdrawn: 0,
            idle_pages: 0,
            ghost_hits: 0,
            bytes: 0,
            total_items: 0,
            sizes: core.config.track_sizes.then(BTreeMap::new),
            pins: Pins::default(),
            changed: Change::default(),
            appended: None,
            is_unsettled: false,
            is_refused: false,
            is_sealed,
            cas_max: 0,
            core,
        }
    }

    /// Makes pages for `bytes` usable. False when the system has not got them.
    pub fn extend(&mut self, bytes: u64) -> bool {
        let len = self.preallocated(bytes);
        let page = self.core.config.page_size;
        len <= self.window.capacity() - page && self.window.extend(page + len)
    }

    /// Takes the memory behind these pages, until the process is told to end.
    pub fn preallocate(&mut self, bytes: u64) {
        let (mut offset, mut len) = (self.core.config.page_size, self.preallocated(bytes));
        while len > 0 && !process::is_told_to_stop() {
            let step = len.min(TOUCHED_AT_ONCE);
            self.window.touch(offset, step);
            (offset, len) = (offset + step, len - step);
        }
    }

    fn preallocated(&self, bytes: u64) -> usize {
        let page = self.core.config.page_size;
        (bytes as usize / page).max(1) * page
    }

    /// Finds a live item. An expired or flushed one is reclaimed on the way. Changes nothing else.
    #[inline]
    pub fn find(&mut self, key: &[u8], hash: Hash) -> Result<ItemId, Miss> {
        if self.is_refused {
            return Err(Miss::NotFound);
        }
        let id = self.locate(key, hash).ok_or(Miss::NotFound)?;
        match self.death(id) {
            None => Ok(id),
            Some(miss) => {
                self.let_go(id, hash);
                Err(miss)
            }
        }
    }

    /// As [`Shard::find`], and changes nothing at all.
    pub fn peek(&self, key: &[u8], hash: Hash) -> Option<ItemId> {
        let id = if self.is_refused { None } else { self.locate(key, hash) };
        id.filter(|&id| self.death(id).is_none())
    }

    /// Whether who has locked it may add an item that was made before.
    pub fn may_add(&mut self) -> bool {
        !self.is_refused && self.table.has_room()
    }

    /// Notes that a get has found nothing.
    #[inline]
    pub fn count_miss(&mut self, hash: Hash) {
        self.gain.missed(hash, &self.core.classes);
    }

    /// Finds an item, dead or alive.
    #[inline]
    pub fn locate(&self, key: &[u8], hash: Hash) -> Option<ItemId> {
        let window = &self.window;
        self.table.find(hash, |id| {
            let chunk = window.chunk(id);
            usize::from(chunk.key_len) == key.len() && same(window.bytes(offset(id) + window.key_at, key.len()), key)
        })
    }

    /// Hints the CPU to fetch an item: all of a small one, the begin of a large one.
    #[inline]
    pub fn prefetch(&self, id: ItemId) {
        self.window.prefetch_lines(id, self.core.classes.size(self.slab.class_of(id)));
    }

    /// Hints the CPU to fetch the neighbours of an item in its list, in case a set of it needs another chunk.
    #[inline]
    pub fn prefetch_around(&self, id: ItemId) {
        let chunk = self.window.chunk(id);
        self.window.prefetch_head(chunk.next);
        self.window.prefetch_head(chunk.prev);
    }

    /// Why a linked item is not to be seen any more, None while it lives.
    #[inline]
    pub fn death(&self, id: ItemId) -> Option<Miss> {
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

    /// The hash of an item's key.
    pub fn hash_of(&self, id: ItemId) -> Hash {
        self.core.hash(self.key(id))
    }

    /// Lets the background know when memory will soon be needed.
    #[inline]
    pub fn look_ahead(&mut self) {
        if self.window.asks() || self.table.asks() {
            self.window.asked();
            self.table.asked();
            self.core.requests.want();
        }
    }

    /// Whether a chunk of a class would lie in memory that is about to be got ahead of need, and is not there yet.
    pub fn must_wait(&self, class: u8) -> bool {
        let Shard { core, slab, window, .. } = self;
        let waits = !slab.has_ready(class) && !window.is_ready(slab.next_end()) && core.gets_ahead();
        let waits = waits && core.requests.is_served();
        if waits {
            core.requests.want();
        }
        waits
    }

    /// The key of an item.
    #[inline]
    pub fn key(&self, id: ItemId) -> &[u8] {
        key_in(&self.window, id)
    }

    /// The class an item is listed in: the largest for one in pieces, else that of its chunk.
    #[inline]
    pub fn listed_class(&self, id: ItemId, chunk: &Chunk) -> u8 {
        if chunk.is(state::CHUNKED) { self.core.classes.largest() } else { self.slab.class_of(id) }
    }

    /// Makes a floating item whose value is `parts` in order. May evict others.
    #[inline]
    pub fn create(&mut self, spec: &ItemSpec<'_>, parts: &[Part<'_>]) -> Result<ItemId, AllocError> {
        if self.is_refused {
            return Err(AllocError::NoMemory);
        }
        let value_len = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(self.part_len(part)));
        self.keep(parts);
        let made = self.make(spec, value_len).and_then(|id| self.make_pieces(id, value_len).map(|()| id));
        self.unkeep(parts);
        self.look_ahead();
        let id = made?;
        self.fill(id, parts);
        self.seal_filled(id, None);
        Ok(id)
    }

    /// Makes a floating item, the value not yet written and, for a large one, its pieces not yet there.
    #[inline]
    pub fn make(&mut self, spec: &ItemSpec<'_>, value_len: usize) -> Result<ItemId, AllocError> {
        let (key_len, has_flags) = (spec.key.len(), spec.client_flags != 0);
        assert!((1..=250).contains(&key_len), "a key of 1 to 250 bytes");
        let sizing = &self.core.sizing;
        let total = sizing.total(key_len, has_flags, value_len);
        if total > sizing.item_max {
            return Err(AllocError::TooLarge);
        }
        if !self.table.has_room() {
            return Err(AllocError::NoMemory);
        }
        let chunked = total > sizing.chunk_max;
        let size = if chunked { sizing.head(key_len, has_flags) } else { total };
        let id = self.alloc(self.core.classes.of(size)).ok_or(AllocError::NoMemory)?;

        let bits = spec.bits() | if chunked { state::CHUNKED } else { 0 };
        let header = self.window.header_mut(id);
        header.chunk = Chunk { state: bits, key_len: key_len as u8, len: value_len as u32, ..Chunk::default() };
        header.expires_at = spec.expires_at;
        header.last_access = 0;
        let at = offset(id) + self.window.key_at;
        if chunked {
            self.set_chain(id, ItemId::NONE, ItemId::NONE);
        }
        self.window.bytes_mut(at, key_len).copy_from_slice(spec.key);
        if has_flags {
            self.window.bytes_mut(at + key_len, 4).copy_from_slice(&spec.client_flags.to_le_bytes());
        }
        Ok(id)
    }

    /// Makes a floating item visible. `cas` None takes the next number (0 with `-C`). The key must not be in the table.
    #[inline]
    pub fn link(&mut self, id: ItemId, hash: Hash, cas: Option<u64>) {
        self.enlist(id, Some(hash), cas);
        self.insert(id, hash);
        self.remember_set(id, hash);
    }

    /// Puts an item into the table.
    #[inline]
    fn insert(&mut self, id: ItemId, hash: Hash) {
        let Shard { table, window, core, .. } = self;
        table.insert(hash, id, |other| core.hash(key_in(window, other)), |other| window.prefetch(other));
    }

    /// Puts a floating item in the place of a linked one with the same key, which is freed.
    #[inline]
    pub fn replace(&mut self, old: ItemId, new: ItemId, hash: Hash, cas: Option<u64>) {
        debug_assert_eq!(self.key(old), self.key(new));
        self.changed.forget(old);
        let stamp = self.window.header(old).stamp();
        self.table.replace(hash, old, new);
        self.delist(old);
        self.free(old);
        self.enlist(new, None, cas);
        // The old one was flushed since it was found. What was made from it came before the flush_all, too.
        if self.core.flush.cut(self.core.clock.now()).takes(stamp) {
            self.change(new, |header| header.set_stamp(stamp));
        }
        self.remember_set(new, hash);
    }

    /// Makes the live item of a key what a new one in its place would be, in the chunk that it has and mostly where it
    /// is in its list (see `lru`): that takes less than half of the cache lines that making, replacing and freeing take. None
    /// and no change where there is no such item, somebody reads it, another chunk is called for, or it is not certain
    /// that one could be had for a new item. Else the item, the class that it is listed in, and its cas unique.
    #[inline]
    pub fn rewrite(
        &mut self,
        spec: &ItemSpec<'_>,
        hash: Hash,
        value: &[u8],
        cas: Option<u64>,
    ) -> Option<(ItemId, u8, u64)> {
        if self.is_refused {
            return None;
        }
        let id = self.locate(spec.key, hash)?;
        let (class, size) = self.may_rewrite(id, spec, value.len())?;
        let old_size = self.item(id).size();
        let cas = self.give_cas(id, cas);
        let header = self.window.header_mut(id);
        header.chunk.state = spec.bits() | state::LINKED | state::RENEWED | header.chunk.state & state::LRU;
        header.chunk.len = value.len() as u32;
        header.expires_at = spec.expires_at;
        let chunk = header.chunk;
        let at = offset(id) + self.window.value_at(&chunk);
        if spec.client_flags != 0 {
            self.window.bytes_mut(at - 4, 4).copy_from_slice(&spec.client_flags.to_le_bytes());
        }
        self.window.bytes_mut(at, value.len()).copy_from_slice(value);
        let now = self.stamp(id);
        self.seal_anew(id);
        self.recount(old_size, size);
        self.renew(class, id, (old_size, size), now);
        self.remember_set(id, hash);
        Some((id, class, cas))
    }

    /// The class and size of the item as it will be, if it may.
    #[inline]
    fn may_rewrite(&self, id: ItemId, spec: &ItemSpec<'_>, value_len: usize) -> Option<(u8, usize)> {
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

    /// Takes a linked item out for a client and frees it, or leaves that to the last unpin.
    #[inline]
    pub fn unlink(&mut self, id: ItemId, hash: Hash) {
        self.journal_delete(id);
        self.remove(id, hash);
    }

    /// The same without a client's asking: the item is dead, or there is no room for it.
    pub fn let_go(&mut self, id: ItemId, hash: Hash) {
        self.journal_gone(id);
        self.remove(id, hash);
    }

    #[inline]
    fn remove(&mut self, id: ItemId, hash: Hash) {
        self.table.remove(hash, id);
        self.delist(id);
        self.free(id);
    }

    /// Frees a floating item unless it is pinned.
    #[inline]
    pub fn free(&mut self, id: ItemId) {
        let chunk = *self.window.chunk(id);
        assert!(!chunk.is(state::LINKED | state::FREE | state::PIECE), "not a floating item");
        if chunk.pins > 0 {
            return self.float(id);
        }
        if chunk.is(state::CHUNKED) {
            self.free_pieces(id);
        }
        self.void_seal(id);
        self.slab.put(id, &mut self.window);
    }

    /// The next cas unique, 0 with `-C`.
    pub fn next_cas(&self) -> u64 {
        self.core.next_cas()
    }

    /// A view of an item.
    #[inline]
    pub fn item(&self, id: ItemId) -> Item<'_> {
        Item::new(self, id)
    }

    /// Puts an item in its list and into the sums; the hash is that of a key which was not there.
    fn enlist(&mut self, id: ItemId, new: Option<Hash>, cas: Option<u64>) {
        self.give_cas(id, cas);
        let header = self.window.header_mut(id);
        assert!(!header.chunk.is(state::LINKED | state::FREE | state::PIECE), "linked twice");
        header.chunk.state |= state::LINKED;
        let (class, size) = (self.item(id).class(), self.item(id).size());
        let now = self.stamp(id);
        self.seal_head(id);
        self.enroll(size);
        let lru = match (self.first_lru(id, now), new) {
            (HOT, Some(hash)) => self.list_of_new(class, hash),
            (lru, _) => lru,
        };
        self.push_in(class, id, lru, size);
    }

    /// Whether who has locked it brings another server's changes.
    #[inline]
    fn is_fed(&self) -> bool {
        self.cas_max != 0
    }

    /// Stamps an item that is stored now. The second that is.
    #[inline]
    fn stamp(&mut self, id: ItemId) -> u32 {
        let now = self.core.clock.now();
        let stamp = self.core.flush.stamp(now);
        self.window.header_mut(id).set_stamp(stamp);
        now
    }

    /// Sets the cas unique and returns it: this one, or the next number. With `-C` it is 0.
    #[inline]
    fn give_cas(&mut self, id: ItemId, cas: Option<u64>) -> u64 {
        if let Some(cas) = cas {
            self.core.follow_cas(cas, self.cas_max);
        }
        self.window.set_cas(id, cas.unwrap_or_else(|| self.core.next_cas()))
    }

    /// The opposite of [`Shard::enlist`].
    fn delist(&mut self, id: ItemId) {
        let size = self.item(id).size();
        self.take_from_list(id, size);
        self.window.chunk_mut(id).state &= !(state::LINKED | state::RENEWED);
        self.discount(size);
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
pub(super) fn key_in(window: &Window, id: ItemId) -> &[u8] {
    let chunk = window.chunk(id);
    window.bytes(offset(id) + window.key_at, chunk.key_len.into())
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
