//! flush_all: which items it has taken.
//!
//! ```text
//! stamp of an item   second of last access · flush_alls of that second before it     (28+4 bits)
//! cut                second of a flush_all · its number within that second
//! flushed            stamp < cut
//! ```
//!
//! So a flush_all is one store, and items of the same second are told apart. A flush_all for later is pending
//! until its second is near; from then on it counts, and stays when another one is asked for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What was flushed, for all shards.
#[derive(Debug, Default)]
pub struct Flush {
    /// Newest flush_all that has taken effect.
    done: AtomicU64,
    /// Second of the one to come, 0 none.
    pending: AtomicU32,
    /// Held while the two change.
    changing: Mutex<()>,
}

/// The moment of a flush_all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut(u64);

impl Cut {
    /// Whether an item with this stamp is flushed.
    #[inline]
    pub fn takes(self, stamp: u64) -> bool {
        stamp < self.0
    }

    /// Stamp of an item that is accessed now.
    #[inline]
    pub fn stamp(self, now: u32) -> u64 {
        let now = u64::from(now) << 4;
        if self.0 >> 4 == now >> 4 { self.0 } else { now }
    }

    /// Second of the flush_all.
    pub fn second(self) -> u32 {
        (self.0 >> 4) as u32
    }
}

impl Flush {
    /// The newest flush_all that is in effect.
    // COMPAT(flush-early): a delayed flush_all for second `s` takes effect at `s - 1` and until `s` also takes
    // what is stored then.
    #[inline]
    pub fn cut(&self, now: u32) -> Cut {
        // In this order: one that is pending no more is among the done.
        let pending = self.pending.load(Ordering::Acquire);
        let done = Cut(self.done.load(Ordering::Acquire));
        if pending == 0 || now < pending - 1 {
            return done;
        }
        done.max(Cut(u64::from(pending) << 4))
    }

    /// Flushes what was stored so far. False when this second has seen too many: the caller unlinks all items.
    pub fn now(&self, now: u32) -> bool {
        let _changing = self.changing.lock().expect("never held across a panic");
        self.promote(now);
        self.pending.store(0, Ordering::Release);
        self.advance(now)
    }

    /// Flushes at second `at`, instead of what was pending.
    pub fn later(&self, now: u32, at: u32) {
        let _changing = self.changing.lock().expect("never held across a panic");
        self.promote(now);
        self.pending.store(at, Ordering::Release);
    }

    /// Second of the last flush_all, also a pending one; 0 none.
    pub fn oldest_live(&self) -> u32 {
        match self.pending.load(Ordering::Relaxed) {
            0 => Cut(self.done.load(Ordering::Relaxed)).second(),
            at => at,
        }
    }

    /// Makes a pending one that is in effect a done one.
    fn promote(&self, now: u32) {
        let pending = self.pending.load(Ordering::Relaxed);
        let early = pending != 0 && now == pending - 1;
        if !(early && self.advance(now)) {
            self.done.store(self.cut(now).0, Ordering::Release);
        }
    }

    /// Flushes what was stored up to this moment, if that can still be told from what comes.
    fn advance(&self, now: u32) -> bool {
        let done = self.done.load(Ordering::Relaxed);
        let next = (u64::from(now) << 4 | 1).max(done + 1);
        if next >> 4 != u64::from(now) {
            return false;
        }
        self.done.store(next, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_apart() {
        let flush = Flush::default();
        let before = flush.cut(9).stamp(9);
        assert!(!flush.cut(9).takes(before));
        assert!(flush.now(9));
        assert!(flush.cut(9).takes(before));
        let after = flush.cut(9).stamp(9);
        assert!(!flush.cut(9).takes(after));
        assert!(flush.now(9));
        assert!(flush.cut(10).takes(after));
        assert!(!flush.cut(10).takes(flush.cut(10).stamp(10)));
    }

    #[test]
    fn too_many_in_one_second() {
        let flush = Flush::default();
        assert!((0..15).all(|_| flush.now(9)));
        assert!(!flush.now(9));
        assert!(flush.now(10));
    }

    #[test]
    fn flush_early() {
        let flush = Flush::default();
        let old = flush.cut(9).stamp(9);
        flush.later(9, 12);
        assert!(!flush.cut(10).takes(old));
        assert!(flush.cut(11).takes(old));
        assert!(flush.cut(11).takes(flush.cut(11).stamp(11)));
        assert!(!flush.cut(12).takes(flush.cut(12).stamp(12)));
    }

    #[test]
    fn an_early_one_that_is_replaced() {
        let flush = Flush::default();
        flush.later(9, 10);
        let old = flush.cut(9).stamp(9);
        assert!(flush.cut(9).takes(old));
        flush.later(9, 30);
        assert!(flush.cut(9).takes(old));
        assert!(!flush.cut(9).takes(flush.cut(9).stamp(9)));
    }

    #[test]
    fn a_pending_one_neither_revives_nor_survives() {
        let flush = Flush::default();
        let old = flush.cut(9).stamp(9);
        assert!(flush.now(9));
        flush.later(9, 20);
        assert!(flush.cut(9).takes(old));
        let stored = flush.cut(10).stamp(10);
        flush.later(10, 30);
        assert!(!flush.cut(25).takes(stored));
        flush.later(29, 40);
        assert!(flush.cut(29).takes(stored));
        assert!(flush.now(31));
        assert!(!flush.cut(45).takes(flush.cut(45).stamp(32)));
    }
}
