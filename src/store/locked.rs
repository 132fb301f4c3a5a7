//! A locked shard: what commands call.
//!
//! While the journal is on, a change is remembered here until the lock is given back, and then journalled with all
//! else that was done to the item. Whatever could free the remembered item journals it first.

use super::shard::Shard;
use super::shard::journaling::Change;
use crate::journal::acks::LastLsn;
use crate::store::memory::layout::state;
use crate::store::{
    AllocError, ChangeSource, ClassCounters, Hash, Item, ItemId, ItemSpec, Miss, Part, Pinned, Store, Upload,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

/// An item that would have expired within so many seconds is journalled with its value when it is touched: a copy of
/// it may be gone when it learns of that. As long as a consumer that has gone can go on where it was.
const TOUCH_LATEST: u32 = 60;

/// A locked shard.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Arc<Store>,
    index: usize,
    shard: MutexGuard<'a, Shard>,
    changed: Change,
    /// Who locked it wants to know what was journalled.
    last_lsn: Option<&'a LastLsn>,
    /// The role does not admit who locked it. Nothing is found or made, so nothing can be changed either.
    is_refused: bool,
    /// Who locked it brings another server's changes, with their cas uniques.
    is_source: bool,
}

impl<'a> Locked<'a> {
    #[inline]
    pub(crate) fn new(
        store: &'a Arc<Store>,
        index: usize,
        last_lsn: Option<&'a LastLsn>,
        source: Option<&Arc<ChangeSource>>,
    ) -> Locked<'a> {
        let shard = store.shard(index);
        let is_refused = !shard.core.role.admits(source.map(|source| &**source));
        Locked { store, index, shard, changed: Change::default(), last_lsn, is_refused, is_source: source.is_some() }
    }

    /// Finds a live item. An expired or flushed one is reclaimed on the way. Changes nothing else.
    #[inline]
    pub fn find(&mut self, key: &[u8], hash: Hash) -> Result<ItemId, Miss> {
        if self.is_refused {
            return Err(Miss::NotFound);
        }
        self.settle();
        self.shard.find(key, hash).map(ItemId)
    }

    /// The item behind an id.
    #[inline]
    pub fn item(&self, id: ItemId) -> Item<'_> {
        self.shard.item(id.0)
    }

    /// Notes a client's fetch: fetched, then active, as memcached's segmented LRU does. Count the hit first: the
    /// item may change its list.
    #[inline]
    pub fn bump(&mut self, id: ItemId) {
        self.shard.bump(id.0);
        if self.is_journalled() {
            self.shard.sample_hit(id.0);
        }
    }

    /// Makes an item, not yet linked, whose value is `parts` (at most 64) in order. May evict others.
    #[inline]
    pub fn create(&mut self, spec: &ItemSpec<'_>, parts: &[Part<'_>]) -> Result<ItemId, AllocError> {
        if self.is_refused {
            return Err(AllocError::NoMemory);
        }
        self.settle();
        let made = self.shard.create(spec, parts).map(ItemId);
        self.store.look_ahead(&mut self.shard);
        made
    }

    /// Makes an unlinked item visible. `cas` None takes the next number (0 with `-C`). The key must not be
    /// in the table.
    #[inline]
    pub fn link(&mut self, id: ItemId, hash: Hash, cas: Option<u64>) {
        self.follow(cas);
        self.shard.link(id.0, hash, cas);
        let slot = &self.store.slots[self.index];
        if slot.buckets.load(Ordering::Relaxed) != self.shard.table.buckets() {
            slot.buckets.store(self.shard.table.buckets(), Ordering::Relaxed);
        }
        self.remember_set(id, hash);
    }

    /// Puts `new` in the place of `old`, which is unlinked and freed.
    #[inline]
    pub fn replace(&mut self, old: ItemId, new: ItemId, hash: Hash, cas: Option<u64>) {
        self.changed.forget(old.0);
        self.follow(cas);
        self.shard.replace(old.0, new.0, hash, cas);
        self.remember_set(new, hash);
    }

    /// Makes the live item of a key what a new one put in its place would be, in the chunk that it has. None
    /// where that cannot be: then nothing changed. `cas` as in [`Locked::link`].
    #[inline]
    pub fn rewrite(&mut self, spec: &ItemSpec<'_>, hash: Hash, value: &[u8], cas: Option<u64>) -> Option<ItemId> {
        if self.is_refused {
            return None;
        }
        self.settle();
        self.follow(cas);
        let id = self.shard.rewrite(spec, hash, value, cas).map(ItemId)?;
        self.remember_set(id, hash);
        Some(id)
    }

    /// Takes an item out and frees it (once no [`Pinned`] holds it).
    #[inline]
    pub fn unlink(&mut self, id: ItemId, hash: Hash) {
        self.changed.forget(id.0);
        if self.is_journalled() {
            let appended = self.shard.journal_delete(id.0);
            self.note_appended(appended);
        }
        self.shard.unlink(id.0, hash);
    }

    /// Says that a client has taken away, made stale or given a shorter life to what is not here. A copy may hold it
    /// still, because each side evicts for itself: there it goes, since a shorter life is the safe side.
    #[inline]
    pub fn invalidate_copies(&mut self, key: &[u8], key_is_binary: bool, hash: Hash) {
        if self.is_journalled() && !self.is_refused {
            self.settle();
            let appended = self.shard.journal_absence(key, key_is_binary, hash);
            self.note_appended(appended);
        }
    }

    /// Frees an item that was created and not linked.
    pub fn abandon(&mut self, id: ItemId) {
        self.shard.free(id.0);
    }

    /// Takes over the item of a complete upload of this shard.
    pub fn finish(&mut self, upload: Upload) -> Result<ItemId, AllocError> {
        assert_eq!(upload.shard(), self.index, "an upload of another shard");
        let id = ItemId(upload.finish(&mut self.shard));
        if self.is_refused {
            self.abandon(id);
            return Err(AllocError::NoMemory);
        }
        Ok(id)
    }

    /// The next cas unique, 0 with `-C`.
    pub fn next_cas(&mut self) -> u64 {
        self.shard.core.next_cas()
    }

    /// Sets the cas unique (0 stays with `-C`).
    pub fn set_cas(&mut self, id: ItemId, cas: u64) {
        if self.shard.core.config.cas_enabled {
            self.shard.window.header_mut(id.0).cas = cas;
            self.follow(Some(cas));
        }
        self.remember(id, Change::CAS);
    }

    #[inline]
    fn follow(&self, cas: Option<u64>) {
        if let (true, Some(cas)) = (self.is_source, cas) {
            self.shard.core.follow_cas(cas);
        }
    }

    /// Sets the expiry.
    #[inline]
    pub fn set_expires_at(&mut self, id: ItemId, expires_at: u32) {
        let now = self.shard.core.clock.now();
        let header = self.shard.window.header_mut(id.0);
        let before = std::mem::replace(&mut header.expires_at, expires_at);
        let soon = before != 0 && before < now.saturating_add(TOUCH_LATEST);
        self.remember(id, if soon { Change::SET } else { Change::EXPIRY });
    }

    /// Sets the last access to now.
    pub fn set_accessed(&mut self, id: ItemId) {
        self.shard.set_accessed(id.0);
    }

    /// Marks stale (meta `I`) or not.
    pub fn set_stale(&mut self, id: ItemId, stale: bool) {
        self.shard.window.chunk_mut(id.0).set(state::STALE, stale);
        self.remember(id, Change::STATE);
    }

    /// Notes that a client was told to recache (meta `W`).
    pub fn set_win_sent(&mut self, id: ItemId, sent: bool) {
        self.shard.window.chunk_mut(id.0).set(state::WIN_SENT, sent);
        self.remember(id, Change::STATE);
    }

    /// Overwrites the value with one of the same length, in place. False when somebody reads it just now
    /// or it is in chained chunks; then nothing changed.
    pub fn overwrite(&mut self, id: ItemId, value: &[u8]) -> bool {
        let done = self.shard.overwrite(id.0, value);
        if done {
            self.remember(id, Change::SET);
        }
        done
    }

    /// Keeps the value where it is and as it is until the handle is dropped, outside the lock. None when too
    /// many hold it already: copy instead.
    pub fn pin(&mut self, id: ItemId) -> Option<Pinned> {
        Pinned::new(self.store, self.index, &mut self.shard, id.0)
    }

    /// The counters of the class that an item is listed in.
    #[inline]
    pub fn class_counters(&mut self, id: ItemId) -> &mut ClassCounters {
        self.shard.class_counters(id.0)
    }

    /// Counts a get that found this item.
    #[inline]
    pub fn count_get(&mut self, id: ItemId) {
        self.shard.count_get(id.0);
    }

    #[inline]
    fn is_journalled(&self) -> bool {
        self.shard.core.journal.enabled()
    }

    /// Notes that an item was put under its key, or has a new value.
    #[inline]
    fn remember_set(&mut self, id: ItemId, hash: Hash) {
        if self.is_journalled() {
            if self.changed.is_of_other(id.0) {
                self.settle();
            }
            self.changed = Change::set(id.0, hash);
        }
    }

    /// Notes that an item was changed.
    #[inline]
    fn remember(&mut self, id: ItemId, what: u8) {
        if self.is_journalled() {
            self.note(id, what);
        }
    }

    #[inline(never)]
    fn note(&mut self, id: ItemId, what: u8) {
        if self.changed.is_of_other(id.0) {
            self.settle();
        }
        // What is not linked will be changed as a whole when it is.
        if self.shard.window.chunk(id.0).is(state::LINKED) {
            self.changed.add(id.0, what);
        }
    }

    /// Journals what was changed.
    #[inline]
    fn settle(&mut self) {
        if let Some(change) = self.changed.take() {
            let appended = self.shard.journal_change(change);
            self.note_appended(appended);
        }
    }

    fn note_appended(&self, appended: Option<u64>) {
        if let Some(last_lsn) = self.last_lsn {
            last_lsn.note(appended);
        }
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.settle();
    }
}
