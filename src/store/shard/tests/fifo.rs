//! Who stays and who goes in the order of S3-FIFO.

use crate::journal::acks::LastLsn;
use crate::store::shard::lru::{COLD, HOT, WARM};
use crate::store::tests::rig::{TestStore, put, tiny};
use crate::store::{ItemSpec, Part, StoreConfig, Tuning};
use crate::testing::Rng;
use std::time::Instant;

/// A store with room for so many small items or a little more, all of one class, and those.
fn full() -> (TestStore, usize) {
    let rig = TestStore::new(StoreConfig { memory_limit: 32 * 4096, ..tiny() });
    let mut items = 0;
    while rig.sum(|class| class.counters.evicted) == 0 {
        assert!(rig.set(&format!("old{items:05}"), b"value", 0));
        items += 1;
    }
    (rig, items)
}

fn evicted(rig: &TestStore) -> u64 {
    rig.sum(|class| class.counters.evicted)
}

#[test]
fn a_scan_displaces_nothing_that_was_fetched() {
    let (mut rig, items) = full();
    let used: Vec<String> = (items / 2..items).map(|i| format!("old{i:05}")).collect();
    used.iter().for_each(|key| assert!(rig.get(key).is_some()));
    for i in 0..20 * items {
        assert!(rig.set(&format!("scan{i:06}"), b"value", 0));
        if i % items == 0 {
            // What is used goes on being used.
            used.iter().for_each(|key| assert!(rig.get(key).is_some(), "{key} after {i} of a scan"));
            rig.second();
        }
    }
    assert!(used.iter().all(|key| rig.get(key).is_some()));
    assert!(evicted(&rig) > 19 * items as u64);
    assert_eq!(rig.sum(|class| class.counters.evicted_active), 0);
    rig.store.check().unwrap();
}

#[test]
fn what_was_fetched_while_memory_filled_counts() {
    let mut rig = TestStore::new(StoreConfig { memory_limit: 32 * 4096, ..tiny() });
    let mut stored = 0;
    while evicted(&rig) == 0 {
        assert!(rig.set(&format!("old{stored:05}"), b"value", 0));
        if stored % 2 == 0 {
            assert!(rig.get(&format!("old{stored:05}")).is_some());
        }
        stored += 1;
        if stored % 100 == 0 {
            rig.second();
        }
    }
    assert!(rig.sum(|class| class.number_cold) > 0, "HOT's surplus has gone to COLD");
    for i in 0..stored / 3 {
        assert!(rig.set(&format!("new{i:05}"), b"value", 0));
    }
    let left = |odd: usize| (0..stored).filter(|i| i % 2 == odd && rig.get(&format!("old{i:05}")).is_some()).count();
    let (fetched, unfetched) = (left(0), left(1));
    assert!(fetched >= stored / 2, "{fetched} of {stored} fetched ones");
    assert!(unfetched < stored / 4, "{unfetched} of those that were not");
}

#[test]
fn a_key_that_comes_back_soon_is_warm() {
    let (rig, items) = full();
    (0..items).for_each(|i| assert!(rig.set(&format!("new{i:05}"), b"value", 0)));
    // Without a maintainer's step HOT is all there is: the oldest have gone, one after the other.
    let gone = format!("old{:05}", items - 10);
    assert!(rig.get(&gone).is_none());
    let before = rig.store.stats().ghost_hits;
    assert!(rig.set(&gone, b"again", 0) && rig.set("never seen before", b"value", 0));
    assert_eq!((rig.lru(&gone), rig.lru("never seen before")), (WARM, HOT));
    assert_eq!(rig.store.stats().ghost_hits, before + 1);
    assert!(rig.store.stats().ghost_bytes > 0);
    // A deleted one is not an evicted one, and comes back as a new one.
    rig.unlink("never seen before");
    assert!(rig.set("never seen before", b"value", 0));
    assert_eq!(rig.lru("never seen before"), HOT);
}

#[test]
fn cold_gives_one_more_chance_for_each_mark() {
    let (mut rig, items) = full();
    rig.second();
    let key = (0..items).map(|i| format!("old{i:05}")).find(|key| has(&rig, key) && rig.lru(key) == COLD).unwrap();
    (0..5).for_each(|_| assert!(rig.get(&key).is_some()));
    let mut cycles = 0;
    while has(&rig, &key) {
        // As many new ones as there are others: all of the queue passes.
        for i in 0..items {
            let name = format!("c{cycles}x{i:05}");
            assert!(rig.set(&name, b"value", 0) && rig.get(&name).is_some());
        }
        cycles += 1;
        assert!(cycles < 10);
    }
    assert!((2..=4).contains(&cycles), "{cycles} rounds of the queue with two marks");
}

/// Whether a key is there, without a fetch.
fn has(rig: &TestStore, key: &str) -> bool {
    let hash = rig.store.hash(key.as_bytes());
    rig.store.lock(hash).find(key.as_bytes(), hash).is_ok()
}

#[test]
fn a_follower_asks_no_ghost_and_fills_none() {
    let (rig, items) = full();
    let source = rig.store.announce(&[7], None, Instant::now()).expect("a source");
    let fed = |key: &str| {
        let (hash, lsn) = (rig.store.hash(key.as_bytes()), LastLsn::default());
        let spec = ItemSpec { key: key.as_bytes(), key_is_binary: false, client_flags: 7, expires_at: 0 };
        let mut locked = rig.store.lock_for(hash, &lsn, Some(&source));
        let new = locked.create(&spec, &[Part::Bytes(b"value")]).unwrap();
        put(&mut locked, key.as_bytes(), hash, new, None);
    };
    let ghost = rig.store.stats().ghost_bytes;
    (0..items).for_each(|i| fed(&format!("fed{i:05}")));
    assert!(evicted(&rig) > 0);
    // Both that the follower itself has evicted as it was fed, and one from before.
    ["old00000", "fed00001"].iter().for_each(|key| fed(key));
    assert_eq!((rig.lru("old00000"), rig.lru("fed00001")), (HOT, HOT));
    assert_eq!((rig.store.stats().ghost_hits, rig.store.stats().ghost_bytes), (0, ghost));
}

#[test]
fn the_flat_lru_has_no_ghost() {
    let tuning = Tuning { segmented: false, ..Tuning::default() };
    let rig = TestStore::new(StoreConfig { memory_limit: 32 * 4096, tuning, ..tiny() });
    for i in 0..5000 {
        assert!(rig.set(&format!("key{i:05}"), b"value", 0));
    }
    assert!(evicted(&rig) > 0 && rig.store.stats().ghost_bytes == 0);
    assert!(rig.set("key00000", b"value", 0));
    assert_eq!(rig.lru("key00000"), COLD);
}

#[test]
fn lists_keep_their_shares_under_a_skewed_load() {
    let (mut rig, items) = full();
    let mut rng = Rng(11);
    for round in 0..60 * items {
        let key = format!("k{:05}", rng.below(4 * items as u64).min(rng.below(4 * items as u64)));
        if rig.get(&key).is_none() {
            assert!(rig.set(&key, b"value", 0));
        }
        if round % 500 == 0 {
            rig.second();
        }
    }
    rig.second();
    let [hot, warm, cold] =
        [rig.sum(|class| class.number_hot), rig.sum(|class| class.number_warm), rig.sum(|class| class.number_cold)];
    let all = hot + warm + cold;
    assert!((all * 15 / 100..=all * 25 / 100).contains(&hot), "{hot}, {warm}, {cold}");
    assert!(warm <= all * 45 / 100, "{hot}, {warm}, {cold}");
    assert!(rig.store.stats().ghost_hits > 0);
}
