//! Pages in which nothing lies: whoever needs memory gets one at once.
//!
//! ```text
//! class c has no chunk, the pool no page ──> a class with two pages' worth of free chunks
//!        in which nothing lies at all ──> its pages are fresh ones, and one of them is c's
//!        else a page of it that is all free ──> its chunks leave the free list ──> the page is c's
//! ```
//!
//! Memory dies at once when everything is flushed, expires or is deleted. The mover would bring its pages in time, but
//! not before who writes now has evicted what he wrote a moment ago.
//!
//! Invariants: a page with anything in it stays. A look at all pages that has found none is not repeated within the
//! second. Under one lock at most [`CHUNKS_MAX`] chunks leave their free list.
//!
//! Not here: pages that have to be emptied first (`mover`), pages of the pool (`memory::slab`).

use super::Shard;
use crate::store::memory::classes::CLASSES;
use crate::store::memory::layout::state;
use crate::store::memory::slab::{Page, step};

/// Chunks that leave their free list while the shard is locked: 0.3 ms, since the neighbours of each in the list are
/// written, too. Pages with more are left to the mover.
const CHUNKS_MAX: u32 = 8192;

/// Pages' worth of free chunks that a class must have to give a page.
const PAGES_FREE: u64 = 2;

/// By class: whether it may give a page.
type Givers = [bool; CLASSES];

impl Shard {
    /// Gives a class a page of another one in which nothing lies. False if there is none.
    pub(super) fn take_idle_page(&mut self, class: u8) -> bool {
        let now = self.core.clock.now();
        let may_move = self.tuning.automove > 0 && self.core.config.slab_reassign && self.slab.moving.page == 0;
        if !may_move || self.idle_looked == now {
            return false;
        }
        let mut givers: Givers = [false; CLASSES];
        (1..=self.core.classes.largest()).for_each(|other| givers[usize::from(other)] = self.may_give(other, class));
        if !givers.contains(&true) {
            return false;
        }
        let Some(page) = self.fresh_page(&givers).or_else(|| self.idle_page(&givers)) else {
            if self.withdrawn == 0 {
                self.idle_looked = now;
            }
            return false;
        };
        self.give_idle_page(page, class);
        true
    }

    fn may_give(&self, class: u8, to: u8) -> bool {
        let is_other = class != to && self.slab.classes[usize::from(class)].pages > 1;
        let enough = PAGES_FREE * u64::from(self.core.classes.per_page(class));
        is_other && self.slab.available(class.into(), &self.core.classes) >= enough
    }

    /// A page of which no chunk is in a free list.
    fn fresh_page(&mut self, givers: &Givers) -> Option<u32> {
        for class in (1..=self.core.classes.largest()).filter(|&class| givers[usize::from(class)]) {
            if !self.window.is_in_file() {
                self.slab.refresh_unused(class);
            }
            if let Some(&page) = self.slab.classes[usize::from(class)].spare.last() {
                return Some(page);
            }
        }
        None
    }

    /// One whose chunks may all leave it now.
    fn idle_page(&self, givers: &Givers) -> Option<u32> {
        let left = CHUNKS_MAX - self.withdrawn;
        let is_idle = |page: &Page| {
            page.used == 0 && givers[usize::from(page.class)] && self.core.classes.per_page(page.class) <= left
        };
        (0..).zip(&self.slab.pages).find(|(_, page)| is_idle(page)).map(|(number, _)| number)
    }

    fn give_idle_page(&mut self, page: u32, to: u8) {
        let Shard { slab, window, core, .. } = self;
        let step = step(slab.pages[page as usize].class, &core.classes);
        slab.begin_move(page, &core.classes);
        let (mut id, end) = (slab.first_chunk(page), slab.moving.end);
        while id < end {
            if window.chunk(id).is(state::FREE) {
                slab.withdraw(id, window);
                self.withdrawn += 1;
            }
            id.0 += step;
        }
        let page = slab.end_move();
        slab.forget_page(page, window);
        slab.give_page(page, to, &core.classes);
        self.idle_pages += 1;
        // So that `withdrawn` is 0 under the next lock.
        self.is_unsettled = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::rig::TestStore;
    use crate::store::{ItemSpec, Part, StoreConfig};

    const MEMORY: u64 = 8 << 20;

    /// A full store of one shard and of small items and one large one, of which `stays` says by their numbers which of the
    /// small ones are not deleted.
    fn full(stays: impl Fn(usize) -> bool) -> TestStore {
        let config = StoreConfig { memory_limit: MEMORY, shards: Some(1), evict: false, ..StoreConfig::default() };
        let rig = TestStore::new(config);
        assert!(rig.set("large", &[b'v'; 400 << 10], 0));
        let key = |number: usize| format!("key{number:06}");
        let count = (0..).take_while(|&number| rig.set(&key(number), &[b'v'; 100], 0)).count();
        assert!(count > 40_000, "{count} items");
        (0..count).filter(|&number| !stays(number)).for_each(|number| rig.unlink(&key(number)));
        rig
    }

    /// Makes as many large items under one lock as there is room for, and frees them. How many, and how many chunks left
    /// free lists for that.
    fn make_large(rig: &TestStore) -> (usize, u32) {
        let spec = ItemSpec { key: b"key", key_is_binary: false, client_flags: 0, expires_at: 0 };
        let mut shard = rig.store.lock_number(0);
        let make = |shard: &mut Shard| shard.create(&spec, &[Part::Bytes(&[b'v'; 500 << 10])]).ok();
        let made: Vec<_> = std::iter::from_fn(|| make(&mut shard)).collect();
        made.iter().for_each(|&id| shard.free(id));
        (made.len(), shard.withdrawn)
    }

    #[test]
    fn pages_of_a_class_in_which_nothing_lies_cost_nothing() {
        let rig = full(|_| false);
        let (made, withdrawn) = make_large(&rig);
        assert!(made > 4, "{made}");
        assert_eq!(withdrawn, 0);
        rig.store.check().unwrap();
    }

    #[test]
    fn few_chunks_leave_their_free_list_under_one_lock() {
        let rig = full(|number| number == 0);
        let mut pages = 0;
        for _ in 0..3 {
            let (made, withdrawn) = make_large(&rig);
            assert!(made > 0 && withdrawn > 0 && withdrawn <= CHUNKS_MAX, "{made} made, {withdrawn} withdrawn");
            let idle_pages = rig.store.lock_number(0).idle_pages;
            assert!(idle_pages > pages, "{idle_pages} pages");
            pages = idle_pages;
            rig.store.check().unwrap();
        }
    }
}
