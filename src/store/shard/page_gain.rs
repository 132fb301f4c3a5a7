//! What a page more would be worth to each class: how many gets miss what would still be there with it.
//!
//! ```text
//! evicted ──> | mark 31 | class 7 | number 26 |   one key in four; the number is the class's count of evicted chunks
//! a get misses ──> found, and less than two pages of the class have been evicted since ──> hits[class] + 1
//!                  (of a large shard, where a page changes nothing: one key in 4n, and 2n pages)
//!
//! hash * K:   | line (of `lines`) … | 31 bits: the mark |      a line: 8 of these, 64 bytes, newest first
//! ```
//!
//! What the next page would bring is also what the last one brings, so the same numbers say what a page less would
//! cost. The table is made in the background, and only where the mover goes by it; until then nothing is noted but how
//! many gets have missed. It has room for twice what can be of use, so an entry seldom goes before its time.
//!
//! Not here: what is made of these numbers (`background::gradient`), the ghost of the lists (`ghost`).

use crate::store::Hash;
use crate::store::memory::classes::{CLASSES, Classes};
use crate::sys::cpu;

/// One key in so many is watched, where a unit is a page.
const SAMPLE: u64 = 4;

/// Bits of the hash that say whether a key is: neither the table's nor the shard's.
const SAMPLE_SHIFT: u32 = 40;

/// Units of a class that are evicted while a key is remembered.
const UNITS: u32 = 2;

/// A shard of fewer pages than twice this has units of one page; else each is about one of so many parts of it.
const PARTS: u64 = 128;

const PER_LINE: usize = 8;

/// As `ghost::MIX`, another one.
const MIX: u64 = 0xd6e8_feb8_6659_fd93;

const CLASS_BITS: u32 = 7;
const NUMBER_BITS: u32 = 26;
const NUMBER_MASK: u32 = (1 << NUMBER_BITS) - 1;
const MARK_SHIFT: u32 = 33;

const _: () = assert!(CLASSES <= 1 << CLASS_BITS && CLASS_BITS + NUMBER_BITS == MARK_SHIFT);

/// See the module's head.
#[derive(Debug)]
pub struct PageGain {
    lines: Vec<GainLine>,
    /// log2 of the pages that change hands together.
    unit: u32,
    /// By class: chunks that were evicted.
    evicted: [u32; CLASSES],
    /// By class: watched gets that a page or two more would have made hits, since they were last taken.
    hits: [u32; CLASSES],
    /// Gets that missed.
    pub misses: u64,
    /// Who brings another server's changes has made something go since this was last asked.
    pub is_fed: bool,
}

/// Entries; an empty one is 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct GainLine([u64; PER_LINE]);

impl Default for PageGain {
    fn default() -> PageGain {
        PageGain { lines: Vec::new(), unit: 0, evicted: [0; CLASSES], hits: [0; CLASSES], misses: 0, is_fed: false }
    }
}

/// Room for what these classes evict.
#[derive(Debug, Default)]
pub struct GainRoom {
    lines: Vec<GainLine>,
    unit: u32,
}

/// How much room: for classes that have so many chunks a page, all together, of a shard that may have so many pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GainSize {
    pub chunks: u64,
    pub pages: u64,
}

impl GainRoom {
    /// Empty lines, none for no chunks.
    pub fn of(size: GainSize) -> GainRoom {
        let lines = if size.chunks == 0 { 0 } else { lines_of(size.chunks) };
        GainRoom { lines: vec![GainLine::default(); lines], unit: unit_of(size.pages) }
    }
}

fn unit_of(pages: u64) -> u32 {
    (pages / PARTS).max(1).ilog2()
}

/// Half full when each class has evicted as much as can be of use.
fn lines_of(chunks: u64) -> usize {
    (2 * chunks * u64::from(UNITS) / SAMPLE) as usize / PER_LINE + 1
}

impl PageGain {
    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.lines.as_slice()) as u64
    }

    /// Whether it is there, and large enough.
    pub fn fits(&self, size: GainSize) -> bool {
        self.lines.len() * 2 >= lines_of(size.chunks) && self.unit == unit_of(size.pages)
    }

    /// Pages that change hands together.
    pub fn unit(&self) -> u64 {
        1 << self.unit
    }

    /// Puts an empty table in the place of what there is, which is to be dropped without the lock.
    pub fn renew(&mut self, room: GainRoom) -> GainRoom {
        self.hits = [0; CLASSES];
        let unit = std::mem::replace(&mut self.unit, room.unit);
        GainRoom { lines: std::mem::replace(&mut self.lines, room.lines), unit }
    }

    /// Hits since this was last asked, by class; a watched key stands for those that are not.
    pub fn take_hits(&mut self) -> [u32; CLASSES] {
        std::mem::replace(&mut self.hits, [0; CLASSES])
    }

    /// Notes that an item of so many chunks had to go.
    pub fn evicted(&mut self, hash: Hash, class: u8, chunks: u32, classes: &Classes) {
        let number = self.evicted[usize::from(class)].wrapping_add(chunks);
        self.evicted[usize::from(class)] = number;
        if self.watches(hash) {
            let entry =
                u64::from(mark(hash)) << MARK_SHIFT | u64::from(class) << NUMBER_BITS | u64::from(number & NUMBER_MASK);
            self.put(hash, entry, classes);
        }
    }

    /// Notes that a get found nothing.
    #[inline]
    pub fn missed(&mut self, hash: Hash, classes: &Classes) {
        self.misses += 1;
        if self.watches(hash) {
            self.ask(hash, classes);
        }
    }

    /// Hints the CPU to fetch what an eviction of this key will write.
    #[inline]
    pub fn prefetch(&self, hash: Hash) {
        if self.watches(hash)
            && let Some(line) = self.lines.get(self.at(hash))
        {
            cpu::prefetch(std::ptr::from_ref(line).cast());
        }
    }

    fn put(&mut self, hash: Hash, entry: u64, classes: &Classes) {
        let (at, evicted, unit) = (self.at(hash), &self.evicted, self.unit);
        let line = &mut self.lines[at].0;
        let goes = |old: &u64| {
            *old == 0 || old >> MARK_SHIFT == entry >> MARK_SHIFT || !is_recent(*old, evicted, unit, classes)
        };
        let goes = line.iter().position(goes).unwrap_or(PER_LINE - 1);
        line.copy_within(..goes, 1);
        line[0] = entry;
    }

    #[inline(never)]
    fn ask(&mut self, hash: Hash, classes: &Classes) {
        let at = self.at(hash);
        let line = &mut self.lines[at].0;
        let Some(found) = line.iter().position(|entry| entry >> MARK_SHIFT == u64::from(mark(hash))) else { return };
        let entry = line[found];
        line.copy_within(found + 1.., found);
        line[PER_LINE - 1] = 0;
        if is_recent(entry, &self.evicted, self.unit, classes) {
            self.hits[class_of(entry)] += 1;
        }
    }

    #[inline]
    fn watches(&self, hash: Hash) -> bool {
        (hash.0 >> SAMPLE_SHIFT) & ((SAMPLE << self.unit) - 1) == 0 && !self.lines.is_empty()
    }

    fn at(&self, hash: Hash) -> usize {
        ((u128::from(hash.0.wrapping_mul(MIX)) * self.lines.len() as u128) >> 64) as usize
    }
}

/// Whether so little was evicted since that another page or two would have kept it.
fn is_recent(entry: u64, evicted: &[u32; CLASSES], unit: u32, classes: &Classes) -> bool {
    let class = class_of(entry);
    let since = evicted[class].wrapping_sub(entry as u32 & NUMBER_MASK) & NUMBER_MASK;
    since < (UNITS << unit) * classes.per_page(class as u8)
}

fn class_of(entry: u64) -> usize {
    (entry >> NUMBER_BITS) as usize & (CLASSES - 1)
}

/// Never 0: an entry that is there is not empty.
fn mark(hash: Hash) -> u32 {
    (hash.0.wrapping_mul(MIX) as u32 >> 1).max(1)
}
