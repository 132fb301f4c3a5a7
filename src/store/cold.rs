//! `stats cachedump`: the items of a class that are next to go, in small pieces.
//!
//! A piece ends after [`LOOKS`] items, whatever there was to show of them, and the next one begins behind the last item,
//! which is found again by its key. If that has moved to another list or is gone, the walk goes on in the next shard: a
//! cachedump of a busy class is a sample, as memcached's is.
//!
//! Not here: how items are printed (`command::dump`), all items (`dump`).

use super::lock_time::Holder;
use super::memory::layout::state;
use super::shard::Shard;
use super::shard::lru::COLD;
use super::{Item, ItemId, Store};
use std::sync::Arc;

/// Items looked at under one lock: 0.1 to 0.2 us each.
const LOOKS: usize = 256;

/// A walk through the COLD list of a class, head first, shard after shard.
#[derive(Debug)]
pub struct ColdWalk {
    store: Arc<Store>,
    class: u8,
    shard: usize,
    /// Of the last item that was looked at in this shard; empty at its begin.
    last: Vec<u8>,
}

impl Store {
    /// Begins one.
    pub fn cold_items(self: &Arc<Store>, class: u8) -> ColdWalk {
        ColdWalk { store: self.clone(), class, shard: 0, last: Vec::new() }
    }
}

impl ColdWalk {
    /// Calls `each` with the live ones of the next few items, perhaps none, while it says true. False at the end.
    pub fn next(&mut self, each: &mut dyn FnMut(Item<'_>) -> bool) -> bool {
        let mut looks = LOOKS;
        while self.shard < self.store.shards.len() && looks > 0 {
            if !self.look(&mut looks, each) {
                return false;
            }
        }
        self.shard < self.store.shards.len()
    }

    /// Looks at items of one shard. False when `each` wants no more.
    fn look(&mut self, looks: &mut usize, each: &mut dyn FnMut(Item<'_>) -> bool) -> bool {
        let shard = self.store.lock_timed(self.shard, Holder::Walk);
        let (mut id, mut last) = (self.begin(&shard), ItemId::NONE);
        while id != ItemId::NONE && *looks > 0 {
            if shard.death(id).is_none() && !each(shard.item(id)) {
                return false;
            }
            *looks -= 1;
            last = id;
            id = shard.window.chunk(id).next;
        }
        self.last.clear();
        if id == ItemId::NONE {
            self.shard += 1;
        } else if last != ItemId::NONE {
            self.last.extend_from_slice(shard.key(last));
        }
        true
    }

    /// The first item of the next piece.
    fn begin(&self, shard: &Shard) -> ItemId {
        if self.last.is_empty() {
            return shard.lrus.get(usize::from(self.class)).map_or(ItemId::NONE, |lru| lru.lists[COLD].head);
        }
        let Some(last) = shard.locate(&self.last, self.store.hash(&self.last)) else { return ItemId::NONE };
        let chunk = shard.window.chunk(last);
        let is_there = chunk.is(state::LINKED) && chunk.lru() == COLD && shard.listed_class(last, chunk) == self.class;
        if is_there { chunk.next } else { ItemId::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreConfig;
    use crate::store::tests::rig::{TestStore, tiny};

    #[test]
    fn pieces_are_short_and_show_all() {
        let mut rig =
            TestStore::new(StoreConfig { memory_limit: 4 << 20, shards: Some(2), maintainer: false, ..tiny() });
        (0..2000).for_each(|n| assert!(rig.set(&format!("key{n:04}"), b"v", if n % 2 == 0 { 1 } else { 0 })));
        rig.clock.advance(5);
        let (mut walk, mut seen, mut pieces) = (rig.store.cold_items(1), Vec::new(), 0);
        let mut classes: Vec<u8> = (1..64).filter(|&class| rig.store.cold_items(class).next(&mut |_| false)).collect();
        classes.retain(|&class| class != 1);
        loop {
            let before = seen.len();
            let more = walk.next(&mut |item| {
                seen.push(item.key().to_vec());
                true
            });
            assert!(seen.len() - before <= LOOKS);
            pieces += 1;
            if !more {
                break;
            }
        }
        assert_eq!(seen.len(), 1000, "dead ones are looked at and not shown");
        assert!(pieces >= 2000 / LOOKS);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
        rig.steps(1);
    }

    #[test]
    fn it_goes_on_elsewhere_when_its_place_is_gone() {
        let rig = TestStore::new(StoreConfig { memory_limit: 4 << 20, shards: Some(1), maintainer: false, ..tiny() });
        (0..600).for_each(|n| assert!(rig.set(&format!("key{n:04}"), b"v", 0)));
        let mut walk = rig.store.cold_items(1);
        let mut seen = 0;
        assert!(walk.next(&mut |_| {
            seen += 1;
            true
        }));
        rig.unlink(std::str::from_utf8(&walk.last).unwrap());
        while walk.next(&mut |_| {
            seen += 1;
            true
        }) {}
        assert_eq!(seen, LOOKS);
    }
}
