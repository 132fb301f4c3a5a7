//! The table: addresses, growth, chains, and walks meanwhile.

use super::*;
use crate::store::memory::layout::SLOTS;
use std::collections::BTreeMap;

fn hash_of(id: ItemId) -> Hash {
    Hash(xxhash_rust::xxh3::xxh3_64(&id.0.to_le_bytes()))
}

#[test]
fn addresses_split_in_order() {
    for n in 1..200_usize {
        for h in 0..500_u64 {
            let (before, after) = (address(Hash(h), n), address(Hash(h), n + 1));
            assert!(before < n && (after == before || after == n), "{n} {h}");
        }
    }
}

#[test]
fn grows_and_forgets_nothing() {
    let mut table = Table::new(1, true, 1 << 16).unwrap();
    for id in (1..=20_000).map(ItemId) {
        table.insert(hash_of(id), id, hash_of, |_| ());
    }
    assert_eq!(table.buckets(), 20_000_usize.div_ceil(LOAD));
    for id in (1..=20_000).map(ItemId) {
        assert_eq!(table.find(hash_of(id), |other| other == id), Some(id));
    }
    for id in (1..=20_000).filter(|id| id % 3 != 0).map(ItemId) {
        table.remove(hash_of(id), id);
        assert_eq!(table.find(hash_of(id), |other| other == id), None);
    }
    for id in (3..=20_000).step_by(3).map(ItemId) {
        let new = ItemId(id.0 + 100_000);
        table.replace(hash_of(id), id, new);
        assert_eq!(table.find(hash_of(id), |other| other == new), Some(new));
    }
    assert_eq!(table.items(), 20_000 / 3);
}

#[test]
fn one_bucket_takes_all_when_it_may_not_grow() {
    let mut table = Table::new(1, false, 1).unwrap();
    // One bucket, one tag: the longest chain there can be.
    (1..=100).map(ItemId).for_each(|id| table.insert(Hash(0), id, |_| Hash(0), |_| ()));
    (1..=100).rev().map(ItemId).for_each(|id| table.remove(Hash(0), id));
    assert_eq!((table.items(), table.at(BucketPlace::Bucket(0)).overflow), (0, 0));
    assert!(table.at(BucketPlace::Bucket(0)).is_empty());
}

#[test]
fn a_full_overflow_is_said_before_it_is_needed() {
    // There may be as many overflow buckets as buckets, rounded up to the system's page: 64.
    let mut table = Table::new(2, false, 2).unwrap();
    let mut items = 0;
    while items < 2000 && table.has_room() {
        items += 1;
        table.insert(Hash(0), ItemId(items), |_| Hash(0), |_| ());
    }
    // Index 0 of those is not used, and the last one might not have been enough.
    assert_eq!(items as usize, SLOTS * 63 + 1);
    table.remove(Hash(0), ItemId(1));
    (2..=items).for_each(|id| assert!(table.find(Hash(0), |other| other == ItemId(id)).is_some()));
}

#[test]
fn growth_is_tried_again() {
    let mut table = Table::new(1, true, 64).unwrap();
    // 64 buckets are all there can be, as if there were no memory.
    for id in (1..=64 * LOAD as u32 + 2).map(ItemId) {
        assert!(table.has_room());
        table.insert(hash_of(id), id, hash_of, |_| ());
    }
    assert!(table.buckets() == 64 && !table.wants_growth());
    assert_eq!(table.grows_at, 64 * LOAD + 1 + RETRY);
}

#[test]
fn a_walk_sees_each_item_once_while_the_table_grows() {
    let mut table = Table::new(5, true, 1 << 16).unwrap();
    (1..=40).map(ItemId).for_each(|id| table.insert(hash_of(id), id, hash_of, |_| ()));
    let size = table.buckets().next_power_of_two() / 2;
    let mut seen = BTreeMap::new();
    for at in 0..size {
        table.visit(at, size, |id| *seen.entry(id).or_insert(0) += 1);
        let from = 1000 * (at as u32 + 1);
        (from..from + 100).map(ItemId).for_each(|id| table.insert(hash_of(id), id, hash_of, |_| ()));
    }
    assert!((1..=40).map(ItemId).all(|id| seen.get(&id) == Some(&1)));
    assert!(seen.values().all(|&times| times == 1));
}
