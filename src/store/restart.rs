//! A store out of a memory file, and back into it.
//!
//! ```text
//! open_file ──> (a clock that goes on) ──> with_file: shards side by side ──> … keep_file … ──> close_file
//! ```
//!
//! Not here: what is believed (`memory_file`), one shard (`shard::restore`).

use super::memory::arena::{ALIGN, WINDOW_MAX};
use super::memory::classes::CLASSES;
use super::memory::layout::FORMAT;
use super::memory::slab::ENTRY_BYTES;
use super::memory_file::{FileFound, FileShape, MemoryFile};
use super::shard::restore::Restored;
use super::{Store, StoreConfig, WINDOW_SLACK, shard_count};
use crate::clock::Clock;
use crate::sync::lock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

impl Store {
    /// Opens the memory file, if there is to be one.
    pub fn open_file(config: &StoreConfig) -> Result<Option<MemoryFile>, String> {
        let Some(path) = &config.memory_file else { return Ok(None) };
        let config = &config.clone().fitted();
        config.validate()?;
        MemoryFile::open(path, config, shape(config)).map(Some)
    }

    /// What [`Store::open_file`] would warn of, or refuse, and touches nothing.
    pub fn check_file(config: &StoreConfig) -> Result<Vec<String>, String> {
        let config = &config.clone().fitted();
        config.validate()?;
        config.memory_file.as_ref().map_or(Ok(Vec::new()), |path| MemoryFile::check(path, config, shape(config)))
    }

    /// Builds a store with what is in the file. The clock must be one that goes on as the file says.
    pub fn with_file(config: StoreConfig, clock: Arc<Clock>, file: Option<MemoryFile>) -> Result<Arc<Store>, String> {
        let Some(file) = file else { return Store::new(config, clock) };
        let (found, flush) = (file.found(), file.record().flush);
        let store = Store::build(config, clock, Some(file))?;
        let core = &store.core;
        core.flush.restore(flush);
        let restored = if found == FileFound::Nothing { Restored::default() } else { store.restore(found)? };
        let file = core.memory_file.as_ref().expect("it was built with one");
        core.cas.store(file.next_cas(restored.cas), Ordering::Relaxed);
        file.begin(&core.clock, core.cas.load(Ordering::Relaxed));
        Ok(store)
    }

    /// Keeps the memory file up to date with what it need not have at once. Call it several times a second.
    pub fn keep_file(&self) {
        if let Some(file) = &self.core.memory_file {
            file.keep(&self.core.clock, self.core.cas.load(Ordering::Relaxed));
        }
    }

    /// Closes the memory file, if there is one, for the next server. Nobody may use the store any more.
    pub fn close_file(&self) {
        if let Some(file) = &self.core.memory_file {
            let buckets = self.lock_each().map(|shard| shard.table.buckets()).sum();
            file.close(&self.core.clock, self.core.cas.load(Ordering::Relaxed), self.core.flush.state(), buckets);
        }
    }

    /// Writes down that there was a flush_all, before anybody is told.
    pub(super) fn keep_flush(&self) {
        if let Some(file) = &self.core.memory_file {
            file.keep_flush(|| self.core.flush.state());
        }
    }

    fn restore(&self, found: FileFound) -> Result<Restored, String> {
        let begun = Instant::now();
        let (next, sum) = (AtomicUsize::new(0), Mutex::new(Some(Restored::default())));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(self.shards.len());
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(|| self.restore_shards(&next, &sum))));
        });
        let restored = lock(&sum).ok_or("[restart] no memory for what is in the memory file")?;
        let Restored { items, dropped, bad_pages, .. } = restored;
        let ms = begun.elapsed().as_millis();
        let is_whole = found == FileFound::Closed && dropped == 0 && bad_pages == 0;
        let level = if is_whole { log::Level::Info } else { log::Level::Warn };
        let how = if found == FileFound::Closed { "stopped" } else { "did not stop gracefully" };
        log::log!(
            level,
            "[restart] the last server {how}: {items} items kept in {ms} ms, {dropped} items and {bad_pages} pages dropped \
             that were not whole"
        );
        Ok(restored)
    }

    fn restore_shards(&self, next: &AtomicUsize, sum: &Mutex<Option<Restored>>) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.shards.len() {
                return;
            }
            let restored = self.lock_number(number).restore();
            let mut sum = lock(sum);
            *sum = sum.zip(restored).map(|(a, b)| a.and(b));
        }
    }
}

fn shape(config: &StoreConfig) -> FileShape {
    let shards = shard_count(config);
    FileShape { shards, windows: windows(config, shards), format: FORMAT }
}

/// A shard may take all memory, as without a file, and the first pages of all classes; or at least twice its share.
fn windows(config: &StoreConfig, shards: usize) -> [usize; 2] {
    let page = config.page_size as u64;
    let all = config.memory_limit + config.memory_limit / 8 + CLASSES as u64 * page;
    let least = WINDOW_SLACK as u64 * (config.memory_limit / shards as u64 + CLASSES as u64 * page);
    // Page 0 has to have an entry for each page.
    let most = (page * page / ENTRY_BYTES as u64).min(WINDOW_MAX as u64) as usize;
    [all, least].map(|bytes| (bytes as usize).next_multiple_of(ALIGN).min(most))
}
