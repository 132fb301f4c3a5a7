//! Which class gives a page, and who gets it.
//!
//! ```text
//! each second, per shard and class:  | evictions, COLD's age, new pages | … a window of these
//! much is free and nothing moved    ─> a page to the pool
//! evicts, and what it evicts is young ─> a page from the class whose items are oldest
//! ```
//!
//! Mode 0 is off, mode 2 also gives a page to a class whenever it evicts. The rules are memcached's, decided for each
//! shard on its own.
//!
//! Beside that decision: what a command asks for, and pages above the memory limit.
//!
//! Not here: how a page is moved (`mover`).

use crate::store::Store;
use crate::store::lock_time::Holder;
use crate::store::memory::classes::CLASSES;
use crate::store::requests::NAP_MAX;
use crate::store::shard::Shard;
use crate::store::shard::lru::COLD;
use std::collections::VecDeque;
use std::time::Duration;

/// Halves of a page that must be free in a class, so that it gives one to the pool.
const FREE_HALVES: u64 = 5;

/// Pages that a class must have more than, so that it gives one to another class.
const PAGES_KEPT: u64 = 2;

/// Mode 2 looks for evictions so often.
const NAP_EAGER: Duration = Duration::from_millis(50);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Automove {
    /// By shard and class.
    windows: Vec<ClassHistory>,
    /// The second of the last look.
    looked: u32,
    /// The shard to be asked first: each has its turn.
    turn: usize,
}

/// A page to go from a class, 0 the pool, to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub shard: usize,
    pub src: u8,
    pub dst: u8,
}

/// What happened in the last seconds.
#[derive(Clone, Debug, Default)]
struct ClassHistory {
    seconds: VecDeque<Second>,
    sum: AgeSum,
    before: Before,
    /// Evictions up to mode 2's last look.
    evictions: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    age: u32,
    evictions: u32,
    dirty: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct AgeSum {
    age: u64,
    evictions: u64,
    /// Seconds with evictions.
    evicting: u64,
    /// Seconds with evictions or new pages.
    dirty: u64,
}

/// What was there a second ago.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    evictions: u64,
    pages: u64,
}

impl Automove {
    /// Nothing seen yet.
    pub(super) fn new(store: &Store) -> Automove {
        let windows = vec![ClassHistory::default(); store.shards.len() * CLASSES];
        Automove { windows, looked: store.core.clock.now(), turn: 0 }
    }

    /// How long until there may be something to decide.
    pub(super) fn nap(&self, store: &Store) -> Duration {
        if store.tuning().automove == 2 { NAP_EAGER } else { NAP_MAX }
    }

    /// A move that is worth it.
    pub(super) fn decide(&mut self, store: &Store) -> Option<Move> {
        let mode = store.tuning().automove;
        if mode == 0 {
            return None;
        }
        let eager = if mode == 2 { self.eager(store) } else { None };
        let now = store.core.clock.now();
        if eager.is_some() || now == self.looked {
            return eager;
        }
        self.looked = now;
        self.turn += 1;
        let shards = store.shards.len();
        let mut decided = None;
        // All are looked at each second, so that no window has gaps.
        for index in (0..shards).map(|index| (index + self.turn) % shards) {
            let windows = &mut self.windows[index * CLASSES..][..CLASSES];
            let move_here = store.lock_timed(index, Holder::Mover).decide(windows);
            decided = decided.or(move_here.map(|(src, dst)| Move { shard: index, src, dst }));
        }
        decided
    }

    /// Forgets the evictions that a move itself has made, or mode 2 would move the page back.
    pub(super) fn excuse(&mut self, store: &Store, done: Move) {
        let evicted = store.lock_timed(done.shard, Holder::Mover).lrus[usize::from(done.src)].counters.evicted;
        self.windows[done.shard * CLASSES + usize::from(done.src)].evictions = evicted;
    }

    /// A page for a class that has evicted since the last look.
    fn eager(&mut self, store: &Store) -> Option<Move> {
        let mut needs = None;
        for (index, shard) in store.lock_each_timed(Holder::Mover).enumerate() {
            for (class, lru) in shard.lrus.iter().enumerate() {
                let before = &mut self.windows[index * CLASSES + class].evictions;
                if lru.counters.evicted > *before {
                    needs = Some((index, class as u8));
                }
                *before = lru.counters.evicted;
            }
        }
        let (shard, dst) = needs?;
        let gives = |source: &Source| source.shard == shard && source.class != dst && source.has_spare();
        sources(store).into_iter().filter(gives).max_by_key(Source::rank).map(|source| source.to(dst))
    }
}

/// A class of a shard that a page can be taken from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub shard: usize,
    pub class: u8,
    pages: u64,
    pub free_pages: u64,
    /// Seconds that the next to be evicted was idle.
    idle: u32,
}

impl Source {
    /// The higher, the less the page will be missed.
    pub(super) fn rank(&self) -> (bool, u64, u32, u64) {
        (self.pages > 1, self.free_pages, self.idle, self.pages)
    }

    /// Whether it keeps a page.
    pub(super) fn has_spare(&self) -> bool {
        self.pages > 1
    }

    /// The move of a page of it.
    pub(super) fn to(self, dst: u8) -> Move {
        Move { shard: self.shard, src: self.class, dst }
    }
}

/// Classes with pages, of which there are more than one in all shards together.
pub(super) fn sources(store: &Store) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut pages = [0; CLASSES];
    for (index, shard) in store.lock_each_timed(Holder::Mover).enumerate() {
        for class in 1..=store.largest_class() {
            if let Some(source) = shard.source(index, class) {
                pages[usize::from(class)] += source.pages;
                sources.push(source);
            }
        }
    }
    sources.retain(|source| pages[usize::from(source.class)] > 1);
    sources
}

/// Where to do what a command asks for; no source is any class.
pub(super) fn asked(store: &Store, src: Option<u8>, dst: u8) -> Option<Move> {
    if src == Some(0) {
        let pages = |&shard: &usize| store.lock_timed(shard, Holder::Mover).slab.classes[usize::from(dst)].pages;
        let shard = (0..store.shards.len()).min_by_key(pages)?;
        return Some(Move { shard, src: 0, dst });
    }
    let sources = sources(store).into_iter();
    let fits = |source: &Source| src.map_or(source.class != dst, |src| source.class == src);
    sources.filter(fits).max_by_key(Source::rank).map(|source| source.to(dst))
}

/// The next page to give up while too much is taken. The first page of each class may be beyond the limit, as in
/// memcached; but not that of each shard. Only when the limit was lowered, a shard's class may lose its last page: it
/// would take another with its next item.
pub(super) fn above_limit(store: &Store) -> Option<Move> {
    let pool = &store.core.pool;
    let lowered = store.core.requests.is_shrinking();
    let gives = |source: &Source| lowered || source.has_spare() && !store.core.config.preallocate;
    let page = store.core.config.page_size as u64;
    let beyond = if lowered { 0 } else { page * u64::from(store.largest_class()) };
    let above = pool.taken() > pool.limit() + beyond;
    let next = if above { sources(store).into_iter().filter(gives).max_by_key(Source::rank) } else { None };
    if next.is_none() {
        store.core.requests.end_shrinking();
    }
    next.map(|source| source.to(0))
}

impl ClassHistory {
    /// Adds what happened since a second ago.
    fn add(&mut self, now: Before, age: u32, size: usize) {
        // The counter may have been reset.
        let evictions = now.evictions.checked_sub(self.before.evictions).unwrap_or(now.evictions);
        let dirty = evictions > 0 || now.pages > self.before.pages;
        self.before = now;
        while self.seconds.len() >= size {
            self.forget();
        }
        let second = Second { age, evictions: u32::try_from(evictions).unwrap_or(u32::MAX), dirty };
        self.seconds.push_back(second);
        self.sum.age += u64::from(second.age);
        self.sum.evictions += u64::from(second.evictions);
        self.sum.evicting += u64::from(second.evictions > 0);
        self.sum.dirty += u64::from(second.dirty);
    }

    fn forget(&mut self) {
        let Some(second) = self.seconds.pop_front() else { return };
        self.sum.age -= u64::from(second.age);
        self.sum.evictions -= u64::from(second.evictions);
        self.sum.evicting -= u64::from(second.evictions > 0);
        self.sum.dirty -= u64::from(second.dirty);
    }

    /// Whether it evicts most of the time, or most of what is evicted; and just now.
    fn is_evicting(&self, of_all: u64) -> bool {
        let often = self.sum.evicting > self.seconds.len() as u64 / 2;
        let much = self.sum.evictions * 4 > of_all;
        (often || much) && self.seconds.back().is_some_and(|second| second.evictions > 0)
    }
}

impl Shard {
    /// What a class can give; None without a page.
    pub(super) fn source(&self, shard: usize, class: u8) -> Option<Source> {
        let chunks = &self.slab.classes[usize::from(class)];
        let per_page = u64::from(self.core.classes.per_page(class));
        let free_pages = self.slab.available(class.into(), &self.core.classes) / per_page;
        let idle = self.idle_seconds(self.lrus[usize::from(class)].lists[COLD].tail);
        (chunks.pages > 0).then_some(Source { shard, class, pages: chunks.pages, free_pages, idle })
    }

    /// Source and destination of a move that is worth it, once a second.
    fn decide(&self, windows: &mut [ClassHistory]) -> Option<(u8, u8)> {
        let size = self.tuning.automove_window.max(1) as usize;
        let used = 1..=usize::from(self.core.classes.largest());
        for class in used.clone() {
            self.look(class, &mut windows[class], size);
        }
        let ready = used.filter(|&class| windows[class].seconds.len() == size);
        let evictions: u64 = windows.iter().map(|window| window.sum.evictions).sum();
        let (mut oldest, mut youngest) = ((0, 0), (u64::MAX, 0));
        for class in ready {
            let window = &windows[class];
            if self.has_plenty(class) && window.sum.dirty == 0 {
                return Some((class as u8, 0));
            }
            let age = window.sum.age;
            if age > oldest.0 && self.slab.classes[class].pages > PAGES_KEPT {
                oldest = (age, class as u8);
            }
            if age < youngest.0 && window.is_evicting(evictions) {
                youngest = (age, class as u8);
            }
        }
        let (src, dst) = (oldest.1, youngest.1);
        let worth = src != 0 && dst != 0 && src != dst;
        (worth && (youngest.0 as f64) < oldest.0 as f64 * self.tuning.automove_ratio).then_some((src, dst))
    }

    fn look(&self, class: usize, window: &mut ClassHistory, size: usize) {
        let pages = self.slab.classes[class].pages;
        let counters = &self.lrus[class].counters;
        if pages == 0 && window.seconds.is_empty() {
            return;
        }
        let now = Before { evictions: counters.evicted + counters.outofmemory, pages };
        window.add(now, self.idle_seconds(self.lrus[class].lists[COLD].tail), size);
    }

    /// Whether more is free in a class than it will need soon, while memory is full.
    fn has_plenty(&self, class: usize) -> bool {
        let per_page = u64::from(self.core.classes.per_page(class as u8));
        let free = self.slab.available(class, &self.core.classes);
        self.core.pool.limit_reached() && free * 2 > per_page * FREE_HALVES
    }
}

#[cfg(test)]
#[path = "tests/balance.rs"]
mod tests;
