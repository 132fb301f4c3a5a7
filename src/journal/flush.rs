//! flush_all: which items it has flushed. And refreshes: which items a full sync has not brought.
//!
//! ```text
//! stamp of an item   second of last access · flush_alls of that second before it     (28+4 bits)
//! cut                second of a flush_all · its number within that second
//! flushed            stamp < cut
//! ```
//!
//! So a flush_all is one store to memory, and items of the same second are told apart. A stamp needs only an order: when
//! a second has seen 15 flush_alls, the next one numbers itself into the second that follows, and what is stored from then
//! on with it, until time catches up. A flush_all for later is pending until its second is near. From then on it is in
//! effect, and stays so when another one is asked for. Its cut has no number within its second, unless stamps were ahead.
//!
//! A refresh is a full sync as the standby sees it. It sets a mark, a stamp that is above all given ones, and items
//! that arrive get stamps from the mark on. When it ends, what lies below the mark is flushed.

use crate::sync::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What was flushed, for all shards.
#[derive(Debug, Default)]
pub struct Flush {
    /// Newest flush_all that has taken effect.
    done: AtomicU64,
    /// Second of the flush_all to come, 0 none.
    pending: AtomicU32,
    /// The mark of the last refresh, 0 none. Every stamp that is given now is at least this.
    floor: AtomicU64,
    /// Mark of the refresh that is going on, 0 none.
    mark: AtomicU64,
    /// From this second on the refresh has lapsed.
    lapses: AtomicU32,
    /// Locked while several of these change together.
    changing: Mutex<()>,
}

/// A refresh lapses when it was not renewed for so many seconds. While it goes on, fetched items keep their old stamps,
/// and that must not last for ever.
const LAPSE: u32 = 10;

/// Stamps are so many seconds ahead at most: 57,600 flush_alls in a row. Who asks for more of them has to wait.
pub(super) const LEAD: u32 = 3600;

/// The moment of a flush_all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushCut(u64);

/// What became of a flush_all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// All items are flushed.
    Now,
    /// All items that are stored before its second will be flushed.
    Later,
    /// There were too many of late: the caller unlinks all items.
    ByUnlinking,
}

impl FlushCut {
    /// Whether an item with this stamp is flushed.
    #[inline]
    pub fn takes(self, stamp: u64) -> bool {
        stamp < self.0
    }

    /// Stamp of an item that is accessed now, without regard to a refresh.
    #[inline]
    fn stamp(self, now: u32) -> u64 {
        let now = u64::from(now) << 4;
        // Without a number it is a pending one, which also takes what is stored until its second.
        if self.0 & 15 == 0 { now } else { now.max(self.0) }
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
    pub fn cut(&self, now: u32) -> FlushCut {
        // In this order, since a flush_all that is not pending any more is in `done` by then.
        let pending = self.pending.load(Ordering::Acquire);
        let done = FlushCut(self.done.load(Ordering::Acquire));
        if pending == 0 || now < pending - 1 {
            return done;
        }
        self.pending_cut(pending, done)
    }

    /// Cut of a pending flush_all that is in effect: above every stamp that was given until then.
    #[cold]
    fn pending_cut(&self, pending: u32, done: FlushCut) -> FlushCut {
        let (given, at) = (done.0.max(self.floor.load(Ordering::Acquire)), u64::from(pending) << 4);
        FlushCut(if given < at { at } else { above(given) })
    }

    /// Stamp of an item that is stored now.
    #[inline]
    pub fn stamp(&self, now: u32) -> u64 {
        if self.pending.load(Ordering::Acquire) != 0 {
            return self.moment(now).1.stamp(now);
        }
        // The same where none is pending.
        let done = FlushCut(self.done.load(Ordering::Acquire));
        done.max(FlushCut(self.floor.load(Ordering::Acquire))).stamp(now)
    }

    /// Stamp of an item that is fetched now. None: the item keeps its stamp, because it is flushed or may be soon.
    #[inline]
    pub fn renewed(&self, stamp: u64, now: u32) -> Option<u64> {
        self.renewed_by(self.moment(now), stamp, now)
    }

    /// The cut of a moment, and the least stamp that is given then. A stamp that is made from it belongs to that moment: a
    /// flush_all or refresh that begins later is above it.
    #[inline]
    fn moment(&self, now: u32) -> (FlushCut, FlushCut) {
        let cut = self.cut(now);
        let least = if self.is_early(now) { FlushCut(self.done.load(Ordering::Acquire)) } else { cut };
        (cut, least.max(FlushCut(self.floor.load(Ordering::Acquire))))
    }

    /// Whether a flush_all is in effect whose second has not come: it will take what is stored now.
    #[inline]
    fn is_early(&self, now: u32) -> bool {
        self.pending.load(Ordering::Acquire) == now + 1
    }

    #[inline]
    fn renewed_by(&self, (cut, least): (FlushCut, FlushCut), stamp: u64, now: u32) -> Option<u64> {
        let keeps = cut.takes(stamp) || stamp < self.mark.load(Ordering::Acquire) && self.is_refreshing(now);
        (!keeps).then(|| least.stamp(now))
    }

    /// Begins a refresh, in place of one that is going on. A pending flush_all is dropped: if it is pending at the
    /// source of the refresh, the source sends it.
    pub fn begin_refresh(&self, now: u32) {
        let _changing = lock(&self.changing);
        self.promote(now);
        self.pending.store(0, Ordering::Release);
        let mark = self.next(now);
        self.lapses.store(now + LAPSE, Ordering::Release);
        self.mark.store(mark, Ordering::Release);
        // The floor comes last, so that a thread that renews an item by this floor sees the mark.
        self.floor.store(mark, Ordering::Release);
    }

    /// Keeps the refresh that is going on from lapsing.
    pub fn renew_refresh(&self, now: u32) {
        if self.is_refreshing(now) {
            self.lapses.store(now + LAPSE, Ordering::Release);
        }
    }

    /// Flushes what was not stored since the refresh began. False when no refresh is going on.
    pub fn end_refresh(&self, now: u32) -> bool {
        let _changing = lock(&self.changing);
        let goes_on = self.is_refreshing(now);
        let mark = self.mark.swap(0, Ordering::AcqRel);
        if goes_on {
            self.done.fetch_max(mark, Ordering::AcqRel);
        }
        goes_on
    }

    fn is_refreshing(&self, now: u32) -> bool {
        self.mark.load(Ordering::Acquire) != 0 && now < self.lapses.load(Ordering::Acquire)
    }

    /// Flushes at second `at`, or now if that has passed. A flush_all that was pending is replaced.
    pub fn all(&self, at: u32, now: u32) -> Flushed {
        if at > now {
            self.later(now, at);
            return Flushed::Later;
        }
        if self.now(now) { Flushed::Now } else { Flushed::ByUnlinking }
    }

    /// Whether stamps are as far ahead as they may be: see [`Flushed::ByUnlinking`].
    pub fn is_exhausted(&self, now: u32) -> bool {
        self.next(now) >> 4 > u64::from(now.saturating_add(LEAD))
    }

    /// Flushes what was stored so far. False when there were too many flush_alls of late.
    pub fn now(&self, now: u32) -> bool {
        let _changing = lock(&self.changing);
        self.promote(now);
        self.pending.store(0, Ordering::Release);
        self.advance(now)
    }

    fn later(&self, now: u32, at: u32) {
        let _changing = lock(&self.changing);
        self.promote(now);
        self.pending.store(at, Ordering::Release);
    }

    /// Second of the last flush_all, also of a pending one; 0 none.
    pub fn oldest_live(&self) -> u32 {
        match self.pending.load(Ordering::Relaxed) {
            0 => FlushCut(self.done.load(Ordering::Relaxed)).second(),
            at => at,
        }
    }

    /// What a memory file has to keep: the cut, the second that is pending, the floor.
    pub fn state(&self) -> [u64; 3] {
        let _changing = lock(&self.changing);
        let pending = self.pending.load(Ordering::Relaxed).into();
        [self.done.load(Ordering::Relaxed), pending, self.floor.load(Ordering::Relaxed)]
    }

    /// Goes on where another server was, before anybody uses this.
    pub fn restore(&self, [done, pending, floor]: [u64; 3]) {
        self.done.store(done, Ordering::Relaxed);
        self.pending.store(u32::try_from(pending).unwrap_or(0), Ordering::Relaxed);
        self.floor.store(floor, Ordering::Relaxed);
    }

    /// Moves a pending flush_all that is in effect to `done`.
    fn promote(&self, now: u32) {
        let pending = self.pending.load(Ordering::Relaxed);
        let early = pending != 0 && now == pending - 1;
        if !(early && self.advance(now)) {
            self.done.store(self.cut(now).0, Ordering::Release);
        }
    }

    /// Flushes what was stored up to this moment. False when stamps would be too far ahead of time.
    fn advance(&self, now: u32) -> bool {
        if self.is_exhausted(now) {
            return false;
        }
        self.done.store(self.next(now), Ordering::Release);
        true
    }

    /// The least stamp above every stamp that was given. It may belong to a later second.
    fn next(&self, now: u32) -> u64 {
        let given = self.done.load(Ordering::Relaxed).max(self.floor.load(Ordering::Relaxed));
        (u64::from(now) << 4 | 1).max(above(given))
    }
}

/// The next stamp with a number within its second.
fn above(stamp: u64) -> u64 {
    (stamp + 1) | u64::from((stamp + 1) & 15 == 0)
}

#[cfg(test)]
#[path = "tests/flush.rs"]
mod tests;
