//! How many hold an item outside the lock, and what those items take that are held and in no table any more.
//!
//! ```text
//! Chunk::pins   0 … 254: so many     255: so many and what `more` has
//! ```
//!
//! A pin is what keeps a value where it is, so there is no most of them: who could not be given one would need a copy of
//! the value, and clients decide how many there are.
//!
//! Invariants: `more` has an entry only of chunks whose own count is full, and none of 0; `floating` has the unlinked
//! items that are pinned, but for those that were never linked (uploads, and what is about to be appended), and
//! `Core::floating` the sum over all shards.
//!
//! Not here: the handle that holds a pin (`store/pin`).

use super::Shard;
use crate::store::ItemId;
use crate::store::memory::layout::state;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Pins {
    more: BTreeMap<ItemId, u32>,
    /// Items and their bytes.
    floating: BTreeMap<ItemId, u64>,
}

impl Shard {
    /// Adds a pin.
    pub fn add_pin(&mut self, id: ItemId) {
        let chunk = self.window.chunk_mut(id);
        match chunk.pins.checked_add(1) {
            Some(pins) => chunk.pins = pins,
            None => *self.pins.more.entry(id).or_default() += 1,
        }
    }

    /// Takes a pin off, and frees the item when it was the last one of a floating item.
    pub fn unpin(&mut self, id: ItemId) {
        let chunk = self.window.chunk_mut(id);
        if chunk.pins == u8::MAX
            && let Some(more) = self.pins.more.get_mut(&id)
        {
            *more -= 1;
            if *more == 0 {
                self.pins.more.remove(&id);
            }
            return;
        }
        chunk.pins = chunk.pins.checked_sub(1).expect("unpinned more than pinned");
        if chunk.pins == 0 && !chunk.is(state::LINKED) {
            if let Some(bytes) = self.pins.floating.remove(&id) {
                self.core.floating.fetch_sub(bytes, Ordering::Relaxed);
            }
            self.free(id);
        }
    }

    /// Takes a pin off an item that stays, whether it is linked or not.
    pub(super) fn unkeep_one(&mut self, id: ItemId) {
        let is_last = self.window.chunk(id).pins == 1;
        if is_last { self.window.chunk_mut(id).pins = 0 } else { self.unpin(id) }
    }

    /// Notes that a pinned item is in no table any more.
    #[cold]
    pub(super) fn float(&mut self, id: ItemId) {
        let bytes = self.item(id).size() as u64;
        if self.pins.floating.insert(id, bytes).is_none() {
            self.break_seal(id);
            self.core.floating.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Whether an item is pinned and in no table any more.
    pub fn is_floating(&self, id: ItemId) -> bool {
        self.pins.floating.contains_key(&id)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::tests::rig::{TestStore, tiny};
    use std::sync::atomic::Ordering;

    #[test]
    fn any_number_of_pins_is_counted() {
        let rig = TestStore::new(tiny());
        assert!(rig.set("key", &[7; 1000], 0));
        let floating = || rig.store.core.floating.load(Ordering::Relaxed);
        let mut pins: Vec<_> = (0..1000).map(|_| rig.pin("key")).collect();
        rig.unlink("key");
        assert!(floating() > 1000 && rig.store.check().is_ok());
        while let Some(pin) = pins.pop() {
            assert_eq!(pin.len(), 1000);
            let mut slices = Vec::new();
            pin.io_slices(0, &mut slices);
            assert!(slices.iter().all(|slice| slice.iter().all(|&byte| byte == 7)));
        }
        assert_eq!(floating(), 0);
        rig.store.check().unwrap();
        assert_eq!(rig.sum(|class| class.used_chunks), 0);
    }
}
