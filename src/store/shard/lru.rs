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
use crate::store::memory::layout::state;
use crate::store::{ClassCounters, ItemId};

/// Lists of a class, by their number in an item's state.
pub(crate) const HOT: usize = 0;
/// Fetched twice, and again.
pub(crate) const WARM: usize = 1;
/// Next to go.
pub(crate) const COLD: usize = 2;
/// Expires soon, is never evicted.
pub(crate) const TEMP: usize = 3;

/// An item that is fetched again and again has its last access renewed only this many seconds after it last was;
/// in the flat LRU it moves to the head then.
const REFRESH_SECONDS: u32 = 60;

/// One list.
#[derive(Clone, Copy, Debug, Default)]
pub struct List {
    pub head: ItemId,
    pub tail: ItemId,
    pub count: u64,
    pub bytes: u64,
}

/// The lists and counters of one class.
#[derive(Clone, Debug, Default)]
pub struct Lru {
    pub lists: [List; 4],
    pub counters: ClassCounters,
    /// Items that had to go for want of room.
    pub evictions: u64,
    /// As many as the maintainer has seen.
    pub evictions_seen: u64,
    /// The first filling is over: HOT has come down to its share.
    pub is_filled: bool,
}

impl Shard {
    /// The list for a new item.
    #[inline]
    pub fn first_lru(&self, id: ItemId, now: u32) -> usize {
        let expires_at = self.window.header(id).expires_at;
        match self.tuning.temporary_ttl {
            Some(ttl) if expires_at != 0 && expires_at.saturating_sub(now) <= ttl => TEMP,
            _ if self.tuning.segmented => HOT,
            _ => COLD,
        }
    }

    /// Puts a linked item at the head of a list of its class.
    #[inline]
    pub fn push(&mut self, id: ItemId, lru: usize, size: usize) {
        let class = self.listed_class(id, self.window.chunk(id));
        self.push_in(class, id, lru, size);
    }

    /// [`Shard::push`] for who knows the class.
    #[inline]
    pub fn push_in(&mut self, class: u8, id: ItemId, lru: usize, size: usize) {
        let list = &mut self.lrus[usize::from(class)].lists[lru];
        let next = std::mem::replace(&mut list.head, id);
        if next == ItemId::NONE {
            list.tail = id;
        }
        list.count += 1;
        list.bytes += size as u64;
        if next != ItemId::NONE {
            self.window.chunk_mut(next).prev = id;
        }
        let chunk = self.window.chunk_mut(id);
        chunk.next = next;
        chunk.prev = ItemId::NONE;
        chunk.state = chunk.state & !(state::LRU | state::RENEWED) | lru as u16;
    }

    /// Takes a linked item out of its list.
    #[inline]
    pub fn take_from_list(&mut self, id: ItemId, size: usize) {
        let class = self.listed_class(id, self.window.chunk(id));
        self.take_from_list_of(class, id, size);
    }

    /// [`Shard::take_from_list`] for who knows the class.
    #[inline]
    pub fn take_from_list_of(&mut self, class: u8, id: ItemId, size: usize) {
        let chunk = *self.window.chunk(id);
        assert!(chunk.is(state::LINKED), "not in a list");
        if self.cursor == id {
            self.cursor = chunk.prev;
        }
        let list = &mut self.lrus[usize::from(class)].lists[chunk.lru()];
        list.count -= 1;
        list.bytes -= size as u64;
        if chunk.prev == ItemId::NONE {
            list.head = chunk.next;
        }
        if chunk.next == ItemId::NONE {
            list.tail = chunk.prev;
        }
        if chunk.prev != ItemId::NONE {
            self.window.chunk_mut(chunk.prev).next = chunk.next;
        }
        if chunk.next != ItemId::NONE {
            self.window.chunk_mut(chunk.next).prev = chunk.prev;
        }
    }

    /// Notes that a linked item was set in its chunk, and what it takes of its list's bytes, before and now. One that
    /// belongs in another list than it was in cannot wait to be met at a tail.
    #[inline]
    pub fn renew(&mut self, class: u8, id: ItemId, (before, size): (usize, usize), now: u32) {
        let (lru, first) = (self.window.chunk(id).lru(), self.first_lru(id, now));
        let list = &mut self.lrus[usize::from(class)].lists[lru];
        list.bytes = list.bytes - before as u64 + size as u64;
        if lru == TEMP || first == TEMP {
            self.relist(id, first);
        }
    }

    /// Moves a linked item to the head of a list of its class.
    pub fn relist(&mut self, id: ItemId, lru: usize) {
        let size = self.item(id).size();
        self.take_from_list(id, size);
        self.push(id, lru, size);
    }

    /// Notes a client's fetch in the item's marks. An item that is often fetched is only looked at. Count the hit first:
    /// the item may change its list.
    #[inline]
    pub fn bump(&mut self, id: ItemId) {
        const NOTED: u16 = state::FETCHED | state::ACTIVE;
        let header = self.window.header(id);
        let idle = self.core.clock.now().saturating_sub(header.last_access);
        if header.chunk.state & NOTED != NOTED || idle > REFRESH_SECONDS {
            self.note_fetch(id);
        }
        if self.is_journalled() {
            self.sample_hit(id);
        }
    }

    #[inline(never)]
    fn note_fetch(&mut self, id: ItemId) {
        if !self.tuning.segmented {
            return self.bump_flat(id);
        }
        let is_fifo = self.is_fifo();
        let chunk = self.window.chunk_mut(id);
        let is_again = chunk.is_fetched();
        chunk.set_marks(match chunk.marks() {
            0 | 1 if is_fifo => 2,
            0 => 1,
            _ => 3,
        });
        // As memcached, which has the time of the first fetch be that of the set.
        if is_again {
            self.set_accessed(id);
        }
    }

    /// The counters of the class that an item is listed in.
    #[inline]
    pub fn class_counters(&mut self, id: ItemId) -> &mut ClassCounters {
        let class = self.listed_class(id, self.window.chunk(id));
        self.counters_of(class)
    }

    /// Those of a class.
    #[inline]
    pub fn counters_of(&mut self, class: u8) -> &mut ClassCounters {
        &mut self.lrus[usize::from(class)].counters
    }

    /// Counts a get that found this item.
    #[inline]
    pub fn count_get(&mut self, id: ItemId) {
        let lru = self.window.chunk(id).lru();
        self.class_counters(id).hits[lru] += 1;
    }

    /// Seconds since the last access of an item, 0 for none.
    pub fn idle_seconds(&self, id: ItemId) -> u32 {
        if id == ItemId::NONE {
            return 0;
        }
        self.core.clock.now().saturating_sub(self.window.header(id).last_access)
    }

    /// Begins the crawler's walk from the tail of a list to its head.
    pub fn open_cursor(&mut self, class: usize, lru: usize) {
        self.cursor = self.lrus[class].lists[lru].tail;
    }

    /// The item that the crawler stands on; it steps on. None at the end.
    pub fn next_of_cursor(&mut self) -> Option<ItemId> {
        let id = self.cursor;
        if id == ItemId::NONE {
            return None;
        }
        self.cursor = self.window.chunk(id).prev;
        Some(id)
    }

    fn bump_flat(&mut self, id: ItemId) {
        let header = self.window.header_mut(id);
        header.chunk.state |= state::FETCHED;
        if self.core.clock.now().saturating_sub(header.last_access) > REFRESH_SECONDS {
            let lru = header.chunk.lru();
            self.set_accessed(id);
            self.relist(id, lru);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::rig::{TestStore, tiny};
    use crate::store::{StoreConfig, Tuning};

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
}
