//! A chunk when there is none: who is reclaimed, and who must go.
//!
//! Dead items at the tails go first, then whose turn it is (`fifo`); in memcached's order, and in the flat LRU, the tail
//! of COLD, and what should not go by then (active, renewed) moves on.
//!
//! Not here: the lists (`lru`), moves in the background (`maintainer`).

use super::Shard;
use super::lru::{COLD, HOT, Lru, TEMP, WARM};
use crate::store::memory::classes::CLASSES;
use crate::store::memory::layout::state;
use crate::store::{Event, Hash, ItemId};

/// Dead items reclaimed at a tail at once, as memcached does.
const LOOKS: usize = 5;

/// Items passed at a tail, as they are pinned or active, before giving up on it. Those that are fetched in the order in
/// which they were set lie next to each other: of 10,000 that were each fetched once a second while the cache turned
/// over twice in that time, 96 % were kept when only four were passed.
const PASSED: u64 = 64;

/// Rounds of making room for one chunk, as memcached does.
const ROUNDS: u64 = 10;

impl Shard {
    /// A chunk of a class, if need be by reclaiming and evicting.
    #[inline]
    pub fn alloc(&mut self, class: u8) -> Option<ItemId> {
        if !self.tuning.segmented {
            // Expired items at the tail go first, also while there is room.
            self.reclaim_tail(class, COLD);
        }
        match self.take_chunk(class) {
            Some(id) => Some(id),
            None => self.alloc_by_force(class),
        }
    }

    /// Whether the item is dead and was unlinked.
    pub fn reclaim(&mut self, id: ItemId) -> bool {
        if self.death(id).is_none() {
            return false;
        }
        let chunk = *self.window.chunk(id);
        let class = self.listed_class(id, &chunk);
        let counters = &mut self.lrus[usize::from(class)].counters;
        counters.reclaimed += 1;
        counters.expired_unfetched += u64::from(!chunk.is_fetched());
        self.let_go(id, self.hash_of(id));
        true
    }

    /// Unlinks flushed and expired items of the last second if there are at most so many items.
    // COMPAT(flush_walk): flush_all unlinks what was stored or fetched a moment ago. What is older stays until somebody
    // asks for it, which counts get_flushed, or it is reclaimed.
    pub fn unlink_dead(&mut self, most: usize) {
        if self.table.items() > most {
            return;
        }
        let now = self.core.clock.now();
        for list in 0..CLASSES * 4 {
            let mut id = self.lrus[list / 4].lists[list % 4].tail;
            while id != ItemId::NONE {
                let next = self.window.chunk(id).prev;
                if self.window.header(id).last_access + 1 >= now && self.death(id).is_some() {
                    self.let_go(id, self.hash_of(id));
                }
                id = next;
            }
        }
    }

    #[inline]
    fn take_chunk(&mut self, class: u8) -> Option<ItemId> {
        self.slab.take(class, &mut self.window, &self.core.classes, &self.core.pool)
    }

    #[cold]
    fn alloc_by_force(&mut self, class: u8) -> Option<ItemId> {
        if self.take_idle_page(class)
            && let Some(id) = self.take_chunk(class)
        {
            return Some(id);
        }
        let mut rounds = 0;
        let id = loop {
            rounds += 1;
            let dead: usize = [COLD, HOT, WARM, TEMP].iter().map(|&lru| self.reclaim_tail(class, lru)).sum();
            if dead == 0 && !self.make_room(class) {
                break None;
            }
            // All that was evicted may lie in a page that is being emptied.
            let id = self.take_chunk(class).or_else(|| self.slab.take_gone(class));
            if id.is_some() {
                break id;
            }
            if rounds == ROUNDS {
                break None;
            }
        };
        let id = id.or_else(|| self.take_beyond(class));
        let counters = &mut self.lrus[usize::from(class)].counters;
        counters.direct_reclaims += rounds;
        counters.outofmemory += u64::from(id.is_none());
        id
    }

    /// A chunk of a page beyond the memory limit, where nothing of the class can be evicted: memory is full of other
    /// classes' items, or what is in it is in use.
    fn take_beyond(&mut self, class: u8) -> Option<ItemId> {
        let Shard { core, slab, window, .. } = self;
        let config = &core.config;
        if !config.evict || !config.slab_reassign || config.preallocate {
            return None;
        }
        slab.take_page(class, window, &core.classes, &core.pool, || core.pool.take_beyond());
        slab.take_ready(class, window, &core.classes)
    }

    /// Evicts one item, or at least moves one to where it can be evicted. False when there is none.
    pub fn make_room(&mut self, class: u8) -> bool {
        if !self.core.config.evict {
            return false;
        }
        // Heads and tails of large items lie in small classes, but are listed in the largest.
        let largest = self.core.classes.largest();
        let holds_parts = class != largest && self.slab.classes[usize::from(class)].used > 0;
        if self.is_fifo() {
            return self.evict_in_turn(class) || holds_parts && self.evict_in_turn(largest);
        }
        if self.evict_tail(class) {
            return true;
        }
        let mut fed = 0;
        while fed < PASSED && self.feed_cold(class) {
            fed += 1;
            if self.evict_tail(class) {
                break;
            }
        }
        fed > 0 || holds_parts && (self.evict_tail(largest) || self.feed_cold(largest))
    }

    /// Unlinks dead items at the tail of a list. How many it were.
    pub fn reclaim_tail(&mut self, class: u8, lru: usize) -> usize {
        for reclaimed in 0..LOOKS {
            let tail = self.lrus[usize::from(class)].lists[lru].tail;
            if tail == ItemId::NONE || self.window.chunk(tail).pins > 0 || !self.reclaim(tail) {
                return reclaimed;
            }
        }
        LOOKS
    }

    /// Evicts the first of the last few items of COLD. Active ones among them go to WARM instead, where memcached has
    /// them as soon as they are fetched, but the last one looked at is evicted whatever it is. Pinned ones are being
    /// read, so they go to COLD's head: left at the tail, a few slow readers would keep the class from evicting anything.
    fn evict_tail(&mut self, class: u8) -> bool {
        let count = self.lrus[usize::from(class)].lists[COLD].count;
        for passed in 1..=count.min(PASSED) {
            let Lru { lists, counters, .. } = &mut self.lrus[usize::from(class)];
            let id = lists[COLD].tail;
            if id == ItemId::NONE {
                return false;
            }
            let chunk = *self.window.chunk(id);
            if chunk.pins > 0 {
                counters.lrutail_reflocked += 1;
                self.relist(id, COLD);
                continue;
            }
            if !self.tuning.segmented || passed == PASSED || !self.move_up(id, class) {
                self.evict(id, class);
                return true;
            }
        }
        false
    }

    /// Moves a tail to where it would be, had that not waited until it is met: an active one to WARM, a renewed one to
    /// HOT. False when it is neither.
    pub fn move_up(&mut self, id: ItemId, class: u8) -> bool {
        let chunk = self.window.chunk(id);
        if chunk.is(state::ACTIVE) {
            self.warm_up(id, class);
        } else if chunk.is(state::RENEWED) {
            self.relist(id, HOT);
        } else {
            return false;
        }
        true
    }

    /// Moves an active item to WARM, where it must prove itself again.
    fn warm_up(&mut self, id: ItemId, class: u8) {
        self.window.chunk_mut(id).state &= !state::ACTIVE;
        self.lrus[usize::from(class)].counters.moves_to_warm += 1;
        self.relist(id, WARM);
    }

    /// Unlinks an item for room.
    pub fn evict(&mut self, id: ItemId, class: u8) {
        if self.reclaim(id) {
            return;
        }
        let header = *self.window.header(id);
        let age = self.core.clock.now().saturating_sub(header.last_access);
        let lru = &mut self.lrus[usize::from(class)];
        lru.evictions += 1;
        let counters = &mut lru.counters;
        counters.evicted += 1;
        counters.evicted_time = age.into();
        counters.evicted_nonzero += u64::from(header.expires_at != 0);
        counters.evicted_unfetched += u64::from(!header.chunk.is_fetched());
        counters.evicted_active += u64::from(header.chunk.is_active());
        if self.core.events.wants_evictions() {
            self.core.events.keep(self.eviction(id, class, age));
        }
        let hash = self.hash_of(id);
        self.note_gone(id, class, hash);
        self.let_go(id, hash);
        self.fetch_next_victim(class);
    }

    /// Notes an eviction for the page mover, unless it is another server's doing.
    fn note_gone(&mut self, id: ItemId, class: u8, hash: Hash) {
        if self.is_fed() {
            self.gain.is_fed = true;
            return;
        }
        let chunks = match self.window.chunk(id).is(state::CHUNKED) {
            true => self.item(id).size().div_ceil(self.core.classes.size(class)),
            false => 1,
        };
        self.gain.evicted(hash, class, chunks as u32, &self.core.classes);
    }

    /// A full cache evicts one item for each new one. Its bucket and the head of the one after it are fetched while
    /// the new one is made: 360 ns for such a set instead of 500.
    fn fetch_next_victim(&self, class: u8) {
        let next = if self.is_fifo() {
            self.next_to_go(class).map_or(ItemId::NONE, |(id, _)| id)
        } else {
            self.next_of_cold(class)
        };
        if next != ItemId::NONE {
            let hash = self.core.hash(self.key(next));
            self.table.prefetch(hash);
            self.gain.prefetch(hash);
            self.window.prefetch(self.window.chunk(next).prev);
        }
    }

    fn next_of_cold(&self, class: u8) -> ItemId {
        let lists = &self.lrus[usize::from(class)].lists;
        if lists[COLD].tail != ItemId::NONE { lists[COLD].tail } else { lists[HOT].tail }
    }

    fn eviction(&self, id: ItemId, class: u8, last_access_age: u32) -> Event {
        let item = self.item(id);
        let ttl = match item.expires_at() {
            0 => -1,
            at => i64::from(at) - i64::from(self.core.clock.now()),
        };
        let (key, fetched, size) = (item.key().to_vec(), item.is_fetched(), item.size());
        Event::Evict { key, fetched, ttl, last_access_age, class, size }
    }

    /// Moves an item from HOT, else from WARM, to COLD. Active ones of HOT go to WARM on the way, renewed ones stay.
    fn feed_cold(&mut self, class: u8) -> bool {
        for _ in 0..PASSED {
            let tail = self.lrus[usize::from(class)].lists[HOT].tail;
            if tail == ItemId::NONE || !self.move_up(tail, class) {
                break;
            }
        }
        for lru in [HOT, WARM] {
            let tail = self.lrus[usize::from(class)].lists[lru].tail;
            if tail != ItemId::NONE {
                self.window.chunk_mut(tail).state &= !state::ACTIVE;
                self.lrus[usize::from(class)].counters.moves_to_cold += 1;
                self.relist(tail, COLD);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "tests/evict.rs"]
mod tests;
