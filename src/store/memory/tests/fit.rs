//! How many items of one length fit into the same memory, here and in memcached.

use super::*;
use crate::store::memory::sizing::Sizing;

/// `-m`.
const MEMORY: usize = 64 << 20;
const PAGE: usize = 1 << 20;

/// Chunks and sizes under one of the accountings.
struct Fit {
    classes: Classes,
    sizing: Sizing,
    page: usize,
}

impl Fit {
    fn new(memory_limit: usize, accounting: Accounting) -> Fit {
        Fit::of(StoreConfig { memory_limit: memory_limit as u64, accounting, ..StoreConfig::default() })
    }

    /// With `-C`.
    fn without_cas(memory_limit: usize, accounting: Accounting) -> Fit {
        let config = StoreConfig { cas_enabled: false, ..StoreConfig::default() };
        Fit::of(StoreConfig { memory_limit: memory_limit as u64, accounting, ..config })
    }

    fn of(config: StoreConfig) -> Fit {
        let config = StoreConfig { fits_memory: true, ..config }.fitted();
        Fit { classes: Classes::new(&config, 1), sizing: Sizing::new(&config), page: config.page_size }
    }

    /// Bytes of pages that a chunk for so many bytes takes.
    fn chunk(&self, size: usize) -> f64 {
        self.page as f64 / f64::from(self.classes.per_page(self.classes.of(size)))
    }

    /// Bytes of pages that an item takes.
    fn item(&self, key_len: usize, len: usize) -> f64 {
        let total = self.sizing.total(key_len, false, len);
        if total <= self.sizing.chunk_max {
            return self.chunk(total);
        }
        let holds = self.sizing.chunk_max - self.sizing.piece_overhead();
        let (full, rest) = (self.sizing.payload(len) / holds, self.sizing.payload(len) % holds);
        let tail = if rest > 0 { self.chunk(rest + self.sizing.piece_overhead()) } else { 0.0 };
        self.chunk(self.sizing.head(key_len, false)) + full as f64 * self.chunk(self.sizing.chunk_max) + tail
    }

    fn items(&self, key_len: usize, len: usize) -> usize {
        (MEMORY as f64 / self.item(key_len, len) + 1e-9) as usize
    }
}

#[test]
fn at_no_length_fewer_items_than_memcached() {
    // Larger chunks are chosen for items with a cas unique: without, 3 of 3840 are missing at 17,297 to 17,300 bytes.
    for (fit, missing) in [(Fit::new as fn(usize, Accounting) -> Fit, 0.0), (Fit::without_cas, 0.001)] {
        let theirs = fit(MEMORY, Accounting::Memcached);
        assert_eq!((theirs.page, theirs.sizing.chunk_max), (PAGE, PAGE / 2));
        // With more memory there are more classes.
        for memory in [MEMORY, 2 * MEMORY] {
            holds_no_fewer(&fit(memory, Accounting::Native), &theirs, missing);
        }
    }
}

fn holds_no_fewer(ours: &Fit, theirs: &Fit, missing: f64) {
    for key_len in [1, 20, 44] {
        for len in (1..70_000).chain((70_000..1_000_000).step_by(97)) {
            let (ours, theirs) = (ours.items(key_len, len), theirs.items(key_len, len));
            // Chunks of half a page have hardly any waste at some of these; one item in a hundred is missing here.
            let theirs = if len > 500_000 { theirs - 1 } else { theirs };
            let least = theirs - (theirs as f64 * missing) as usize;
            assert!(ours >= least, "{ours} items of {len} bytes and not {theirs}, keys of {key_len}");
        }
    }
}

#[test]
fn without_cas_small_values_have_the_room_of_it() {
    for memory in [32 << 20, MEMORY, 2 * MEMORY] {
        let (with, without) = (Fit::new(memory, Accounting::Native), Fit::without_cas(memory, Accounting::Native));
        let gain = |len: usize| with.item(20, len) / without.item(20, len);
        let least = (1..5000).map(gain).min_by(f64::total_cmp);
        assert!(least.is_some_and(|least| least >= 1.0), "{least:?} of {memory} bytes");
        let mean = (8..=100).map(gain).sum::<f64>() / 93.0;
        assert!(mean > 1.07, "{mean} of {memory} bytes");
    }
}

#[test]
fn most_of_the_memory_holds_keys_and_values() {
    let lengths = (0..40).map(|i| (8.0 * (1e6_f64 / 8.0).powf(f64::from(i) / 39.0)) as usize);
    let share = |fit: &Fit, len: usize| (len + 20) as f64 / fit.item(20, len);
    let mean = |fit: &Fit| lengths.clone().map(|len| share(fit, len)).sum::<f64>() / 40.0;
    for memory in [MEMORY, 1 << 30] {
        let (ours, theirs) = (Fit::new(memory, Accounting::Native), Fit::new(memory, Accounting::Memcached));
        let means = (mean(&ours), mean(&theirs));
        assert!(means.0 > 0.86 && means.0 > means.1 * 1.1, "{means:?} of {memory} bytes");
        let least = (700..1_000_000).step_by(31).map(|len| share(&ours, len)).min_by(f64::total_cmp);
        assert!(least.is_some_and(|least| least > 0.79), "{least:?} of {memory} bytes");
    }
}

#[test]
fn pages_and_classes_follow_memory() {
    let fit = |megabytes: usize| Fit::new(megabytes << 20, Accounting::Native);
    let table = [(1, 64 << 10), (8, 64 << 10), (32, 256 << 10), (64, 512 << 10), (128, 512 << 10), (256, PAGE)];
    for (megabytes, page) in table {
        let fit = fit(megabytes);
        assert_eq!(fit.page, page, "with {megabytes} MB");
        let largest = fit.sizing.chunk_max;
        assert!((13_000..=13_800).contains(&largest), "chunks up to {largest} bytes with {megabytes} MB");
        assert_eq!(fit.classes.size(fit.classes.largest()), largest);
        assert_eq!(fit.classes.size(1), 48);
    }
    assert!(fit(4).classes.largest() < 32 && fit(64).classes.largest() == 74 && fit(128).classes.largest() == 112);
}
