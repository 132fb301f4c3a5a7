//! Who goes when there is no room: S3-FIFO, laid over memcached's lists.
//!
//! ```text
//!  new key, unknown to the ghost ──> HOT head            known to it ──> WARM head
//!  HOT tail    fetched ──> WARM head, mark worn off      else evicted, its key to the ghost
//!  WARM tail   WARM above its share ──> COLD head        marks and order stay: WARM and COLD are one queue in two parts
//!  COLD tail   fetched ──> WARM head, mark one less      else evicted
//!  renewed (set in its place): once more to HOT's head, when it is met at a tail
//! ```
//!
//! HOT is a probation: most new keys are not asked for again, and those leave through a small queue without touching
//! what has proved itself. Who goes first: HOT's tail while HOT has its share of the class's items, else COLD's.
//! (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023. One hit promotes here, where the paper
//! asks for two; HOT has memcached's share of 20 %, as 10 % hurt those who write now and read once much later.)
//!
//! While a class has not evicted yet, what HOT has above its share goes to COLD with its marks: what was asked for while
//! memory filled counts. Later HOT shrinks by promotions and evictions alone.
//!
//! A server that is fed follows its feeder, which is the one that clients ask: it asks no ghost of its own, nor fills it.
//!
//! Invariant: only keys that HOT has evicted are in the ghost. With COLD's, too, it gives back half of what it gains.
//!
//! Not here: marks and lists (`lru`), the ghost's memory (`ghost`), moves ahead of need (`maintainer`), memcached's own
//! order (`evict`).

use super::Shard;
use super::ghost::Ghost;
use super::lru::{COLD, HOT, Lru, WARM};
use crate::store::{Hash, ItemId, LruPolicy};

/// Items passed at tails, as they are pinned or marked, before one is evicted whatever it is.
const PASSED: u64 = 64;

impl Shard {
    /// Whether this order is in force.
    #[inline]
    pub fn is_fifo(&self) -> bool {
        self.tuning.segmented && self.core.config.lru_policy == LruPolicy::S3Fifo
    }

    /// Evicts one item of a class, or at least moves one. False when there is none.
    pub(super) fn evict_in_turn(&mut self, class: u8) -> bool {
        for passed in 1..=PASSED {
            let Some((id, lru)) = self.next_to_go(class) else { return passed > 1 };
            if self.window.chunk(id).pins > 0 {
                // It is being read. At the tail it would keep the class from evicting anything.
                self.lrus[usize::from(class)].counters.lrutail_reflocked += 1;
                self.relist(id, lru);
            } else if passed == PASSED || !self.spare(id, class, lru) {
                if lru == HOT {
                    self.remember_evicted(self.hash_of(id));
                }
                self.evict(id, class);
                return true;
            }
        }
        true
    }

    /// The item whose turn it is, and its list.
    pub fn next_to_go(&self, class: u8) -> Option<(ItemId, usize)> {
        let lists = &self.lrus[usize::from(class)].lists;
        let lru = if self.is_hot_full(class) {
            HOT
        } else if lists[COLD].tail != ItemId::NONE {
            COLD
        } else {
            WARM
        };
        (lists[lru].tail != ItemId::NONE).then_some((lists[lru].tail, lru))
    }

    /// Whether HOT has its share of a class's items, or all of them. While the first filling is not over, COLD has the
    /// oldest.
    fn is_hot_full(&self, class: u8) -> bool {
        let Lru { lists, is_filled, .. } = &self.lrus[usize::from(class)];
        let (hot, rest) = (lists[HOT].count, lists[WARM].count + lists[COLD].count);
        let is_filling = !is_filled && self.core.config.maintainer && lists[COLD].count > 0;
        hot > 0 && !is_filling && (rest == 0 || hot * 100 >= (hot + rest) * u64::from(self.tuning.hot_pct))
    }

    /// Moves one item ahead of need, if there is one to move. What is wanted while nothing has to go is nothing but the
    /// shares; `is_pressed`: something had to.
    pub fn move_ahead(&mut self, class: u8, is_pressed: bool) -> bool {
        let Lru { lists, is_filled, evictions, .. } = &mut self.lrus[usize::from(class)];
        let items: u64 = [HOT, WARM, COLD].iter().map(|&lru| lists[lru].count).sum();
        let is_above = |lru: usize, percent: u32| lists[lru].count * 100 > items * u64::from(percent);
        let (hot_is_above, warm_is_above) = (is_above(HOT, self.tuning.hot_pct), is_above(WARM, self.tuning.warm_pct));
        *is_filled |= *evictions > 0 && !hot_is_above;
        let (hot, warm, is_filling) = (lists[HOT].tail, lists[WARM].tail, !*is_filled);
        if warm_is_above {
            self.cool(warm, class);
        } else if is_filling && hot_is_above && self.window.chunk(hot).is_renewed() {
            self.spare(hot, class, HOT);
        } else if is_filling && hot_is_above {
            self.cool(hot, class);
        } else {
            return is_pressed && self.next_to_go(class).is_some_and(|(id, lru)| self.spare(id, class, lru));
        }
        true
    }

    /// Moves an item to COLD with its marks.
    fn cool(&mut self, id: ItemId, class: u8) {
        self.lrus[usize::from(class)].counters.moves_to_cold += 1;
        self.relist(id, COLD);
    }

    /// Moves a tail that has been fetched, or renewed, to where it goes on. False when it is neither.
    pub fn spare(&mut self, id: ItemId, class: u8, lru: usize) -> bool {
        let chunk = self.window.chunk_mut(id);
        if chunk.is_active() {
            let marks = chunk.marks() - 1;
            chunk.set_marks(if lru == HOT { 1 } else { marks });
            self.lrus[usize::from(class)].counters.moves_to_warm += 1;
            self.relist(id, WARM);
        } else if chunk.is_renewed() {
            self.lrus[usize::from(class)].counters.moves_within_lru += 1;
            self.relist(id, HOT);
        } else {
            return false;
        }
        true
    }

    /// The list of a new item that belongs to HOT: WARM if it was evicted a short while ago.
    #[inline]
    pub(super) fn list_of_new(&mut self, class: u8, hash: Hash) -> usize {
        if self.ghost.bytes() == 0 || self.is_fed() || !self.ghost.take(hash) {
            return HOT;
        }
        self.ghost_hits += 1;
        self.lrus[usize::from(class)].counters.moves_to_warm += 1;
        WARM
    }

    /// Puts a ghost of the right size in the place of one that is not, and returns the old one, to be dropped without
    /// the lock. None where this is not wanted.
    pub fn renew_ghost(&mut self, new: Ghost) -> Ghost {
        std::mem::replace(&mut self.ghost, new)
    }

    /// The items that a ghost is to be made for, in the background.
    pub fn lacks_ghost(&self) -> Option<usize> {
        let items = self.table.items();
        let wants = self.is_fifo() && !self.is_fed() && self.lrus.iter().any(|lru| lru.evictions > 0);
        (wants && !Ghost::is_small(items) && !self.ghost.fits(items)).then_some(items)
    }

    fn remember_evicted(&mut self, hash: Hash) {
        if self.is_fed() {
            return;
        }
        let items = self.table.items();
        if Ghost::is_small(items) && !self.ghost.fits(items) {
            self.ghost = Ghost::of(items);
        }
        self.ghost.put(hash);
    }
}

#[cfg(test)]
#[path = "tests/fifo.rs"]
mod tests;
