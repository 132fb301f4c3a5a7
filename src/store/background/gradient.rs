//! Where a page would make most hits: the mover's rule while the order is S3-FIFO.
//!
//! ```text
//! each 10,000 gets of a shard:   gain[class] = most of gain[class] + weight * hits that a page would have made
//!
//! lo: free to give, or the least gain  ── a page ──>  hi: the greatest gain, and hardly a chunk free
//!                                      if the difference is significant, and g_lo < g_hi * ratio
//! ```
//!
//! A hit of a large item costs more memory than one of a small one, so by hits alone the small ones would get nearly all
//! pages, and fewer bytes would be hits. The root of the size is a middle way: over 14 loads of 4 sizes 8 % fewer misses
//! for 0.4 % more bytes missed, where hits alone gave 9 % for 6 %, and bytes alone 2 %.
//!
//! In a large shard everything is of as many pages together as make a 128th of it, and a step takes as many more gets.
//!
//! A page that changes hands empties thousands of chunks, and those of its new class take long to fill. Therefore a
//! difference that may be chance moves nothing.
//!
//! Invariant: a class keeps its last page.
//!
//! Not here: what is counted (`shard::page_gain`), other reasons to move a page (`balance`).

use crate::store::AutomoveWeight;
use crate::store::memory::classes::CLASSES;
use crate::store::shard::Shard;
use crate::store::shard::page_gain::GainSize;

/// Gets between two steps.
const GETS: u64 = 10_000;

/// Moves of a step.
const MOVES: usize = 2;

/// Of the gain of a class that gets a page, what is left until it has shown that it needs another one.
const AFTER_MOVE: f64 = 0.7;

/// A move that takes another one back was chance, or this load has no best place for that page: the next difference must
/// be greater by this factor, up to a bound, and for a thousand steps or two.
const DOUBT: f64 = 1.5;
const DOUBT_MAX: f64 = 5.0;
const DOUBT_KEPT: f64 = 0.9995;

/// Less gain than this is no reason to move a page.
const GAIN_MIN: f64 = 4.0;

/// Standard deviations by which two gains must differ. Many, as hits come in bunches, and the greatest of many classes is
/// held against the least: with 3, 4 and 6, `replay` moved 136, 95 and 43 pages on Zipf 0.9 at -m 128, for hit ratios of
/// 0.750, 0.752 and 0.755; where the sizes change all at once they were 0.634, 0.634 and 0.632.
const SIGMAS: f64 = 6.0;

/// Halves of a page that are free in a class that gives before all others.
const FREE_HALVES: u64 = 5;

/// A class that has more than this part of a page free needs none.
const NEEDY_PART: u64 = 8;

/// What is known of one shard's classes.
#[derive(Clone, Debug, Default)]
pub(super) struct Gradient {
    classes: Vec<ClassGain>,
    /// Gets of the shard up to the last step, up to the last second, and up to the last look.
    gets: u64,
    gets_of_second: u64,
    gets_seen: u64,
    /// By how much more than usual a difference must be significant, beyond 1.
    doubt: f64,
    /// Somebody asks for keys here, and no other server's changes are followed: the gain is known.
    pub is_known: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct ClassGain {
    gain: f64,
    /// Its variance.
    variance: f64,
    /// What became of it last, if it gave or got a page.
    last: Option<PageMove>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageMove {
    Gave,
    Got,
}

impl Gradient {
    /// Nothing known yet.
    pub(super) fn new() -> Gradient {
        Gradient { classes: vec![ClassGain::default(); CLASSES], ..Gradient::default() }
    }

    /// Whether somebody has asked for a key since the last look.
    pub(super) fn is_asked(&mut self, shard: &Shard) -> bool {
        let gets = shard.gets();
        std::mem::replace(&mut self.gets_seen, gets) != gets
    }

    /// Once a second: whether the gain can be known.
    pub(super) fn judge(&mut self, shard: &mut Shard) {
        let gets = shard.gets();
        let is_asked = std::mem::replace(&mut self.gets_of_second, gets) != gets;
        let is_fed = std::mem::take(&mut shard.gain.is_fed);
        self.is_known = is_asked && !is_fed && shard.gain.bytes() > 0;
    }

    /// The moves that are due, as source and destination.
    pub(super) fn step(&mut self, shard: &mut Shard) -> Vec<(u8, u8)> {
        let gets = shard.gets();
        // The counters may have been reset.
        let passed = gets.checked_sub(self.gets).unwrap_or(gets);
        if passed < GETS * shard.gain.unit() || !self.is_known {
            return Vec::new();
        }
        self.gets = gets;
        self.doubt *= DOUBT_KEPT;
        self.add(shard);
        let mut moves = Vec::new();
        for _ in 0..MOVES {
            let Some((src, dst)) = self.best(shard, &moves) else { break };
            self.note_move(src, dst);
            moves.extend(std::iter::repeat_n((src, dst), shard.gain.unit() as usize));
        }
        moves
    }

    fn note_move(&mut self, src: u8, dst: u8) {
        let gave = self.classes[usize::from(src)].last.replace(PageMove::Gave);
        let got = &mut self.classes[usize::from(dst)];
        (got.gain, got.variance) = (got.gain * AFTER_MOVE, got.variance * AFTER_MOVE * AFTER_MOVE);
        let got = got.last.replace(PageMove::Got);
        if gave == Some(PageMove::Got) || got == Some(PageMove::Gave) {
            self.doubt = ((self.doubt + 1.0) * DOUBT).min(DOUBT_MAX) - 1.0;
        }
    }

    fn add(&mut self, shard: &mut Shard) {
        let kept = 1.0 - 0.5 / f64::from(shard.tuning.automove_window.max(1));
        let mean = shard.bytes_per_item();
        let hits = shard.gain.take_hits();
        for class in 1..=usize::from(shard.core.classes.largest()) {
            let hits = f64::from(hits[class]);
            let weight = match shard.core.config.automove_weight {
                AutomoveWeight::Objects => 0.5,
                AutomoveWeight::Balanced => (shard.size_in(class) / mean).sqrt() / 2.0,
                AutomoveWeight::Bytes => shard.size_in(class) / mean / 2.0,
            };
            self.classes[class].add(hits, weight, kept);
        }
    }

    /// A move that is worth it beside those.
    fn best(&self, shard: &Shard, others: &[(u8, u8)]) -> Option<(u8, u8)> {
        let gain = |class: u8| self.classes[usize::from(class)].gain;
        let classes = || 1..=shard.core.classes.largest();
        let given = |class: u8| others.iter().filter(|(src, _)| *src == class).count() as u64;
        let hi = classes().filter(|&class| shard.is_needy(class)).max_by(|&a, &b| gain(a).total_cmp(&gain(b)))?;
        let gives = |&class: &u8| class != hi && shard.may_give_page(class, given(class));
        let (has_free, lo) = classes()
            .filter(gives)
            .map(|class| (shard.has_free_halves(class, FREE_HALVES + 2 * given(class)), class))
            .min_by(|a, b| b.0.cmp(&a.0).then(gain(a.1).total_cmp(&gain(b.1))))?;
        let (hi_gain, lo_gain) = (gain(hi), if has_free { 0.0 } else { gain(lo) });
        let noise = (self.classes[usize::from(hi)].variance + self.classes[usize::from(lo)].variance).sqrt();
        let is_worth = hi_gain > GAIN_MIN
            && lo_gain < hi_gain * shard.tuning.automove_ratio
            && hi_gain - lo_gain > SIGMAS * (1.0 + self.doubt) * noise;
        is_worth.then_some((lo, hi))
    }
}

impl ClassGain {
    fn add(&mut self, hits: f64, weight: f64, kept: f64) {
        self.gain = self.gain * kept + weight * hits;
        self.variance = self.variance * kept * kept + weight * weight * hits;
    }
}

impl Shard {
    /// Gets that it was asked, since the counters were last reset.
    fn gets(&self) -> u64 {
        self.gain.misses + self.lrus.iter().map(|lru| lru.counters.hits.iter().sum::<u64>()).sum::<u64>()
    }

    /// What its table of gains should have room for; None where it is as it should be.
    pub(super) fn lacks_gain_room(&self, is_wanted: bool, shards: usize) -> Option<GainSize> {
        let classes = 1..=self.core.classes.largest();
        let has_pages = |class: &u8| self.slab.classes[usize::from(*class)].pages > 0;
        let chunks = classes.filter(has_pages).map(|class| u64::from(self.core.classes.per_page(class))).sum();
        let pages = self.core.pool.limit() / self.core.config.page_size as u64 / shards as u64;
        let size = GainSize { chunks: if is_wanted { chunks } else { 0 }, pages };
        let is_right = if size.chunks == 0 { self.gain.bytes() == 0 } else { self.gain.fits(size) };
        (!is_right).then_some(size)
    }

    /// Bytes of memory that an item takes, of all classes.
    fn bytes_per_item(&self) -> f64 {
        let pages: u64 = self.slab.classes.iter().map(|class| class.pages).sum();
        pages.max(1) as f64 * self.core.config.page_size as f64 / self.table.items().max(1) as f64
    }

    /// The same of one: those of the largest may be in pieces.
    fn size_in(&self, class: usize) -> f64 {
        let chunk = self.core.classes.size(class as u8) as f64;
        if class != usize::from(self.core.classes.largest()) {
            return chunk;
        }
        let (items, bytes) =
            self.lrus[class].lists.iter().fold((0, 0), |sum, list| (sum.0 + list.count, sum.1 + list.bytes));
        chunk.max(bytes as f64 / items.max(1) as f64)
    }

    /// Whether it will soon have to evict.
    fn is_needy(&self, class: u8) -> bool {
        let free = self.slab.available(class.into(), &self.core.classes);
        free * NEEDY_PART < u64::from(self.core.classes.per_page(class))
    }

    pub(super) fn has_free_halves(&self, class: u8, halves: u64) -> bool {
        let free = self.slab.available(class.into(), &self.core.classes);
        free * 2 >= u64::from(self.core.classes.per_page(class)) * halves
    }

    /// Whether a class has another page to give beside so many. One of heads and tails of large items, which are listed
    /// elsewhere, shows no gain of its own.
    fn may_give_page(&self, class: u8, given: u64) -> bool {
        let chunks = &self.slab.classes[usize::from(class)];
        let listed: u64 = self.lrus[usize::from(class)].lists.iter().map(|list| list.count).sum();
        let holds_parts = class != self.core.classes.largest() && chunks.used > 2 * listed;
        chunks.pages > 1 + given && (!holds_parts || self.has_free_halves(class, FREE_HALVES + 2 * given))
    }
}

#[cfg(test)]
#[path = "tests/gradient.rs"]
mod tests;
