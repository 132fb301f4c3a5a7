//! Pages that are emptied, and what becomes of the items in them.

use super::*;
use crate::store::tests::rig::{TestStore, tiny};
use crate::store::{Accounting, ItemSpec, Reassign, StoreConfig, Upload};

/// Of a 1000-byte value with a short key.
fn class_of(rig: &TestStore, size: usize) -> u8 {
    rig.store.core.classes.of(rig.store.core.sizing.total(6, true, size))
}

fn pages(rig: &TestStore, class: u8) -> u64 {
    rig.store.class_stats().iter().find(|stats| stats.class == class).map_or(0, |stats| stats.total_pages)
}

fn value(i: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (i + at / 7) as u8).collect()
}

/// Stores items `from..to`, some of which expire.
fn fill(rig: &TestStore, from: usize, to: usize, len: usize) {
    (from..to).for_each(|i| assert!(rig.set(&format!("key{i:03}"), &value(i, len), (i % 2 * 1000) as i64)));
}

type Seen = (u64, u32, u32, u32, usize);

/// What must not change when an item moves, and where it is.
fn seen(rig: &TestStore, i: usize, len: usize) -> Option<(Seen, ItemId)> {
    let key = format!("key{i:03}");
    let hash = rig.store.hash(key.as_bytes());
    let mut locked = rig.store.lock(hash);
    let id = locked.find(key.as_bytes(), hash).ok()?;
    let item = locked.item(id);
    let mut found = Vec::new();
    item.copy_value(&mut found);
    assert!(found == value(i, len), "a wrong value");
    let state = usize::from(item.header().chunk.state);
    Some(((item.cas(), item.client_flags(), item.expires_at(), item.last_access(), state), id))
}

fn moves(rig: &TestStore) -> Vec<Event> {
    rig.store.take_events().into_iter().filter(|event| matches!(event, Event::SlabMove { .. })).collect()
}

fn told(src: u8, dst: u8, ok: bool) -> Vec<Event> {
    vec![Event::SlabMove { src, dst, ok }]
}

#[test]
fn first_pages_of_many_shards_are_made_up_for() {
    let mut rig = TestStore::new(StoreConfig { shards: Some(16), memory_limit: 1 << 20, ..tiny() });
    rig.store.tune(|tuning| tuning.automove = 0);
    (0..60_000).for_each(|i| assert!(rig.set(&format!("small{i}"), b"value", 0)));
    for size in (1..2000).step_by(10) {
        (0..10).for_each(|i| assert!(rig.set(&format!("size{size}-{i}"), &vec![1; size], 0)));
    }
    let stats = rig.store.stats();
    let allowed = stats.memory_limit + 4096 * u64::from(rig.store.largest_class());
    assert!(stats.total_malloced > allowed + (100 << 10), "{} of {allowed}", stats.total_malloced);
    rig.mover_steps(5000);
    let stats = rig.store.stats();
    assert!(stats.total_malloced <= stats.memory_limit * 105 / 100, "{} is left", stats.total_malloced);
    // Nobody gave more than that takes.
    assert!(stats.total_malloced > stats.memory_limit, "{} is left", stats.total_malloced);
}

#[test]
fn stores_go_on_while_their_page_is_moved() {
    let mut rig = TestStore::new(StoreConfig { memory_limit: 2 * 4096, ..tiny() });
    rig.store.tune(|tuning| tuning.automove = 0);
    let class = class_of(&rig, 20);
    let items = 2 * rig.store.core.classes.per_page(class) as usize;
    fill(&rig, 0, items, 20);
    assert_eq!(pages(&rig, class), 2);
    assert_eq!(rig.store.reassign(class.into(), 0), Reassign::Ok);
    rig.mover_steps(1);
    // The next to be evicted all lie in the page that is being emptied.
    for i in items..2 * items {
        assert!(rig.set(&format!("new{i:03}"), &value(i, 20), 0), "{i} was refused");
    }
    rig.store.check().unwrap();
    rig.mover_steps(100);
    assert_eq!((moves(&rig), pages(&rig, class)), (told(class, 0, true), 1));
    assert!(rig.get(&format!("new{:03}", 2 * items - 1)).is_some());
}

#[test]
fn who_is_evicted_is_not_counted_as_reclaimed() {
    let mut rig = TestStore::new(StoreConfig { memory_limit: 2 * 4096, ..tiny() });
    rig.store.tune(|tuning| tuning.automove = 0);
    let class = class_of(&rig, 20);
    fill(&rig, 0, 2 * rig.store.core.classes.per_page(class) as usize, 20);
    assert_eq!(rig.store.reassign(class.into(), 0), Reassign::Ok);
    rig.mover_steps(100);
    assert_eq!(pages(&rig, class), 1);
    assert!(rig.sum(|class| class.counters.evicted) > 0);
    assert_eq!(rig.store.stats().slab_reassign_inline_reclaim, 0);
}

#[test]
fn every_item_survives() {
    for accounting in [Accounting::Native, Accounting::Memcached] {
        let mut rig = TestStore::new(StoreConfig { accounting, ..tiny() });
        rig.store.tune(|tuning| tuning.automove = 0);
        fill(&rig, 0, 40, 500);
        let (src, before) = (class_of(&rig, 500), pages(&rig, class_of(&rig, 500)));
        // Two pages' worth of free chunks, so that nobody has to go; marks that must move along.
        for i in (0..40).step_by(3) {
            rig.unlink(&format!("key{i:03}"));
        }
        (0..2).for_each(|_| assert!(rig.get("key001").is_some()));
        let expected: Vec<_> = (0..40).map(|i| seen(&rig, i, 500)).collect();
        assert_eq!(rig.store.reassign(src.into(), 1), Reassign::Ok);
        assert!(rig.store.stats().slab_reassign_running);
        assert_eq!(rig.store.reassign(src.into(), 1), Reassign::Busy);
        rig.mover_steps(10);
        let found: Vec<_> = (0..40).map(|i| seen(&rig, i, 500)).collect();
        let of = |seen: &[Option<(Seen, ItemId)>]| seen.iter().map(|seen| seen.map(|seen| seen.0)).collect::<Vec<_>>();
        assert_eq!(of(&expected), of(&found));
        let stats = rig.store.stats();
        let moved = std::iter::zip(&expected, &found).filter(|(before, after)| before != after).count() as u64;
        assert!(moved > 0 && stats.slab_reassign_rescues == moved, "{moved}");
        assert_eq!((stats.slabs_moved, stats.slab_reassign_running), (1, false));
        assert_eq!((pages(&rig, src), pages(&rig, 1)), (before - 1, 1));
        assert_eq!(moves(&rig), told(src, 1, true));
    }
}

#[test]
fn large_items_survive() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    fill(&rig, 0, 12, 6000);
    // Of three pieces each, two to a page: these leave two pages empty and two half empty.
    rig.unlink("key003");
    rig.unlink("key006");
    let expected: Vec<_> = (0..12).map(|i| seen(&rig, i, 6000).map(|seen| seen.0)).collect();
    let largest = rig.store.largest_class();
    let before = pages(&rig, largest);
    for move_nr in 1..4 {
        assert_eq!(rig.store.reassign(largest.into(), 0), Reassign::Ok);
        rig.mover_steps(60);
        assert_eq!(rig.store.stats().slabs_moved, move_nr);
    }
    let found: Vec<_> = (0..12).map(|i| seen(&rig, i, 6000).map(|seen| seen.0)).collect();
    assert_eq!(expected, found);
    assert!(rig.store.stats().slab_reassign_chunk_rescues > 0);
    assert_eq!((pages(&rig, largest), rig.store.stats().slab_global_page_pool), (before - 3, 3));
    // Their heads, too.
    let heads = rig.store.core.classes.of(rig.store.core.sizing.head(6, true));
    fill(&rig, 100, 300, 15);
    (200..270).for_each(|i| rig.unlink(&format!("key{i:03}")));
    let head = seen(&rig, 0, 6000).unwrap().1;
    let page = rig.store.lock_number(0).slab.page_of(head);
    assert_eq!(rig.store.lock_number(0).slab.pages[page].class, heads);
    rig.store.lock_number(0).slab.begin_move(page as u32, &rig.store.core.classes);
    let mut counts = Counts::default();
    let mut shard = rig.store.lock_number(0);
    let (first, step) = (shard.slab.first_chunk(page as u32), step(heads, &shard.core.classes));
    assert!(shard.withdraw(&mut first.clone()));
    (0..shard.core.classes.per_page(heads)).for_each(|at| {
        shard.vacate(ItemId(first.0 + at * step), true, &mut counts);
    });
    assert!(counts.rescues >= 10, "{counts:?}");
    shard.hand_over(0);
    drop(shard);
    rig.store.check().unwrap();
    let found: Vec<_> = (0..12).map(|i| seen(&rig, i, 6000).map(|seen| seen.0)).collect();
    assert_eq!(expected, found);
}

#[test]
fn reassign_any() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    let src = class_of(&rig, 500);
    let wide = i64::from(src);
    assert_eq!(rig.store.reassign(99, 99), Reassign::Same);
    for (src, dst) in [(99, 1), (1, 99), (-2, 1), (1, -1), (i64::MIN, 1), (-1, 1)] {
        assert_eq!(rig.store.reassign(src, dst), Reassign::BadClass, "{src} {dst}");
    }
    fill(&rig, 0, 3, 500);
    assert_eq!(rig.store.reassign(-1, 1), Reassign::BadClass);
    assert_eq!(rig.store.reassign(wide, 1), Reassign::NoSpare);
    assert_eq!(rig.store.reassign(0, 1), Reassign::NoSpare);
    fill(&rig, 0, 40, 500);
    assert_eq!(rig.store.reassign(-1, wide), Reassign::BadClass);
    assert_eq!(rig.store.reassign(-1, 1), Reassign::Ok);
    assert_eq!(rig.store.reassign(-1, 1), Reassign::Busy);
    assert_eq!(rig.store.reassign(wide + 1, 1), Reassign::NoSpare);
    rig.mover_steps(20);
    assert_eq!(moves(&rig), told(src, 1, true));
}

#[test]
fn from_the_pool() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    fill(&rig, 0, 60, 500);
    let src = class_of(&rig, 500);
    for _ in 0..3 {
        assert_eq!(rig.store.reassign(src.into(), 0), Reassign::Ok);
        rig.mover_steps(20);
    }
    assert_eq!(rig.store.stats().slab_global_page_pool, 3);
    let before = rig.store.stats().total_malloced;
    for (answer, left) in [(Reassign::Ok, 2), (Reassign::Ok, 1), (Reassign::NoSpare, 1)] {
        assert_eq!(rig.store.reassign(0, 3), answer, "it is done at once");
        assert_eq!((rig.store.stats().slab_global_page_pool, pages(&rig, 3)), (left, 3 - left));
    }
    assert_eq!(rig.store.stats().total_malloced, before);
}

#[test]
fn pages_in_which_nothing_lies_move_at_once() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    fill(&rig, 0, 60, 500);
    let (src, before) = (class_of(&rig, 500), pages(&rig, class_of(&rig, 500)));
    (20..60).for_each(|i| rig.unlink(&format!("key{i:03}")));
    for dst in [0, 3] {
        assert_eq!(rig.store.reassign(src.into(), dst), Reassign::Ok);
    }
    let stats = rig.store.stats();
    assert_eq!((stats.slabs_moved, stats.slab_reassign_running, stats.slab_global_page_pool), (2, false, 1));
    assert_eq!((pages(&rig, src), pages(&rig, 3)), (before - 2, 1));
    rig.mover_steps(5);
    assert_eq!(rig.store.stats().slabs_moved, 2);
    (0..20).for_each(|i| assert!(seen(&rig, i, 500).is_some()));
}

#[test]
fn nobody_goes_while_memory_is_not_full() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    let class = class_of(&rig, 500);
    let items = 4 * rig.store.core.classes.per_page(class) as usize;
    fill(&rig, 0, items, 500);
    assert_eq!(rig.store.reassign(class.into(), 1), Reassign::Ok);
    rig.mover_steps(20);
    assert_eq!((pages(&rig, class), pages(&rig, 1), rig.store.stats().slabs_moved), (4, 1, 1));
    (0..items).for_each(|i| assert!(seen(&rig, i, 500).is_some()));
}

/// Two pages of 500-byte items, the first of them in every hand of the test.
fn two_pages() -> (TestStore, u8) {
    let rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    let class = class_of(&rig, 500);
    let per_page = rig.store.core.classes.per_page(class) as usize;
    fill(&rig, 0, 2 * per_page, 500);
    (rig, class)
}

#[test]
fn held_items_are_waited_for() {
    let (mut rig, class) = two_pages();
    let keys = rig.store.stats().curr_items as usize;
    let pins: Vec<_> = (0..keys).map(|i| rig.pin(&format!("key{i:03}"))).collect();
    assert_eq!(rig.store.reassign(class.into(), 0), Reassign::Ok);
    rig.mover_steps(50);
    let stats = rig.store.stats();
    assert_eq!((stats.slabs_moved, stats.slab_reassign_last_busy_status), (0, "busy"));
    (0..keys).for_each(|i| rig.unlink(&format!("key{i:03}")));
    rig.mover_steps(50);
    let stats = rig.store.stats();
    assert_eq!((stats.slabs_moved, stats.slab_reassign_last_busy_status), (0, "busy_floating"));
    for (i, pin) in pins.iter().enumerate() {
        let mut slices = Vec::new();
        pin.io_slices(0, &mut slices);
        assert!(*slices[0] == value(i, 500), "a pinned value has changed");
    }
    drop(pins);
    rig.mover_steps(5);
    assert_eq!(rig.store.stats().slabs_moved, 1);
}

#[test]
fn uploads_are_waited_for() {
    let (mut rig, class) = two_pages();
    let expires_at = 0;
    let uploads: Vec<_> = (0..12)
        .map(|i| {
            let key = format!("new{i:03}").into_bytes();
            let spec = ItemSpec { key: &key, key_is_binary: false, client_flags: 7, expires_at };
            let mut upload = rig.store.upload(rig.store.hash(&key), &spec, 500).unwrap();
            upload.room().unwrap()[..100].copy_from_slice(&value(i, 500)[..100]);
            upload.filled(100);
            upload
        })
        .collect();
    let all = pages(&rig, class);
    for _ in 0..all - 1 {
        rig.store.reassign(class.into(), 0);
        rig.mover_steps(300);
    }
    let stats = rig.store.stats();
    assert_eq!(stats.slab_reassign_last_busy_status, "busy_uploading");
    for (i, mut upload) in uploads.into_iter().enumerate() {
        upload.room().unwrap().copy_from_slice(&value(i, 500)[100..]);
        upload.filled(400);
        let hash = rig.store.hash(format!("new{i:03}").as_bytes());
        let mut locked = rig.store.lock(hash);
        let id = locked.finish(upload).unwrap();
        locked.link(id, hash, None);
    }
    rig.mover_steps(300);
    assert!(!rig.store.stats().slab_reassign_running);
    let kept = (0..12).filter_map(|i| rig.get(&format!("new{i:03}")).map(|found| assert!(found == value(i, 500))));
    assert!(kept.count() > 0);
}

#[test]
fn a_page_that_stays_busy_is_given_up() {
    let (mut rig, class) = two_pages();
    let keys = rig.store.stats().curr_items as usize;
    let pins: Vec<_> = (0..keys).map(|i| rig.pin(&format!("key{i:03}"))).collect();
    let free = rig.sum(|class| class.free_chunks);
    assert_eq!(rig.store.reassign(class.into(), 0), Reassign::Ok);
    rig.mover_steps(ROUNDS_MAX as usize + 20);
    assert_eq!(moves(&rig), told(class, 0, false));
    let stats = rig.store.stats();
    assert_eq!((stats.slabs_moved, stats.slab_reassign_running), (0, false));
    assert!(stats.slab_reassign_busy_items > 20_000 && stats.slab_reassign_busy_deletes == 0);
    assert_eq!(rig.sum(|class| class.free_chunks), free);
    drop(pins);
    rig.store.check().unwrap();
    (0..keys).for_each(|i| assert!(seen(&rig, i, 500).is_some()));
}

#[test]
fn stuck_large_items_are_unlinked() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    fill(&rig, 0, 1, 20_000);
    let pin = rig.pin("key000");
    let largest = rig.store.largest_class();
    assert_eq!(rig.store.reassign(largest.into(), 0), Reassign::Ok);
    rig.mover_steps(ROUNDS_PATIENT as usize - 10);
    assert!(rig.get("key000").is_some());
    rig.mover_steps(20);
    assert!(rig.get("key000").is_none());
    assert_eq!((rig.store.stats().slab_reassign_busy_deletes, rig.store.stats().slabs_moved), (1, 0));
    drop(pin);
    rig.mover_steps(5);
    assert_eq!(rig.store.stats().slabs_moved, 1);
}

#[test]
fn a_lower_limit_gives_memory_back() {
    for shards in [1, 4] {
        let mut rig = TestStore::new(StoreConfig { shards: Some(shards), memory_limit: 32 << 20, ..tiny() });
        for i in 0..60_000 {
            assert!(rig.set(&format!("key{i:05}"), &[7; 400], 0));
        }
        assert!(rig.store.stats().total_malloced > 24 << 20);
        assert!(rig.store.set_memory_limit(8 << 20));
        rig.mover_steps(40_000);
        let stats = rig.store.stats();
        assert!(stats.total_malloced <= 8 << 20 && stats.total_malloced > 7 << 20, "{}", stats.total_malloced);
        assert_eq!(stats.slab_global_page_pool, 0);
        // The newest ones stayed.
        let kept = (0..60_000).filter(|i| rig.get(&format!("key{i:05}")).is_some()).count();
        assert_eq!(kept as u64, stats.curr_items);
        assert!((59_000..60_000).all(|i| rig.get(&format!("key{i:05}")).is_some()));
        assert!(rig.store.set_memory_limit(32 << 20));
        (0..60_000).for_each(|i| assert!(rig.set(&format!("key{i:05}"), &[7; 400], 0)));
        assert!(rig.store.stats().total_malloced > 24 << 20);
        rig.store.check().unwrap();
    }
}

#[test]
fn nobody_goes_where_nothing_may_be_evicted() {
    let mut rig = TestStore::new(StoreConfig { evict: false, ..tiny() });
    rig.store.tune(|tuning| tuning.automove = 0);
    let items = (0..1000).take_while(|i| rig.set(&format!("key{i:03}"), &value(*i, 500), 0)).count();
    let class = class_of(&rig, 500);
    assert_eq!(rig.store.reassign(class.into(), 1), Reassign::Ok);
    rig.mover_steps(ROUNDS_MAX as usize + 20);
    assert_eq!(moves(&rig), told(class, 1, false));
    assert!(rig.store.stats().slab_reassign_busy_nomem > 0);
    (0..items).for_each(|i| assert!(seen(&rig, i, 500).is_some()));
}

#[test]
fn a_class_gives_its_last_page_where_other_shards_have_some() {
    let mut rig = TestStore::new(StoreConfig { shards: Some(4), memory_limit: 1 << 20, ..tiny() });
    rig.store.tune(|tuning| tuning.automove = 0);
    fill(&rig, 0, 60, 500);
    let class = class_of(&rig, 500);
    for left in (1..pages(&rig, class)).rev() {
        assert_eq!(rig.store.reassign(class.into(), 0), Reassign::Ok);
        rig.mover_steps(20);
        assert_eq!(pages(&rig, class), left);
    }
    assert_eq!(rig.store.reassign(class.into(), 0), Reassign::NoSpare);
}

#[test]
fn one_held_item_does_not_keep_a_class_from_giving_a_page() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    let class = class_of(&rig, 500);
    let per_page = rig.store.core.classes.per_page(class) as usize;
    fill(&rig, 0, 4 * per_page, 500);
    // A page with nothing but an upload that stands still is the first to be chosen.
    let spec = ItemSpec { key: b"silent", key_is_binary: false, client_flags: 7, expires_at: 0 };
    let upload = rig.store.upload(rig.store.hash(b"silent"), &spec, 500).unwrap();
    let all = pages(&rig, class);
    assert_eq!(rig.store.reassign(class.into(), 0), Reassign::Ok);
    rig.mover_steps(ROUNDS_FIRST as usize - 10);
    assert_eq!(rig.store.stats().slabs_moved, 0);
    rig.mover_steps(100);
    assert_eq!((rig.store.stats().slabs_moved, pages(&rig, class)), (1, all - 1));
    drop(upload);
    rig.store.check().unwrap();
}

/// Two pages of a class in a memory that is full of another's items: one holds two items, in the other an upload stands still.
fn two_pages_in_full_memory() -> (TestStore, u8, Upload) {
    let rig = TestStore::new(StoreConfig { memory_limit: 16 * 4096, ..tiny() });
    let class = class_of(&rig, 500);
    let per_page = rig.store.core.classes.per_page(class) as usize;
    fill(&rig, 0, per_page, 500);
    let spec = ItemSpec { key: b"silent", key_is_binary: false, client_flags: 7, expires_at: 0 };
    let upload = rig.store.upload(rig.store.hash(b"silent"), &spec, 500).unwrap();
    assert_eq!(pages(&rig, class), 2);
    (0..2000).for_each(|i| assert!(rig.set(&format!("full{i}"), &value(i, 100), 0)));
    assert!(rig.sum(|class| class.counters.evicted) > 0);
    (2..per_page).for_each(|i| rig.unlink(&format!("key{i:03}")));
    (rig, class, upload)
}

#[test]
fn a_class_keeps_its_last_page_when_others_were_taken_meanwhile() {
    let (rig, class, upload) = two_pages_in_full_memory();
    let thief = |i: usize| {
        rig.clock.advance(1);
        assert!(rig.set(&format!("more{i}"), &value(i, 100), 0));
    };
    let mut job = Job::begin(&rig.store, Move { shard: 0, src: class, dst: 0 }).unwrap();
    for i in 0.. {
        if job.phase == Phase::GiveUp {
            break;
        }
        assert!(!matches!(job.go_on(&rig.store), MoveProgress::Moved(_)));
        if i % 50 == 0 {
            thief(i);
        }
    }
    drop(upload);
    (0..2).for_each(|i| rig.unlink(&format!("key{i:03}")));
    // Who writes takes what it can while one page is given up for the other.
    let mut ended = None;
    for i in 10_000..11_000 {
        if let MoveProgress::Moved(ok) = job.go_on(&rig.store) {
            ended = Some(ok);
            break;
        }
        (0..100).for_each(|at| thief(i * 100 + at));
    }
    assert_eq!((ended, pages(&rig, class)), (Some(true), 1));
    // And a page that was chosen before they did.
    assert!(Job::begin(&rig.store, Move { shard: 0, src: class, dst: 0 }).is_none());
    assert_eq!(pages(&rig, class), 1);
    rig.store.check().unwrap();
}

#[test]
fn a_page_in_which_nothing_lies_moves_without_naps() {
    let mut rig = TestStore::new(tiny());
    rig.store.tune(|tuning| tuning.automove = 0);
    fill(&rig, 0, 60, 500);
    let class = class_of(&rig, 500);
    (0..60).for_each(|i| rig.unlink(&format!("key{i:03}")));
    for moved in 1..4 {
        assert_eq!(rig.store.reassign(class.into(), 0), Reassign::Ok);
        while rig.store.stats().slabs_moved < moved {
            let nap = rig.worker.mover.1.step(&rig.store);
            assert_eq!(nap == Duration::ZERO, rig.store.stats().slab_reassign_running);
        }
    }
    rig.store.check().unwrap();
}
