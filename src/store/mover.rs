//! The mover: empties a page of one class, so that another class or the page pool can have it.
//!
//! ```text
//! withdraw   free chunks of the page leave the free list
//! empty      item or piece ─> another chunk of its class, if need be after an eviction; dead ─> reclaimed
//!            pinned or being uploaded ─> next round, up to a bound
//! end        the page ─> dst | the pool (its memory ─> the system)
//! or else    its chunks ─> the free list again
//! ```
//!
//! One page of all shards is on its way at a time, in slices. What is asked for comes first, then what is above the
//! memory limit (it was lowered; or many shards had to have first pages), then what `automove` decides.
//!
//! Invariants: a page that is being emptied is `slab.moving` of its shard, and nothing is put into it.
//!
//! Not here: which class needs a page (`automove`).

use super::arena::offset;
use super::automove::Automove;
use super::background::{Counts, NAP_MAX, Slice};
use super::hold::By;
use super::item::{Chunk, state};
use super::lru::{COLD, HOT, TEMP, WARM};
use super::shard::Shard;
use super::slab::{CLASSES, step};
use super::{Event, Store};
use std::time::Duration;

/// Chunks withdrawn under one lock.
const WITHDRAWN_PER_SLICE: usize = 1000;

/// A chunk whose copying takes a slice of its own: half a MiB may take 100 us.
const LARGE: usize = 64 << 10;

/// Evictions for one chunk, as [`Shard::alloc`] does.
const EVICTIONS: usize = 10;

/// Time for the clients between two slices.
const NAP: Duration = Duration::from_micros(50);

/// Time for those who hold items in the page to finish.
const NAP_BUSY: Duration = Duration::from_millis(1);

/// After so many rounds over a page, large items that are stuck in it are unlinked, as memcached does.
const ROUNDS_PATIENT: u32 = 5000;

/// After so many it stays where it is: somebody reads or writes very slowly.
const ROUNDS_MAX: u32 = 20_000;

/// See the module's head.
#[derive(Debug)]
pub struct Mover {
    automove: Automove,
    job: Option<Job>,
}

/// A page to go from a class, 0 the pool, to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub shard: usize,
    pub src: u8,
    pub dst: u8,
}

impl Mover {
    /// A mover that has nothing to do.
    pub fn new(store: &Store) -> Mover {
        Mover { automove: Automove::new(store), job: None }
    }

    /// Moves on, or begins to if there is reason. When to be called again.
    pub fn step(&mut self, store: &Store) -> Duration {
        if !store.core.config.slab_reassign {
            return NAP_MAX;
        }
        if self.job.is_none() {
            match self.next_move(store) {
                Next::Nothing => return self.automove.nap(store),
                Next::Impossible(src, dst) => return end(store, src, dst, false),
                Next::Move(next) if next.src == 0 => {
                    let Move { shard, src, dst } = next;
                    return end(store, src, dst, store.hold(shard, By::Mover).take_unused(dst));
                }
                Next::Move(next) => self.job = Job::begin(store, next),
            }
        }
        let Some(job) = &mut self.job else { return NAP };
        match job.go_on(store) {
            Part::More => NAP,
            Part::Busy => NAP_BUSY,
            Part::Moved(ok) => {
                let done = job.it;
                self.job = None;
                self.automove.excuse(store, done);
                end(store, done.src, done.dst, ok)
            }
        }
    }

    fn next_move(&mut self, store: &Store) -> Next {
        if let Some((src, dst)) = store.background.take_reassign() {
            return asked(store, src, dst).map_or(Next::Impossible(src.unwrap_or(0), dst), Next::Move);
        }
        let found = above_limit(store).or_else(|| self.automove.decide(store));
        match found {
            Some(found) if store.background.begin_move() => Next::Move(found),
            _ => Next::Nothing,
        }
    }
}

enum Next {
    Nothing,
    /// It was possible when it was asked for.
    Impossible(u8, u8),
    Move(Move),
}

/// Tells and counts how a move ended.
fn end(store: &Store, src: u8, dst: u8, ok: bool) -> Duration {
    store.background.end_move();
    store.background.counts().slabs_moved += u64::from(ok);
    if store.core.events.wants_system() {
        store.core.events.keep(Event::SlabMove { src, dst, ok });
    }
    NAP
}

/// Where to do what a command asks for; no source is any class.
fn asked(store: &Store, src: Option<u8>, dst: u8) -> Option<Move> {
    if src == Some(0) {
        let pages = |&shard: &usize| store.hold(shard, By::Mover).slab.classes[usize::from(dst)].pages;
        let shard = (0..store.slots.len()).min_by_key(pages)?;
        return Some(Move { shard, src: 0, dst });
    }
    let sources = sources(store).into_iter();
    let fits = |source: &Source| src.map_or(source.class != dst, |src| source.class == src);
    sources.filter(fits).max_by_key(Source::rank).map(|source| source.to(dst))
}

/// The next page to give up while too much is taken. The first page of each class may be beyond the limit, as in
/// memcached; but not that of each shard. Only when the limit was lowered, a shard's class may lose its last page: it
/// would take another with its next item.
fn above_limit(store: &Store) -> Option<Move> {
    let pool = &store.core.pool;
    let lowered = store.background.is_shrinking();
    let gives = |source: &Source| lowered || source.has_spare() && !store.core.config.preallocate;
    let page = store.core.config.page_size as u64;
    let beyond = if lowered { 0 } else { page * u64::from(store.largest_class()) };
    let above = pool.taken() > pool.limit() + beyond;
    let next = if above { sources(store).into_iter().filter(gives).max_by_key(Source::rank) } else { None };
    if next.is_none() {
        store.background.end_shrinking();
    }
    next.map(|source| source.to(0))
}

/// A class of a shard that a page can be taken from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub shard: usize,
    pub class: u8,
    pages: u64,
    free_pages: u64,
    /// Seconds that the next to be evicted was idle.
    idle: u32,
}

impl Source {
    /// The higher, the less the page will be missed.
    pub fn rank(&self) -> (bool, u64, u32, u64) {
        (self.pages > 1, self.free_pages, self.idle, self.pages)
    }

    /// Whether it keeps a page.
    pub fn has_spare(&self) -> bool {
        self.pages > 1
    }

    /// The move of a page of it.
    pub fn to(self, dst: u8) -> Move {
        Move { shard: self.shard, src: self.class, dst }
    }
}

/// Classes with pages, of which there are more than one in all shards together.
pub fn sources(store: &Store) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut pages = [0; CLASSES];
    for (index, shard) in store.hold_each(By::Mover).enumerate() {
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

/// A page on its way.
#[derive(Debug)]
struct Job {
    it: Move,
    phase: Phase,
    /// The next chunk to look at.
    at: u32,
    rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Withdraw,
    Empty,
    GiveUp,
}

/// What a part of a move came to.
enum Part {
    More,
    /// Somebody holds what is left.
    Busy,
    /// Or not, when false.
    Moved(bool),
}

impl Job {
    /// None when the class has no page any more.
    fn begin(store: &Store, it: Move) -> Option<Job> {
        let mut shard = store.hold(it.shard, By::Mover);
        if it.dst != 0 && shard.source(it.shard, it.src).is_some_and(|source| source.free_pages == 0) {
            // While memory is not full nobody has to go.
            shard.take_unused(it.src);
        }
        let begun = shard.begin_move(it.src);
        drop(shard);
        if begun.is_none() {
            end(store, it.src, it.dst, false);
        }
        begun.map(|at| Job { it, phase: Phase::Withdraw, at, rounds: 0 })
    }

    fn go_on(&mut self, store: &Store) -> Part {
        let mut shard = store.hold(self.it.shard, By::Mover);
        match self.phase {
            Phase::Withdraw => {
                if shard.withdraw(&mut self.at) {
                    self.again(&shard, Phase::Empty);
                }
                Part::More
            }
            Phase::Empty => self.empty(store, &mut shard),
            Phase::GiveUp if shard.take_back(&mut self.at) => Part::Moved(false),
            Phase::GiveUp => Part::More,
        }
    }

    fn empty(&mut self, store: &Store, shard: &mut Shard) -> Part {
        let mut counts = store.background.counts();
        let patient = self.rounds < ROUNDS_PATIENT;
        let mut slice = Slice::new();
        while self.at < shard.slab.moving.end {
            let copied = shard.vacate(self.at, patient, &mut counts);
            self.at += step(self.it.src, &shard.core.classes);
            if copied > LARGE || slice.is_over() {
                return Part::More;
            }
        }
        drop(counts);
        self.end_round(shard)
    }

    /// The whole page was looked at.
    fn end_round(&mut self, shard: &mut Shard) -> Part {
        self.rounds += 1;
        if shard.slab.pages[shard.slab.moving.page as usize].used == 0 {
            shard.hand_over(self.it.dst);
            return Part::Moved(true);
        }
        if self.rounds < ROUNDS_MAX {
            self.again(shard, Phase::Empty);
            return Part::Busy;
        }
        shard.slab.moving.given_up = true;
        self.again(shard, Phase::GiveUp);
        Part::More
    }

    fn again(&mut self, shard: &Shard, phase: Phase) {
        self.phase = phase;
        self.at = shard.slab.first_chunk(shard.slab.moving.page);
    }
}

impl Shard {
    fn source(&self, shard: usize, class: u8) -> Option<Source> {
        let chunks = &self.slab.classes[usize::from(class)];
        let per_page = u64::from(self.core.classes.per_page(class));
        let free_pages = self.slab.available(class.into(), &self.core.classes) / per_page;
        let idle = self.idle_seconds(self.lrus[usize::from(class)].lists[COLD].tail);
        (chunks.pages > 0).then_some(Source { shard, class, pages: chunks.pages, free_pages, idle })
    }

    /// Takes an unused page for a class.
    fn take_unused(&mut self, class: u8) -> bool {
        let Shard { slab, window, core, .. } = self;
        let first = slab.classes[usize::from(class)].pages == 0;
        slab.take_page(class, window, &core.classes, &core.pool, || core.pool.take(first))
    }

    /// Begins to empty the page of a class that holds least. Its first chunk.
    fn begin_move(&mut self, class: u8) -> Option<u32> {
        let pages = self.slab.pages.iter().enumerate().filter(|(_, page)| page.class == class);
        let (page, _) = pages.min_by_key(|(_, page)| page.used)?;
        self.slab.begin_move(page as u32, &self.core.classes);
        Some(self.slab.first_chunk(page as u32))
    }

    /// Withdraws free chunks of the page. True when it was looked at to the end.
    fn withdraw(&mut self, at: &mut u32) -> bool {
        let moving = self.slab.moving;
        let step = step(self.slab.pages[moving.page as usize].class, &self.core.classes);
        for _ in 0..WITHDRAWN_PER_SLICE {
            if *at >= moving.end {
                return true;
            }
            if self.window.chunk(*at).is(state::FREE) {
                self.slab.withdraw(*at, &mut self.window);
            }
            *at += step;
        }
        false
    }

    /// Empties a chunk if possible. How many bytes were copied for it.
    fn vacate(&mut self, id: u32, patient: bool, counts: &mut Counts) -> usize {
        let chunk = *self.window.chunk(id);
        if chunk.is_gone() {
            return 0;
        }
        let item = if chunk.is_piece() { chunk.len } else { id };
        if let Some(busy) = self.busy(item) {
            counts.busy_items += 1;
            counts.last_busy = Some(busy);
            let head = *self.window.chunk(item);
            if !patient && head.is(state::LINKED) && head.is(state::CHUNKED) {
                counts.busy_deletes += 1;
                self.evict(item, self.listed_class(item, &head));
            }
            return 0;
        }
        if self.reclaim(item) { 0 } else { self.rescue(id, item, counts) }
    }

    /// Why an item cannot be moved now.
    fn busy(&self, item: u32) -> Option<&'static str> {
        let header = self.window.header(item);
        match header.chunk {
            chunk if chunk.is(state::LINKED) => (chunk.pins > 0).then_some("busy"),
            // It was never linked.
            _ if header.last_access == 0 => Some("busy_uploading"),
            _ => Some("busy_floating"),
        }
    }

    /// Moves an item, or a piece of it, into another chunk. When there is none, the item goes.
    fn rescue(&mut self, id: u32, item: u32, counts: &mut Counts) -> usize {
        let class = self.slab.class_of(id);
        if let Some(new) = self.chunk_elsewhere(class, item, counts) {
            return if id == item {
                counts.rescues += 1;
                self.move_item(id, new)
            } else {
                counts.chunk_rescues += 1;
                self.move_piece(id, new)
            };
        }
        counts.busy_nomem += 1;
        if self.core.config.evict {
            let listed = self.listed_class(item, self.window.chunk(item));
            self.evict(item, listed);
        }
        0
    }

    /// A chunk of a page that stays, if need be by evicting another item than this.
    fn chunk_elsewhere(&mut self, class: u8, item: u32, counts: &mut Counts) -> Option<u32> {
        self.window.chunk_mut(item).pins += 1;
        let mut found = self.take_ready(class);
        for _ in 0..EVICTIONS {
            if found.is_some() || !self.make_any_room(class) {
                break;
            }
            counts.inline_reclaim += 1;
            found = self.take_ready(class);
        }
        self.window.chunk_mut(item).pins -= 1;
        found
    }

    /// Reclaims or evicts something. False when there is nothing.
    fn make_any_room(&mut self, class: u8) -> bool {
        [COLD, HOT, WARM, TEMP].iter().any(|&lru| self.reclaim_tail(class, lru) > 0) || self.make_room(class)
    }

    fn take_ready(&mut self, class: u8) -> Option<u32> {
        self.slab.take_ready(class, &mut self.window, &self.core.classes)
    }

    /// Copies a linked item to `new`, which is the item from then on. Bytes that were copied.
    fn move_item(&mut self, old: u32, new: u32) -> usize {
        let hash = self.core.hash(self.key(old));
        let chunk = *self.window.chunk(old);
        let value = if chunk.is(state::CHUNKED) { 0 } else { chunk.len as usize };
        let bytes = chunk.value_at() + value;
        self.window.copy(offset(old), offset(new), bytes);
        self.table.replace(hash, old, new);
        let class = self.listed_class(old, &chunk);
        let list = &mut self.lrus[usize::from(class)].lists[chunk.lru()];
        match chunk.prev {
            0 => list.head = new,
            prev => self.window.chunk_mut(prev).next = new,
        }
        match chunk.next {
            0 => list.tail = new,
            next => self.window.chunk_mut(next).prev = new,
        }
        if self.cursor == old {
            self.cursor = new;
        }
        if chunk.is(state::CHUNKED) {
            self.tell_pieces(new);
        }
        self.drop_chunk(old);
        bytes
    }

    /// Tells the pieces of an item where it is.
    fn tell_pieces(&mut self, item: u32) {
        let mut piece = self.chain(item).0;
        while piece != 0 {
            let chunk = self.window.chunk_mut(piece);
            chunk.len = item;
            piece = chunk.next;
        }
    }

    /// Copies a piece of a linked item to `new`. Bytes that were copied.
    fn move_piece(&mut self, old: u32, new: u32) -> usize {
        let Chunk { prev, next, len: item, .. } = *self.window.chunk(old);
        let bytes = self.core.classes.size(self.slab.class_of(old));
        self.window.copy(offset(old), offset(new), bytes);
        let (mut first, mut last) = self.chain(item);
        match prev {
            0 => first = new,
            prev => self.window.chunk_mut(prev).next = new,
        }
        match next {
            0 => last = new,
            next => self.window.chunk_mut(next).prev = new,
        }
        self.set_chain(item, first, last);
        self.drop_chunk(old);
        bytes
    }

    /// Forgets a chunk whose contents are elsewhere now.
    fn drop_chunk(&mut self, id: u32) {
        *self.window.chunk_mut(id) = Chunk::default();
        self.slab.put(id, &mut self.window);
    }

    /// Gives the page, which is empty now, to a class or to the pool.
    fn hand_over(&mut self, dst: u8) {
        let page = self.slab.end_move();
        if dst != 0 {
            return self.slab.give_page(page, dst, &self.core.classes);
        }
        if !self.core.config.preallocate {
            self.window.discard(offset(self.slab.first_chunk(page)), self.core.config.page_size);
        }
        self.slab.empty.push(page);
        self.core.pool.put_unused();
    }

    /// Makes chunks of a page that stays free again. True when all are.
    fn take_back(&mut self, at: &mut u32) -> bool {
        let page = self.slab.moving.page;
        let class = self.slab.pages[page as usize].class;
        let step = step(class, &self.core.classes);
        let end = self.slab.first_chunk(page) + self.core.classes.per_page(class) * step;
        for _ in 0..WITHDRAWN_PER_SLICE {
            let uncarved = self.slab.moving.end;
            if uncarved < end {
                self.slab.moving.end += step;
                self.slab.put_free(uncarved, &mut self.window);
            } else if *at < end {
                if self.window.chunk(*at).is_gone() {
                    self.slab.put_free(*at, &mut self.window);
                }
                *at += step;
            } else {
                self.slab.moving = Default::default();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::stand::{Stand, tiny};
    use super::super::{Accounting, ItemSpec, Reassign, StoreConfig};
    use super::*;

    /// Of a 1000-byte value with a short key.
    fn class_of(stand: &Stand, size: usize) -> u8 {
        stand.store.core.classes.of(stand.store.core.sizing.total(6, true, size))
    }

    fn pages(stand: &Stand, class: u8) -> u64 {
        stand.store.class_stats().iter().find(|stats| stats.class == class).map_or(0, |stats| stats.total_pages)
    }

    fn value(i: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| (i + at / 7) as u8).collect()
    }

    /// Stores items `from..to`, some of which expire.
    fn fill(stand: &Stand, from: usize, to: usize, len: usize) {
        (from..to).for_each(|i| assert!(stand.set(&format!("key{i:03}"), &value(i, len), (i % 2 * 1000) as i64)));
    }

    type Seen = (u64, u32, u32, u32, usize);

    /// What must not change when an item moves, and where it is.
    fn seen(stand: &Stand, i: usize, len: usize) -> Option<(Seen, u32)> {
        let key = format!("key{i:03}");
        let hash = stand.store.hash(key.as_bytes());
        let mut locked = stand.store.lock(hash);
        let id = locked.find(key.as_bytes(), hash).ok()?;
        let item = locked.item(id);
        let mut found = Vec::new();
        item.copy_value(&mut found);
        assert!(found == value(i, len), "a wrong value");
        let state = usize::from(item.header().chunk.state);
        Some(((item.cas(), item.client_flags(), item.expires_at(), item.last_access(), state), id.0))
    }

    fn moves(stand: &Stand) -> Vec<Event> {
        stand.store.take_events().into_iter().filter(|event| matches!(event, Event::SlabMove { .. })).collect()
    }

    fn told(src: u8, dst: u8, ok: bool) -> Vec<Event> {
        vec![Event::SlabMove { src, dst, ok }]
    }

    #[test]
    fn first_pages_of_many_shards_are_made_up_for() {
        let mut stand = Stand::new(StoreConfig { shards: Some(16), memory_limit: 1 << 20, ..tiny() });
        stand.store.tune(|tuning| tuning.automove = 0);
        (0..60_000).for_each(|i| assert!(stand.set(&format!("small{i}"), b"value", 0)));
        for size in (1..2000).step_by(10) {
            (0..10).for_each(|i| assert!(stand.set(&format!("size{size}-{i}"), &vec![1; size], 0)));
        }
        let stats = stand.store.stats();
        let allowed = stats.memory_limit + 4096 * u64::from(stand.store.largest_class());
        assert!(stats.total_malloced > allowed + (100 << 10), "{} of {allowed}", stats.total_malloced);
        stand.mover_steps(5000);
        assert_eq!(stand.store.stats().total_malloced, allowed);
    }

    #[test]
    fn stores_go_on_while_their_page_is_moved() {
        let mut stand = Stand::new(StoreConfig { memory_limit: 2 * 4096, ..tiny() });
        stand.store.tune(|tuning| tuning.automove = 0);
        let class = class_of(&stand, 20);
        let items = 2 * stand.store.core.classes.per_page(class) as usize;
        fill(&stand, 0, items, 20);
        assert_eq!(pages(&stand, class), 2);
        assert_eq!(stand.store.reassign(class.into(), 0), Reassign::Ok);
        stand.mover_steps(1);
        // The next to be evicted all lie in the page that is being emptied.
        for i in items..2 * items {
            assert!(stand.set(&format!("new{i:03}"), &value(i, 20), 0), "{i} was refused");
        }
        stand.store.check().unwrap();
        stand.mover_steps(100);
        assert_eq!((moves(&stand), pages(&stand, class)), (told(class, 0, true), 1));
        assert!(stand.get(&format!("new{:03}", 2 * items - 1)).is_some());
    }

    #[test]
    fn every_item_survives() {
        for accounting in [Accounting::Native, Accounting::Memcached] {
            let mut stand = Stand::new(StoreConfig { accounting, ..tiny() });
            stand.store.tune(|tuning| tuning.automove = 0);
            fill(&stand, 0, 40, 500);
            let (src, before) = (class_of(&stand, 500), pages(&stand, class_of(&stand, 500)));
            // Two pages' worth of free chunks, so that nobody has to go; marks that must move along.
            for i in (0..40).step_by(3) {
                stand.unlink(&format!("key{i:03}"));
            }
            (0..2).for_each(|_| assert!(stand.get("key001").is_some()));
            let expected: Vec<_> = (0..40).map(|i| seen(&stand, i, 500)).collect();
            assert_eq!(stand.store.reassign(src.into(), 1), Reassign::Ok);
            assert!(stand.store.stats().slab_reassign_running);
            assert_eq!(stand.store.reassign(src.into(), 1), Reassign::Busy);
            stand.mover_steps(10);
            let found: Vec<_> = (0..40).map(|i| seen(&stand, i, 500)).collect();
            let of = |seen: &[Option<(Seen, u32)>]| seen.iter().map(|seen| seen.map(|seen| seen.0)).collect::<Vec<_>>();
            assert_eq!(of(&expected), of(&found));
            let stats = stand.store.stats();
            let moved = std::iter::zip(&expected, &found).filter(|(before, after)| before != after).count() as u64;
            assert!(moved > 0 && stats.slab_reassign_rescues == moved, "{moved}");
            assert_eq!((stats.slabs_moved, stats.slab_reassign_running), (1, false));
            assert_eq!((pages(&stand, src), pages(&stand, 1)), (before - 1, 1));
            assert_eq!(moves(&stand), told(src, 1, true));
        }
    }

    #[test]
    fn large_items_survive() {
        let mut stand = Stand::new(tiny());
        stand.store.tune(|tuning| tuning.automove = 0);
        fill(&stand, 0, 12, 6000);
        // Of three pieces each, two to a page: these leave two pages empty and two half empty.
        stand.unlink("key003");
        stand.unlink("key006");
        let expected: Vec<_> = (0..12).map(|i| seen(&stand, i, 6000).map(|seen| seen.0)).collect();
        let largest = stand.store.largest_class();
        let before = pages(&stand, largest);
        for move_nr in 1..4 {
            assert_eq!(stand.store.reassign(largest.into(), 0), Reassign::Ok);
            stand.mover_steps(60);
            assert_eq!(stand.store.stats().slabs_moved, move_nr);
        }
        let found: Vec<_> = (0..12).map(|i| seen(&stand, i, 6000).map(|seen| seen.0)).collect();
        assert_eq!(expected, found);
        assert!(stand.store.stats().slab_reassign_chunk_rescues > 0);
        assert_eq!((pages(&stand, largest), stand.store.stats().slab_global_page_pool), (before - 3, 3));
        // Their heads, too.
        let heads = stand.store.core.classes.of(stand.store.core.sizing.head(6, true));
        fill(&stand, 100, 300, 15);
        (200..270).for_each(|i| stand.unlink(&format!("key{i:03}")));
        let head = seen(&stand, 0, 6000).unwrap().1;
        let page = stand.store.shard(0).slab.page_of(head);
        assert_eq!(stand.store.shard(0).slab.pages[page].class, heads);
        stand.store.shard(0).slab.begin_move(page as u32, &stand.store.core.classes);
        let mut counts = Counts::default();
        let mut shard = stand.store.shard(0);
        let (first, step) = (shard.slab.first_chunk(page as u32), step(heads, &shard.core.classes));
        assert!(shard.withdraw(&mut first.clone()));
        (0..shard.core.classes.per_page(heads)).for_each(|at| {
            shard.vacate(first + at * step, true, &mut counts);
        });
        assert!(counts.rescues >= 10, "{counts:?}");
        shard.hand_over(0);
        drop(shard);
        stand.store.check().unwrap();
        let found: Vec<_> = (0..12).map(|i| seen(&stand, i, 6000).map(|seen| seen.0)).collect();
        assert_eq!(expected, found);
    }

    #[test]
    fn reassign_any() {
        let mut stand = Stand::new(tiny());
        stand.store.tune(|tuning| tuning.automove = 0);
        let src = class_of(&stand, 500);
        let wide = i64::from(src);
        assert_eq!(stand.store.reassign(99, 99), Reassign::Same);
        for (src, dst) in [(99, 1), (1, 99), (-2, 1), (1, -1), (i64::MIN, 1), (-1, 1)] {
            assert_eq!(stand.store.reassign(src, dst), Reassign::BadClass, "{src} {dst}");
        }
        fill(&stand, 0, 3, 500);
        assert_eq!(stand.store.reassign(-1, 1), Reassign::BadClass);
        assert_eq!(stand.store.reassign(wide, 1), Reassign::NoSpare);
        assert_eq!(stand.store.reassign(0, 1), Reassign::NoSpare);
        fill(&stand, 0, 40, 500);
        assert_eq!(stand.store.reassign(-1, wide), Reassign::BadClass);
        assert_eq!(stand.store.reassign(-1, 1), Reassign::Ok);
        assert_eq!(stand.store.reassign(-1, 1), Reassign::Busy);
        assert_eq!(stand.store.reassign(wide + 1, 1), Reassign::NoSpare);
        stand.mover_steps(20);
        assert_eq!(moves(&stand), told(src, 1, true));
    }

    #[test]
    fn from_the_pool() {
        let mut stand = Stand::new(tiny());
        stand.store.tune(|tuning| tuning.automove = 0);
        fill(&stand, 0, 60, 500);
        let src = class_of(&stand, 500);
        for _ in 0..2 {
            assert_eq!(stand.store.reassign(src.into(), 0), Reassign::Ok);
            stand.mover_steps(20);
        }
        assert_eq!(stand.store.stats().slab_global_page_pool, 2);
        let before = stand.store.stats().total_malloced;
        for left in [1, 1] {
            let answer = if stand.store.stats().slab_global_page_pool == 2 { Reassign::Ok } else { Reassign::NoSpare };
            assert_eq!(stand.store.reassign(0, 3), answer);
            stand.mover_steps(5);
            assert_eq!((stand.store.stats().slab_global_page_pool, pages(&stand, 3)), (left, 1));
        }
        assert_eq!(stand.store.stats().total_malloced, before);
    }

    #[test]
    fn nobody_goes_while_memory_is_not_full() {
        let mut stand = Stand::new(tiny());
        stand.store.tune(|tuning| tuning.automove = 0);
        let class = class_of(&stand, 500);
        let items = 4 * stand.store.core.classes.per_page(class) as usize;
        fill(&stand, 0, items, 500);
        assert_eq!(stand.store.reassign(class.into(), 1), Reassign::Ok);
        stand.mover_steps(20);
        assert_eq!((pages(&stand, class), pages(&stand, 1), stand.store.stats().slabs_moved), (4, 1, 1));
        (0..items).for_each(|i| assert!(seen(&stand, i, 500).is_some()));
    }

    /// Two pages of 500-byte items, the first of them in every hand of the test.
    fn two_pages() -> (Stand, u8) {
        let stand = Stand::new(tiny());
        stand.store.tune(|tuning| tuning.automove = 0);
        let class = class_of(&stand, 500);
        let per_page = stand.store.core.classes.per_page(class) as usize;
        fill(&stand, 0, 2 * per_page, 500);
        (stand, class)
    }

    #[test]
    fn held_items_are_waited_for() {
        let (mut stand, class) = two_pages();
        let keys = stand.store.stats().curr_items as usize;
        let pins: Vec<_> = (0..keys).map(|i| stand.pin(&format!("key{i:03}"))).collect();
        assert_eq!(stand.store.reassign(class.into(), 0), Reassign::Ok);
        stand.mover_steps(50);
        let stats = stand.store.stats();
        assert_eq!((stats.slabs_moved, stats.slab_reassign_last_busy_status), (0, "busy"));
        (0..keys).for_each(|i| stand.unlink(&format!("key{i:03}")));
        stand.mover_steps(50);
        let stats = stand.store.stats();
        assert_eq!((stats.slabs_moved, stats.slab_reassign_last_busy_status), (0, "busy_floating"));
        for (i, pin) in pins.iter().enumerate() {
            let mut slices = Vec::new();
            pin.io_slices(0, &mut slices);
            assert!(*slices[0] == value(i, 500), "a pinned value has changed");
        }
        drop(pins);
        stand.mover_steps(5);
        assert_eq!(stand.store.stats().slabs_moved, 1);
    }

    #[test]
    fn uploads_are_waited_for() {
        let (mut stand, class) = two_pages();
        let expires_at = 0;
        let uploads: Vec<_> = (0..12)
            .map(|i| {
                let key = format!("new{i:03}").into_bytes();
                let spec = ItemSpec { key: &key, key_is_binary: false, client_flags: 7, expires_at };
                let mut upload = stand.store.upload(stand.store.hash(&key), &spec, 500).unwrap();
                upload.room().unwrap()[..100].copy_from_slice(&value(i, 500)[..100]);
                upload.filled(100);
                upload
            })
            .collect();
        let all = pages(&stand, class);
        for _ in 0..all - 1 {
            stand.store.reassign(class.into(), 0);
            stand.mover_steps(300);
        }
        let stats = stand.store.stats();
        assert_eq!(stats.slab_reassign_last_busy_status, "busy_uploading");
        for (i, mut upload) in uploads.into_iter().enumerate() {
            upload.room().unwrap().copy_from_slice(&value(i, 500)[100..]);
            upload.filled(400);
            let hash = stand.store.hash(upload.key());
            let mut locked = stand.store.lock(hash);
            let id = locked.finish(upload);
            locked.link(id, hash, None);
        }
        stand.mover_steps(300);
        assert!(!stand.store.stats().slab_reassign_running);
        let kept =
            (0..12).filter_map(|i| stand.get(&format!("new{i:03}")).map(|found| assert!(found == value(i, 500))));
        assert!(kept.count() > 0);
    }

    #[test]
    fn a_page_that_stays_busy_is_given_up() {
        let (mut stand, class) = two_pages();
        let keys = stand.store.stats().curr_items as usize;
        let pins: Vec<_> = (0..keys).map(|i| stand.pin(&format!("key{i:03}"))).collect();
        let free = stand.sum(|class| class.free_chunks);
        assert_eq!(stand.store.reassign(class.into(), 0), Reassign::Ok);
        stand.mover_steps(ROUNDS_MAX as usize + 20);
        assert_eq!(moves(&stand), told(class, 0, false));
        let stats = stand.store.stats();
        assert_eq!((stats.slabs_moved, stats.slab_reassign_running), (0, false));
        assert!(stats.slab_reassign_busy_items > 20_000 && stats.slab_reassign_busy_deletes == 0);
        assert_eq!(stand.sum(|class| class.free_chunks), free);
        drop(pins);
        stand.store.check().unwrap();
        (0..keys).for_each(|i| assert!(seen(&stand, i, 500).is_some()));
    }

    #[test]
    fn stuck_large_items_are_unlinked() {
        let mut stand = Stand::new(tiny());
        stand.store.tune(|tuning| tuning.automove = 0);
        fill(&stand, 0, 1, 20_000);
        let pin = stand.pin("key000");
        let largest = stand.store.largest_class();
        assert_eq!(stand.store.reassign(largest.into(), 0), Reassign::Ok);
        stand.mover_steps(ROUNDS_PATIENT as usize - 10);
        assert!(stand.get("key000").is_some());
        stand.mover_steps(20);
        assert!(stand.get("key000").is_none());
        assert_eq!((stand.store.stats().slab_reassign_busy_deletes, stand.store.stats().slabs_moved), (1, 0));
        drop(pin);
        stand.mover_steps(5);
        assert_eq!(stand.store.stats().slabs_moved, 1);
    }

    #[test]
    fn a_lower_limit_gives_memory_back() {
        for shards in [1, 4] {
            let mut stand = Stand::new(StoreConfig { shards: Some(shards), memory_limit: 32 << 20, ..tiny() });
            for i in 0..60_000 {
                assert!(stand.set(&format!("key{i:05}"), &[7; 400], 0));
            }
            assert!(stand.store.stats().total_malloced > 24 << 20);
            assert!(stand.store.set_memory_limit(8 << 20));
            stand.mover_steps(40_000);
            let stats = stand.store.stats();
            assert!(stats.total_malloced <= 8 << 20 && stats.total_malloced > 7 << 20, "{}", stats.total_malloced);
            assert_eq!(stats.slab_global_page_pool, 0);
            // The newest ones stayed.
            let kept = (0..60_000).filter(|i| stand.get(&format!("key{i:05}")).is_some()).count();
            assert_eq!(kept as u64, stats.curr_items);
            assert!((59_000..60_000).all(|i| stand.get(&format!("key{i:05}")).is_some()));
            assert!(stand.store.set_memory_limit(32 << 20));
            (0..60_000).for_each(|i| assert!(stand.set(&format!("key{i:05}"), &[7; 400], 0)));
            assert!(stand.store.stats().total_malloced > 24 << 20);
            stand.store.check().unwrap();
        }
    }

    #[test]
    fn nobody_goes_where_nothing_may_be_evicted() {
        let mut stand = Stand::new(StoreConfig { evict: false, ..tiny() });
        stand.store.tune(|tuning| tuning.automove = 0);
        let items = (0..1000).take_while(|i| stand.set(&format!("key{i:03}"), &value(*i, 500), 0)).count();
        let class = class_of(&stand, 500);
        assert_eq!(stand.store.reassign(class.into(), 1), Reassign::Ok);
        stand.mover_steps(ROUNDS_MAX as usize + 20);
        assert_eq!(moves(&stand), told(class, 1, false));
        assert!(stand.store.stats().slab_reassign_busy_nomem > 0);
        (0..items).for_each(|i| assert!(seen(&stand, i, 500).is_some()));
    }

    #[test]
    fn a_class_gives_its_last_page_where_other_shards_have_some() {
        let mut stand = Stand::new(StoreConfig { shards: Some(4), memory_limit: 1 << 20, ..tiny() });
        stand.store.tune(|tuning| tuning.automove = 0);
        fill(&stand, 0, 60, 500);
        let class = class_of(&stand, 500);
        for left in (1..pages(&stand, class)).rev() {
            assert_eq!(stand.store.reassign(class.into(), 0), Reassign::Ok);
            stand.mover_steps(20);
            assert_eq!(pages(&stand, class), left);
        }
        assert_eq!(stand.store.reassign(class.into(), 0), Reassign::NoSpare);
    }
}
