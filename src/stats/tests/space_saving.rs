//! Counting the keys that come most often.

use super::*;
use crate::testing::{Rng, seeds};
use std::collections::HashMap;

fn count(counted: &mut SpaceSaving, key: u64) {
    counted.count(key.to_string().as_bytes(), key as u32, Some(1));
}

/// What the algorithm promises, on keys of which some come much more often than others.
#[test]
fn counts_are_never_too_low_and_too_high_by_their_error() {
    for seed in seeds(20) {
        let mut rng = Rng(seed);
        let (mut counted, mut exact) = (SpaceSaving::new(), HashMap::<String, u64>::new());
        let total = 20_000;
        for _ in 0..total {
            let bits = rng.below(14);
            let key = rng.below(1_u64 << bits);
            count(&mut counted, key);
            *exact.entry(key.to_string()).or_default() += 1;
        }
        let told: HashMap<String, KeyCounts> =
            counted.each().map(|(key, counts)| (String::from_utf8(key.to_vec()).unwrap(), *counts)).collect();
        assert_eq!(told.len(), COUNTERS);
        assert_eq!(told.values().map(KeyCounts::most).sum::<u64>(), total);
        for (key, counts) in &told {
            assert!((counts.least()..=counts.most()).contains(&exact[key]), "{key}: {counts:?}, not {}", exact[key]);
            assert_eq!(counts.operations, [0, counts.written]);
        }
        for (key, count) in exact {
            assert!(count <= total / COUNTERS as u64 || told.contains_key(&key), "{key}, which came {count} times");
        }
    }
}

#[test]
fn keys_with_the_same_tag_are_told_apart() {
    let mut counted = SpaceSaving::new();
    for (key, written) in [("a", None), ("b", Some(5)), ("a", Some(7)), ("", None)] {
        counted.count(key.as_bytes(), 0, written);
    }
    counted.count(&[0xff; KEY_MAX], 0, Some(0));
    let told: Vec<_> = counted.each().map(|(key, counts)| (key.len(), counts.operations, counts.written)).collect();
    assert_eq!(told, [(1, [1, 1], 7), (1, [0, 1], 5), (0, [1, 0], 0), (250, [0, 1], 0)]);
    counted.clear();
    assert_eq!(counted.each().count(), 0);
}
