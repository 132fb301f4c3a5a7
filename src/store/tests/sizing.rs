//! How many shards and how much memory a store is given.

use super::*;

#[test]
fn how_many_shards() {
    let count =
        |mib: u64, threads| shard_count(&StoreConfig { memory_limit: mib << 20, threads, ..StoreConfig::default() });
    assert_eq!(count(64, 4), 1);
    assert_eq!(count(511, 4), 1);
    assert_eq!(count(1024, 4), 4);
    assert_eq!(count(16 << 10, 4), 16);
    assert_eq!(count(1 << 20, 4), 64);
    let given = StoreConfig { shards: Some(1_000_000), ..StoreConfig::default() };
    assert_eq!(shard_count(&given), SHARDS_MAX);
}

/// As memcached's: 2^power buckets, and twice as many with more than 1.5 items for each.
#[test]
fn the_power_of_the_hash_table_is_memcacheds() {
    for power in 12..=30 {
        let buckets = first_buckets(&StoreConfig { hash_power: Some(power), ..StoreConfig::default() }, 1);
        assert_eq!(hash_power(buckets), u32::from(power));
    }
    let for_items = |items: usize| hash_power(items.div_ceil(shard::table::LOAD));
    for (items, power) in [(98_294, 16), (98_311, 17), (1 << 17, 17), (196_601, 17), (196_609, 18)] {
        assert_eq!(for_items(items), power, "{items} items");
    }
}
