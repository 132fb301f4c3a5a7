//! Rng commands on a small store with tiny pages and a clock of its own, against a plain map.
//!
//! Evictions are told by events, so the map knows exactly what must be there: every lookup has one right answer.
//! Replay a failure with `TWINCACHE_SEED=<the printed seed> cargo test store_model`.

use super::rig::{self, TestStore, put};
use super::*;
use crate::store::background::BackgroundWorker;
use crate::testing::{Rng, seeds};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const STEPS: usize = 30_000;

/// Between two checks of every structure.
const CHECK_EVERY: usize = 500;

const KEYS: u64 = 300;

#[derive(Clone)]
struct Expected {
    value: Vec<u8>,
    client_flags: u32,
    expires_at: u32,
    accessed: u32,
    cas: u64,
}

struct Model {
    store: Arc<Store>,
    clock: Arc<Clock>,
    worker: BackgroundWorker,
    rng: Rng,
    items: BTreeMap<Vec<u8>, Expected>,
    pending_flush: u32,
    pinned: Vec<(Pinned, Vec<u8>)>,
    uploads: Vec<(Upload, Vec<u8>, Expected, usize)>,
    refused: usize,
    stored: usize,
    rewritten: usize,
    /// Pages that were moved before the last restart.
    moved: u64,
    folder: Option<rig::TestFolder>,
}

impl Model {
    fn new(mut config: StoreConfig, seed: u64) -> Model {
        let folder = config.memory_file.is_some().then(rig::TestFolder::new);
        if let Some(folder) = &folder {
            config.memory_file = Some(folder.file("0"));
        }
        let TestStore { store, clock, worker, .. } = TestStore::new(config);
        Model {
            moved: 0,
            folder,
            worker,
            store,
            clock,
            rng: Rng(seed),
            items: BTreeMap::new(),
            pending_flush: 0,
            pinned: Vec::new(),
            uploads: Vec::new(),
            refused: 0,
            stored: 0,
            rewritten: 0,
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            self.step();
            self.background();
            self.forget();
            if step % CHECK_EVERY == 0 {
                self.check();
            }
            if self.folder.is_some() && self.rng.one_in(1000) {
                self.restart(step);
                self.check();
            }
        }
        self.pinned.clear();
        self.uploads.clear();
        self.check();
        let moved = self.moved + self.store.stats().slabs_moved;
        assert!(moved > 20, "only {moved} pages were moved");
        assert!(self.stored > STEPS / 20, "only {} were stored", self.stored);
        let rewrites = self.store.core.config.maintainer;
        assert!(!rewrites || self.rewritten > STEPS / 200, "only {} were rewritten", self.rewritten);
        assert!(self.store.core.config.evict || self.refused > 0, "memory was never full");
        assert_eq!(self.store.core.lent.load(Ordering::Relaxed), 0);
    }

    /// Goes on with what a process would leave that is killed now, or stops gracefully.
    fn restart(&mut self, step: usize) {
        let folder = self.folder.as_ref().expect("a memory file");
        let old = self.store.clone();
        let (is_graceful, before) = (self.rng.one_in(3), lists(&old));
        if is_graceful {
            old.close_file();
        }
        let mut config = old.core.config.clone();
        let (from, to) = (config.memory_file.take().unwrap(), folder.file(&step.to_string()));
        std::fs::copy(&from, &to).unwrap();
        if is_graceful {
            std::fs::copy(from.clone() + ".meta", to.clone() + ".meta").unwrap();
        }
        config.memory_file = Some(to);
        let file = Store::open_file(&config).unwrap();
        self.store = Store::with_file(config, self.clock.clone(), file).unwrap();
        self.store.keep_events(EventMask { evictions: true, system: true });
        self.worker = BackgroundWorker::new(&self.store);
        let sums = |store: &Store| (store.stats().bytes, store.stats().curr_items);
        assert!((lists(&self.store), sums(&self.store)) == (before, sums(&old)), "other items, or in another order");
        let last = |store: &Store| store.core.cas.load(Ordering::Relaxed);
        assert!(if is_graceful { last(&self.store) == last(&old) } else { last(&self.store) > last(&old) });
        self.moved += old.stats().slabs_moved;
        self.pinned.clear();
        self.uploads.clear();
        std::fs::remove_file(from).unwrap();
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..35 => self.set(),
            35..60 => self.get(),
            60..66 => self.delete(),
            66..72 => self.append(),
            72..76 => self.touch(),
            76..80 => self.overwrite(),
            80..84 => self.pin(),
            84..88 => self.unpin(),
            88..92 => self.begin_upload(),
            92..98 => self.go_on_uploading(),
            98 => {
                let seconds = self.rng.below(3) as i64;
                self.clock.advance(seconds);
            }
            _ if self.rng.one_in(5) => self.flush(),
            _ => {}
        }
    }

    /// What the background thread does meanwhile, and what it is asked to.
    fn background(&mut self) {
        if self.rng.one_in(200) {
            self.store.crawl(ClassSet(self.rng.next().into()));
        }
        if self.rng.one_in(200) {
            let segmented = self.store.core.config.maintainer && self.rng.one_in(2);
            self.store.tune(|tuning| tuning.segmented = segmented);
        }
        if self.rng.one_in(50) {
            let classes = u64::from(self.store.largest_class()) + 1;
            let (src, dst) = (self.rng.below(classes + 1) as i64 - 1, self.rng.below(classes) as i64);
            self.store.reassign(src, dst);
        }
        if self.rng.one_in(500) {
            self.change_limit();
        }
        if self.rng.one_in(2) {
            self.worker.step(&self.store, Duration::from_millis(self.rng.below(300)));
        }
    }

    /// As cache_memlimit does, without its lower bound; and the automatic page moves.
    fn change_limit(&mut self) {
        let limit = self.store.core.config.memory_limit;
        let limit = limit / 4 + self.rng.below(limit);
        self.store.core.pool.set_limit(limit);
        self.store.core.pool.shrink();
        self.store.core.requests.shrink();
        let (automove, automove_window) = (self.rng.below(3) as u8, 3 + self.rng.below(4) as u32);
        self.store.tune(|tuning| *tuning = Tuning { automove, automove_window, ..tuning.clone() });
    }

    /// Forgets what the store had to evict, and what time has taken.
    fn forget(&mut self) {
        for event in self.store.take_events() {
            let Event::Evict { key, .. } = event else { continue };
            self.items.remove(&key).expect("evicted what was not there");
        }
        let now = self.clock.now();
        self.items.retain(|_, item| item.expires_at == 0 || item.expires_at > now);
        if self.pending_flush != 0 && now >= self.pending_flush - 1 {
            let at = self.pending_flush;
            self.items.retain(|_, item| item.accessed >= at);
            if now >= at {
                self.pending_flush = 0;
            }
        }
    }

    fn check(&mut self) {
        self.store.check().unwrap();
        let (store, mut seen) = (self.store.clone(), BTreeMap::new());
        let mut dump = store.dump(ClassSet::ALL).expect("few dumps");
        while dump.next(&mut |item| {
            assert!(seen.insert(item.key().to_vec(), item.cas()).is_none(), "dumped twice");
        }) {}
        let expected: BTreeMap<_, _> = self.items.iter().map(|(key, item)| (key.clone(), item.cas)).collect();
        assert!(seen == expected, "dumped {} items of {}", seen.len(), expected.len());
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.rng.below(KEYS);
        let mut key = format!("key{n}").into_bytes();
        key.resize(key.len() + (n * 7 % 40) as usize, b'-');
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let max = self.store.core.config.item_size_max as u64;
        let len = match self.rng.below(20) {
            0..12 => self.rng.below(100),
            12..18 => self.rng.below(1000),
            18 => self.rng.below(max),
            _ => max - 60 + self.rng.below(80),
        };
        self.rng.bytes(len as usize)
    }

    fn expected(&mut self) -> Expected {
        let value = self.value();
        let client_flags = if self.rng.one_in(2) { self.rng.next() as u32 } else { 0 };
        let exptime = if self.rng.one_in(3) { self.rng.below(12) as i64 - 1 } else { 0 };
        Expected { value, client_flags, expires_at: self.clock.expires_at(exptime), accessed: 0, cas: 0 }
    }

    fn set(&mut self) {
        let (key, mut item) = (self.key(), self.expected());
        if let Some(old) = self.items.get(&key)
            && self.rng.one_in(2)
        {
            item.value = self.rng.bytes(old.value.len());
        }
        let cas = self.rng.one_in(4).then(|| self.rng.next());
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let spec = spec(&key, &item);
        let mut locked = store.lock(hash);
        let rewritten =
            self.rng.one_in(2).then(|| locked.rewrite(&spec, hash, &item.value, cas)).flatten().map(|(id, ..)| id);
        let new = match rewritten {
            Some(id) => Ok(id),
            None => locked.create(&spec, &[Part::Bytes(&item.value)]),
        };
        match new {
            Ok(new) => {
                if rewritten.is_none() {
                    put(&mut locked, &key, hash, new, cas);
                }
                self.rewritten += usize::from(rewritten.is_some());
                (item.cas, item.accessed) = (locked.item(new).cas(), self.clock.now());
                assert_eq!(locked.item(new).client_flags(), item.client_flags);
                drop(locked);
                self.forget();
                self.items.insert(key, item);
                self.stored += 1;
            }
            Err(error) => {
                let too_large = is_too_large(&store, key.len(), item.client_flags, item.value.len());
                assert_eq!(error == AllocError::TooLarge, too_large);
                self.refused += usize::from(!too_large);
            }
        }
    }

    fn get(&mut self) {
        let key = self.key();
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        store.prefetch(hash);
        let mut locked = store.lock(hash);
        let found = locked.find(&key, hash);
        assert_eq!(found.is_ok(), self.items.contains_key(&key), "{found:?}");
        let (Ok(id), Some(expected)) = (found, self.items.get_mut(&key)) else { return };
        same(locked.item(id), expected);
        locked.count_get(id);
        locked.bump(id);
        if self.rng.one_in(10) {
            locked.set_accessed(id);
        }
        expected.accessed = locked.item(id).last_access();
    }

    fn delete(&mut self) {
        let key = self.key();
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let found = locked.find(&key, hash);
        assert_eq!(found.is_ok(), self.items.remove(&key).is_some());
        if let Ok(id) = found {
            locked.unlink(id, hash);
        }
    }

    fn append(&mut self) {
        let (key, more, before) = (self.key(), self.value(), self.rng.one_in(2));
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let Ok(old) = locked.find(&key, hash) else { return };
        let mut item = self.items[&key].clone();
        let parts = if before {
            item.value.splice(0..0, more.iter().copied());
            [Part::Bytes(&more), Part::Value(old)]
        } else {
            item.value.extend(&more);
            [Part::Value(old), Part::Bytes(&more)]
        };
        if let Ok(new) = locked.create(&spec(&key, &item), &parts) {
            locked.replace(old, new, hash, None);
            (item.cas, item.accessed) = (locked.item(new).cas(), self.clock.now());
            self.items.insert(key, item);
        }
    }

    fn touch(&mut self) {
        let key = self.key();
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let Ok(id) = locked.find(&key, hash) else { return };
        let expires_at = self.clock.expires_at(self.rng.below(20) as i64);
        locked.set_expires_at(id, expires_at);
        self.items.get_mut(&key).unwrap().expires_at = expires_at;
    }

    fn overwrite(&mut self) {
        let key = self.key();
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let Ok(id) = locked.find(&key, hash) else { return };
        let value = self.rng.bytes(self.items[&key].value.len());
        if locked.overwrite(id, &value) {
            let cas = locked.next_cas();
            locked.set_cas(id, cas);
            let item = self.items.get_mut(&key).unwrap();
            (item.value, item.cas) = (value, cas);
        }
    }

    fn pin(&mut self) {
        let key = self.key();
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let Ok(id) = locked.find(&key, hash) else { return };
        if self.pinned.len() < 6 {
            self.pinned.push((locked.pin(id), self.items[&key].value.clone()));
        }
    }

    fn unpin(&mut self) {
        if self.pinned.is_empty() {
            return;
        }
        let at = self.rng.below(self.pinned.len());
        let (pinned, value) = self.pinned.swap_remove(at);
        let skip = self.rng.below(value.len() + 1);
        let mut slices = Vec::new();
        pinned.io_slices(skip, &mut slices);
        assert!(slices.iter().flat_map(|slice| slice.iter()).eq(&value[skip..]), "a wrong pinned value");
    }

    fn begin_upload(&mut self) {
        if self.uploads.len() >= 4 {
            return;
        }
        let (key, item) = (self.key(), self.expected());
        let hash = self.store.hash(&key);
        match self.store.upload(hash, &spec(&key, &item), item.value.len()) {
            Ok(upload) => self.uploads.push((upload, key, item, 0)),
            Err(AllocError::TooLarge) => {
                assert!(is_too_large(&self.store, key.len(), item.client_flags, item.value.len()))
            }
            Err(AllocError::NoMemory) => self.refused += 1,
        }
    }

    fn go_on_uploading(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let at = self.rng.below(self.uploads.len());
        let (mut upload, key, item, mut filled) = self.uploads.swap_remove(at);
        if self.rng.one_in(6) {
            return;
        }
        for _ in 0..self.rng.below(5) {
            let Ok(room) = upload.room() else { return };
            assert_eq!(room.is_empty(), filled == item.value.len());
            let n = self.rng.below(3000).min(room.len());
            room[..n].copy_from_slice(&item.value[filled..filled + n]);
            filled += n;
            upload.filled(n);
        }
        if upload.is_complete() {
            self.finish(upload, key, item);
        } else {
            self.uploads.push((upload, key, item, filled));
        }
    }

    fn finish(&mut self, upload: Upload, key: Vec<u8>, mut item: Expected) {
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let new = locked.finish(upload).unwrap();
        if self.rng.one_in(5) {
            return locked.free(new);
        }
        put(&mut locked, &key, hash, new, None);
        (item.cas, item.accessed) = (locked.item(new).cas(), self.clock.now());
        drop(locked);
        self.forget();
        self.items.insert(key, item);
        self.stored += 1;
    }

    fn flush(&mut self) {
        let delay = self.rng.below(6) as i64 - 1;
        let at = self.clock.expires_at(delay);
        self.store.flush_all(at, None);
        if delay <= 0 {
            self.items.clear();
            self.pending_flush = 0;
        } else {
            self.pending_flush = at;
        }
    }
}

fn spec<'a>(key: &'a [u8], item: &Expected) -> ItemSpec<'a> {
    ItemSpec { key, key_is_binary: false, client_flags: item.client_flags, expires_at: item.expires_at }
}

fn same(item: Item<'_>, expected: &Expected) {
    let mut value = Vec::new();
    item.copy_value(&mut value);
    assert!(value == expected.value, "a wrong value");
    assert_eq!(item.value().is_none(), item.is_chunked());
    assert_eq!(item.value_len(), expected.value.len());
    assert_eq!((item.client_flags(), item.cas()), (expected.client_flags, expected.cas));
    assert_eq!((item.expires_at(), item.last_access()), (expected.expires_at, expected.accessed));
}

/// The keys of each list, oldest first.
fn lists(store: &Store) -> Vec<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    for shard in store.lock_each() {
        for lru in &shard.lrus {
            for list in lru.lists {
                let next = |&id: &ItemId| Some(shard.window.chunk(id).prev);
                let ids = std::iter::successors(Some(list.tail), next).take_while(|&id| id != ItemId::NONE);
                keys.push(ids.map(|id| shard.key(id).to_vec()).collect());
            }
        }
    }
    keys
}

fn tiny() -> StoreConfig {
    StoreConfig { item_size_max: 12_000, ..rig::tiny() }
}

fn model(name: &str, config: StoreConfig) {
    println!("store_model {name}");
    seeds(1).for_each(|seed| Model::new(config.clone(), seed).run());
}

#[test]
fn store_model_native() {
    model("native", tiny());
}

#[test]
fn store_model_memory_file() {
    let config = StoreConfig { memory_file: Some(String::new()), shards: Some(2), ..tiny() };
    model("memory file", StoreConfig { memory_limit: 512 << 10, ..config.clone() });
    let config = StoreConfig { accounting: Accounting::Memcached, growth_factor: None, ..config };
    model("memory file, memcached", StoreConfig { memory_limit: 384 << 10, track_sizes: true, ..config });
}

#[test]
fn store_model_memcached_accounting() {
    let config = StoreConfig { accounting: Accounting::Memcached, growth_factor: None, ..tiny() };
    model("memcached", StoreConfig { track_sizes: true, ..config });
}

#[test]
fn store_model_without_eviction() {
    model("-M", StoreConfig { evict: false, memory_limit: 96 << 10, ..tiny() });
}

#[test]
fn store_model_shards() {
    model("shards", StoreConfig { shards: Some(4), memory_limit: 512 << 10, ..tiny() });
}

#[test]
fn store_model_without_cas() {
    let config = StoreConfig { cas_enabled: false, ..tiny() };
    model("-C", config.clone());
    model("-C, memcached", StoreConfig { accounting: Accounting::Memcached, ..config.clone() });
    let file = StoreConfig { memory_file: Some(String::new()), shards: Some(2), memory_limit: 512 << 10, ..config };
    model("-C, memory file", file);
}

#[test]
fn store_model_flat() {
    model("flat", StoreConfig { maintainer: false, ..tiny() });
}

#[test]
fn store_model_temp() {
    let tuning = Tuning { temporary_ttl: Some(5), ..Tuning::default() };
    model("temp", StoreConfig { tuning, ..tiny() });
}

#[test]
fn store_model_whole_pages() {
    model("pages", StoreConfig { slab_chunk_max: 4096, item_size_max: 4096, ..tiny() });
}

/// The value that a key has in [`store_threads`]: any mixture of two is none.
fn telling(key: &[u8], salt: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(xxhash_rust::xxh3::xxh3_64_with_seed(key, salt) | 1);
    let mut value = salt.to_le_bytes().to_vec();
    value.extend(std::iter::repeat_with(|| rng.next() as u8).take(len));
    value
}

fn is_telling(key: &[u8], value: &[u8]) -> bool {
    let salt = u64::from_le_bytes(value[..8].try_into().unwrap());
    value == telling(key, salt, value.len() - 8)
}

fn collect(pinned: &Pinned) -> Vec<u8> {
    let mut slices = Vec::new();
    pinned.io_slices(0, &mut slices);
    slices.iter().flat_map(|slice| slice.iter().copied()).collect()
}

/// Whether an item of this shape is above `-I`.
fn is_too_large(store: &Store, key_len: usize, client_flags: u32, value_len: usize) -> bool {
    store.core.sizing.total(key_len, client_flags != 0, value_len) > store.core.sizing.item_max
}

/// One of several threads that store, read in and out of the lock, upload, delete and flush.
fn hammer(store: &Arc<Store>, seed: u64) {
    let mut rng = Rng(seed);
    let mut held = Vec::new();
    for _ in 0..STEPS / 3 {
        let key = format!("key{}", rng.below(KEYS)).into_bytes();
        let len = if rng.one_in(8) { rng.below(11_000) } else { rng.below(300) } as usize;
        let value = telling(&key, rng.next(), len);
        store.prefetch(store.hash(&key));
        store.prefetch_items(&[(store.hash(&key), true)]);
        store.prefetch_around(&[(store.hash(&key), true)]);
        match rng.below(20) {
            0..6 => hammer_create(store, &key, &value),
            6..9 => hammer_upload(store, &key, &value),
            9 => hammer_change(store, &key, |locked, id, hash| locked.unlink(id, hash)),
            10 => hammer_change(store, &key, |locked, id, _| {
                let value = telling(&key, rng.next(), locked.item(id).value_len() - 8);
                locked.overwrite(id, &value);
            }),
            11 if rng.one_in(200) => _ = store.flush_all(0, None),
            _ => held.extend(hammer_read(store, &key).map(|pinned| (key, pinned))),
        }
        if held.len() > 5 {
            let (key, pinned) = held.swap_remove(rng.below(5) as usize);
            assert!(is_telling(&key, &collect(&pinned)), "a torn value outside the lock");
        }
    }
}

fn plain(key: &[u8]) -> ItemSpec<'_> {
    ItemSpec { key, key_is_binary: false, client_flags: 0, expires_at: 0 }
}

fn hammer_create(store: &Arc<Store>, key: &[u8], value: &[u8]) {
    let hash = store.hash(key);
    let mut locked = store.lock(hash);
    if let Ok(new) = locked.create(&plain(key), &[Part::Bytes(value)]) {
        put(&mut locked, key, hash, new, None);
    }
}

fn hammer_upload(store: &Arc<Store>, key: &[u8], value: &[u8]) {
    let hash = store.hash(key);
    let Ok(mut upload) = store.upload(hash, &plain(key), value.len()) else { return };
    let mut rest = value;
    while !upload.is_complete() {
        let Ok(room) = upload.room() else { return };
        let (now, later) = rest.split_at(room.len().min(700));
        room[..now.len()].copy_from_slice(now);
        upload.filled(now.len());
        rest = later;
    }
    let mut locked = store.lock(hash);
    let new = locked.finish(upload).unwrap();
    put(&mut locked, key, hash, new, None);
}

fn hammer_change(store: &Arc<Store>, key: &[u8], change: impl FnOnce(&mut Locked<'_>, ItemId, Hash)) {
    let hash = store.hash(key);
    let mut locked = store.lock(hash);
    if let Ok(id) = locked.find(key, hash) {
        change(&mut locked, id, hash);
    }
}

fn hammer_read(store: &Arc<Store>, key: &[u8]) -> Option<Pinned> {
    let hash = store.hash(key);
    let mut locked = store.lock(hash);
    let id = locked.find(key, hash).ok()?;
    locked.bump(id);
    let mut value = Vec::new();
    locked.item(id).copy_value(&mut value);
    assert!(is_telling(key, &value), "a torn value");
    Some(locked.pin(id))
}

/// Asks for all there is to be done in the background, and lets time pass, until told to stop.
fn drive_background(store: &Arc<Store>, clock: &Clock, stop: &AtomicBool) {
    let mut rng = Rng(4711);
    while !stop.load(Ordering::Relaxed) {
        let classes = u64::from(store.largest_class()) + 1;
        store.reassign(rng.below(classes + 1) as i64 - 1, rng.below(classes) as i64);
        store.crawl(ClassSet(rng.next().into()));
        let automove = rng.below(3) as u8;
        store.tune(|tuning| (tuning.automove, tuning.automove_window) = (automove, 3));
        clock.advance(i64::from(rng.one_in(10)));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn store_threads_and_background() {
    let config = StoreConfig { shards: Some(2), memory_limit: 160 << 10, ..tiny() };
    let clock = Arc::new(Clock::new());
    let store = Store::new(config, clock.clone()).unwrap();
    let background = store.start_background();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| drive_background(&store, &clock, &stop));
        let hammers: Vec<_> = (1..=4)
            .map(|seed| {
                scope.spawn({
                    let store = &store;
                    move || hammer(store, seed * 104_729)
                })
            })
            .collect();
        let results: Vec<_> = hammers.into_iter().map(|thread| thread.join()).collect();
        // The background may have had little of the processor so far.
        let end = Instant::now() + Duration::from_secs(60);
        while !has_done_everything(&store.stats()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(results.iter().all(|result| result.is_ok()));
    });
    drop(background);
    store.check().unwrap();
    let stats = store.stats();
    assert!(has_done_everything(&stats), "{stats:?}");
}

fn has_done_everything(stats: &StoreStats) -> bool {
    stats.slabs_moved > 0 && stats.lru_crawler_starts > 0 && stats.lru_maintainer_juggles > 0
}

#[test]
fn store_threads() {
    let config = StoreConfig { shards: Some(2), memory_limit: 160 << 10, ..tiny() };
    let store = Store::new(config, Arc::new(Clock::new())).unwrap();
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn({
                let store = &store;
                move || hammer(store, seed * 7919)
            });
        }
    });
    store.check().unwrap();
    assert_eq!(store.core.lent.load(Ordering::Relaxed), 0);
    assert!(store.class_stats().iter().map(|class| class.counters.evicted).sum::<u64>() > 0);
}

/// One item as large as may be.
fn one_large_item(item_size_max: usize) {
    let config = StoreConfig { memory_limit: 3 * item_size_max as u64, item_size_max, ..StoreConfig::default() };
    let store = Store::new(config, Arc::new(Clock::new())).unwrap();
    let hash = store.hash(b"large");
    let spec = ItemSpec { key: b"large", key_is_binary: false, client_flags: 7, expires_at: 0 };
    let len = item_size_max - 32 - 5 - 4;
    assert!(!is_too_large(&store, 5, 7, len) && is_too_large(&store, 5, 7, len + 1));
    for round in 1..=3 {
        let mut upload = store.upload(hash, &spec, len).unwrap();
        while !upload.is_complete() {
            let room = upload.room().unwrap();
            room.fill(round);
            let n = room.len();
            upload.filled(n);
        }
        let mut locked = store.lock(hash);
        let new = locked.finish(upload).unwrap();
        put(&mut locked, b"large", hash, new, None);
        let pinned = locked.pin(new);
        drop(locked);
        let mut slices = Vec::new();
        pinned.io_slices(1, &mut slices);
        assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), len - 1);
        assert!(slices.iter().all(|slice| slice.iter().all(|&byte| byte == round)));
    }
    assert_eq!((store.stats().curr_items, store.stats().bytes), (1, item_size_max as u64));
    store.check().unwrap();
}

#[test]
fn a_large_item() {
    one_large_item(16 << 20);
}

/// Takes 3 GiB: `cargo test --release -- --ignored`.
#[test]
#[ignore]
fn the_largest_item() {
    one_large_item(1 << 30);
}

#[test]
fn the_memory_limit_up_and_down() {
    let config = StoreConfig { memory_limit: 8 << 20, accounting: Accounting::Memcached, ..StoreConfig::default() };
    let store = Store::new(config, Arc::new(Clock::new())).unwrap();
    let fill = |from: usize, count: usize| {
        for n in from..from + count {
            let key = format!("key{n}").into_bytes();
            let hash = store.hash(&key);
            let mut locked = store.lock(hash);
            let new = locked.create(&plain(&key), &[Part::Bytes(&[1; 5000])]).unwrap();
            locked.link(new, hash, None);
        }
    };
    fill(0, 3000);
    assert_eq!(store.stats().total_malloced, 8 << 20);
    assert!(!store.set_memory_limit((8 << 20) - 1));
    assert!(store.set_memory_limit(12 << 20));
    fill(3000, 3000);
    assert_eq!(store.stats().total_malloced, 12 << 20);
    store.check().unwrap();
}
