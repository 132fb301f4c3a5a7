//! One miss a second for a hot item that is about to expire (`-o refresh_ahead`), so that one client makes it anew while
//! the others still have it, and not all of them when it is gone.
//!
//! ```text
//!  set k, TTL 60 s       a sampled get sees k with another expiry:                54 s gone
//!     |                  its TTL is about what is left now                            |
//!     |------------------------------------------------------------------------------|----------|
//!                        further samples: k is hot                                    the last 10 %: one get a second misses
//! ```
//!
//! An item does not know what its TTL was. So it is learned where it matters: a hot key is among the samples of
//! `stats::hot_keys` soon after it was set. For a key that becomes hot later less is taken for its TTL, and so its last part
//! begins later. Hot is a key that was sampled [`HOT_SAMPLES`] times within a second, which is about 128 gets.
//!
//! What is learned is kept in a table without a lock: a slot belongs to one hash, and is not taken from a key that is hot.
//! Workers that learn at the same time may mix up a slot; what comes of it is a miss too many, or none.
//!
//! Not here: what a miss looks like (`read`), samples (`stats::hot_keys`).

use crate::store::Hash;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Keys that can be hot at a time, if they do not share a slot.
const SLOTS: usize = 1024;

/// A key is hot with so many samples in a second,
const HOT_SAMPLES: u32 = 2;

/// and for so many seconds after that.
const HOT_FOR: u32 = 2;

/// See the module's head.
#[derive(Debug)]
pub struct RefreshAhead {
    /// How much of its TTL is the last part.
    percent: u64,
    /// How keys begin that this is for.
    prefix: Box<[u8]>,
    slots: Box<[RefreshSlot]>,
    misses: AtomicU64,
}

/// What is known of a key.
#[derive(Debug, Default)]
struct RefreshSlot {
    hash: AtomicU64,
    /// The item's, by which another one is told from it.
    expires_at: AtomicU32,
    ttl: AtomicU32,
    /// The second of the last sample, and how many there were in it.
    sampled_at: AtomicU32,
    samples: AtomicU32,
    hot_until: AtomicU32,
    missed_at: AtomicU32,
}

impl RefreshAhead {
    /// One for the last `percent` of the TTL of keys that begin with `prefix`. None for 0 %.
    pub fn new(percent: u32, prefix: &str) -> Option<RefreshAhead> {
        let slots = (0..SLOTS).map(|_| RefreshSlot::default());
        (percent > 0).then(|| RefreshAhead {
            percent: percent.into(),
            prefix: prefix.as_bytes().into(),
            slots: slots.collect(),
            misses: AtomicU64::new(0),
        })
    }

    /// Whether this is for a key.
    pub(super) fn concerns(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    /// How many gets were answered with a miss.
    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// `stats reset`.
    pub(super) fn reset(&self) {
        self.misses.store(0, Ordering::Relaxed);
    }

    /// Learns from a sample: a read of an item that expires then.
    pub(super) fn learn(&self, hash: Hash, expires_at: u32, now: u32) {
        let slot = self.slot(hash);
        let is_its = slot.hash.load(Ordering::Acquire) == hash.0;
        if expires_at <= now || (!is_its && slot.is_hot(now)) {
            return;
        }
        if !is_its {
            slot.hash.store(0, Ordering::Release);
            let fields = [&slot.samples, &slot.hot_until, &slot.missed_at];
            fields.into_iter().for_each(|field| field.store(0, Ordering::Relaxed));
        }
        if !is_its || slot.expires_at.load(Ordering::Relaxed) != expires_at {
            slot.ttl.store(expires_at - now, Ordering::Relaxed);
            slot.expires_at.store(expires_at, Ordering::Relaxed);
        }
        let before =
            if slot.sampled_at.swap(now, Ordering::Relaxed) == now { slot.samples.load(Ordering::Relaxed) } else { 0 };
        slot.samples.store(before + 1, Ordering::Relaxed);
        if before + 1 >= HOT_SAMPLES {
            slot.hot_until.store(now + HOT_FOR, Ordering::Relaxed);
        }
        slot.hash.store(hash.0, Ordering::Release);
    }

    /// Whether this get of an item that expires then is to miss: it is the only one of this second.
    #[cold]
    pub(super) fn is_due(&self, hash: Hash, expires_at: u32, now: u32) -> bool {
        let slot = self.slot(hash);
        let is_its =
            slot.hash.load(Ordering::Acquire) == hash.0 && slot.expires_at.load(Ordering::Relaxed) == expires_at;
        let left = u64::from(expires_at.saturating_sub(now));
        if !is_its || !slot.is_hot(now) || left * 100 > u64::from(slot.ttl.load(Ordering::Relaxed)) * self.percent {
            return false;
        }
        let missed_at = slot.missed_at.load(Ordering::Relaxed);
        let is_first = missed_at != now
            && slot.missed_at.compare_exchange(missed_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        self.misses.fetch_add(is_first.into(), Ordering::Relaxed);
        is_first
    }

    fn slot(&self, hash: Hash) -> &RefreshSlot {
        &self.slots[hash.0 as usize % SLOTS]
    }
}

impl RefreshSlot {
    fn is_hot(&self, now: u32) -> bool {
        now <= self.hot_until.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: Hash = Hash(5);

    #[test]
    fn one_get_a_second_misses_in_the_last_part() {
        let refresh = RefreshAhead::new(10, "p:").unwrap();
        assert!(refresh.concerns(b"p:1") && !refresh.concerns(b"p"));
        let sample = |now| (0..HOT_SAMPLES).for_each(|_| refresh.learn(K, 160, now));
        sample(100);
        assert!(!refresh.is_due(K, 160, 101), "there is much time");
        assert!(!refresh.is_due(K, 160, 154), "it is not hot any more");
        sample(154);
        let due = |now| (0..5).filter(|_| refresh.is_due(K, 160, now)).count();
        assert_eq!((due(153), due(154), due(155)), (0, 1, 1));
        assert!(!refresh.is_due(K, 161, 156), "it is another item");
        assert!(!refresh.is_due(Hash(5 + SLOTS as u64), 160, 156), "it is another key");
        assert_eq!(refresh.misses(), 2);
        // Set anew, and hot from its first second on.
        (0..2).for_each(|_| refresh.learn(K, 216, 156));
        assert_eq!((due(157), (0..5).filter(|_| refresh.is_due(K, 216, 157)).count()), (0, 0));
    }

    #[test]
    fn a_key_that_is_hot_keeps_its_slot() {
        let refresh = RefreshAhead::new(50, "").unwrap();
        let other = Hash(5 + SLOTS as u64);
        refresh.learn(other, 110, 100);
        (0..2).for_each(|_| refresh.learn(K, 110, 100));
        (0..2).for_each(|_| refresh.learn(other, 110, 101));
        assert!(!refresh.is_due(other, 110, 106));
        (105..=106).for_each(|now| (0..2).for_each(|_| refresh.learn(other, 110, now)));
        assert!(refresh.is_due(other, 107 + 3, 108), "of the 5 seconds left when it came, 2 are left");
        refresh.learn(K, 0, 200);
        assert!(!refresh.is_due(K, 0, 200), "it never expires");
        assert!(RefreshAhead::new(0, "").is_none());
    }
}
