//! What the store's calls cost, without sockets and protocol: `cargo bench --bench store [-- NAME]`.
//!
//! Each line is one workload over keys of 16 to 24 bytes and values of 100 bytes: nanoseconds of CPU time per
//! call, best and median of several runs. "small" fits the CPU's caches, "large" does not.

use std::hint::black_box;
use std::sync::Arc;
use twincache::clock::Clock;
use twincache::store::{AHEAD_MAX, Hash, ItemSpec, Part, Store, StoreConfig};

const SMALL: u64 = 10_000;
const LARGE: u64 = 4_000_000;
const CALLS: u64 = 1_000_000;
const RUNS: usize = 5;
const BATCH: usize = AHEAD_MAX;

fn main() {
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for (name, items) in [("small", SMALL), ("large", LARGE)] {
        if wanted(name) {
            sized(name, items);
        }
    }
    if wanted("evict") {
        let store = store(64 << 20, 1);
        fill(&store, 0..1_000_000);
        let mut next = 1_000_000;
        measure("evict: set of a new key, memory full", || {
            fill(&store, next..next + CALLS);
            next += CALLS;
        });
        println!("{:>56} {}", "evicted", store.class_stats().iter().map(|class| class.counters.evicted).sum::<u64>());
    }
}

fn sized(name: &str, items: u64) {
    let store = store(2 << 30, 2);
    let begin = cpu_time();
    fill(&store, 0..items);
    println!("{name}: {items} items, filled at {} ns each", (cpu_time() - begin) / items);
    measure(&format!("{name}: hash"), || {
        (0..CALLS).for_each(|i| {
            black_box(store.hash(&key(mix(i) % items).0));
        });
    });
    measure(&format!("{name}: get"), || get(&store, items));
    measure(&format!("{name}: get, batches of {BATCH}, buckets prefetched"), || get_batches(&store, items, false));
    measure(&format!("{name}: get, batches of {BATCH}, items too"), || get_batches(&store, items, true));
    measure(&format!("{name}: get, two threads"), || {
        std::thread::scope(|scope| {
            scope.spawn(|| get(&store, items));
            get(&store, items);
        });
    });
    measure(&format!("{name}: set of a present key"), || (0..CALLS).for_each(|i| set(&store, mix(i) % items)));
    let mut next = items;
    measure(&format!("{name}: set of a new key"), || {
        fill(&store, next..next + CALLS / 10);
        next += CALLS / 10;
    });
    measure(&format!("{name}: delete and set"), || {
        (0..CALLS).for_each(|i| {
            let (key, len) = key(mix(i) % items);
            let hash = store.hash(&key[..len]);
            let mut locked = store.lock(hash);
            if let Ok(id) = locked.find(&key[..len], hash) {
                locked.unlink(id, hash);
            }
            drop(locked);
            set(&store, mix(i) % items);
        });
    });
}

fn measure(name: &str, mut run: impl FnMut()) {
    let mut times: Vec<u64> = (0..RUNS)
        .map(|_| {
            let begin = cpu_time();
            run();
            cpu_time() - begin
        })
        .collect();
    times.sort_unstable();
    let calls = if name.ends_with("new key") { CALLS / 10 } else { CALLS };
    println!("{name:>56} {:>6} {:>6} ns", times[0] / calls, times[RUNS / 2] / calls);
}

/// Nanoseconds that this thread has run: other load on the machine does not count.
fn cpu_time() -> u64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux kernel");
    line.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

fn store(memory_limit: u64, threads: usize) -> Arc<Store> {
    let config = StoreConfig { memory_limit, threads, ..StoreConfig::default() };
    Store::new(config, Arc::new(Clock::new())).expect("address range")
}

fn fill(store: &Arc<Store>, keys: std::ops::Range<u64>) {
    keys.for_each(|n| set(store, n));
}

fn set(store: &Arc<Store>, n: u64) {
    let (key, len) = key(n);
    let key = &key[..len];
    let hash = store.hash(key);
    let spec = ItemSpec { key, key_is_binary: false, client_flags: 0, expires_at: 0 };
    let mut locked = store.lock(hash);
    let old = locked.find(key, hash);
    let Ok(new) = locked.create(&spec, &[Part::Bytes(&[7; 100])]) else { return };
    locked.class_counters(new).cmd_set += 1;
    match old.ok().and_then(|_| locked.find(key, hash).ok()) {
        Some(old) => locked.replace(old, new, hash, None),
        None => locked.link(new, hash, None),
    }
}

fn get(store: &Arc<Store>, items: u64) {
    let mut out = Vec::with_capacity(64 << 10);
    for i in 0..CALLS {
        let (key, len) = key(mix(i) % items);
        look_up(store, &key[..len], store.hash(&key[..len]), &mut out);
    }
}

fn get_batches(store: &Arc<Store>, items: u64, items_too: bool) {
    let mut out = Vec::with_capacity(64 << 10);
    for first in (0..CALLS).step_by(BATCH) {
        let keys: [_; BATCH] = std::array::from_fn(|i| key(mix(first + i as u64) % items));
        let hashes = keys.map(|(key, len)| store.hash(&key[..len]));
        hashes.iter().for_each(|&hash| store.prefetch(hash));
        if items_too {
            store.prefetch_items(&hashes.map(|hash| (hash, false)));
        }
        for ((key, len), hash) in keys.iter().zip(hashes) {
            look_up(store, &key[..*len], hash, &mut out);
        }
    }
}

fn look_up(store: &Arc<Store>, key: &[u8], hash: Hash, out: &mut Vec<u8>) {
    let mut locked = store.lock(hash);
    let Ok(id) = locked.find(key, hash) else { return };
    locked.count_get(id);
    locked.item(id).copy_value(out);
    locked.bump(id);
    drop(locked);
    if out.len() > 32 << 10 {
        black_box(&out);
        out.clear();
    }
}

fn key(n: u64) -> ([u8; 24], usize) {
    let mut key = *b"some:prefix:000000000000";
    let mut rest = n;
    for digit in key[12..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    (key, 24)
}

fn mix(i: u64) -> u64 {
    let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ x >> 32
}
