//! The last change of each key, as far as a reader has to know it (`-o linearizable`).
//!
//! ```text
//!   change of a key ── under the shard's lock ──> slot of its hash = lsn
//!   read of a key   ── under the shard's lock ──> the slot: the reply waits until replicas have that change
//! ```
//!
//! Keys share slots, so a read may wait for the change of another key; it never misses one of its own. What changes
//! all keys (flush_all) is in all slots.
//!
//! Invariant: a slot only grows. Not here: how replies wait (`net/reply_hold`).

use crate::store::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots: at 5,000 changes a second and 1 ms until a replica has one, some five of them matter at a time.
const SLOTS: usize = 8192;

/// See the module's head.
#[derive(Debug)]
pub struct RecentChanges {
    slots: Box<[AtomicU64]>,
    of_all: AtomicU64,
    excused: AtomicU64,
}

impl RecentChanges {
    /// Nothing has changed yet.
    pub fn new() -> RecentChanges {
        RecentChanges {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            of_all: AtomicU64::new(0),
            excused: AtomicU64::new(0),
        }
    }

    /// Notes a change of a key with this hash; call it under the lock of its shard.
    pub fn note(&self, hash: Hash, lsn: u64) {
        self.slots[slot(hash)].fetch_max(lsn, Ordering::Relaxed);
    }

    /// Notes a change of all keys.
    pub fn note_all(&self, lsn: u64) {
        self.of_all.fetch_max(lsn, Ordering::SeqCst);
    }

    /// The last change that a key with this hash may have; call it under the lock of its shard.
    pub fn last(&self, hash: Hash) -> u64 {
        let lsn = self.slots[slot(hash)].load(Ordering::Relaxed).max(self.of_all.load(Ordering::SeqCst));
        if lsn <= self.excused.load(Ordering::SeqCst) { 0 } else { lsn }
    }

    /// Lets no read wait for changes up to this one. A new primary has been sent these by the old one, which has long
    /// acknowledged them or given them up; its own replicas may be sent everything anew, which takes time.
    pub fn excuse(&self, lsn: u64) {
        self.excused.fetch_max(lsn, Ordering::SeqCst);
    }
}

fn slot(hash: Hash) -> usize {
    // The lower bits choose the shard and the bucket.
    (hash.0 >> 40) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_sees_its_own_changes_and_those_of_all() {
        let (recent, key, other) = (RecentChanges::new(), Hash(7 << 40), Hash(8 << 40));
        assert_eq!(recent.last(key), 0);
        recent.note(key, 5);
        recent.note(key, 4);
        assert_eq!((recent.last(key), recent.last(other)), (5, 0));
        recent.note_all(9);
        assert_eq!((recent.last(key), recent.last(other)), (9, 9));
        recent.note(key, 11);
        recent.excuse(10);
        assert_eq!((recent.last(key), recent.last(other)), (11, 0));
    }
}
