//! Memory files that are damaged, or that only look like one: no bytes in them bring a store down, nor a wrong value out
//! of it.

use super::rig::{TestFolder, put, tiny};
use super::*;
use crate::store::background::BackgroundWorker;
use crate::store::shard::restore::Restored;
use crate::testing::{Rng, seeds};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where the windows begin in a file.
const WINDOWS: u64 = 2 << 20;

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

fn config(folder: &TestFolder, name: &str) -> StoreConfig {
    let memory_file = Some(folder.file(name));
    StoreConfig { item_size_max: 12_000, memory_limit: 512 << 10, shards: Some(2), memory_file, ..tiny() }
}

fn open(config: StoreConfig, clock: &Arc<Clock>) -> Result<Arc<Store>, String> {
    let file = Store::open_file(&config)?;
    Store::with_file(config, clock.clone(), file)
}

fn set(store: &Store, key: &[u8], value: &[u8]) -> bool {
    let hash = store.hash(key);
    let spec = ItemSpec { key, key_is_binary: false, client_flags: key.len() as u32 % 3, expires_at: 0 };
    let mut locked = store.lock(hash);
    let Ok(new) = locked.create(&spec, &[Part::Bytes(value)]) else { return false };
    put(&mut locked, key, hash, new, None);
    true
}

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let hash = store.hash(key);
    let mut locked = store.lock(hash);
    let id = locked.find(key, hash).ok()?;
    let mut value = Vec::new();
    locked.item(id).copy_value(&mut value);
    locked.bump(id);
    Some(value)
}

fn random(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let most = rng.pick(&[50, 500, 11_000]);
    let len = rng.below(most);
    (format!("key{}", rng.below(400_u32)).into_bytes(), rng.bytes(len))
}

/// Fills a store, and returns what is in it.
fn fill(store: &Store, rng: &mut Rng, sets: usize) -> Values {
    let mut values = Values::new();
    for _ in 0..sets {
        let (key, value) = random(rng);
        if set(store, &key, &value) {
            values.insert(key, value);
        }
    }
    values.retain(|key, value| get(store, key).is_some_and(|found| found == *value));
    values
}

/// What a kill or a graceful stop would leave, under another name.
fn leave(store: &Store, folder: &TestFolder, name: &str) -> StoreConfig {
    let from = store.core.config.memory_file.clone().unwrap();
    std::fs::copy(&from, folder.file(name)).unwrap();
    let _ = std::fs::copy(from + ".meta", folder.file(name) + ".meta");
    StoreConfig { memory_file: Some(folder.file(name)), ..store.core.config.clone() }
}

/// Changes some bits, bytes or runs of bytes of a file.
fn damage(path: &str, rng: &mut Rng) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    for _ in 0..1 << rng.below(10_u32) {
        // Mostly where there is something: page tables and the first pages.
        let window = (len - WINDOWS) / 2;
        let begin = WINDOWS + rng.below(2_u64) * window;
        let at = match rng.below(10_u32) {
            0 if rng.one_in(20) => rng.below(900),
            0..4 => begin + rng.below(4096_u64),
            _ => begin + rng.below(300_u64 << 10),
        };
        let mut bytes = vec![0; rng.pick(&[1, 1, 1, 4, 8, 16, 100, 3000])];
        if file.read_exact_at(&mut bytes, at).is_err() {
            continue;
        }
        match rng.below(4_u32) {
            0 => bytes.fill(rng.next() as u8),
            1 => bytes.iter_mut().for_each(|byte| *byte = rng.next() as u8),
            2 => file.read_exact_at(&mut bytes, begin + 8 * rng.below(30_000_u64)).unwrap(),
            _ => bytes[0] ^= 1 << rng.below(8_u32),
        }
        file.write_all_at(&bytes, at).unwrap();
    }
}

/// Works on a store that came out of who knows what. Whatever it finds must be what was stored.
fn live_on(store: &Arc<Store>, values: &mut Values, rng: &mut Rng) -> usize {
    store.check().unwrap();
    let kept = values.iter().filter(|(key, value)| match get(store, key) {
        None => false,
        Some(found) => found == **value || panic!("a wrong value of {}", key.escape_ascii()),
    });
    let kept = kept.count();
    let mut worker = BackgroundWorker::new(store);
    for step in 0..300 {
        let (key, value) = random(rng);
        match rng.below(4_u32) {
            0 => {
                let found = get(store, &key);
                assert!(found.is_none() || found.as_ref() == values.get(&key), "a wrong value");
            }
            _ if set(store, &key, &value) => drop(values.insert(key, value)),
            _ => drop(values.remove(&key)),
        }
        if step % 20 == 0 {
            store.reassign(-1, rng.below(5));
            worker.step(store, Duration::from_secs(1));
        }
    }
    store.check().unwrap();
    kept
}

#[test]
fn damaged_files_bring_nothing_down_and_no_wrong_value() {
    for seed in seeds(2) {
        let mut rng = Rng(seed);
        let (folder, clock) = (TestFolder::new(), Arc::new(Clock::new()));
        let store = open(config(&folder, "whole"), &clock).unwrap();
        let values = fill(&store, &mut rng, 1500);
        assert!(values.len() > 50);
        let (mut kept, rounds) = (0, 20);
        for round in 0..rounds {
            let name = format!("{round}");
            let left = leave(&store, &folder, &name);
            damage(&folder.file(&name), &mut rng);
            let mut now = values.clone();
            let damaged = open(left, &clock).unwrap();
            kept += live_on(&damaged, &mut now, &mut rng);
            // And once more, with what has become of it.
            let again = open(leave(&damaged, &folder, "again"), &clock).unwrap();
            live_on(&again, &mut now, &mut rng);
            std::fs::remove_file(folder.file(&name)).unwrap();
        }
        println!("{kept} items kept in {rounds} rounds, of {}", values.len());
        assert!(kept > values.len() * rounds / 5, "damage takes only what it meets");
    }
}

/// Each bit of an item's head, key, value and seal, and of the page table.
#[test]
fn each_bit_of_an_item_counts_or_says_nothing_of_it() {
    [true, false].into_iter().for_each(each_bit_counts);
}

fn each_bit_counts(cas_enabled: bool) {
    let (folder, clock) = (TestFolder::new(), Arc::new(Clock::new()));
    let store = open(StoreConfig { shards: Some(1), cas_enabled, ..config(&folder, "whole") }, &clock).unwrap();
    assert!(set(&store, b"key", b"value"));
    let hash = store.hash(b"key");
    let locked = store.lock(hash);
    let id = locked.locate(b"key", hash).unwrap();
    let (number, page) = (locked.number, locked.slab.page_of(id) as u64);
    let (window, at) = (locked.core.memory_file.as_ref().unwrap().window(number).1, u64::from(id.0) * 8);
    drop(locked);
    let item = at..at + if cas_enabled { 32 } else { 24 } + 3 + 5 + 4 + 2;
    let entry = page * 8..page * 8 + 8;
    let dump = |store: &Store| {
        let locked = store.lock_number(number);
        let found = locked.locate(b"key", hash)?;
        let item = locked.item(found);
        Some((
            item.cas(),
            item.expires_at(),
            item.last_access(),
            item.client_flags(),
            item.is_stale(),
            item.value()?.to_vec(),
        ))
    };
    let whole = dump(&store).unwrap();
    let mut kept = 0;
    for bit in item.chain(entry).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let left = leave(&store, &folder, "damaged");
        let file = File::options().read(true).write(true).open(folder.file("damaged")).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, window + bit.0).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << bit.1], window + bit.0).unwrap();
        drop(file);
        let damaged = open(left, &clock).unwrap();
        damaged.check().unwrap();
        let found = dump(&damaged);
        assert!(found.as_ref().is_none_or(|found| *found == whole), "bit {bit:?} makes {found:?} of {whole:?}");
        kept += usize::from(found.is_some());
    }
    // Links, pins and what the LRU knows of it.
    assert!((50..150).contains(&kept), "{kept} bits say nothing");
}

#[test]
fn what_floats_at_a_kill_is_gone() {
    let (folder, clock) = (TestFolder::new(), Arc::new(Clock::new()));
    let store = open(config(&folder, "whole"), &clock).unwrap();
    for key in [&b"deleted"[..], b"replaced", b"kept"] {
        assert!(set(&store, key, b"value"));
    }
    let pin = |key: &[u8]| {
        let hash = store.hash(key);
        let mut locked = store.lock(hash);
        let id = locked.find(key, hash).unwrap();
        locked.pin(id)
    };
    let _pins = [pin(b"deleted"), pin(b"replaced")];
    let hash = store.hash(b"deleted");
    let mut locked = store.lock(hash);
    let id = locked.find(b"deleted", hash).unwrap();
    locked.unlink(id, hash);
    drop(locked);
    assert!(set(&store, b"replaced", b"newer"));
    let hash = store.hash(b"kept");
    let spec = ItemSpec { key: b"kept", key_is_binary: false, client_flags: 0, expires_at: 0 };
    let mut upload = store.upload(hash, &spec, 9000).unwrap();
    let room = upload.room().unwrap();
    room.fill(b'x');
    let n = room.len();
    upload.filled(n);
    let again = open(leave(&store, &folder, "again"), &clock).unwrap();
    again.check().unwrap();
    assert_eq!(get(&again, b"deleted"), None);
    assert_eq!(get(&again, b"replaced").as_deref(), Some(&b"newer"[..]));
    assert_eq!(get(&again, b"kept").as_deref(), Some(&b"value"[..]));
    assert_eq!(again.stats().curr_items, 2);
}

#[test]
fn a_change_that_was_cut_short_is_dropped() {
    let (folder, clock) = (TestFolder::new(), Arc::new(Clock::new()));
    let store = open(config(&folder, "whole"), &clock).unwrap();
    for n in 0..20_u8 {
        assert!(set(&store, &[b'k', n + 65], &[n; 100]));
    }
    // As a process that is killed after any of the bytes of a new value, of the same length, in the old one's place.
    let hash = store.hash(b"kC");
    let mut locked = store.lock(hash);
    let id = locked.find(b"kC", hash).unwrap();
    let at = arena::offset(id) + locked.window.value_at(locked.window.chunk(id)) + 40;
    let byte = locked.window.bytes(at, 1)[0];
    locked.window.bytes_mut(at, 1)[0] = !byte;
    drop(locked);
    let left = leave(&store, &folder, "again");
    let again = open(left, &clock).unwrap();
    assert_eq!((get(&again, b"kC"), again.stats().curr_items), (None, 19));
    again.check().unwrap();
    // The mover had copied it: one of two that are the same.
    let hash = again.hash(b"kD");
    let mut locked = again.lock(hash);
    let id = locked.find(b"kD", hash).unwrap();
    let class = locked.slab.class_of(id);
    let (copy, size) = (locked.alloc(class).unwrap(), locked.core.classes.size(class));
    locked.window.copy(arena::offset(id), arena::offset(copy), size);
    drop(locked);
    let left = leave(&again, &folder, "copied");
    let copied = open(left.clone(), &clock).unwrap();
    copied.check().unwrap();
    assert_eq!((get(&copied, b"kD"), copied.stats().curr_items), (Some(vec![3; 100]), 19));
    drop(copied);
    // Two of one key that differ cannot be.
    let mut locked = again.lock(hash);
    locked.change(copy, |header| header.expires_at += 1);
    drop(locked);
    let differ = open(leave(&again, &folder, "differ"), &clock).unwrap();
    differ.check().unwrap();
    assert_eq!((get(&differ, b"kD"), differ.stats().curr_items), (None, 18));
}

#[test]
fn files_of_other_lengths_and_machines_start_clean() {
    let (folder, clock) = (TestFolder::new(), Arc::new(Clock::new()));
    let store = open(config(&folder, "whole"), &clock).unwrap();
    assert!(set(&store, b"key", b"value"));
    let len = std::fs::metadata(folder.file("whole")).unwrap().len();
    for len in [0, 6, 4095, 4096, 2 << 20, len - 1, len + 1] {
        let left = leave(&store, &folder, "cut");
        File::options().write(true).open(folder.file("cut")).unwrap().set_len(len).unwrap();
        let cut = open(left, &clock).unwrap();
        assert_eq!(cut.stats().curr_items, 0, "{len} bytes");
        assert!(set(&cut, b"key", b"value") && cut.check().is_ok());
    }
    // A memcached's file, and one that somebody may miss.
    let left = leave(&store, &folder, "other");
    std::fs::write(folder.file("other"), vec![b'x'; 1 << 20]).unwrap();
    assert_eq!(open(left.clone(), &clock).unwrap().stats().curr_items, 0);
    std::fs::write(folder.file("other"), "my letters").unwrap();
    assert!(open(left, &clock).unwrap_err().contains("is no memory file"));
    assert_eq!(std::fs::read(folder.file("other")).unwrap(), b"my letters");
    let restart = |name: &str, change: fn(&mut crate::store::file_record::FileRecord)| {
        let left = leave(&store, &folder, name);
        let mut record = store.core.memory_file.as_ref().unwrap().record();
        change(&mut record);
        let mut bytes = record.encode().into_bytes();
        bytes.resize(4096, 0);
        let file = File::options().write(true).open(folder.file(name)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        open(left, &clock).unwrap().stats().curr_items
    };
    assert_eq!(restart("same", |_| ()), 1);
    assert_eq!(restart("boot", |record| record.boot += "x"), 0);
    assert_eq!(restart("format", |record| record.format += 1), 0);
    assert_eq!(restart("closed", |record| record.is_closed = true), 0);
    assert_eq!(restart("seed", |record| record.hash_seed += 1), 0);
    // Of the same length.
    assert_eq!(restart("cut", |record| (record.shards, record.window) = (4, record.window / 2)), 0);
    assert!(restart("one", |record| (record.shards, record.window) = (1, record.window * 2)) <= 1);
    assert_eq!(restart("flush", |record| record.flush = [u64::MAX; 3]), 0);
    assert_eq!(restart("cas", |record| record.cas = u64::MAX), 1);
    assert_eq!(restart("buckets", |record| record.buckets = usize::MAX), 1);
    assert_eq!(restart("later", |record| record.clock.zero_ms = i64::MAX), 0);
}

#[test]
fn numbers_go_on_after_the_highest_that_may_have_been_given() {
    let (folder, clock) = (TestFolder::new(), Arc::new(Clock::new()));
    let store = open(config(&folder, "whole"), &clock).unwrap();
    store.core.cas.store(1 << 50, Ordering::Relaxed);
    store.keep_file();
    (1..=100).for_each(|n| assert_eq!(store.core.next_cas(), (1 << 50) + n));
    let again = open(leave(&store, &folder, "again"), &clock).unwrap();
    assert!(again.core.next_cas() > (1 << 50) + 100);
    assert_eq!(Restored::default().and(Restored { cas: 7, ..Restored::default() }).cas, 7);
}
