//! A store for tests of the background: its clock stands still until told otherwise, and the work is done step by
//! step.

use crate::clock::Clock;
use crate::journal::Attach;
use crate::store::background::BackgroundWorker;
use crate::store::background::prefault;
use crate::store::memory::layout::state;
use crate::store::{
    ClassStats, EventMask, Hash, ItemId, ItemSpec, Locked, LruPolicy, Part, Pinned, Store, StoreConfig,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) struct TestStore {
    pub store: Arc<Store>,
    pub clock: Arc<Clock>,
    pub(in crate::store) worker: BackgroundWorker,
    begun: bool,
}

/// A folder of a test's own, in memory where that can be.
pub(crate) struct TestFolder(PathBuf);

impl TestFolder {
    pub(crate) fn new() -> TestFolder {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let memory = std::env::var_os("MEMORY_TMPDIR").filter(|place| !place.is_empty());
        let memory = memory.map_or("/dev/shm".into(), PathBuf::from);
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("twincache-store-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        TestFolder(path)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One shard of tiny pages.
pub(crate) fn tiny() -> StoreConfig {
    StoreConfig {
        memory_limit: 256 << 10,
        page_size: 4096,
        slab_chunk_max: 2048,
        item_size_max: 64 << 10,
        growth_factor: Some(1.5),
        shards: Some(1),
        ..StoreConfig::default()
    }
}

/// The same in memcached's order.
pub(crate) fn tiny_as_memcached() -> StoreConfig {
    StoreConfig { lru_policy: LruPolicy::Memcached, ..tiny() }
}

impl TestStore {
    pub(crate) fn new(config: StoreConfig) -> TestStore {
        let clock = Arc::new(Clock::new());
        clock.pause(true);
        let file = Store::open_file(&config).unwrap();
        let store = Store::with_file(config, clock.clone(), file).unwrap();
        store.keep_events(EventMask { evictions: true, system: true });
        let worker = BackgroundWorker::new(&store);
        TestStore { store, clock, worker, begun: false }
    }

    pub(crate) fn set(&self, key: &str, value: &[u8], exptime: i64) -> bool {
        let hash = self.store.hash(key.as_bytes());
        let expires_at = self.clock.expires_at(exptime);
        let spec = ItemSpec { key: key.as_bytes(), key_is_binary: false, client_flags: 7, expires_at };
        let mut locked = self.store.lock(hash);
        let Ok(new) = locked.create(&spec, &[Part::Bytes(value)]) else { return false };
        put(&mut locked, key.as_bytes(), hash, new, None);
        true
    }

    /// Sets an item in the chunk that it has. False when that cannot be.
    pub(crate) fn reset(&self, key: &str, value: &[u8], exptime: i64) -> bool {
        let hash = self.store.hash(key.as_bytes());
        let expires_at = self.clock.expires_at(exptime);
        let spec = ItemSpec { key: key.as_bytes(), key_is_binary: false, client_flags: 7, expires_at };
        self.store.lock(hash).rewrite(&spec, hash, value, None).is_some()
    }

    /// The value; a fetch as a client's.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let hash = self.store.hash(key.as_bytes());
        let mut locked = self.store.lock(hash);
        let id = locked.find(key.as_bytes(), hash).ok()?;
        let mut value = Vec::new();
        locked.item(id).copy_value(&mut value);
        locked.bump(id);
        Some(value)
    }

    pub(crate) fn unlink(&self, key: &str) {
        let hash = self.store.hash(key.as_bytes());
        let mut locked = self.store.lock(hash);
        let id = locked.find(key.as_bytes(), hash).unwrap();
        locked.unlink(id, hash);
    }

    pub(crate) fn pin(&self, key: &str) -> Pinned {
        let hash = self.store.hash(key.as_bytes());
        let mut locked = self.store.lock(hash);
        let id = locked.find(key.as_bytes(), hash).unwrap();
        locked.pin(id)
    }

    /// The list an item is in.
    pub(crate) fn lru(&self, key: &str) -> usize {
        let hash = self.store.hash(key.as_bytes());
        let mut locked = self.store.lock(hash);
        let id = locked.find(key.as_bytes(), hash).unwrap();
        usize::from(locked.item(id).header().chunk.state & state::LRU)
    }

    /// Lets a second pass, and the background work meanwhile.
    pub(crate) fn second(&mut self) {
        self.clock.advance(1);
        self.steps(20);
    }

    /// Steps of the background, without time for the clients.
    pub(crate) fn steps(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.store.core.requests.take_wanted() || !std::mem::replace(&mut self.begun, true) {
                prefault::prepare(&self.store);
            }
            self.worker.step(&self.store, Duration::from_secs(1));
        }
        self.store.check().unwrap();
    }

    /// Steps of the mover alone: of many slices each is one.
    pub(crate) fn mover_steps(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.worker.step_mover(&self.store));
        self.store.check().unwrap();
    }

    /// Numbers of all classes together, by `of`.
    pub(crate) fn sum(&self, of: impl Fn(&ClassStats) -> u64) -> u64 {
        self.store.class_stats().iter().map(of).sum()
    }
}

/// In the place of the thread that gets memory ahead.
impl Store {
    pub(crate) fn serve_memory(&self, on: bool) {
        self.core.requests.serve(on);
    }

    /// Gets what is wanted. How far memory of the first shard is ready, and how far it is used.
    pub(crate) fn get_memory(&self) -> (usize, usize) {
        let before = self.memory_looks();
        prefault::prepare(self);
        assert_ne!(self.memory_looks(), before, "who waits is not told");
        let shard = self.lock_number(0);
        (shard.window.ready(), shard.slab.next_end() - self.core.config.page_size)
    }
}

/// Such a store, and a moment.
pub(crate) fn rig() -> (TestStore, Instant) {
    (TestStore::new(tiny()), Instant::now())
}

/// One that wants to read the journal, and knows nothing of it.
pub(crate) fn attach_as<'a>(name: &'a str, identity: &'a str) -> Attach<'a> {
    Attach { name, identity, run_id: None, lsn: None }
}

/// Puts a new item in the place of what the key has, if it has anything.
pub(crate) fn put(locked: &mut Locked<'_>, key: &[u8], hash: Hash, new: ItemId, cas: Option<u64>) {
    match locked.find(key, hash) {
        Ok(old) => locked.replace(old, new, hash, cas),
        Err(_) => locked.link(new, hash, cas),
    }
}
