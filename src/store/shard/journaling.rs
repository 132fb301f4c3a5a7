//! From a changed item to a record.
//!
//! While the journal is on, a change is remembered until the lock is given back, and then journalled with all else that
//! was done to the item. Whatever takes the remembered item away journals it first, or makes it void.

use super::Shard;
use crate::journal::record::{self, BIG, EVICTED, RecordDraft, RecordKind};
use crate::store::memory::arena::offset;
use crate::store::memory::layout::state;
use crate::store::{Hash, ItemId};
use std::cell::Cell;

/// One read hit in so many asks whether it may be journalled: the answer costs 20 ns, under the journal's lock.
const HIT_EVERY: u32 = 64;

/// What a record has of an item's state.
#[inline]
const fn bits(state: u16) -> u8 {
    (state / state::STALE) as u8 & 15
}

const _: () = assert!(
    bits(state::STALE) == record::STALE
        && bits(state::WIN_SENT) == record::WIN
        && bits(state::BINARY_KEY) == record::BINARY_KEY
        && bits(state::CLIENT_FLAGS) == record::CLIENT_FLAGS
        && bits(!(state::STALE | state::WIN_SENT | state::BINARY_KEY | state::CLIENT_FLAGS)) == 0
);

thread_local! {
    static HITS: Cell<u32> = const { Cell::new(0) };
}

/// What was done to one item under one lock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    /// The item, if there is one.
    id: ItemId,
    what: u8,
    /// Of its key, if that is at hand.
    hash: Option<Hash>,
}

impl Change {
    /// A new item, or a new value.
    pub(super) const SET: u8 = 1;
    pub(super) const EXPIRY: u8 = 2;
    pub(super) const CAS: u8 = 4;
    /// Stale, or the win token.
    pub(super) const STATE: u8 = 8;

    /// Adds to what was done to an item.
    #[inline]
    pub(super) fn add(&mut self, id: ItemId, what: u8) {
        *self = Change { id, what: self.what | what, hash: self.hash };
    }

    /// The one that puts a new item, or its value, under a key with this hash.
    #[inline]
    pub(super) fn set(id: ItemId, hash: Hash) -> Change {
        Change { id, what: Change::SET, hash: Some(hash) }
    }

    /// Forgets it, if it is of this item.
    #[inline]
    pub(super) fn forget(&mut self, id: ItemId) {
        if self.id == id {
            *self = Change::default();
        }
    }

    /// A new cas alone is told by md `I`, and otherwise by a store.
    fn kind(&self) -> RecordKind {
        match self.what {
            what if what & Change::SET != 0 => RecordKind::Set,
            what if what & Change::STATE != 0 => RecordKind::State,
            what if what & Change::CAS != 0 => RecordKind::Set,
            _ => RecordKind::Touch,
        }
    }
}

impl Shard {
    /// Whether the journal wants to know what is done here.
    #[inline]
    pub(super) fn is_journalled(&self) -> bool {
        self.core.journal.enabled()
    }

    /// Notes that an item was put under its key, or has a new value.
    #[inline]
    pub(super) fn remember_set(&mut self, id: ItemId, hash: Hash) {
        if self.is_journalled() {
            self.settle_other(id);
            self.changed = Change::set(id, hash);
            self.is_unsettled = true;
        }
    }

    /// Notes that an item was changed.
    #[inline]
    pub(super) fn remember(&mut self, id: ItemId, what: u8) {
        // What is not linked will be changed as a whole when it is.
        if self.is_journalled() && self.window.chunk(id).is(state::LINKED) {
            self.settle_other(id);
            self.changed.add(id, what);
            self.is_unsettled = true;
        }
    }

    #[inline(never)]
    fn settle_other(&mut self, id: ItemId) {
        if self.changed.id != id {
            self.append_change();
        }
    }

    /// Journals what was changed since the shard was locked. The last change that was appended since.
    #[cold]
    pub(super) fn settle(&mut self) -> Option<u64> {
        self.append_change();
        (self.is_unsettled, self.withdrawn) = (false, 0);
        self.appended.take()
    }

    /// Journals what was changed of a linked item, as the item is now.
    fn append_change(&mut self) {
        let change = std::mem::take(&mut self.changed);
        if change.id == ItemId::NONE {
            return;
        }
        debug_assert!(self.window.chunk(change.id).is(state::LINKED), "a change of what has gone");
        let hash = change.hash.unwrap_or_else(|| self.hash_of(change.id));
        let entry = self.entry(change.id, self.core.ranges.of(hash), change.kind());
        let appended = self.core.journal.append(&self.core.flush, &entry, self.window.header(change.id).stamp());
        self.note_appended(appended);
    }

    /// Keeps the number of a change, if it was appended, for who has locked the shard.
    fn note_appended(&mut self, lsn: Option<u64>) {
        self.appended = lsn.or(self.appended);
        self.is_unsettled = true;
    }

    /// Journals that a client deletes a linked item.
    pub(super) fn journal_delete(&mut self, id: ItemId) {
        self.changed.forget(id);
        if self.is_journalled() {
            let appended = self.journal_end(id, RecordKind::Delete as u8, u64::MAX);
            self.note_appended(appended);
        }
    }

    /// Says that a client has taken away, made stale or given a shorter life to what is not here. A copy may hold it
    /// still, because each side evicts for itself: there it goes, since a shorter life is the safe side.
    #[inline]
    pub fn invalidate_copies(&mut self, key: &[u8], key_is_binary: bool, hash: Hash) {
        if self.is_journalled() && !self.is_refused {
            self.journal_absence(key, key_is_binary, hash);
        }
    }

    /// Journals that a key is deleted which has no item here.
    #[cold]
    pub fn journal_absence(&mut self, key: &[u8], key_is_binary: bool, hash: Hash) -> Option<u64> {
        let entry = RecordDraft::of(RecordKind::Delete as u8, self.core.ranges.of(hash), key, key_is_binary);
        let appended = self.core.journal.append(&self.core.flush, &entry, u64::MAX);
        self.note_appended(appended);
        appended
    }

    /// Journals a linked item once more, as it is now. Its number, unless a flush_all has taken it; and the bytes of
    /// the record.
    #[cold]
    pub fn journal_again(&self, id: ItemId) -> (Option<u64>, usize) {
        let entry = self.entry(id, self.core.ranges.of(self.hash_of(id)), RecordKind::Set);
        let lsn = self.core.journal.append(&self.core.flush, &entry, self.window.header(id).stamp());
        (lsn, entry.size())
    }

    /// Journals that a linked item is evicted, or has expired, after what was changed of it.
    pub(super) fn journal_gone(&mut self, id: ItemId) {
        self.append_change();
        if self.is_journalled() {
            self.journal_end(id, EVICTED, self.window.header(id).stamp());
        }
    }

    /// Journals a read, now and then.
    #[inline]
    pub(super) fn sample_hit(&self, id: ItemId) {
        let hits = HITS.get();
        HITS.set(hits.wrapping_add(1));
        if hits.is_multiple_of(HIT_EVERY) {
            self.append_hit(id);
        }
    }

    #[cold]
    fn append_hit(&self, id: ItemId) {
        let item = self.item(id);
        // To read a stale item elsewhere would take its win token.
        if item.is_stale() {
            return;
        }
        let range = self.core.ranges.of(self.hash_of(id));
        self.core.journal.append_hit(&RecordDraft::of(RecordKind::Hit as u8, range, item.key(), item.key_is_binary()));
    }

    #[cold]
    fn journal_end(&self, id: ItemId, kind: u8, stamp: u64) -> Option<u64> {
        let item = self.item(id);
        let range = self.core.ranges.of(self.hash_of(id));
        let entry = RecordDraft::of(kind, range, item.key(), item.key_is_binary());
        self.core.journal.append(&self.core.flush, &entry, stamp)
    }

    /// What is journalled of an item, and taken by a snapshot slice.
    #[inline]
    pub fn entry(&self, id: ItemId, range: u32, kind: RecordKind) -> RecordDraft<'_> {
        let header = self.window.header(id);
        let (chunk, key_len) = (&header.chunk, usize::from(header.chunk.key_len));
        let has_value = kind == RecordKind::Set && !chunk.is(state::CHUNKED) && (chunk.len as usize) < BIG;
        let (kind, bits, value_len, len) = match kind {
            RecordKind::Set if has_value => {
                let len = key_len + chunk.flags_len() + chunk.len as usize;
                (RecordKind::Set, bits(chunk.state), chunk.len, len)
            }
            RecordKind::Set => (RecordKind::SetBig, bits(chunk.state & !state::CLIENT_FLAGS), 0, key_len),
            kind => (kind, bits(chunk.state & !state::CLIENT_FLAGS), 0, key_len),
        };
        let body = self.window.bytes(offset(id) + self.window.key_at, len);
        let (kind, expires_at, cas) = (kind as u8, header.expires_at, self.window.cas(id));
        RecordDraft { kind, bits, key_len: chunk.key_len, value_len, range, expires_at, cas, body }
    }
}
