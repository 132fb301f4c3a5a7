//! What the crawler takes, tells and leaves, step by step.

use super::*;
use crate::store::tests::rig::{TestStore, tiny, tiny_as_memcached};
use crate::store::{ClassSet, EventMask, StoreConfig};

const ALL: ClassSet = ClassSet(!1);

fn crawled(rig: &TestStore) -> Vec<Event> {
    rig.store.take_events().into_iter().filter(|event| matches!(event, Event::Crawled { .. })).collect()
}

/// Live ones below and above dead ones, so that no tail shows them.
fn fill(rig: &TestStore) {
    assert!(rig.set("below", b"v", 0));
    (0..500).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 2)));
    assert!(rig.set("above", b"v", 0));
}

#[test]
fn automatic_after_a_second() {
    let mut rig = TestStore::new(tiny());
    let config = StoreConfig { maintainer: false, ..tiny() };
    let mut never = TestStore::new(config);
    for rig in [&mut rig, &mut never] {
        fill(rig);
        rig.steps(3);
        assert_eq!(rig.store.stats().lru_crawler_starts, 0);
        rig.second();
    }
    assert_eq!(rig.sum(|class| class.counters.crawler_items_checked), 502);
    let stats = rig.store.stats();
    assert_eq!((stats.lru_crawler_starts, stats.lru_crawler_running), (1, false));
    assert_eq!(never.sum(|class| class.counters.crawler_items_checked), 0);
}

#[test]
fn the_next_run_depends_on_what_was_found() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.segmented = false);
    fill(&rig);
    rig.second();
    assert_eq!(crawled(&rig), []);
    rig.second();
    let largest = usize::from(rig.store.largest_class());
    let events = crawled(&rig);
    assert_eq!(events.len(), 4 * largest);
    let empty = |class, lru| Event::Crawled {
        class,
        lru,
        low_mark: 1,
        next_reclaims: 0,
        since_run: 1,
        next_run: 65,
        elapsed: 0,
        examined: 0,
        reclaimed: 0,
    };
    assert_eq!(events[1], empty(2, 0));
    assert_eq!(events[largest], empty(1, 1));
    let seen: Vec<_> = events.iter().filter(|event| matches!(event, Event::Crawled { examined: 1.., .. })).collect();
    // All of them within a minute, so the next run comes as early as it may.
    let expected = Event::Crawled {
        class: 1,
        lru: 2,
        low_mark: 6,
        next_reclaims: 500,
        since_run: 1,
        next_run: 5,
        elapsed: 0,
        examined: 502,
        reclaimed: 0,
    };
    assert_eq!(seen, [&expected]);
    assert_eq!(rig.store.stats().curr_items, 502);
    (0..6).for_each(|_| rig.second());
    assert_eq!(rig.sum(|class| class.counters.crawler_reclaimed), 500);
    assert_eq!(rig.sum(|class| class.counters.expired_unfetched), 500);
    assert_eq!(rig.store.stats().curr_items, 2);
}

#[test]
fn a_run_that_finds_nothing_doubts_the_next() {
    let mut rig = TestStore::new(tiny());
    assert!(rig.set("key", b"v", 0));
    (0..3).for_each(|_| rig.second());
    let starts = |rig: &TestStore| rig.store.stats().lru_crawler_starts;
    assert_eq!(starts(&rig), 1);
    (0..10_000).for_each(|_| {
        rig.clock.advance(1);
        rig.worker.step(&rig.store, Duration::from_secs(1));
        rig.worker.step(&rig.store, Duration::from_secs(1));
    });
    // The pause is 67, 127, 187 … seconds.
    assert_eq!(starts(&rig), 18);
}

#[test]
fn where_many_are_dead_it_comes_back_after_five_seconds() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.segmented = false);
    assert!(rig.set("below", b"v", 0));
    // Nothing to find: it comes ever more seldom.
    (0..200).for_each(|_| rig.second());
    rig.store.take_events();
    (0..500).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 2)));
    assert!(rig.set("above", b"v", 0));
    let pauses = |rig: &TestStore| -> Vec<(u64, u64)> {
        let events = crawled(rig).into_iter().filter_map(|event| match event {
            Event::Crawled { class: 1, lru: 2, next_run, reclaimed, .. } => Some((reclaimed, next_run)),
            _ => None,
        });
        events.collect()
    };
    (0..200).for_each(|_| rig.second());
    let found = pauses(&rig);
    let at = found.iter().position(|(reclaimed, _)| *reclaimed > 0).expect("a run");
    // The run after that finds nothing, and doubts again.
    assert_eq!(found[at..at + 2], [(500, 5), (0, 65)]);
    assert_eq!(rig.store.stats().curr_items, 2);
}

#[test]
fn manual_on_some_classes() {
    let mut rig = TestStore::new(StoreConfig { shards: Some(4), memory_limit: 1 << 20, ..tiny() });
    rig.store.tune(|tuning| tuning.segmented = false);
    (0..2).for_each(|_| rig.second());
    rig.store.take_events();
    for i in 0..100 {
        assert!(rig.set(&format!("small{i}"), b"v", 1) && rig.set(&format!("large{i}"), &[1; 1000], 1));
    }
    let large = rig.store.core.classes.of(1050);
    rig.clock.advance(1);
    assert!(rig.store.crawl(ClassSet(1 << large)));
    assert!(rig.store.stats().lru_crawler_running);
    rig.steps(20);
    assert!(!rig.store.stats().lru_crawler_running);
    assert_eq!(rig.store.stats().curr_items, 100);
    assert!(rig.store.crawl(ALL));
    rig.steps(20);
    assert_eq!(rig.store.stats().curr_items, 0);
    assert_eq!(crawled(&rig), []);
}

#[test]
fn a_refused_one_holds_automatic_ones_off() {
    let mut rig = TestStore::new(tiny());
    assert!(rig.store.crawl(ALL) && !rig.store.crawl(ALL));
    (0..58).for_each(|_| rig.second());
    assert_eq!(rig.store.stats().lru_crawler_starts, 1);
    (0..3).for_each(|_| rig.second());
    assert_eq!(rig.store.stats().lru_crawler_starts, 2);
}

#[test]
fn only_so_many_items_of_a_list() {
    // All of them are in COLD so.
    let mut rig = TestStore::new(StoreConfig { shards: Some(4), memory_limit: 1 << 20, ..tiny_as_memcached() });
    rig.store.tune(|tuning| tuning.crawler_tocrawl = 150);
    fill(&rig);
    rig.second();
    assert_eq!(rig.sum(|class| class.counters.crawler_items_checked), 150);
}

#[test]
fn it_can_be_turned_off_and_on() {
    let mut rig = TestStore::new(tiny());
    (0..2500).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
    assert!(rig.store.crawl(ALL));
    rig.worker.step(&rig.store, Duration::from_secs(1));
    assert!(rig.store.stats().lru_crawler_running);
    assert!(rig.store.enable_crawler(false) && !rig.store.enable_crawler(false));
    rig.steps(1);
    assert!(!rig.store.stats().lru_crawler_running);
    assert_eq!(rig.store.lock_number(0).cursor, ItemId::NONE);
    (0..3).for_each(|_| rig.second());
    assert_eq!(rig.store.stats().lru_crawler_starts, 1);
    assert!(rig.store.enable_crawler(true));
    rig.second();
    assert_eq!(rig.store.stats().lru_crawler_starts, 2);
}

#[test]
fn dead_ones_make_room_before_live_ones() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    // Among live ones, so that hardly a tail shows them.
    (0..1500).for_each(|i| assert!(rig.set(&format!("key{i:04}"), &[1; 40], (i % 3) as i64 * 3)));
    (0..8).for_each(|_| rig.second());
    let free = rig.sum(|class| class.free_chunks) as usize;
    assert!(rig.store.stats().curr_items == 500 && free > 900, "{free}");
    (0..free).for_each(|i| assert!(rig.set(&format!("new{i:04}"), &[1; 40], 0)));
    assert_eq!(rig.sum(|class| class.counters.evicted), 0);
}

#[test]
fn flushed_ones_too() {
    let mut rig = TestStore::new(StoreConfig { memory_limit: 4 << 20, ..tiny() });
    rig.store.keep_events(EventMask::default());
    (0..5000).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
    rig.store.flush_all(0, None);
    // So many are not unlinked by the command itself.
    assert_eq!(rig.store.stats().curr_items, 5000);
    rig.second();
    assert_eq!(rig.store.stats().curr_items, 0);
    let (crawled, by_tail) =
        (rig.sum(|class| class.counters.crawler_reclaimed), rig.sum(|class| class.counters.reclaimed));
    assert!(crawled >= 1000 && crawled + by_tail == 5000, "{crawled} and {by_tail}");
    // As in memcached, what the crawler meets has not expired.
    assert_eq!(rig.sum(|class| class.counters.expired_unfetched), by_tail);
}
