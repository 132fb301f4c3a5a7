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
