//! Memory made ready ahead of need: huge pages are touched for the first time here, outside of any lock.
//!
//! ```text
//! worker      takes a page, or the table grows into a new huge page ──> wanted
//! ahead       under the lock: which stretch is next?  ─>  unlocked: the system clears it  ─>  locked: it is usable
//! ```
//!
//! To clear a huge page takes the system 0.1 to 0.2 ms. Where a hypervisor has to find the memory first, 10 ms on the
//! average and 70 at worst were measured, in which that CPU does nothing else; the first store into it would wait for
//! that with its shard locked. A worker that is faster than this does wait, as it would without; but large values, which
//! are what is so fast, are received when their memory is ready (`Shard::must_wait`), and others are served meanwhile.
//! Small pages (a small cache) take some microseconds each, and are left alone.
//!
//! Invariants: no lock is held while the system works.
//!
//! Not here: which ranges have huge pages (`arena`), how many pages may be taken (`slab`).

use crate::store::Store;
use crate::store::lock_time::Holder;
use crate::store::memory::arena::Stretch;
use crate::store::shard::Shard;
use std::time::Duration;

/// Before the first time, unless somebody asks: no thread can be started while the system clears pages.
const REST_AT_START: Duration = Duration::from_millis(100);

/// Makes ready the begin of each table and then what is wanted, until the background ends.
pub(crate) fn run(store: &Store) {
    let mut rest = Some(REST_AT_START);
    while store.core.requests.wait_wanted(rest) {
        prepare(store);
        rest = None;
    }
}

/// Makes ready what is wanted now.
pub(crate) fn prepare(store: &Store) {
    (0..store.shards.len()).for_each(|index| prepare_shard(store, index));
    store.core.requests.note_look();
}

fn prepare_shard(store: &Store, index: usize) {
    loop {
        let stretch = store.lock_timed(index, Holder::Ahead).next_stretch(store.core.gets_ahead());
        let Some(stretch) = stretch else { return };
        let done = stretch.populate();
        store.lock_timed(index, Holder::Ahead).adopt(&stretch, done);
        store.core.requests.note_look();
    }
}

impl Shard {
    fn next_stretch(&self, has_room: bool) -> Option<Stretch> {
        self.table.next_stretch().or_else(|| if has_room { self.window.next_stretch() } else { None })
    }

    fn adopt(&mut self, stretch: &Stretch, done: bool) {
        if !self.table.adopt(stretch, done) {
            self.window.adopt(stretch, done);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::memory::arena;
    use crate::store::tests::rig::TestStore;
    use crate::store::{SHARD_MIN_BYTES, StoreConfig};

    #[test]
    fn a_page_is_ready_before_it_is_taken() {
        let config = StoreConfig { memory_limit: SHARD_MIN_BYTES, shards: Some(1), ..StoreConfig::default() };
        let mut rig = TestStore::new(config);
        let ready = |rig: &TestStore| rig.store.lock_number(0).window.ready();
        rig.steps(1);
        assert_eq!(ready(&rig), arena::ALIGN, "an unused cache takes nothing");
        assert!(rig.set("key", b"value", 0));
        rig.steps(1);
        // The first pages are in the first stretch, which has small ones.
        let after_one = ready(&rig);
        assert!(after_one >= 3 * arena::ALIGN, "{after_one}");
        (0..8).for_each(|i| assert!(rig.set(&format!("key{i}"), &vec![b'v'; 500_000], 0)));
        rig.steps(1);
        assert!(ready(&rig) >= after_one + 2 * arena::ALIGN);
        rig.store.check().unwrap();
    }

    #[test]
    fn a_full_cache_has_nothing_ready_that_it_cannot_take() {
        let config = StoreConfig { memory_limit: SHARD_MIN_BYTES, shards: Some(1), ..StoreConfig::default() };
        let page = config.page_size;
        let mut rig = TestStore::new(config);
        let limit = 16 << 20;
        assert!(rig.store.set_memory_limit(limit));
        for i in 0..48 {
            assert!(rig.set(&format!("key{i}"), &vec![b'v'; 500_000], 0));
            rig.steps(1);
        }
        assert_eq!(rig.store.stats().total_malloced, limit);
        // The first page of the window is not used.
        let ready = rig.store.lock_number(0).window.ready();
        assert!(ready >= limit as usize / 2 && ready <= limit as usize + page, "{ready}");
    }
}
