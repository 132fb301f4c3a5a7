//! From a changed item to a record: what the store's code calls under a shard's lock while the journal is on.

use super::Shard;
use crate::journal::record::{self, BIG, EVICTED, RecordDraft, RecordKind};
use crate::store::Hash;
use crate::store::memory::arena::offset;
use crate::store::memory::layout::state;
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
pub struct Change {
    /// 0 none.
    id: u32,
    what: u8,
    /// Of its key, if that is at hand.
    hash: Option<Hash>,
}

impl Change {
    /// A new item, or a new value.
    pub const SET: u8 = 1;
    pub const EXPIRY: u8 = 2;
    pub const CAS: u8 = 4;
    /// Stale, or the win token.
    pub const STATE: u8 = 8;

    /// Whether it is of an item, and not of this one.
    #[inline]
    pub fn is_of_other(&self, id: u32) -> bool {
        self.id != 0 && self.id != id
    }

    /// Adds to what was done to an item.
    #[inline]
    pub fn add(&mut self, id: u32, what: u8) {
        *self = Change { id, what: self.what | what, hash: self.hash };
    }

    /// The one that puts a new item, or its value, under a key with this hash.
    #[inline]
    pub fn set(id: u32, hash: Hash) -> Change {
        Change { id, what: Change::SET, hash: Some(hash) }
    }

    /// Forgets it, if it is of this item.
    #[inline]
    pub fn forget(&mut self, id: u32) {
        if self.id == id {
            *self = Change::default();
        }
    }

    /// Takes it, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<Change> {
        if self.id == 0 {
            return None;
        }
        Some(std::mem::take(self))
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
    /// Journals a change of a linked item, as the item is now. Its number, if it was appended.
    pub fn journal_change(&self, change: Change) -> Option<u64> {
        debug_assert!(self.window.chunk(change.id).is(state::LINKED), "a change of what has gone");
        let hash = change.hash.unwrap_or_else(|| self.core.hash(self.key(change.id)));
        let entry = self.entry(change.id, self.core.ranges.of(hash), change.kind());
        self.core.journal.append(&self.core.flush, &entry, self.window.header(change.id).stamp())
    }

    /// Journals that a client deletes a linked item. Its number, if it was appended.
    pub fn journal_delete(&self, id: u32) -> Option<u64> {
        self.journal_end(id, RecordKind::Delete as u8, u64::MAX)
    }

    /// Journals that a client deletes a key that has no item here. Its number, if it was appended.
    #[cold]
    pub fn journal_absence(&self, key: &[u8], key_is_binary: bool, hash: Hash) -> Option<u64> {
        let entry = RecordDraft::of(RecordKind::Delete as u8, self.core.ranges.of(hash), key, key_is_binary);
        self.core.journal.append(&self.core.flush, &entry, u64::MAX)
    }

    /// Journals that a linked item is evicted, or has expired.
    pub fn journal_gone(&self, id: u32) {
        self.journal_end(id, EVICTED, self.window.header(id).stamp());
    }

    /// Journals a read, now and then.
    #[inline]
    pub fn sample_hit(&self, id: u32) {
        let hits = HITS.get();
        HITS.set(hits.wrapping_add(1));
        if hits.is_multiple_of(HIT_EVERY) {
            self.append_hit(id);
        }
    }

    #[cold]
    fn append_hit(&self, id: u32) {
        let item = self.item(id);
        // To read a stale item elsewhere would take its win token.
        if item.is_stale() {
            return;
        }
        let range = self.core.ranges.of(self.core.hash(item.key()));
        self.core.journal.append_hit(&RecordDraft::of(RecordKind::Hit as u8, range, item.key(), item.key_is_binary()));
    }

    #[cold]
    fn journal_end(&self, id: u32, kind: u8, stamp: u64) -> Option<u64> {
        let item = self.item(id);
        let range = self.core.ranges.of(self.core.hash(item.key()));
        let entry = RecordDraft::of(kind, range, item.key(), item.key_is_binary());
        self.core.journal.append(&self.core.flush, &entry, stamp)
    }

    /// What is journalled of an item, and taken by a snapshot slice.
    #[inline]
    pub fn entry(&self, id: u32, range: u32, kind: RecordKind) -> RecordDraft<'_> {
        let header = self.window.header(id);
        let (chunk, key_len) = (&header.chunk, usize::from(header.chunk.key_len));
        let expires_at = match header.expires_at {
            0 => 0,
            second => self.core.clock.unix(second),
        };
        let has_value = kind == RecordKind::Set && !chunk.is(state::CHUNKED) && (chunk.len as usize) < BIG;
        let (kind, bits, value_len, len) = match kind {
            RecordKind::Set if has_value => {
                let len = chunk.value_at() - chunk.key_at() + chunk.len as usize;
                (RecordKind::Set, bits(chunk.state), chunk.len, len)
            }
            RecordKind::Set => (RecordKind::SetBig, bits(chunk.state & !state::CLIENT_FLAGS), 0, key_len),
            kind => (kind, bits(chunk.state & !state::CLIENT_FLAGS), 0, key_len),
        };
        let body = self.window.bytes(offset(id) + chunk.key_at(), len);
        let (kind, cas) = (kind as u8, header.cas);
        RecordDraft { kind, bits, key_len: chunk.key_len, value_len, range, expires_at, cas, body }
    }
}
