//! Which class gives a page, and who gets it.
//!
//! ```text
//! each second, per shard and class:  | evictions, COLD's age, new pages | … a window of these
//! much is free and nothing moved    ─> its pages to the pool, until it is not much any more
//! the gain of a page is known        ─> from where it is least to where it is greatest (`gradient`)
//! else: evicts, and what it evicts is young ─> a page from the class whose items are oldest
//! ```
//!
//! Mode 0 is off, mode 2 also gives a page to a class whenever it evicts. The rules are memcached's but for the gain,
//! which mode 1 goes by while the order is S3-FIFO. It is not known where nobody asks for keys, such as on a follower,
//! which must make the room that its feeder makes. Each shard decides on its own.
//!
//! Beside that decision: what a command asks for, and pages above the memory limit.
//!
//! Not here: how a page is moved (`mover`).

use super::gradient::Gradient;
use crate::store::lock_time::Holder;
use crate::store::memory::classes::CLASSES;
use crate::store::requests::NAP_MAX;
use crate::store::shard::Shard;
use crate::store::shard::lru::COLD;
use crate::store::shard::page_gain::GainRoom;
use crate::store::{Accounting, LruPolicy, Store};
use std::collections::VecDeque;
use std::time::Duration;

/// Halves of a page that must be free in a class, so that it gives one to the pool.
const FREE_HALVES: u64 = 5;

/// Pages that a class must have more than, so that it gives one to another class.
const PAGES_KEPT: u64 = 2;

/// Mode 2 looks for evictions so often.
const NAP_EAGER: Duration = Duration::from_millis(50);

/// While somebody asks for keys, the gains are looked at so often.
const NAP_GAIN: Duration = Duration::from_millis(100);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Automove {
    /// By shard and class.
    windows: Vec<ClassHistory>,
    /// By shard.
    gradients: Vec<Gradient>,
    /// Somebody has asked for a key since the last look but one.
    is_asked: bool,
    /// Moves that were decided and have not begun.
    next: VecDeque<Move>,
    /// Shards and classes that have more than they need.
    plenty: Vec<(usize, u8)>,
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
        Automove {
            windows,
            gradients: vec![Gradient::new(); store.shards.len()],
            is_asked: false,
            next: VecDeque::new(),
            plenty: Vec::new(),
            looked: store.core.clock.now(),
            turn: 0,
        }
    }

    /// How long until there may be something to decide.
    pub(super) fn nap(&self, store: &Store) -> Duration {
        match store.tuning().automove {
            2 => NAP_EAGER,
            1 if self.is_asked => NAP_GAIN,
            _ => NAP_MAX,
        }
    }

    /// A move that is worth it.
    pub(super) fn decide(&mut self, store: &Store) -> Option<Move> {
        let tuning = store.tuning();
        let goes_by_gain =
            tuning.automove == 1 && tuning.segmented && store.core.config.lru_policy == LruPolicy::S3Fifo;
        let now = store.core.clock.now();
        let is_new_second = std::mem::replace(&mut self.looked, now) != now;
        if is_new_second {
            (0..store.shards.len()).for_each(|index| keep_gain_room(store, index, goes_by_gain));
        }
        if tuning.automove == 0 {
            (self.next, self.plenty) = Default::default();
            return None;
        }
        if is_new_second {
            self.look(store);
        }
        let eager = if tuning.automove == 2 { self.eager(store) } else { None };
        if goes_by_gain {
            self.look_at_gains(store);
        }
        eager.or_else(|| self.release(store)).or_else(|| self.next_possible(store))
    }

    /// Once a second, at all shards, so that no window has gaps.
    fn look(&mut self, store: &Store) {
        self.turn += 1;
        self.plenty.clear();
        let shards = store.shards.len();
        let mut decided = None;
        for index in (0..shards).map(|index| (index + self.turn) % shards) {
            let windows = &mut self.windows[index * CLASSES..][..CLASSES];
            let mut shard = store.lock_timed(index, Holder::Mover);
            self.gradients[index].judge(&mut shard);
            shard.look_back(windows);
            self.plenty.extend(shard.with_plenty(windows).map(|class| (index, class)));
            if !self.gradients[index].is_known {
                decided = decided.or(shard.decide(windows).map(|(src, dst)| Move { shard: index, src, dst }));
            }
        }
        self.next.extend(decided);
    }

    /// As often as there may be something new.
    fn look_at_gains(&mut self, store: &Store) {
        self.is_asked = false;
        for (index, gradient) in self.gradients.iter_mut().enumerate() {
            let mut shard = store.lock_timed(index, Holder::Mover);
            self.is_asked |= gradient.is_asked(&shard);
            if self.next.iter().any(|next| next.shard == index) {
                continue;
            }
            let moves = gradient.step(&mut shard);
            self.next.extend(moves.into_iter().map(|(src, dst)| Move { shard: index, src, dst }));
        }
    }

    /// A page of a class that has more than it needs, to the pool. As long as there is one, without a pause: memory that
    /// died at once is to be of use at once.
    fn release(&mut self, store: &Store) -> Option<Move> {
        while let Some(&(shard, class)) = self.plenty.last() {
            let has_plenty = store.lock_timed(shard, Holder::Mover).has_plenty(class.into());
            if has_plenty {
                return Some(Move { shard, src: class, dst: 0 });
            }
            self.plenty.pop();
        }
        None
    }

    /// Whether more pages are likely to go to the pool at once.
    pub(super) fn has_plenty(&self) -> bool {
        !self.plenty.is_empty()
    }

    /// The next move that was decided, if it is still possible.
    fn next_possible(&mut self, store: &Store) -> Option<Move> {
        while let Some(next) = self.next.pop_front() {
            let source = store.lock_timed(next.shard, Holder::Mover).source(next.shard, next.src);
            if source.is_some_and(|source| source.has_spare()) {
                return Some(next);
            }
        }
        None
    }

    /// Forgets the evictions that a move itself has made, or mode 2 would move the page back. A class whose page is held
    /// for too long may try again in a second.
    pub(super) fn excuse(&mut self, store: &Store, done: Move, ok: bool) {
        self.plenty.retain(|&source| ok || source != (done.shard, done.src));
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

/// The next page to give up while too much is taken. First pages of classes ask for no limit, as in memcached, but here
/// others make up for them: a little more than the limit may stay taken, or each new class would empty a page at once.
/// Only when the limit was lowered, a shard's class may lose its last page: it would take another with its next item.
/// Under memcached's accounting one page of each class stays.
pub(super) fn above_limit(store: &Store) -> Option<Move> {
    let pool = &store.core.pool;
    let lowered = store.core.requests.is_shrinking();
    let config = &store.core.config;
    // What may not be evicted needs free chunks to go to.
    let may_empty = |source: &Source| !config.preallocate && (config.evict || source.free_pages > 0);
    let gives = |source: &Source| lowered || source.has_spare() && may_empty(source);
    let allowed = match config.accounting {
        _ if lowered => pool.limit(),
        Accounting::Native => pool.limit_and_more(),
        Accounting::Memcached => pool.limit() + config.page_size as u64 * u64::from(store.largest_class()),
    };
    let above = pool.taken() > allowed;
    let next = if above { sources(store).into_iter().filter(gives).max_by_key(Source::rank) } else { None };
    if next.is_none() {
        store.core.requests.end_shrinking();
    }
    next.map(|source| source.to(0))
}

/// Sees to it that a shard's table of gains is of the right size, or gone. Memory comes and goes without the lock.
fn keep_gain_room(store: &Store, index: usize, is_wanted: bool) {
    let lacks = store.lock_timed(index, Holder::Mover).lacks_gain_room(is_wanted, store.shards.len());
    if let Some(size) = lacks {
        let room = GainRoom::of(size);
        let old = store.lock_timed(index, Holder::Mover).gain.renew(room);
        drop(old);
    }
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

    /// Adds the last second to what is known.
    fn look_back(&self, windows: &mut [ClassHistory]) {
        let size = self.window_size();
        for (class, window) in windows.iter_mut().enumerate().take(self.core.classes.largest() as usize + 1).skip(1) {
            self.look(class, window, size);
        }
    }

    fn window_size(&self) -> usize {
        self.tuning.automove_window.max(1) as usize
    }

    /// Classes that have more than they need, and have not wanted anything in all of the window.
    fn with_plenty(&self, windows: &[ClassHistory]) -> impl Iterator<Item = u8> {
        let is_quiet =
            |class: &usize| windows[*class].seconds.len() == self.window_size() && windows[*class].sum.dirty == 0;
        let classes = (1..=usize::from(self.core.classes.largest())).filter(is_quiet);
        classes.filter(|&class| self.has_plenty(class)).map(|class| class as u8)
    }

    /// Source and destination of a move that is worth it by memcached's rule.
    fn decide(&self, windows: &[ClassHistory]) -> Option<(u8, u8)> {
        let size = self.window_size();
        let ready =
            (1..=usize::from(self.core.classes.largest())).filter(|&class| windows[class].seconds.len() == size);
        let evictions: u64 = windows.iter().map(|window| window.sum.evictions).sum();
        let (mut oldest, mut youngest) = ((0, 0), (u64::MAX, 0));
        for class in ready {
            let window = &windows[class];
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
