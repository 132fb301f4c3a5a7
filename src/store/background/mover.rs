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
//! memory limit (it was lowered; or many shards had to have first pages), then what `balance` finds worth it.
//!
//! Invariants: a page that is being emptied is `slab.moving` of its shard, and nothing is put into it.
//!
//! Not here: which class needs a page (`balance`).

use super::balance::{Automove, Move, above_limit, asked};
use crate::store::lock_time::{Holder, Slice};
use crate::store::memory::arena::offset;
use crate::store::memory::layout::{CHAIN_BYTES, Chunk, ItemHeader, state};
use crate::store::memory::slab::step;
use crate::store::requests::{Counts, NAP_MAX};
use crate::store::shard::Shard;
use crate::store::shard::lru::{COLD, HOT, TEMP, WARM};
use crate::store::{Event, ItemId, Reassign, Store};
use std::time::{Duration, Instant};

/// A chunk whose copying takes a slice of its own: half a MiB may take 100 us.
const LARGE: usize = 64 << 10;

/// Chunks that leave their free list in one slice: a page of more is not moved at once.
const AT_ONCE: u32 = 2048;

/// Evictions for one chunk, as [`Shard::alloc`] does.
const EVICTIONS: usize = 10;

/// Time for the clients between two slices.
const NAP: Duration = Duration::from_micros(50);

/// While a class has much more free than it needs, its pages are emptied for so long without a nap, for each of them that
/// is free, and at most for so long. Of 1,000-byte items of which nine in ten were deleted, 450 pages a second came back
/// with a nap after each slice, which is one part work and five parts naps. Meanwhile who waits for the lock of a shard may be
/// too late for it between two slices, so it is not for longer.
const BUSY_PER_PAGE: Duration = Duration::from_micros(5);
const BUSY_MAX: Duration = Duration::from_micros(200);

/// Time for those who hold items in the page to finish.
const NAP_BUSY: Duration = Duration::from_millis(1);

/// After so many rounds over a page, large items that are stuck in it are unlinked, as memcached does.
const ROUNDS_PATIENT: u32 = 5000;

/// After so many it stays where it is: somebody reads or writes very slowly.
const ROUNDS_MAX: u32 = 20_000;

/// After so many, another page of the class is tried first, as long as there is one that was not.
const ROUNDS_FIRST: u32 = 200;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Mover {
    automove: Automove,
    job: Option<Job>,
    /// The last nap.
    rested: Instant,
}

impl Mover {
    /// A mover that has nothing to do.
    pub(super) fn new(store: &Store) -> Mover {
        Mover { automove: Automove::new(store), job: None, rested: Instant::now() }
    }

    /// Moves on, or begins to if there is reason. When to be called again.
    pub(super) fn step(&mut self, store: &Store) -> Duration {
        if !store.core.config.slab_reassign {
            return NAP_MAX;
        }
        if self.job.is_none() {
            match self.next_move(store) {
                NextMove::Nothing => return self.automove.nap(store),
                NextMove::Impossible(src, dst) => return end(store, src, dst, false),
                NextMove::Move(next) if next.src == 0 => {
                    let Move { shard, src, dst } = next;
                    return end(store, src, dst, store.lock_timed(shard, Holder::Mover).take_unused(dst));
                }
                NextMove::Move(next) => self.job = Job::begin(store, next),
            }
        }
        let Some(job) = &mut self.job else { return NAP };
        let busy = job.busy_for;
        match job.go_on(store) {
            MoveProgress::More => self.nap_after(busy),
            MoveProgress::Idle => Duration::ZERO,
            MoveProgress::Busy => NAP_BUSY,
            MoveProgress::Moved(ok) => {
                let done = job.it;
                self.job = None;
                self.automove.excuse(store, done, ok);
                let nap = end(store, done.src, done.dst, ok);
                if self.automove.has_plenty() { self.nap_after(busy) } else { nap }
            }
        }
    }

    /// None as long as it has not worked for so long since the last one. Who waits for the lock of a shard gets it in that nap
    /// at the latest.
    fn nap_after(&mut self, busy: Duration) -> Duration {
        if self.rested.elapsed() < busy {
            std::thread::yield_now();
            return Duration::ZERO;
        }
        self.rested = Instant::now() + NAP;
        NAP
    }

    fn next_move(&mut self, store: &Store) -> NextMove {
        if let Some((src, dst)) = store.core.requests.take_reassign() {
            return asked(store, src, dst).map_or(NextMove::Impossible(src.unwrap_or(0), dst), NextMove::Move);
        }
        let found = above_limit(store).or_else(|| self.automove.decide(store));
        match found {
            Some(found) if store.core.requests.begin_move() => NextMove::Move(found),
            _ => NextMove::Nothing,
        }
    }
}

/// What a command asks for: no source is any class. A page in which nothing lies, or that nobody uses, is moved at once, so
/// that the next can be asked for.
pub(in crate::store) fn reassign(store: &Store, src: Option<u8>, dst: u8) -> Reassign {
    if !store.core.requests.begin_move() {
        return Reassign::Busy;
    }
    match asked(store, src, dst).and_then(|it| move_at_once(store, it).map(|ok| (it.src, ok))) {
        Some((src, ok)) => drop(end(store, src, dst, ok)),
        None => store.core.requests.reassign(src, dst),
    }
    Reassign::Ok
}

/// None if it takes longer; else whether it was possible.
fn move_at_once(store: &Store, it: Move) -> Option<bool> {
    let Move { shard, src, dst } = it;
    if src == 0 {
        return Some(store.lock_timed(shard, Holder::Mover).take_unused(dst));
    }
    let others_have = others_have(store, it);
    let mut shard = store.lock_timed(shard, Holder::Mover);
    let may =
        shard.core.classes.per_page(src) <= AT_ONCE && (others_have || shard.slab.classes[usize::from(src)].pages > 1);
    if !may || !shard.slab.pages.iter().any(|page| page.class == src && page.used == 0) {
        return None;
    }
    let (mut at, _) = shard.begin_move(src, &[])?;
    while !shard.withdraw(&mut at) {}
    shard.hand_over(dst);
    Some(true)
}

/// Whether other shards have pages of the class that is to lose one.
fn others_have(store: &Store, it: Move) -> bool {
    let pages = |shard: usize| store.lock_timed(shard, Holder::Mover).slab.classes[usize::from(it.src)].pages;
    (0..store.shards.len()).any(|shard| shard != it.shard && pages(shard) > 0)
}

enum NextMove {
    Nothing,
    /// It was possible when it was asked for.
    Impossible(u8, u8),
    Move(Move),
}

/// Tells and counts how a move ended.
fn end(store: &Store, src: u8, dst: u8, ok: bool) -> Duration {
    store.core.requests.end_move();
    store.core.requests.counts().slabs_moved += u64::from(ok);
    if store.core.events.wants_system() {
        store.core.events.keep(Event::SlabMove { src, dst, ok });
    }
    NAP
}

/// A page on its way.
#[derive(Debug)]
struct Job {
    it: Move,
    phase: Phase,
    /// The next chunk to look at.
    at: ItemId,
    rounds: u32,
    /// When `rounds` has come to this, this page is given up.
    rounds_max: u32,
    /// Pages in which somebody held an item for too long. One such item, an upload that stands still, must not keep a class
    /// from giving a page.
    held: Vec<u32>,
    /// How long it is gone on with at once.
    busy_for: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Withdraw,
    Empty,
    GiveUp,
}

/// What a part of a move came to.
enum MoveProgress {
    More,
    /// Nothing lies in the page: it is soon done, and whoever asked for it may ask for the next.
    Idle,
    /// Somebody holds what is left.
    Busy,
    /// Or not, when false.
    Moved(bool),
}

impl Job {
    /// None when the class has no page any more, or only the last of all shards: since the move was decided, who needed
    /// memory may have taken the others ([`Shard::take_idle_page`]).
    fn begin(store: &Store, it: Move) -> Option<Job> {
        // Nobody but the mover takes the last page of a shard's class, so what others have they keep.
        let others_have = others_have(store, it);
        let mut shard = store.lock_timed(it.shard, Holder::Mover);
        if it.dst != 0 && shard.source(it.shard, it.src).is_some_and(|source| source.free_pages == 0) {
            // While memory is not full nobody has to go.
            shard.take_unused(it.src);
        }
        let free_pages = shard.source(it.shard, it.src).map_or(0, |source| source.free_pages);
        let busy_for =
            if it.dst == 0 { BUSY_MAX.min(BUSY_PER_PAGE * free_pages.min(1000) as u32) } else { Duration::ZERO };
        let keeps_one = others_have || shard.slab.classes[usize::from(it.src)].pages > 1;
        let begun = if keeps_one { shard.begin_move(it.src, &[]) } else { None };
        drop(shard);
        if begun.is_none() {
            end(store, it.src, it.dst, false);
        }
        begun.map(|(at, rounds_max)| {
            let (phase, held) = (Phase::Withdraw, Vec::new());
            Job { it, phase, at, rounds: 0, rounds_max, held, busy_for }
        })
    }

    /// Goes on with another page, under the lock under which one was given up: else its class could lose others between
    /// the two, down to its last.
    fn try_another(&mut self, shard: &mut Shard, given_up: u32) {
        self.held.push(given_up);
        let begun = shard.begin_move(self.it.src, &self.held);
        let (at, more) = begun.expect("the class has the page that was given up");
        // To give up one page and to begin with another counts as rounds, so that all pages together take as long as one.
        self.rounds += 2;
        let rounds_max = ROUNDS_MAX.min(self.rounds.saturating_add(more));
        (self.phase, self.at, self.rounds_max) = (Phase::Withdraw, at, rounds_max);
    }

    fn go_on(&mut self, store: &Store) -> MoveProgress {
        let mut shard = store.lock_timed(self.it.shard, Holder::Mover);
        match self.phase {
            Phase::Withdraw => {
                if shard.withdraw(&mut self.at) {
                    self.again(&shard, Phase::Empty);
                    if shard.slab.pages[shard.slab.moving.page as usize].used == 0 {
                        return self.end_round(&mut shard);
                    }
                }
                let is_idle = shard.slab.pages[shard.slab.moving.page as usize].used == 0;
                if is_idle { MoveProgress::Idle } else { MoveProgress::More }
            }
            Phase::Empty => self.empty(store, &mut shard),
            Phase::GiveUp => {
                let page = shard.slab.moving.page;
                if shard.take_back(&mut self.at) {
                    if self.rounds >= ROUNDS_MAX {
                        return MoveProgress::Moved(false);
                    }
                    self.try_another(&mut shard, page);
                }
                MoveProgress::More
            }
        }
    }

    fn empty(&mut self, store: &Store, shard: &mut Shard) -> MoveProgress {
        let mut counts = store.core.requests.counts();
        let patient = self.rounds < ROUNDS_PATIENT;
        let mut slice = Slice::new();
        while self.at < shard.slab.moving.end {
            let copied = shard.vacate(self.at, patient, &mut counts);
            self.at.0 += step(self.it.src, &shard.core.classes);
            if copied > LARGE || slice.is_over() {
                return MoveProgress::More;
            }
        }
        drop(counts);
        self.end_round(shard)
    }

    /// The whole page was looked at.
    fn end_round(&mut self, shard: &mut Shard) -> MoveProgress {
        self.rounds += 1;
        if shard.slab.pages[shard.slab.moving.page as usize].used == 0 {
            shard.hand_over(self.it.dst);
            return MoveProgress::Moved(true);
        }
        if self.rounds < self.rounds_max {
            self.again(shard, Phase::Empty);
            return MoveProgress::Busy;
        }
        shard.slab.moving.given_up = true;
        self.again(shard, Phase::GiveUp);
        MoveProgress::More
    }

    fn again(&mut self, shard: &Shard, phase: Phase) {
        self.phase = phase;
        self.at = shard.slab.first_chunk(shard.slab.moving.page);
    }
}

impl Shard {
    /// Takes an unused page for a class.
    fn take_unused(&mut self, class: u8) -> bool {
        let Shard { slab, window, core, .. } = self;
        let first = slab.classes[usize::from(class)].pages == 0;
        slab.take_page(class, window, &core.classes, &core.pool, || core.pool.take(first))
    }

    /// Begins to empty the page of a class that holds least, rather one that is not among `held`. Its first chunk, and
    /// rounds until it is given up.
    fn begin_move(&mut self, class: u8, held: &[u32]) -> Option<(ItemId, u32)> {
        if !self.window.is_in_file() {
            self.slab.refresh_unused(class);
        }
        let pages = || (0..).zip(&self.slab.pages).filter(|(_, page)| page.class == class);
        let is_held = |page: u32| held.contains(&page);
        let (page, _) = pages().min_by_key(|(page, it)| (is_held(*page), it.used))?;
        let has_others = pages().any(|(other, _)| other != page && !is_held(other));
        self.slab.begin_move(page, &self.core.classes);
        Some((self.slab.first_chunk(page), if has_others { ROUNDS_FIRST } else { ROUNDS_MAX }))
    }

    /// Withdraws free chunks of the page. True when it was looked at to the end.
    fn withdraw(&mut self, at: &mut ItemId) -> bool {
        let moving = self.slab.moving;
        let step = step(self.slab.pages[moving.page as usize].class, &self.core.classes);
        let mut slice = Slice::new();
        while !slice.is_over() {
            if *at >= moving.end {
                return true;
            }
            if self.window.chunk(*at).is(state::FREE) {
                self.slab.withdraw(*at, &mut self.window);
            }
            at.0 += step;
        }
        false
    }

    /// Empties a chunk if possible. How many bytes were copied for it.
    fn vacate(&mut self, id: ItemId, patient: bool, counts: &mut Counts) -> usize {
        let chunk = *self.window.chunk(id);
        if chunk.is_gone() {
            return 0;
        }
        let item = if chunk.is_piece() { chunk.piece_of() } else { id };
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
    fn busy(&self, item: ItemId) -> Option<&'static str> {
        let header = self.window.header(item);
        match header.chunk {
            chunk if chunk.is(state::LINKED) => (chunk.pins > 0).then_some("busy"),
            // It was never linked.
            _ if header.last_access == 0 => Some("busy_uploading"),
            _ => Some("busy_floating"),
        }
    }

    /// Moves an item, or a piece of it, into another chunk. When there is none, the item goes.
    fn rescue(&mut self, id: ItemId, item: ItemId, counts: &mut Counts) -> usize {
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
    fn chunk_elsewhere(&mut self, class: u8, item: ItemId, counts: &mut Counts) -> Option<ItemId> {
        self.window.chunk_mut(item).pins += 1;
        let mut found = self.take_ready(class);
        for _ in 0..EVICTIONS {
            if found.is_some() || !self.make_any_room(class, counts) {
                break;
            }
            found = self.take_ready(class);
        }
        self.window.chunk_mut(item).pins -= 1;
        found
    }

    /// Reclaims, which is counted, or evicts something. False when there is nothing.
    fn make_any_room(&mut self, class: u8, counts: &mut Counts) -> bool {
        let reclaims = [COLD, HOT, WARM, TEMP].iter().any(|&lru| self.reclaim_tail(class, lru) > 0);
        counts.inline_reclaim += u64::from(reclaims);
        reclaims || self.make_room(class)
    }

    fn take_ready(&mut self, class: u8) -> Option<ItemId> {
        self.slab.take_ready(class, &mut self.window, &self.core.classes)
    }

    /// Copies a linked item to `new`, which is the item from then on. Bytes that were copied.
    fn move_item(&mut self, old: ItemId, new: ItemId) -> usize {
        let hash = self.core.hash(self.key(old));
        let chunk = *self.window.chunk(old);
        let sealed = chunk.len as usize + self.core.sizing.seal;
        let bytes = self.window.value_at(&chunk) + if chunk.is(state::CHUNKED) { CHAIN_BYTES } else { sealed };
        self.window.copy(offset(old), offset(new), bytes);
        self.table.replace(hash, old, new);
        let class = self.listed_class(old, &chunk);
        let list = &mut self.lrus[usize::from(class)].lists[chunk.lru()];
        match chunk.prev {
            ItemId::NONE => list.head = new,
            prev => self.window.chunk_mut(prev).next = new,
        }
        match chunk.next {
            ItemId::NONE => list.tail = new,
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
    fn tell_pieces(&mut self, item: ItemId) {
        let mut piece = self.chain(item).0;
        while piece != ItemId::NONE {
            let chunk = self.window.chunk_mut(piece);
            chunk.len = item.0;
            piece = chunk.next;
        }
    }

    /// Copies a piece of a linked item to `new`. Bytes that were copied.
    fn move_piece(&mut self, old: ItemId, new: ItemId) -> usize {
        let chunk = *self.window.chunk(old);
        let (Chunk { prev, next, .. }, item) = (chunk, chunk.piece_of());
        let bytes = self.core.classes.size(self.slab.class_of(old));
        self.window.copy(offset(old), offset(new), bytes);
        let (mut first, mut last) = self.chain(item);
        match prev {
            ItemId::NONE => first = new,
            prev => self.window.chunk_mut(prev).next = new,
        }
        match next {
            ItemId::NONE => last = new,
            next => self.window.chunk_mut(next).prev = new,
        }
        self.set_chain(item, first, last);
        self.drop_chunk(old);
        bytes
    }

    /// Forgets a chunk whose contents are elsewhere now.
    fn drop_chunk(&mut self, id: ItemId) {
        // In a memory file nothing of it may look like an item.
        let head = if self.window.is_in_file() { size_of::<ItemHeader>() } else { size_of::<Chunk>() };
        self.window.bytes_mut(offset(id), head).fill(0);
        self.slab.put(id, &mut self.window);
    }

    /// Gives the page, which is empty now, to a class or to the pool.
    fn hand_over(&mut self, dst: u8) {
        let page = self.slab.end_move();
        self.slab.forget_page(page, &mut self.window);
        if dst != 0 {
            return self.slab.give_page(page, dst, &self.core.classes);
        }
        if !self.core.config.keeps_pages() {
            self.window.discard(offset(self.slab.first_chunk(page)), self.core.config.page_size);
        }
        self.slab.empty.push(page);
        self.core.pool.put_unused();
    }

    /// Makes chunks of a page that stays free again. True when all are.
    fn take_back(&mut self, at: &mut ItemId) -> bool {
        let page = self.slab.moving.page;
        let class = self.slab.pages[page as usize].class;
        let step = step(class, &self.core.classes);
        let end = ItemId(self.slab.first_chunk(page).0 + self.core.classes.per_page(class) * step);
        let mut slice = Slice::new();
        while !slice.is_over() {
            let uncarved = self.slab.moving.end;
            if uncarved < end {
                self.slab.moving.end.0 += step;
                self.slab.put_free(uncarved, &mut self.window);
            } else if *at < end {
                if self.window.chunk(*at).is_gone() {
                    self.slab.put_free(*at, &mut self.window);
                }
                at.0 += step;
            } else {
                self.slab.moving = Default::default();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "tests/mover.rs"]
mod tests;
