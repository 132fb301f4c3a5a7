//! What the maintainer moves between lists and reclaims, and how long it naps, step by step.

use super::*;
use crate::store::tests::rig::{TestStore, tiny_as_memcached};
use crate::store::{StoreConfig, Tuning};

#[test]
fn a_quiet_class_goes_to_cold() {
    let mut rig = TestStore::new(tiny_as_memcached());
    (10..60).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
    rig.steps(3);
    // 20 % of the bytes may stay in HOT, until the age limit of 0 has passed.
    assert_eq!((rig.sum(|class| class.number_hot), rig.sum(|class| class.number_cold)), (10, 40));
    rig.second();
    assert_eq!((rig.sum(|class| class.number_hot), rig.sum(|class| class.number_cold)), (0, 50));
    assert_eq!(rig.sum(|class| class.counters.moves_to_cold), 50);
}

#[test]
fn a_share_stays_hot_as_long_as_it_is_young() {
    let mut rig = TestStore::new(tiny_as_memcached());
    assert!(rig.set("old", b"v", 0));
    rig.second();
    (0..19).for_each(|_| rig.second());
    assert!(rig.set("new", b"v", 0) && rig.set("oth", b"v", 0));
    rig.steps(3);
    // 3 items: one is more than 20 % of them.
    assert_eq!(rig.lru("new"), COLD);
    rig.store.tune(|tuning| tuning.hot_pct = 40);
    assert!(rig.set("new", b"v", 0));
    // COLD's tail is idle for 20 seconds, so HOT's may be for 4.
    for _ in 0..4 {
        rig.second();
        assert_eq!(rig.lru("new"), HOT);
    }
    (0..2).for_each(|_| rig.second());
    assert_eq!(rig.lru("new"), COLD);
}

#[test]
fn active_items_stay_warm() {
    let mut rig = TestStore::new(tiny_as_memcached());
    (10..60).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
    (0..2).for_each(|_| assert!(rig.get("key10").is_some()));
    rig.steps(3);
    assert_eq!((rig.lru("key10"), rig.sum(|class| class.counters.moves_to_warm)), (WARM, 1));
    // Its mark was cleared on the way, so two more fetches do not count as four.
    assert!(rig.get("key10").is_some());
    rig.second();
    assert_eq!((rig.lru("key10"), rig.sum(|class| class.counters.moves_within_lru)), (WARM, 1));
    rig.store.tune(|tuning| tuning.warm_max_factor = 0.5);
    (0..2).for_each(|_| rig.second());
    assert_eq!(rig.lru("key10"), COLD);
}

#[test]
fn active_items_of_cold_come_back() {
    let mut rig = TestStore::new(tiny_as_memcached());
    (10..60).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
    rig.second();
    assert_eq!(rig.lru("key10"), COLD);
    (0..2).for_each(|_| assert!(rig.get("key10").is_some()));
    rig.steps(3);
    assert_eq!((rig.lru("key10"), rig.lru("key11"), rig.sum(|class| class.counters.moves_to_warm)), (WARM, COLD, 1));
}

#[test]
fn renewed_items_of_cold_are_hot_again() {
    let mut rig = TestStore::new(tiny_as_memcached());
    (10..60).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
    rig.second();
    (10..15).for_each(|i| assert!(rig.reset(&format!("key{i}"), b"w", 0)));
    assert_eq!((rig.lru("key10"), rig.sum(|class| class.number_hot)), (COLD, 0));
    let moves_to_cold = rig.sum(|class| class.counters.moves_to_cold);
    rig.steps(1);
    assert_eq!((rig.lru("key10"), rig.sum(|class| class.number_hot)), (HOT, 5));
    assert_eq!(rig.sum(|class| class.counters.moves_to_cold), moves_to_cold);
    // The age is that of what was not set again.
    assert_eq!(rig.sum(|class| class.age), 1);
}

#[test]
fn dead_tails_are_reclaimed() {
    let mut rig = TestStore::new(tiny_as_memcached());
    rig.store.enable_crawler(false);
    (10..60).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 1)));
    assert!(rig.get("key10").is_some());
    rig.second();
    assert_eq!(rig.store.stats().curr_items, 0);
    assert_eq!(rig.store.lock_number(0).lrus.iter().map(|lru| lru.counters.reclaimed).sum::<u64>(), 50);
    assert_eq!(rig.sum(|class| class.counters.expired_unfetched), 49);
}

#[test]
fn temp_is_never_evicted() {
    let tuning = Tuning { temporary_ttl: Some(10), ..Tuning::default() };
    let mut rig = TestStore::new(StoreConfig { tuning, ..tiny_as_memcached() });
    (0..100).for_each(|i| assert!(rig.set(&format!("temp{i}"), &[1; 100], 5)));
    for i in 0..3000 {
        assert!(rig.set(&format!("key{i}"), &[1; 100], 0));
        if i % 100 == 0 {
            rig.steps(1);
        }
    }
    assert!(rig.sum(|class| class.counters.evicted) > 0);
    assert_eq!(rig.sum(|class| class.number_temp), 100);
    (0..100).for_each(|i| assert!(rig.get(&format!("temp{i}")).is_some()));
    (0..5).for_each(|_| rig.second());
    assert_eq!(rig.sum(|class| class.number_temp), 0);
}

#[test]
fn flat_drains_the_lists() {
    let mut rig = TestStore::new(tiny_as_memcached());
    (10..60).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
    (0..2).for_each(|_| assert!(rig.get("key10").is_some()));
    rig.store.tune(|tuning| tuning.segmented = false);
    rig.steps(3);
    assert_eq!((rig.sum(|class| class.number_cold), rig.sum(|class| class.number)), (50, 50));
}

#[test]
fn naps_adapt() {
    let mut nap = Nap::default();
    (0..200).for_each(|_| nap.again(0));
    assert_eq!(nap.length, NAP_MAX);
    (0..20).for_each(|_| nap.again(PASS));
    assert_eq!(nap.length, Duration::ZERO);
    nap.again(0);
    assert_eq!(nap.length, NAP_MIN);
    nap.again(FEW);
    assert_eq!(nap.length, NAP_MIN);
    assert!(!nap.is_over(NAP_MIN / 2) && nap.is_over(NAP_MIN / 2));
}

#[test]
fn an_idle_store_is_left_alone() {
    let mut rig = TestStore::new(tiny_as_memcached());
    let mut passed = Duration::ZERO;
    let mut steps = 0;
    let mut nap = Duration::ZERO;
    while passed < Duration::from_secs(1000) {
        nap = rig.worker.step(&rig.store, nap);
        (passed, steps) = (passed + nap, steps + 1);
    }
    // One a second of each of the alarms.
    assert!(steps < 2200, "{steps} steps in 1000 seconds");
}
