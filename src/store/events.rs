//! Events of the store for the `watch` streams. They are kept only while somebody watches, and only a bounded number.

use crate::sync::lock;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// The most events between two calls of `take_events`. With ten calls a second this is more than a watcher can read.
const KEPT: usize = 4096;

const EVICTIONS: u8 = 1;
const SYSTEM: u8 = 2;

/// What happened in the store without a client asking for it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of memcached's log lines")]
pub enum Event {
    /// A live item was evicted.
    Evict { key: Vec<u8>, fetched: bool, ttl: i64, last_access_age: u32, class: u8, size: usize },
    /// One LRU of one class was crawled.
    Crawled {
        class: u8,
        lru: u8,
        low_mark: u64,
        next_reclaims: u64,
        since_run: u64,
        next_run: u64,
        elapsed: u64,
        examined: u64,
        reclaimed: u64,
    },
    /// A page was moved, or could not be.
    SlabMove { src: u8, dst: u8, ok: bool },
}

/// Which events to keep for [`take_events`](super::Store::take_events).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventMask {
    /// Keep `Evict`.
    pub evictions: bool,
    /// Keep `Crawled` and `SlabMove`.
    pub system: bool,
}

/// The events of a store.
#[derive(Debug, Default)]
pub struct Events {
    mask: AtomicU8,
    kept: Mutex<VecDeque<Event>>,
}

impl Events {
    /// Which events to keep from now on.
    pub fn set_mask(&self, mask: EventMask) {
        let bits = if mask.evictions { EVICTIONS } else { 0 } | if mask.system { SYSTEM } else { 0 };
        self.mask.store(bits, Ordering::Relaxed);
        if bits == 0 {
            lock(&self.kept).clear();
        }
    }

    /// Whether `Evict` is kept.
    #[inline]
    pub fn wants_evictions(&self) -> bool {
        self.mask.load(Ordering::Relaxed) & EVICTIONS != 0
    }

    /// Whether `Crawled` and `SlabMove` are kept.
    pub fn wants_system(&self) -> bool {
        self.mask.load(Ordering::Relaxed) & SYSTEM != 0
    }

    /// Keeps an event; the oldest is dropped when there are too many.
    pub fn keep(&self, event: Event) {
        let mut kept = lock(&self.kept);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
    }

    /// Takes all that were kept, oldest first.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.kept)).into()
    }
}
