//! The LRUs: where an item is listed, and who goes when there is no room.
//!
//! ```text
//!            new ──> HOT ──────────────> COLD ──> evicted
//!                     │  active           │ ^
//!                     └──────> WARM <─────┘ │  active again: head of WARM
//!                                └──────────┘  not active any more
//!            new, short TTL ──> TEMP ──> expires
//! flat: everything in COLD
//! ```
//!
//! A fetch only marks the item. An active one moves when it is met at a tail, so that a hit touches no other item's
//! memory. So does a set in the chunk that the item has: the item is renewed, and goes to HOT's head when it is met at
//! a tail, as a new one would have at once. A tail that was not renewed is the one that was set longest ago, and only
//! such a one is evicted while the maintainer keeps up; those before it may have changed places. Of 100,000 sets a second
//! of a million keys, each costs the background 4 ns so, and 190 if it moves the item at once and another one for it.
//!
//! Each class of each shard has these four lists. A list runs from `head` (newest) to `tail`.
//!
//! Invariants: counts and bytes of a list are those of its items. The crawler's cursor stands on an item of its list,
//! or has come to the end.
//!
//! Not here: the moves in the background (`maintainer`).

use super::Shard;
use super::item::state;
use crate::store::{ClassCounter, Event};

/// Lists of a class, by their number in an item's state.
pub const HOT: usize = 0;
/// Fetched twice, and again.
pub const WARM: usize = 1;
/// Next to go.
pub const COLD: usize = 2;
/// Expires soon, is never evicted.
pub const TEMP: usize = 3;

/// Dead items reclaimed at a tail at once, as memcached does.
const LOOKS: usize = 5;

/// Items passed at a tail, as they are pinned or active, before giving up on it. Those that are fetched in the order in
/// which they were set lie next to each other: of 10,000 that were each fetched once a second while the cache turned
/// over twice in that time, 96 % were kept when only four were passed.
const PASSED: u64 = 64;

/// Rounds of making room for one chunk, as memcached does.
const ROUNDS: u64 = 10;

/// An item that is fetched again and again has its last access renewed only this many seconds after it last was;
/// in the flat LRU it moves to the head then.
const REFRESH_SECONDS: u32 = 60;

/// One list.
#[derive(Clone, Copy, Debug, Default)]
pub struct List {
    pub head: u32,
    pub tail: u32,
    pub count: u64,
    pub bytes: u64,
}

/// The lists and counters of one class.
#[derive(Clone, Debug, Default)]
pub struct Lru {
    pub lists: [List; 4],
    pub counters: Counters,
}

/// What is counted per class; the names are memcached's.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub evicted: u64,
    pub evicted_nonzero: u64,
    /// Idle seconds of the last one evicted.
    pub evicted_time: u64,
    pub evicted_unfetched: u64,
    pub evicted_active: u64,
    pub outofmemory: u64,
    pub reclaimed: u64,
    pub expired_unfetched: u64,
    pub crawler_reclaimed: u64,
    pub crawler_items_checked: u64,
    pub lrutail_reflocked: u64,
    pub moves_to_cold: u64,
    pub moves_to_warm: u64,
    pub moves_within_lru: u64,
    pub direct_reclaims: u64,
    /// By list.
    pub hits: [u64; 4],
    pub set_cmds: u64,
    pub touch_hits: u64,
    pub delete_hits: u64,
    pub incr_hits: u64,
    pub decr_hits: u64,
    pub cas_hits: u64,
    pub cas_badval: u64,
}

impl Shard {
    /// The list for a new item.
    #[inline]
    pub fn first_lru(&self, id: u32, now: u32) -> usize {
        let expires_at = self.window.header(id).expires_at;
        match self.tuning.temporary_ttl {
            Some(ttl) if expires_at != 0 && expires_at.saturating_sub(now) <= ttl => TEMP,
            _ if self.tuning.segmented => HOT,
            _ => COLD,
        }
    }

    /// Puts a linked item at the head of a list of its class.
    #[inline]
    pub fn push(&mut self, id: u32, lru: usize, size: usize) {
        let class = self.listed_class(id, self.window.chunk(id));
        self.push_in(class, id, lru, size);
    }

    /// [`Shard::push`] for who knows the class.
    #[inline]
    pub fn push_in(&mut self, class: u8, id: u32, lru: usize, size: usize) {
        let list = &mut self.lrus[usize::from(class)].lists[lru];
        let next = std::mem::replace(&mut list.head, id);
        if next == 0 {
            list.tail = id;
        }
        list.count += 1;
        list.bytes += size as u64;
        if next != 0 {
            self.window.chunk_mut(next).prev = id;
        }
        let chunk = self.window.chunk_mut(id);
        chunk.next = next;
        chunk.prev = 0;
        chunk.state = chunk.state & !(state::LRU | state::RENEWED) | lru as u16;
    }

    /// Takes a linked item out of its list.
    #[inline]
    pub fn remove(&mut self, id: u32, size: usize) {
        let class = self.listed_class(id, self.window.chunk(id));
        self.remove_from(class, id, size);
    }

    /// [`Shard::remove`] for who knows the class.
    #[inline]
    pub fn remove_from(&mut self, class: u8, id: u32, size: usize) {
        let chunk = *self.window.chunk(id);
        assert!(chunk.is(state::LINKED), "not in a list");
        if self.cursor == id {
            self.cursor = chunk.prev;
        }
        let list = &mut self.lrus[usize::from(class)].lists[chunk.lru()];
        list.count -= 1;
        list.bytes -= size as u64;
        if chunk.prev == 0 {
            list.head = chunk.next;
        }
        if chunk.next == 0 {
            list.tail = chunk.prev;
        }
        if chunk.prev != 0 {
            self.window.chunk_mut(chunk.prev).next = chunk.next;
        }
        if chunk.next != 0 {
            self.window.chunk_mut(chunk.next).prev = chunk.prev;
        }
    }

    /// Notes that a linked item was set in its chunk, and what it takes of its list's bytes, before and now. One that
    /// belongs in another list than it was in cannot wait to be met at a tail.
    #[inline]
    pub fn renew(&mut self, class: u8, id: u32, (before, size): (usize, usize), now: u32) {
        let (lru, first) = (self.window.chunk(id).lru(), self.first_lru(id, now));
        let list = &mut self.lrus[usize::from(class)].lists[lru];
        list.bytes = list.bytes - before as u64 + size as u64;
        if lru == TEMP || first == TEMP {
            self.relist(id, first);
        }
    }

    /// Moves a linked item to the head of a list of its class.
    pub fn relist(&mut self, id: u32, lru: usize) {
        let size = self.item(id).size();
        self.remove(id, size);
        self.push(id, lru, size);
    }

    /// Notes a client's fetch. An item that is often fetched is only looked at.
    #[inline]
    pub fn bump(&mut self, id: u32) {
        const NOTED: u16 = state::FETCHED | state::ACTIVE;
        let header = self.window.header(id);
        let idle = self.core.clock.now().saturating_sub(header.last_access);
        if header.chunk.state & NOTED != NOTED || idle > REFRESH_SECONDS {
            self.note_fetch(id);
        }
    }

    #[inline(never)]
    fn note_fetch(&mut self, id: u32) {
        if !self.tuning.segmented {
            return self.bump_flat(id);
        }
        let chunk = self.window.chunk_mut(id);
        if chunk.is(state::FETCHED) {
            chunk.state |= state::ACTIVE;
            self.set_accessed(id);
        } else {
            chunk.state |= state::FETCHED;
        }
    }

    /// Counts a command on an item, under the class it is listed in.
    #[inline]
    pub fn count(&mut self, id: u32, counter: ClassCounter) {
        let chunk = self.window.chunk(id);
        let class = self.listed_class(id, chunk);
        let lru = chunk.lru();
        let counters = &mut self.lrus[usize::from(class)].counters;
        *match counter {
            ClassCounter::GetHits => &mut counters.hits[lru],
            ClassCounter::SetCmds => &mut counters.set_cmds,
            ClassCounter::TouchHits => &mut counters.touch_hits,
            ClassCounter::DeleteHits => &mut counters.delete_hits,
            ClassCounter::IncrHits => &mut counters.incr_hits,
            ClassCounter::DecrHits => &mut counters.decr_hits,
            ClassCounter::CasHits => &mut counters.cas_hits,
            ClassCounter::CasBadval => &mut counters.cas_badval,
        } += 1;
    }

    /// A chunk of a class, if need be by reclaiming and evicting.
    #[inline]
    pub fn alloc(&mut self, class: u8) -> Option<u32> {
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
    pub fn reclaim(&mut self, id: u32) -> bool {
        if self.death(id).is_none() {
            return false;
        }
        let chunk = *self.window.chunk(id);
        let class = self.listed_class(id, &chunk);
        let counters = &mut self.lrus[usize::from(class)].counters;
        counters.reclaimed += 1;
        counters.expired_unfetched += u64::from(!chunk.is(state::FETCHED));
        self.unlink_by_id(id);
        true
    }

    /// Begins the crawler's walk from the tail of a list to its head.
    pub fn open_cursor(&mut self, class: usize, lru: usize) {
        self.cursor = self.lrus[class].lists[lru].tail;
    }

    /// The item that the crawler stands on; it steps on. None at the end.
    pub fn next_of_cursor(&mut self) -> Option<u32> {
        let id = self.cursor;
        if id == 0 {
            return None;
        }
        self.cursor = self.window.chunk(id).prev;
        Some(id)
    }

    fn bump_flat(&mut self, id: u32) {
        let header = self.window.header_mut(id);
        header.chunk.state |= state::FETCHED;
        if self.core.clock.now().saturating_sub(header.last_access) > REFRESH_SECONDS {
            let lru = header.chunk.lru();
            self.set_accessed(id);
            self.relist(id, lru);
        }
    }

    #[inline]
    fn take_chunk(&mut self, class: u8) -> Option<u32> {
        self.slab.take(class, &mut self.window, &self.core.classes, &self.core.pool)
    }

    #[cold]
    fn alloc_by_force(&mut self, class: u8) -> Option<u32> {
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
    fn take_beyond(&mut self, class: u8) -> Option<u32> {
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
        if fed > 0 {
            return true;
        }
        // Heads and tails of large items lie in small classes, but are listed in the largest.
        let largest = self.core.classes.largest();
        let holds_parts = self.slab.classes[usize::from(class)].used > 0;
        class != largest && holds_parts && (self.evict_tail(largest) || self.feed_cold(largest))
    }

    /// Unlinks dead items at the tail of a list. How many it were.
    pub fn reclaim_tail(&mut self, class: u8, lru: usize) -> usize {
        for reclaimed in 0..LOOKS {
            let tail = self.lrus[usize::from(class)].lists[lru].tail;
            if tail == 0 || self.window.chunk(tail).pins > 0 || !self.reclaim(tail) {
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
            let Lru { lists, counters } = &mut self.lrus[usize::from(class)];
            let id = lists[COLD].tail;
            if id == 0 {
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
    pub fn move_up(&mut self, id: u32, class: u8) -> bool {
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
    fn warm_up(&mut self, id: u32, class: u8) {
        self.window.chunk_mut(id).state &= !state::ACTIVE;
        self.lrus[usize::from(class)].counters.moves_to_warm += 1;
        self.relist(id, WARM);
    }

    /// Unlinks an item for room.
    pub fn evict(&mut self, id: u32, class: u8) {
        if self.reclaim(id) {
            return;
        }
        let header = *self.window.header(id);
        let age = self.core.clock.now().saturating_sub(header.last_access);
        let counters = &mut self.lrus[usize::from(class)].counters;
        counters.evicted += 1;
        counters.evicted_time = age.into();
        counters.evicted_nonzero += u64::from(header.expires_at != 0);
        counters.evicted_unfetched += u64::from(!header.chunk.is(state::FETCHED));
        counters.evicted_active += u64::from(header.chunk.is(state::ACTIVE));
        if self.core.events.wants_evictions() {
            self.core.events.keep(self.eviction(id, class, age));
        }
        self.unlink_by_id(id);
        self.fetch_next_victim(class);
    }

    /// A full cache evicts one item for each new one. Its bucket and the head of the one after it are fetched while
    /// the new one is made: 360 ns for such a set instead of 500.
    fn fetch_next_victim(&self, class: u8) {
        let lists = &self.lrus[usize::from(class)].lists;
        let next = if lists[COLD].tail != 0 { lists[COLD].tail } else { lists[HOT].tail };
        if next != 0 {
            self.table.prefetch(self.core.hash(self.key(next)));
            self.window.prefetch(self.window.chunk(next).prev);
        }
    }

    fn eviction(&self, id: u32, class: u8, last_access_age: u32) -> Event {
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
            if tail == 0 || !self.move_up(tail, class) {
                break;
            }
        }
        for lru in [HOT, WARM] {
            let tail = self.lrus[usize::from(class)].lists[lru].tail;
            if tail != 0 {
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
mod tests {
    use super::*;
    use crate::store::tests::rig::{TestStore, tiny};
    use crate::store::{StoreConfig, Tuning};

    #[test]
    fn pinned_tails_do_not_block() {
        let rig = TestStore::new(StoreConfig { memory_limit: 4 * 4096, ..tiny() });
        let mut stored = Vec::new();
        while rig.sum(|class| class.evicted) == 0 {
            stored.push(format!("key{:04}", stored.len()));
            assert!(rig.set(&stored[stored.len() - 1], b"value", 0));
        }
        // The first one is gone. Slow clients read the next ones.
        let pinned: Vec<_> = stored[1..=40].iter().map(|key| rig.pin(key)).collect();
        for i in 0..100 {
            assert!(rig.set(&format!("new{i:04}"), b"value", 0), "{i} was refused");
        }
        assert!(stored[1..=40].iter().all(|key| rig.get(key).is_some()));
        assert!(rig.sum(|class| class.lrutail_reflocked) >= 40);
        drop(pinned);
        rig.store.check().unwrap();
    }

    #[test]
    fn neighbours_that_are_fetched_are_kept() {
        let rig = TestStore::new(StoreConfig { memory_limit: 8 * 4096, ..tiny() });
        let mut stored = Vec::new();
        while rig.sum(|class| class.evicted) == 0 {
            stored.push(format!("key{:04}", stored.len()));
            assert!(rig.set(&stored[stored.len() - 1], b"value", 0));
        }
        let fetched = &stored[1..61];
        (0..2).for_each(|_| assert!(fetched.iter().all(|key| rig.get(key).is_some())));
        for i in 0..stored.len() / 2 {
            assert!(rig.set(&format!("new{i:04}"), b"value", 0), "{i} was refused");
        }
        assert!(fetched.iter().all(|key| rig.get(key).is_some()));
        assert_eq!(rig.sum(|class| class.evicted_active), 0);
        rig.store.check().unwrap();
    }

    #[test]
    fn what_was_set_in_place_goes_last() {
        let rig = TestStore::new(StoreConfig { memory_limit: 8 * 4096, ..tiny() });
        let mut stored = Vec::new();
        while rig.sum(|class| class.evicted) == 0 {
            stored.push(format!("key{:04}", stored.len()));
            assert!(rig.set(&stored[stored.len() - 1], b"value", 0));
        }
        let oldest = &stored[1..4];
        for key in oldest {
            assert!(rig.get(key).is_some() && rig.reset(key, b"other", 0));
        }
        for i in 0..stored.len() / 2 {
            assert!(rig.set(&format!("new{i:04}"), b"value", 0), "{i} was refused");
        }
        assert!(oldest.iter().all(|key| rig.get(key) == Some(b"other".into())));
        assert!(stored[4..20].iter().all(|key| rig.get(key).is_none()));
        assert_eq!(rig.sum(|class| class.evicted_active + class.moves_to_warm), 0);
        rig.store.check().unwrap();
    }

    #[test]
    fn what_is_set_in_place_goes_to_temp_and_back_at_once() {
        let tuning = Tuning { temporary_ttl: Some(10), ..Tuning::default() };
        let rig = TestStore::new(StoreConfig { tuning, ..tiny() });
        assert!(rig.set("key", b"value", 0));
        for (value, exptime, lru) in [(&b"v"[..], 20, HOT), (b"value", 10, TEMP), (b"val", 5, TEMP), (b"va", 0, HOT)] {
            assert!(rig.reset("key", value, exptime));
            assert_eq!((rig.lru("key"), rig.get("key")), (lru, Some(value.into())));
            rig.store.check().unwrap();
        }
    }

    #[test]
    fn a_large_item_finds_room_among_small_ones() {
        let rig = TestStore::new(tiny());
        (0..10_000).for_each(|i| assert!(rig.set(&format!("key{i:05}"), b"value", 0)));
        let (limit, taken) = (rig.store.stats().memory_limit, rig.store.stats().total_malloced);
        assert!(taken >= limit);
        // Two chunks of the largest class are a page: this is more.
        assert!(rig.set("large", &[1; 9000], 0));
        assert!(rig.store.stats().total_malloced > taken);
        assert_eq!(rig.get("large"), Some(vec![1; 9000]));
        // Not without bound.
        assert!(!rig.set("huge", &[1; 60_000], 0));
        assert!(rig.store.stats().total_malloced <= limit + limit / 8);
        rig.store.check().unwrap();
    }

    #[test]
    fn what_may_not_evict_may_not_go_beyond_the_limit() {
        let rig = TestStore::new(StoreConfig { evict: false, ..tiny() });
        while rig.set(&format!("key{}", rig.store.stats().curr_items), &[1; 1500], 0) {}
        assert_eq!(rig.store.stats().total_malloced, rig.store.stats().memory_limit);
    }
}
