//! Which items make room, and which never do.

use crate::store::StoreConfig;
use crate::store::tests::rig::{TestStore, tiny};

#[test]
fn pinned_tails_do_not_block() {
    let rig = TestStore::new(StoreConfig { memory_limit: 4 * 4096, ..tiny() });
    let mut stored = Vec::new();
    while rig.sum(|class| class.counters.evicted) == 0 {
        stored.push(format!("key{:04}", stored.len()));
        assert!(rig.set(&stored[stored.len() - 1], b"value", 0));
    }
    // The first one is gone. Slow clients read the next ones.
    let pinned: Vec<_> = stored[1..=40].iter().map(|key| rig.pin(key)).collect();
    for i in 0..100 {
        assert!(rig.set(&format!("new{i:04}"), b"value", 0), "{i} was refused");
    }
    assert!(stored[1..=40].iter().all(|key| rig.get(key).is_some()));
    assert!(rig.sum(|class| class.counters.lrutail_reflocked) >= 40);
    drop(pinned);
    rig.store.check().unwrap();
}

#[test]
fn neighbours_that_are_fetched_are_kept() {
    let rig = TestStore::new(StoreConfig { memory_limit: 8 * 4096, ..tiny() });
    let mut stored = Vec::new();
    while rig.sum(|class| class.counters.evicted) == 0 {
        stored.push(format!("key{:04}", stored.len()));
        assert!(rig.set(&stored[stored.len() - 1], b"value", 0));
    }
    let fetched = &stored[1..61];
    (0..2).for_each(|_| assert!(fetched.iter().all(|key| rig.get(key).is_some())));
    for i in 0..stored.len() / 2 {
        assert!(rig.set(&format!("new{i:04}"), b"value", 0), "{i} was refused");
    }
    assert!(fetched.iter().all(|key| rig.get(key).is_some()));
    assert_eq!(rig.sum(|class| class.counters.evicted_active), 0);
    rig.store.check().unwrap();
}

#[test]
fn what_was_set_in_place_goes_last() {
    let rig = TestStore::new(StoreConfig { memory_limit: 8 * 4096, ..tiny() });
    let mut stored = Vec::new();
    while rig.sum(|class| class.counters.evicted) == 0 {
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
    // The ghost takes a new key for one that it knows in a few of 10,000 cases.
    let by_chance = rig.store.stats().ghost_hits;
    assert_eq!(rig.sum(|class| class.counters.evicted_active + class.counters.moves_to_warm), by_chance);
    rig.store.check().unwrap();
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

/// Everything of one size dies, this way, and another size comes.
fn dead_memory_is_used(how: &str, exptime: i64, die: impl FnOnce(&TestStore)) {
    let mut rig = TestStore::new(StoreConfig { memory_limit: 64 * 4096, ..tiny() });
    (0..700).for_each(|i| assert!(rig.set(&format!("old{i:04}"), &[1; 300], exptime)));
    assert!(
        rig.store.stats().slab_global_page_pool == 0 && rig.sum(|class| class.counters.evicted) > 0,
        "memory is full"
    );
    die(&rig);
    (0..5).for_each(|_| rig.second());
    let before = rig.sum(|class| class.counters.evicted);
    (0..170).for_each(|i| assert!(rig.set(&format!("new{i:04}"), &[1; 1200], 0)));
    let kept = (0..170).filter(|i| rig.get(&format!("new{i:04}")).is_some()).count();
    assert!(kept >= 165, "{kept} of 170 are kept after {how}, {} pages moved", rig.store.stats().slabs_moved);
    assert!(rig.sum(|class| class.counters.evicted) <= before + 5);
    rig.store.check().unwrap();
}

#[test]
fn memory_that_died_is_used_at_once() {
    let keys = || (0..700).map(|i| format!("old{i:04}"));
    dead_memory_is_used("flush_all", 0, |rig| _ = rig.store.flush_all(0, None));
    dead_memory_is_used("expiry", 3, |rig| rig.clock.advance(4));
    dead_memory_is_used("deletes", 0, |rig| {
        keys().filter(|key| rig.get(key).is_some()).for_each(|key| rig.unlink(&key))
    });
}
