//! Administrative operations and statistics of the whole store.
//!
//! Each call locks one shard after the other. So a sum over shards does not belong to one moment, as everywhere in
//! `stats`.

use super::background::{self, Background};
use super::lock_time::{Holder, LockTimes, Slice, rest};
use super::memory::classes::CLASSES;
use super::requests::Counts;
use super::shard::Shard;
use super::shard::lru::{COLD, HOT, TEMP, WARM};
use super::{
    ChangeSource, ClassSet, ClassStats, Event, EventMask, Reassign, Role, Store, StoreConfig, StoreStats, Tuning,
    hash_power,
};
use crate::journal::flush::Flushed;
use crate::sync::lock;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// cache_memlimit's bounds, as memcached's.
const MEMORY_LIMIT_MIN: u64 = 8 << 20;
const MEMORY_LIMIT_MAX: u64 = 1_000_000_000 << 20;

impl Store {
    /// flush_all at second `at`, as [`crate::clock::Clock::expires_at`] gives it. If that is 0 or has passed,
    /// everything that is stored is flushed now. A later one takes the place of a pending one; what was flushed stays
    /// flushed. Returns its lsn. Does nothing if the role does not admit `source`, which asks for it.
    pub fn flush_all(&self, at: u32, source: Option<&ChangeSource>) -> Option<u64> {
        let role = self.core.role.admit(source)?;
        let (flushed, lsn) = self.core.journal.flush_all(&self.core.flush, at);
        self.keep_flush();
        drop(role);
        if let (Some(recent), Some(lsn)) = (&self.core.recent, lsn) {
            recent.note_all(lsn);
        }
        self.unlink_flushed(flushed, |role| role.admits(source));
        lsn
    }

    /// Whether there were so many flush_alls of late that one more would have to unlink each item: see [`Flushed`].
    pub fn is_flushed_too_often(&self) -> bool {
        self.core.flush.is_exhausted(self.core.clock.now())
    }

    /// Unlinks what was flushed, as far as that is to be done at once, while `goes_on`, which is asked under each lock.
    pub(super) fn unlink_flushed(&self, flushed: Flushed, goes_on: impl Fn(&Role) -> bool) {
        match flushed {
            Flushed::Later => {}
            Flushed::Now => self.unlink_dead(),
            Flushed::ByUnlinking => (0..self.shards.len()).for_each(|index| self.unlink_all(index, &goes_on)),
        }
    }

    /// Unlinks a shard's items in slices, perhaps with some that are stored meanwhile.
    fn unlink_all(&self, index: usize, goes_on: &impl Fn(&Role) -> bool) {
        let buckets = 1 << self.lock_timed(index, Holder::Walk).table.buckets().ilog2();
        let (mut bucket, mut found) = (0, Vec::new());
        while bucket < buckets {
            let mut shard = self.lock_timed(index, Holder::Walk);
            if !goes_on(&self.core.role) {
                return;
            }
            let mut slice = Slice::new();
            while bucket < buckets && !slice.is_over() {
                shard.table.visit(bucket, buckets, |id| found.push(id));
                // This is `unlink` and not `let_go`: without a cut, the record of the flush_all would not flush these
                // items at a standby.
                for id in found.drain(..) {
                    let hash = shard.hash_of(id);
                    shard.unlink(id, hash);
                }
                bucket += 1;
            }
            drop(shard);
            rest();
        }
    }

    /// The classes that chunks are of: number, bytes of a chunk, chunks of a page.
    pub fn slab_classes(&self) -> impl Iterator<Item = (u8, usize, u32)> {
        let classes = &self.core.classes;
        (1..=classes.largest()).map(|class| (class, classes.size(class), classes.per_page(class)))
    }

    /// cache_memlimit; false when out of bounds, preallocated or in a file.
    pub fn set_memory_limit(&self, bytes: u64) -> bool {
        if self.core.config.keeps_pages() || !(MEMORY_LIMIT_MIN..=MEMORY_LIMIT_MAX).contains(&bytes) {
            return false;
        }
        self.core.pool.set_limit(bytes);
        self.core.pool.shrink();
        self.core.requests.shrink();
        true
    }

    /// slabs reassign.
    pub fn reassign(&self, src: i64, dst: i64) -> Reassign {
        let classes = 0..=i64::from(self.largest_class());
        if src == dst {
            return Reassign::Same;
        }
        if !(classes.contains(&src) || src == -1) || !classes.contains(&dst) {
            return Reassign::BadClass;
        }
        let (src, dst) = (u8::try_from(src).ok(), dst as u8);
        let pages = self.pages();
        match src {
            Some(src) if pages[usize::from(src)] < 2 => Reassign::NoSpare,
            // COMPAT(reassign_any): with no class to choose, the choice is a bad class.
            None if !(1..CLASSES).any(|class| class != usize::from(dst) && pages[class] > 1) => Reassign::BadClass,
            _ => background::reassign(self, src, dst),
        }
    }

    /// Pages by class; class 0 has the unused ones.
    fn pages(&self) -> [u64; CLASSES] {
        let mut pages = [0; CLASSES];
        for shard in self.lock_each_timed(Holder::Walk) {
            std::iter::zip(&mut pages, &shard.slab.classes).for_each(|(sum, class)| *sum += class.pages);
        }
        pages[0] = self.core.pool.unused();
        pages
    }

    /// lru_crawler crawl. False when another one runs.
    pub fn crawl(&self, classes: ClassSet) -> bool {
        self.core.requests.crawl(classes, self.core.clock.now())
    }

    /// lru_crawler enable|disable. False when it is so already.
    pub fn enable_crawler(&self, on: bool) -> bool {
        let changed = self.crawler.swap(on, Ordering::Relaxed) != on;
        self.core.requests.wake();
        changed
    }

    /// Whether the crawler is enabled.
    pub fn crawler_enabled(&self) -> bool {
        self.crawler.load(Ordering::Relaxed)
    }

    /// The highest class number.
    pub fn largest_class(&self) -> u8 {
        self.core.classes.largest()
    }

    /// The present settings.
    pub fn tuning(&self) -> Tuning {
        lock(&self.tuning).clone()
    }

    /// Changes settings.
    pub fn tune(&self, change: impl FnOnce(&mut Tuning)) {
        let mut tuning = lock(&self.tuning);
        change(&mut tuning);
        self.lock_each_timed(Holder::Walk).for_each(|mut shard| shard.tuning = tuning.clone());
    }

    /// What the store was built with; `memory_limit` and `tuning` are as they were at the start.
    pub fn config(&self) -> &StoreConfig {
        &self.core.config
    }

    /// Numbers for `stats`.
    pub fn stats(&self) -> StoreStats {
        let pool = &self.core.pool;
        let counts = self.core.requests.counts().clone();
        let mut stats = StoreStats {
            memory_limit: pool.limit(),
            slab_global_page_pool: pool.unused(),
            total_malloced: pool.taken(),
            slab_reassign_rescues: counts.rescues,
            slab_reassign_chunk_rescues: counts.chunk_rescues,
            slab_reassign_inline_reclaim: counts.inline_reclaim,
            slab_reassign_busy_items: counts.busy_items,
            slab_reassign_busy_deletes: counts.busy_deletes,
            slab_reassign_busy_nomem: counts.busy_nomem,
            slab_reassign_last_busy_status: counts.last_busy.unwrap_or("none"),
            slab_reassign_running: self.core.requests.is_moving(),
            slabs_moved: counts.slabs_moved,
            oldest_live: self.core.flush.oldest_live(),
            lru_crawler_running: self.core.requests.is_crawling(),
            lru_crawler_starts: counts.crawler_starts,
            lru_maintainer_juggles: counts.juggles,
            ..StoreStats::default()
        };
        let mut buckets = 0;
        for shard in self.lock_each_timed(Holder::Walk) {
            stats.bytes += shard.bytes;
            stats.curr_items += shard.table.items() as u64;
            stats.total_items += shard.total_items;
            stats.malloc_fails += shard.slab.malloc_fails;
            stats.hash_bytes += shard.table.bytes() as u64;
            stats.hash_is_expanding |= shard.table.wants_growth();
            stats.slabs_moved += shard.idle_pages;
            stats.ghost_hits += shard.ghost_hits;
            stats.ghost_bytes += shard.ghost.bytes() + shard.gain.bytes();
            buckets += shard.table.buckets();
        }
        stats.hash_power_level = hash_power(buckets);
        stats
    }

    /// Numbers of each class that has a page or an item, ascending.
    pub fn class_stats(&self) -> Vec<ClassStats> {
        let mut sums = vec![ClassStats::default(); CLASSES];
        for shard in self.lock_each_timed(Holder::Walk) {
            for (class, sum) in sums.iter_mut().enumerate() {
                shard.add_class_stats(class, sum);
            }
        }
        for (class, sum) in sums.iter_mut().enumerate().take(usize::from(self.largest_class()) + 1).skip(1) {
            sum.class = class as u8;
            sum.chunk_size = self.core.classes.size(class as u8) as u64;
            sum.chunks_per_page = self.core.classes.per_page(class as u8).into();
        }
        sums.retain(|sum| sum.class != 0 && (sum.total_pages > 0 || sum.number > 0));
        sums
    }

    /// stats reset.
    pub fn reset_stats(&self) {
        *self.core.requests.counts() = Counts::default();
        self.lock_times.reset();
        for mut shard in self.lock_each_timed(Holder::Walk) {
            shard.total_items = 0;
            shard.slab.malloc_fails = 0;
            shard.lrus.iter_mut().for_each(|lru| lru.counters = Default::default());
        }
    }

    /// The longest times for which shards were locked, since the last reset.
    pub fn holds(&self) -> &LockTimes {
        &self.lock_times
    }

    /// stats sizes: (size rounded up to 32, items), None without `track_sizes`.
    pub fn sizes(&self) -> Option<Vec<(u64, u64)>> {
        let mut sum = std::collections::BTreeMap::new();
        for shard in self.lock_each_timed(Holder::Walk) {
            for (&size, &items) in shard.sizes.as_ref()? {
                *sum.entry(32 * size as u64).or_insert(0) += items;
            }
        }
        Some(sum.into_iter().collect())
    }

    /// Checks every structure of every shard against every other. It is slow, for tests and debugging.
    pub fn check(&self) -> Result<(), String> {
        let mut pages = self.core.pool.unused();
        for shard in self.lock_each() {
            shard.check().map_err(|what| format!("shard {}: {what}", shard.number))?;
            pages += shard.slab.classes.iter().map(|class| class.pages).sum::<u64>();
        }
        let taken = self.core.pool.taken() / self.core.config.page_size as u64;
        if pages == taken { Ok(()) } else { Err(format!("{taken} pages were taken, {pages} are there")) }
    }

    /// Which events to keep from now on.
    pub fn keep_events(&self, mask: EventMask) {
        self.core.events.set_mask(mask);
    }

    /// The events since the last call, oldest first. Only a bounded number is kept.
    pub fn take_events(&self) -> Vec<Event> {
        self.core.events.take()
    }

    /// Starts the background threads, which stop when the returned handle is dropped.
    pub fn start_background(self: &Arc<Store>) -> Background {
        Background::start(self)
    }
}

impl Shard {
    fn add_class_stats(&self, class: usize, sum: &mut ClassStats) {
        let chunks = &self.slab.classes[class];
        let lists = &self.lrus[class].lists;
        sum.total_pages += chunks.pages;
        sum.used_chunks += chunks.used;
        sum.free_chunks += self.slab.available(class, &self.core.classes);
        sum.number += lists.iter().map(|list| list.count).sum::<u64>();
        sum.number_hot += lists[HOT].count;
        sum.number_warm += lists[WARM].count;
        sum.number_cold += lists[COLD].count;
        sum.number_temp += lists[TEMP].count;
        sum.age_hot = sum.age_hot.max(u64::from(self.idle_seconds(lists[HOT].tail)));
        sum.age_warm = sum.age_warm.max(u64::from(self.idle_seconds(lists[WARM].tail)));
        sum.age = sum.age.max(u64::from(self.idle_seconds(lists[COLD].tail)));
        sum.mem_requested += lists.iter().map(|list| list.bytes).sum::<u64>();
        sum.counters.add(&self.lrus[class].counters);
    }
}
