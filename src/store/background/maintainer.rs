//! The maintainer: moves items between the LRUs of each class, looking at the tails only.
//!
//! ```text
//! any tail    dead ─> reclaimed
//! the rest    what `fifo` wants to be moved ahead of need
//!
//! in memcached's order, and in the flat LRU:
//! HOT tail    active ─> WARM      too many bytes, or idle too long ─> COLD
//! WARM tail   active ─> its head  too many bytes, or idle too long ─> COLD
//! COLD tail   active ─> WARM
//! any tail    renewed ─> head of HOT
//! ```
//!
//! "Too many" is a share of the class's bytes, "too long" a factor of the idle time of COLD's tail, as memcached
//! has it. In the flat LRU both are 0, so that everything goes to COLD.
//!
//! Each class of each shard has a nap of its own, that grows while there is little to do and shrinks while there is
//! much.
//!
//! Not here: moves that a fetch or an allocation makes (`lru`).

use crate::store::lock_time::{Holder, Slice, rest};
use crate::store::memory::classes::CLASSES;
use crate::store::memory::layout::state;
use crate::store::requests::NAP_MAX;
use crate::store::shard::Shard;
use crate::store::shard::ghost::Ghost;
use crate::store::shard::lru::{COLD, HOT, List, TEMP, WARM};
use crate::store::{ItemId, Store};
use std::time::Duration;

/// Naps are from 1 ms to 1 s, as memcached's.
const NAP_MIN: Duration = Duration::from_millis(1);

/// Moves in one class before the others' turn, as memcached does.
const PASS: usize = 500;

/// A nap shrinks after at least [`MANY`] moves in one class and grows after less than [`FEW`]: to wake up takes as long
/// as some twenty moves.
const MANY: usize = PASS / 2;
const FEW: usize = PASS / 8;

/// Most items, buckets and pages of a shard that is checked now and then in debug builds.
const CHECKED_ITEMS: usize = 2000;
const CHECKED_BUCKETS: usize = 1 << 16;
const CHECKED_PAGES: usize = 16;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Maintainer {
    /// By shard and class.
    naps: Vec<Nap>,
    /// The last second in which shards were looked at as a whole.
    looked: u32,
}

impl Maintainer {
    /// A maintainer that has not looked at anything yet.
    pub(super) fn new(store: &Store) -> Maintainer {
        Maintainer { naps: vec![Nap::default(); store.shards.len() * CLASSES], looked: 0 }
    }

    /// Makes the moves that are due now that `passed` has passed. When to be called again.
    pub(super) fn step(&mut self, store: &Store, passed: Duration) -> Duration {
        if !store.core.config.maintainer {
            return NAP_MAX;
        }
        let now = store.core.clock.now();
        if std::mem::replace(&mut self.looked, now) != now {
            (0..store.shards.len()).for_each(|number| renew_ghost(store, number));
            if cfg!(debug_assertions) {
                check(store, now as usize % store.shards.len());
            }
        }
        store.core.requests.counts().juggles += 1;
        let mut next = NAP_MAX;
        for (shard, naps) in self.naps.chunks_mut(CLASSES).enumerate() {
            for (class, nap) in naps.iter_mut().enumerate().take(usize::from(store.largest_class()) + 1).skip(1) {
                if nap.is_over(passed) {
                    nap.again(juggle(store, shard, class as u8));
                }
                next = next.min(nap.left);
            }
        }
        next.max(NAP_MIN)
    }
}

/// Checks a shard, if that is soon done.
fn check(store: &Store, number: usize) {
    let shard = store.lock_number(number);
    let (items, buckets, pages) = (shard.table.items(), shard.table.buckets(), shard.slab.pages.len());
    if items <= CHECKED_ITEMS && buckets <= CHECKED_BUCKETS && pages <= CHECKED_PAGES {
        shard.check().unwrap_or_else(|what| panic!("shard {}: {what}", shard.number));
    }
}

/// Gives a large shard another ghost when it has outgrown the one that it has. Memory comes and goes without the lock.
fn renew_ghost(store: &Store, number: usize) {
    let lacks = store.lock_timed(number, Holder::Maintainer).lacks_ghost();
    if let Some(items) = lacks {
        let new = Ghost::of(items);
        let old = store.lock_timed(number, Holder::Maintainer).renew_ghost(new);
        drop(old);
    }
}

/// Makes up to [`PASS`] moves in slices. How many it were.
fn juggle(store: &Store, shard: usize, class: u8) -> usize {
    let mut moves = 0;
    loop {
        let (made, more) = store.lock_timed(shard, Holder::Maintainer).juggle(class, PASS - moves);
        moves += made;
        if !more || moves == PASS {
            return moves;
        }
        rest();
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Nap {
    left: Duration,
    length: Duration,
}

impl Nap {
    fn is_over(&mut self, passed: Duration) -> bool {
        self.left = self.left.saturating_sub(passed);
        // Naps of about the same length end together, or an idle server would wake for each.
        self.left <= self.length / 8
    }

    fn again(&mut self, moves: usize) {
        self.length = match moves {
            // There is more to do, such as after a flush_all.
            PASS.. => Duration::ZERO,
            MANY.. if self.length / 2 < NAP_MIN => Duration::ZERO,
            MANY.. => self.length / 2,
            FEW.. => self.length,
            _ => (self.length + self.length / 8).clamp(NAP_MIN, NAP_MAX),
        };
        self.left = self.length;
    }
}

/// When an item of a list goes to COLD.
#[derive(Clone, Copy, Debug)]
struct Limit {
    bytes: u64,
    idle_seconds: u32,
}

impl Shard {
    /// Makes up to `most` moves in one class, as many as a slice allows. How many it were, and whether there may be
    /// more.
    fn juggle(&mut self, class: u8, most: usize) -> (usize, bool) {
        if self.is_fifo() {
            return self.juggle_in_turn(class, most);
        }
        let mut slice = Slice::new();
        let mut moves = 0;
        // First, as the limits go by the age of its tail. The flat LRU's is looked at before each allocation.
        while moves < most / 2 && !slice.is_over() && self.tuning.segmented && self.tidy_cold(class) {
            moves += 1;
        }
        let (hot, warm) = self.limits(class);
        while moves < most && !slice.is_over() {
            if !(self.reclaim_at(class, TEMP) || self.pull(class, HOT, hot) || self.pull(class, WARM, warm)) {
                // COLD may have been left with more than its half.
                return (moves, moves > 0 && moves == most / 2);
            }
            moves += 1;
        }
        (moves, true)
    }

    /// As [`Shard::juggle`], of S3-FIFO.
    fn juggle_in_turn(&mut self, class: u8, most: usize) -> (usize, bool) {
        let mut slice = Slice::new();
        let mut moves = 0;
        let is_pressed = self.is_pressed(class);
        while moves < most && !slice.is_over() {
            let is_dead = [TEMP, COLD, WARM, HOT].iter().any(|&lru| self.reclaim_at(class, lru));
            if !is_dead && !self.move_ahead(class, is_pressed) {
                return (moves, false);
            }
            moves += 1;
        }
        (moves, true)
    }

    /// Whether an item had to go since this was last asked.
    fn is_pressed(&mut self, class: u8) -> bool {
        let lru = &mut self.lrus[usize::from(class)];
        std::mem::replace(&mut lru.evictions_seen, lru.evictions) != lru.evictions
    }

    /// Reclaims the tail of COLD if it is dead, or moves it if it does not belong there any more.
    fn tidy_cold(&mut self, class: u8) -> bool {
        let tail = self.lrus[usize::from(class)].lists[COLD].tail;
        tail != ItemId::NONE && (self.reclaim(tail) || self.move_up(tail, class))
    }

    /// Of HOT and WARM.
    fn limits(&self, class: u8) -> (Limit, Limit) {
        let lists = &self.lrus[usize::from(class)].lists;
        let tuning = &self.tuning;
        if !tuning.segmented {
            let all = Limit { bytes: 0, idle_seconds: 0 };
            return (all, all);
        }
        let bytes: u64 = [HOT, WARM, COLD].iter().map(|&lru| lists[lru].bytes).sum();
        let oldest = f64::from(self.idle_seconds(lists[COLD].tail));
        let limit = |percent: u32, factor: f64| Limit {
            bytes: bytes * u64::from(percent) / 100,
            idle_seconds: (oldest * factor) as u32,
        };
        (limit(tuning.hot_pct, tuning.hot_max_factor), limit(tuning.warm_pct, tuning.warm_max_factor))
    }

    /// Moves the tail of HOT or WARM if it is time.
    fn pull(&mut self, class: u8, lru: usize, limit: Limit) -> bool {
        if self.reclaim_at(class, lru) {
            return true;
        }
        let Shard { lrus, window, .. } = self;
        let List { tail, bytes, .. } = lrus[usize::from(class)].lists[lru];
        if tail == ItemId::NONE {
            return false;
        }
        // The next tail: each is waited for otherwise.
        window.prefetch(window.chunk(tail).prev);
        let counters = &mut lrus[usize::from(class)].counters;
        let chunk = window.chunk_mut(tail);
        if chunk.is(state::ACTIVE) {
            if lru == WARM {
                chunk.state &= !state::ACTIVE;
                counters.moves_within_lru += 1;
                self.relist(tail, WARM);
                return true;
            }
            return self.move_up(tail, class);
        }
        if bytes <= limit.bytes && self.idle_seconds(tail) <= limit.idle_seconds {
            return false;
        }
        if self.tuning.segmented && self.move_up(tail, class) {
            return true;
        }
        self.lrus[usize::from(class)].counters.moves_to_cold += 1;
        self.relist(tail, COLD);
        true
    }

    /// Reclaims the tail of a list if it is dead.
    fn reclaim_at(&mut self, class: u8, lru: usize) -> bool {
        let tail = self.lrus[usize::from(class)].lists[lru].tail;
        tail != ItemId::NONE && self.reclaim(tail)
    }
}

#[cfg(test)]
#[path = "tests/maintainer.rs"]
mod tests;
