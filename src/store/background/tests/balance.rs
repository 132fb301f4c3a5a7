//! Which class the automatic page moves take from, and which they give to.

use crate::store::StoreConfig;
use crate::store::tests::rig::{TestStore, tiny};

fn full_of(rig: &TestStore, len: usize, items: usize) {
    (0..items).for_each(|i| assert!(rig.set(&format!("len{len}-{i:03}"), &vec![1; len], 0)));
}

fn pages(rig: &TestStore, len: usize) -> u64 {
    let sizing = rig.store.core.sizing;
    let class = rig.store.core.classes.of(sizing.total(10, true, len));
    rig.store.class_stats().iter().find(|stats| stats.class == class).map_or(0, |stats| stats.total_pages)
}

fn automatic(mode: u8) -> TestStore {
    let rig = TestStore::new(tiny());
    rig.store.tune(|tuning| (tuning.automove, tuning.automove_window) = (mode, 4));
    rig
}

#[test]
fn what_is_free_goes_to_the_pool() {
    let mut rig = automatic(1);
    full_of(&rig, 500, 700);
    // More free chunks than it needs, but the class has evicted within the window.
    let keys: Vec<_> = (0..700).map(|i| format!("len500-{i:03}")).filter(|key| rig.get(key).is_some()).collect();
    keys.iter().skip(10).for_each(|key| rig.unlink(key));
    let before = pages(&rig, 500);
    (0..4).for_each(|_| rig.second());
    assert_eq!((pages(&rig, 500), rig.store.stats().slabs_moved), (before, 0));
    (0..70).for_each(|_| rig.second());
    let (left, pool) = (pages(&rig, 500), rig.store.stats().slab_global_page_pool);
    assert_eq!(left + pool, before);
    // 10 items are one to two pages, and 2.5 may be free.
    assert!((3..=5).contains(&left), "{left} of {before}");
    assert!(keys.iter().take(10).all(|key| rig.get(key).is_some()));
}

#[test]
fn while_memory_is_not_full_nothing_moves() {
    let mut rig = automatic(1);
    full_of(&rig, 500, 100);
    (0..100).for_each(|i| rig.unlink(&format!("len500-{i:03}")));
    (0..20).for_each(|_| rig.second());
    assert_eq!(rig.store.stats().slabs_moved, 0);
}

/// One class is full of old items; another one evicts what is young, second for second.
fn old_against_young(mode: u8) -> (TestStore, u64) {
    let mut rig = automatic(mode);
    full_of(&rig, 500, 600);
    let before = pages(&rig, 500);
    (0..30).for_each(|_| rig.second());
    for _ in 0..10 {
        full_of(&rig, 1000, 30);
        rig.second();
    }
    (rig, before)
}

#[test]
fn old_items_make_way_for_young_ones() {
    let (rig, before) = old_against_young(1);
    let moved = before - pages(&rig, 500);
    // The window must have filled once with the new state.
    assert!((2..8).contains(&moved) && pages(&rig, 1000) == 1 + moved, "{moved} moved");
    assert_eq!(rig.store.stats().slabs_moved, moved);
}

#[test]
fn off_is_off() {
    let (rig, before) = old_against_young(0);
    assert_eq!((pages(&rig, 500), rig.store.stats().slabs_moved), (before, 0));
}

#[test]
fn the_ratio_decides() {
    let mut rig = automatic(1);
    // Nothing is young enough.
    rig.store.tune(|tuning| tuning.automove_ratio = 0.0);
    full_of(&rig, 500, 600);
    (0..30).for_each(|_| rig.second());
    for _ in 0..10 {
        full_of(&rig, 1000, 30);
        rig.second();
    }
    assert_eq!(rig.store.stats().slabs_moved, 0);
}

#[test]
fn eagerly_at_every_eviction() {
    let mut rig = automatic(2);
    full_of(&rig, 500, 600);
    let before = pages(&rig, 500);
    full_of(&rig, 1000, 20);
    rig.steps(30);
    // The last to evict was this class, once since the last look.
    assert_eq!((pages(&rig, 500), pages(&rig, 1000)), (before - 1, 2));
    rig.steps(30);
    assert_eq!(rig.store.stats().slabs_moved, 1);
}

#[test]
fn each_shard_for_itself() {
    let config = StoreConfig { shards: Some(4), memory_limit: 1 << 20, ..tiny() };
    let mut rig = TestStore::new(config);
    rig.store.tune(|tuning| tuning.automove_window = 4);
    full_of(&rig, 500, 3000);
    (0..30).for_each(|_| rig.second());
    for _ in 0..20 {
        full_of(&rig, 1000, 300);
        rig.second();
    }
    assert!(rig.store.stats().slabs_moved > 4);
    let in_each = rig.store.lock_each().filter(|shard| shard.slab.classes.iter().any(|class| class.pages > 20)).count();
    assert_eq!(in_each, 4);
}

#[test]
fn a_shorter_window() {
    let mut rig = automatic(1);
    rig.store.tune(|tuning| tuning.automove_window = 1800);
    full_of(&rig, 500, 600);
    (0..30).for_each(|_| rig.second());
    rig.store.reset_stats();
    for _ in 0..10 {
        full_of(&rig, 1000, 30);
        rig.second();
    }
    assert_eq!(rig.store.stats().slabs_moved, 0);
    rig.store.tune(|tuning| tuning.automove_window = 3);
    for _ in 0..3 {
        full_of(&rig, 1000, 30);
        rig.second();
    }
    assert!(rig.store.stats().slabs_moved > 0);
}

/// Full of one size, and then so many of each other size.
fn changed_sizes(config: StoreConfig) -> TestStore {
    let mut rig = TestStore::new(config);
    full_of(&rig, 30, 10_000);
    rig.second();
    (40..2000).step_by(20).for_each(|len| full_of(&rig, len, 5));
    rig
}

#[test]
fn ten_seconds_after_a_change_of_sizes_the_limit_is_kept() {
    for shards in [1, 4] {
        let mut rig = changed_sizes(StoreConfig { shards: Some(shards), memory_limit: 256 << 10, ..tiny() });
        let stats = rig.store.stats();
        assert!(stats.total_malloced > stats.memory_limit * 106 / 100, "{} at first", stats.total_malloced);
        (0..10).for_each(|_| {
            rig.second();
            rig.mover_steps(1000);
        });
        let stats = rig.store.stats();
        assert!(stats.total_malloced <= stats.memory_limit * 105 / 100, "{} with {shards}", stats.total_malloced);
    }
}

#[test]
fn first_pages_are_not_taken_from_who_may_not_evict() {
    let mut rig = TestStore::new(StoreConfig { evict: false, memory_limit: 128 << 10, ..tiny() });
    let stored = (0..).take_while(|i| rig.set(&format!("len30-{i:05}"), &[1; 30], 0)).count();
    for len in (40..2000).step_by(40) {
        rig.set(&format!("len{len}-0"), &vec![1; len], 0);
    }
    (0..3).for_each(|_| rig.second());
    assert!((0..stored).all(|i| rig.get(&format!("len30-{i:05}")).is_some()));
    assert_eq!((rig.store.stats().slabs_moved, rig.store.stats().slab_reassign_busy_nomem), (0, 0));
    // As soon as something is free, it does.
    (0..stored).filter(|i| i % 3 > 0).for_each(|i| rig.unlink(&format!("len30-{i:05}")));
    rig.mover_steps(1000);
    let stats = rig.store.stats();
    assert!(stats.total_malloced <= stats.memory_limit * 105 / 100, "{}", stats.total_malloced);
}

#[test]
fn what_a_class_needs_no_more_goes_to_the_pool_all_at_once() {
    let mut rig = automatic(1);
    full_of(&rig, 500, 700);
    let before = pages(&rig, 500);
    let keys: Vec<_> = (0..700).map(|i| format!("len500-{i:03}")).filter(|key| rig.get(key).is_some()).collect();
    keys.iter().skip(10).for_each(|key| rig.unlink(key));
    // A window without anything new.
    (0..5).for_each(|_| rig.second());
    rig.mover_steps(2 * 4 * before as usize);
    let (left, pool) = (pages(&rig, 500), rig.store.stats().slab_global_page_pool);
    assert!(left <= 5 && left + pool == before, "{left} and {pool} of {before}");
    assert_eq!(rig.store.stats().slabs_moved, pool);
}

#[test]
fn a_class_that_is_all_dead_gives_each_page_in_one_step_and_can_be_used_again() {
    let mut rig = automatic(1);
    full_of(&rig, 30, 6000);
    let before = pages(&rig, 30);
    assert!(before > 50);
    rig.store.flush_all(0, None);
    (0..6000).for_each(|i| assert!(rig.get(&format!("len30-{i:03}")).is_none()));
    (0..5).for_each(|_| rig.second());
    // A step for each page, and what is decided between them.
    rig.mover_steps(2 * before as usize);
    let (left, pool) = (pages(&rig, 30), rig.store.stats().slab_global_page_pool);
    assert!(left <= 3 && left + pool == before, "{left} and {pool} of {before}");
    full_of(&rig, 30, 5000);
    rig.store.check().unwrap();
    assert!(rig.get("len30-4999").is_some() && pages(&rig, 30) == before);
}
