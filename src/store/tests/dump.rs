//! A dump is complete, whatever moves meanwhile, and ends.

use super::*;
use crate::store::tests::rig::{TestStore, tiny, tiny_as_memcached};
use crate::store::{ClassSet, StoreConfig};
use std::collections::BTreeMap;

fn step(dump: &mut Dump, seen: &mut BTreeMap<Vec<u8>, u32>) -> bool {
    dump.next(&mut |item| *seen.entry(item.key().to_vec()).or_default() += 1)
}

#[test]
fn items_that_move_between_lists_are_seen_once() {
    const KEYS: usize = 2000;
    let mut rig = TestStore::new(StoreConfig { memory_limit: 4 << 20, shards: Some(2), ..tiny_as_memcached() });
    let key = |n: usize| format!("key{n}");
    (0..KEYS).for_each(|n| assert!(rig.set(&key(n), b"value", 0)));
    rig.steps(20);
    let mut dump = rig.store.dump(ClassSet::ALL).unwrap();
    let (mut seen, mut n) = (BTreeMap::new(), 0);
    while step(&mut dump, &mut seen) {
        for _ in 0..50 {
            n = (n + 7) % KEYS;
            assert!(rig.reset(&key(n), b"other", 0));
            rig.get(&key(n / 2));
        }
        // The table grows meanwhile.
        assert!(rig.set(&format!("new{}", seen.len()), b"v", 0));
        rig.steps(1);
    }
    assert!(rig.sum(|class| class.counters.moves_to_warm) > 0);
    for n in 0..KEYS {
        assert_eq!(seen.get(key(n).as_bytes()), Some(&1), "{n}");
    }
    rig.store.check().unwrap();
}

#[test]
fn a_table_that_has_grown_meanwhile_is_seen_in_small_pieces() {
    let rig = TestStore::new(StoreConfig { memory_limit: 64 << 20, hash_power: Some(7), ..tiny() });
    let set = |n: usize| assert!(rig.set(&format!("key{n}"), b"v", 0));
    (0..1000).for_each(set);
    let mut dump = rig.store.dump(ClassSet::ALL).unwrap();
    let mut seen = BTreeMap::new();
    assert!(step(&mut dump, &mut seen));
    let buckets = rig.store.lock_number(0).table.buckets();
    (1000..50_000).for_each(set);
    let grown = rig.store.lock_number(0).table.buckets() / buckets;
    assert!(grown >= 8, "{grown}");
    let mut most = 0;
    loop {
        let before = seen.len();
        if !step(&mut dump, &mut seen) {
            break;
        }
        most = most.max(seen.len() - before);
    }
    assert!(most < 2 * ITEMS, "{most} under one lock");
    assert!((0..1000).all(|n| seen.get(format!("key{n}").as_bytes()) == Some(&1)));
    assert!(seen.values().all(|&times| times == 1));
    rig.store.check().unwrap();
}

#[test]
fn what_finds_no_room_in_its_bucket_is_seen_in_small_pieces() {
    let config = StoreConfig { memory_limit: 64 << 20, hash_power: Some(7), hash_expand: false, ..tiny() };
    let rig = TestStore::new(config);
    (0..5000).for_each(|n| assert!(rig.set(&format!("key{n}"), b"v", 0)));
    assert_eq!(rig.store.lock_number(0).table.buckets(), 16);
    let (mut dump, mut seen) = (rig.store.dump(ClassSet::ALL).unwrap(), BTreeMap::new());
    let mut steps = 0;
    while step(&mut dump, &mut seen) {
        steps += 1;
    }
    assert_eq!((steps, seen.len()), (16, 5000));
}

#[test]
fn only_the_classes_asked_for() {
    let rig = TestStore::new(tiny());
    assert!(rig.set("small", b"v", 0) && rig.set("large", &[b'v'; 700], 0) && rig.set("pieces", &[b'v'; 9000], 0));
    let largest = rig.store.largest_class();
    let dumped = |classes| {
        let mut seen = BTreeMap::new();
        let mut dump = rig.store.dump(classes).unwrap();
        while step(&mut dump, &mut seen) {}
        seen.into_keys().map(|key| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(dumped(ClassSet::ALL), ["large", "pieces", "small"]);
    assert_eq!(dumped(ClassSet(1 << largest)), ["pieces"]);
    assert_eq!(dumped(ClassSet(1 << 1)), ["small"]);
    assert_eq!(dumped(ClassSet(0)), [""; 0]);
}
