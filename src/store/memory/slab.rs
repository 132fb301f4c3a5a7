//! Slab classes, pages, and the chunks in them.
//!
//! ```text
//! PagePool (all shards)      how much is taken of the limit, how much of that nobody uses
//!    | take, give back
//! Slab (one shard)           pages[i]: class, used chunks
//!    class c: free list  +  the page being carved: | used | used | carve -> ........ |
//! ```
//!
//! A fresh page is carved from its begin as chunks are asked for, so taking one costs nothing. Page 0 of the
//! window is never used.
//!
//! Invariants: a chunk is used, or in its class's free list, or not yet carved, or gone (all zero) because its page
//! is being emptied; used chunks of a page are counted;
//! `taken` counts every page of every shard and those nobody uses.
//!
//! Not here: what is in a chunk, and who must go when there is none.

use super::arena::Window;
use crate::store::shard::item::{Chunk, state};
use crate::store::{Accounting, StoreConfig};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Classes are 1 to 63, as memcached's; 0 is the page pool.
pub const CLASSES: usize = 64;

/// Of these, all but class 0 and the largest have a size that is chosen.
const SIZES_MAX: usize = CLASSES - 2;

/// Sizes up to this are looked up in an array of one byte per 8 bytes.
const SMALL_MAX: usize = 8192;

/// Smallest class that can hold an item here.
const CHUNK_MIN: usize = 48;

/// memcached's steps.
const FACTOR: f64 = 1.25;

/// Native steps: finely up to [`FINE_MAX`], where most items are; beyond it ever coarser, by [`COARSER`] more for each
/// doubling. These give 63 classes. With keys of 32 bytes and values of 230 on average (`bench memory`), 0.862 of the
/// memory is keys and values; it is 0.838 with steps of 8 % up to 1 KiB and of 25 % beyond.
const FINE_FACTOR: f64 = 1.055;
const FINE_MAX: usize = 1400;
const COARSE_FACTOR: f64 = 1.2;
const COARSER: f64 = 0.045;

/// Least native step, in bytes. Every class takes a page: steps of 8 would cost more pages that are hardly used than
/// they save in chunks.
const STEP_MIN: usize = 16;

/// Pages a shard must be able to have for the native steps: about two for each class.
const FINE_PAGES: u64 = 128;

/// The chunk size of every class.
#[derive(Debug)]
pub struct Classes {
    sizes: Vec<u32>,
    per_page: Vec<u32>,
    small: Vec<u8>,
}

impl Classes {
    /// The classes that the configuration asks for.
    pub fn new(config: &StoreConfig, shards: usize) -> Classes {
        let sizes = match config.accounting {
            _ if !config.slab_sizes.is_empty() => given(config),
            Accounting::Memcached => {
                stepped(48 + config.chunk_size, config, SIZES_MAX, |_| config.growth_factor.unwrap_or(FACTOR))
            }
            Accounting::Native => native(config, shards),
        };
        let sizes = with_last(sizes, config.slab_chunk_max);
        let per_page = sizes.iter().map(|&size| (config.page_size / size.max(1) as usize) as u32).collect();
        let mut classes = Classes { sizes, per_page, small: Vec::new() };
        classes.small = (0..=SMALL_MAX / 8).map(|eighths| classes.search(eighths * 8)).collect();
        classes
    }

    /// The highest class.
    #[inline]
    pub fn largest(&self) -> u8 {
        (self.sizes.len() - 1) as u8
    }

    /// Bytes of a chunk.
    #[inline]
    pub fn size(&self, class: u8) -> usize {
        self.sizes[usize::from(class)] as usize
    }

    /// Chunks of a page.
    pub fn per_page(&self, class: u8) -> u32 {
        self.per_page[usize::from(class)]
    }

    /// The smallest class whose chunks hold `size` bytes; `size` is at most the largest chunk.
    #[inline]
    pub fn of(&self, size: usize) -> u8 {
        if size <= SMALL_MAX { self.small[size.div_ceil(8)] } else { self.search(size) }
    }

    fn search(&self, size: usize) -> u8 {
        let at = 1 + self.sizes[1..].partition_point(|&chunk| (chunk as usize) < size);
        at.min(self.sizes.len() - 1) as u8
    }
}

fn given(config: &StoreConfig) -> Vec<u32> {
    config.slab_sizes.iter().take(SIZES_MAX).map(|&size| size.next_multiple_of(8) as u32).collect()
}

fn native(config: &StoreConfig, shards: usize) -> Vec<u32> {
    let first = config.chunk_size.max(CHUNK_MIN);
    if let Some(factor) = config.growth_factor {
        return stepped(first, config, SIZES_MAX, |_| factor);
    }
    let pages = config.memory_limit / shards as u64 / config.page_size as u64;
    let factor = if pages >= FINE_PAGES { native_factor } else { |_| FACTOR };
    let mut sizes = stepped(first, config, usize::MAX, factor);
    for size in &mut sizes {
        let per_page = config.page_size as u32 / *size;
        *size = (config.page_size as u32 / per_page) & !7;
    }
    sizes.dedup();
    sizes.retain(|&size| (size as usize) < config.slab_chunk_max);
    thin(&mut sizes);
    sizes
}

/// Leaves out the sizes whose items lose least in the next larger ones, while there are too many. Were it the largest
/// ones instead, every item of 350 to 512 KiB would take a page with `slab_chunk_max=1024`.
fn thin(sizes: &mut Vec<u32>) {
    while sizes.len() > SIZES_MAX {
        let gap = |at: usize| f64::from(sizes[at + 1]) / f64::from(sizes[at - 1]);
        let least = (1..sizes.len() - 1).min_by(|&a, &b| gap(a).total_cmp(&gap(b)));
        sizes.remove(least.expect("more than two"));
    }
}

fn native_factor(size: usize) -> f64 {
    let factor = match size {
        ..FINE_MAX => FINE_FACTOR,
        _ => COARSE_FACTOR + COARSER * (size as f64 / FINE_MAX as f64).log2(),
    };
    factor.max((size + STEP_MIN) as f64 / size as f64)
}

/// At most `most` sizes from `size` on, each the one before times `factor`, in whole numbers and rounded up to 8.
fn stepped(mut size: usize, config: &StoreConfig, most: usize, factor: impl Fn(usize) -> f64) -> Vec<u32> {
    let mut sizes = Vec::new();
    while sizes.len() < most && (size as f64) < config.slab_chunk_max as f64 / factor(size) {
        size = size.next_multiple_of(8);
        sizes.push(size as u32);
        size = (size as f64 * factor(size)) as usize;
    }
    sizes
}

/// Class 0 in front, the largest chunk at the end.
fn with_last(sizes: Vec<u32>, last: usize) -> Vec<u32> {
    let mut all = vec![0];
    all.extend(sizes);
    all.push(last as u32);
    all
}

/// Share of the limit, one in so many, that classes without anything to evict may take beyond it.
const BEYOND: u64 = 16;

/// What all shards together may take.
#[derive(Debug)]
pub struct PagePool {
    page_size: u64,
    limit: AtomicU64,
    taken: AtomicU64,
    unused: AtomicU64,
    reached: AtomicBool,
}

impl PagePool {
    /// A pool that has given nothing.
    pub fn new(page_size: usize, limit: u64) -> PagePool {
        PagePool {
            page_size: page_size as u64,
            limit: AtomicU64::new(limit),
            taken: AtomicU64::new(0),
            unused: AtomicU64::new(0),
            reached: AtomicBool::new(false),
        }
    }

    /// Bytes that may be taken.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit. What is above it is given back as pages become unused.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.reached.store(false, Ordering::Relaxed);
    }

    /// Bytes taken, unused pages included.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed) * self.page_size
    }

    /// Pages that were taken and that nobody uses.
    pub fn unused(&self) -> u64 {
        self.unused.load(Ordering::Relaxed)
    }

    /// Whether a page was refused since the limit was set.
    pub fn limit_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Takes a page; `first` pages of a class do not ask for the limit.
    pub fn take(&self, first: bool) -> bool {
        self.take_up_to(if first { u64::MAX } else { self.limit() })
    }

    /// Takes a page a little beyond the limit.
    pub fn take_beyond(&self) -> bool {
        self.take_up_to(self.limit() + self.limit() / BEYOND)
    }

    fn take_up_to(&self, limit: u64) -> bool {
        let unused = |n: u64| n.checked_sub(1);
        if self.unused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, unused).is_ok() {
            return true;
        }
        let one_more = |n: u64| ((n + 1) * self.page_size <= limit).then_some(n + 1);
        let took = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if !took {
            self.reached.store(true, Ordering::Relaxed);
        }
        took
    }

    /// Takes back a page that its shard has emptied and keeps it for whoever asks next.
    pub fn put_unused(&self) {
        self.unused.fetch_add(1, Ordering::Relaxed);
        self.shrink();
    }

    /// Forgets a page that could not be had from the system after all.
    pub fn put_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Gives up unused pages while more is taken than the limit says.
    pub fn shrink(&self) {
        while self.taken() > self.limit() {
            let unused = |n: u64| n.checked_sub(1);
            if self.unused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, unused).is_err() {
                return;
            }
            self.put_back();
        }
    }
}

/// A page of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// Its class; 0 for one nobody uses.
    pub class: u8,
    /// Chunks of it that hold something.
    pub used: u32,
}

/// The chunks of one class of one shard.
#[derive(Clone, Debug, Default)]
pub struct ClassChunks {
    /// First free chunk.
    pub free: u32,
    /// Chunks in the free list.
    pub free_count: u64,
    /// Next chunk of the page being carved.
    pub carve: u32,
    /// How many it has left.
    pub carve_left: u32,
    /// Pages.
    pub pages: u64,
    /// Chunks that hold something.
    pub used: u64,
    /// Pages that are carved after that one: the mover brought them.
    pub spare: Vec<u32>,
}

/// The page that is being emptied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moving {
    /// 0 none.
    pub page: u32,
    /// First chunk that is not carved.
    pub end: u32,
    /// It will stay after all: what becomes free in it is free again.
    pub given_up: bool,
    /// The chunk of it that became free last, 0 none.
    pub gone: u32,
}

/// Pages and chunks of one shard.
#[derive(Debug)]
pub struct Slab {
    /// Index 0 is not used.
    pub pages: Vec<Page>,
    /// Pages of the window whose memory was given back.
    pub empty: Vec<u32>,
    /// By class.
    pub classes: Vec<ClassChunks>,
    page_shift: u32,
    /// See [`Moving`].
    pub moving: Moving,
    /// Pages that could not be had from the system.
    pub malloc_fails: u64,
}

impl Slab {
    /// A slab without pages.
    pub fn new(page_size: usize) -> Slab {
        Slab {
            pages: vec![Page::default()],
            empty: Vec::new(),
            classes: vec![ClassChunks::default(); CLASSES],
            page_shift: (page_size / super::arena::UNIT).ilog2(),
            moving: Moving::default(),
            malloc_fails: 0,
        }
    }

    /// The page a chunk lies in.
    #[inline]
    pub fn page_of(&self, id: u32) -> usize {
        (id >> self.page_shift) as usize
    }

    /// The class of a chunk.
    #[inline]
    pub fn class_of(&self, id: u32) -> u8 {
        self.pages[self.page_of(id)].class
    }

    /// The first chunk of a page.
    pub fn first_chunk(&self, page: u32) -> u32 {
        page << self.page_shift
    }

    /// Chunks of a class that can be had without another page.
    pub fn available(&self, class: usize, classes: &Classes) -> u64 {
        let chunks = &self.classes[class];
        let spare: u64 = chunks.spare.iter().map(|_| u64::from(classes.per_page(class as u8))).sum();
        chunks.free_count + u64::from(chunks.carve_left) + spare
    }

    /// Whether a class has a chunk without another page.
    #[inline]
    pub fn has_ready(&self, class: u8) -> bool {
        let chunks = &self.classes[usize::from(class)];
        chunks.free != 0 || chunks.carve_left > 0 || !chunks.spare.is_empty()
    }

    /// A chunk nobody uses; its head is stale. None when the class has none and no page may be taken.
    #[inline]
    pub fn take(&mut self, class: u8, window: &mut Window, classes: &Classes, pool: &PagePool) -> Option<u32> {
        self.take_ready(class, window, classes).or_else(|| {
            let first = self.classes[usize::from(class)].pages == 0;
            self.take_page(class, window, classes, pool, || pool.take(first));
            self.take_ready(class, window, classes)
        })
    }

    /// As [`Slab::take`], from the pages that the class has.
    #[inline]
    pub fn take_ready(&mut self, class: u8, window: &mut Window, classes: &Classes) -> Option<u32> {
        let chunks = &mut self.classes[usize::from(class)];
        let id = if chunks.free != 0 {
            let id = chunks.free;
            chunks.free = window.chunk(id).next;
            chunks.free_count -= 1;
            assert!(window.chunk(id).is(state::FREE), "a used chunk in the free list");
            if chunks.free != 0 {
                window.chunk_mut(chunks.free).prev = 0;
            }
            id
        } else {
            if chunks.carve_left == 0 {
                let page = chunks.spare.pop()?;
                self.carve(page, class, classes);
            }
            let chunks = &mut self.classes[usize::from(class)];
            let id = chunks.carve;
            chunks.carve += step(class, classes);
            chunks.carve_left -= 1;
            id
        };
        self.classes[usize::from(class)].used += 1;
        let page = self.page_of(id);
        self.pages[page].used += 1;
        Some(id)
    }

    /// Frees a chunk. In a page that is being emptied it is gone.
    pub fn put(&mut self, id: u32, window: &mut Window) {
        let page = self.page_of(id);
        self.pages[page].used -= 1;
        self.classes[usize::from(self.pages[page].class)].used -= 1;
        let chunk = window.chunk_mut(id);
        assert!(!chunk.is(state::FREE | state::LINKED) && chunk.pins == 0, "freed while in use");
        if page == self.moving.page as usize && !self.moving.given_up {
            *chunk = Chunk::default();
            self.moving.gone = id;
        } else {
            self.put_free(id, window);
        }
    }

    /// A chunk of the page that is being emptied, for a store that would be refused otherwise. The mover comes back
    /// for it.
    pub fn take_gone(&mut self, class: u8) -> Option<u32> {
        let Moving { page, gone, given_up, .. } = self.moving;
        if gone == 0 || given_up || self.pages[page as usize].class != class {
            return None;
        }
        self.moving.gone = 0;
        self.classes[usize::from(class)].used += 1;
        self.pages[page as usize].used += 1;
        Some(gone)
    }

    /// Puts a chunk that is neither used nor free into the free list.
    pub fn put_free(&mut self, id: u32, window: &mut Window) {
        let class = self.class_of(id);
        let chunks = &mut self.classes[usize::from(class)];
        let chunk = window.chunk_mut(id);
        chunk.state = state::FREE;
        chunk.prev = 0;
        chunk.next = chunks.free;
        if chunks.free != 0 {
            window.chunk_mut(chunks.free).prev = id;
        }
        chunks.free = id;
        chunks.free_count += 1;
    }

    /// Takes a free chunk out of the free list for good: its page is being emptied.
    pub fn withdraw(&mut self, id: u32, window: &mut Window) {
        let chunk = *window.chunk(id);
        assert!(chunk.is(state::FREE), "withdrawn while in use");
        let class = self.class_of(id);
        let chunks = &mut self.classes[usize::from(class)];
        match chunk.prev {
            0 => chunks.free = chunk.next,
            prev => window.chunk_mut(prev).next = chunk.next,
        }
        if chunk.next != 0 {
            window.chunk_mut(chunk.next).prev = chunk.prev;
        }
        chunks.free_count -= 1;
        *window.chunk_mut(id) = Chunk::default();
    }

    /// Begins to empty a page. What is free in it is still to be withdrawn, what becomes free is gone.
    pub fn begin_move(&mut self, page: u32, classes: &Classes) {
        assert_eq!(self.moving.page, 0, "two pages are moved");
        let class = self.pages[page as usize].class;
        let first = self.first_chunk(page);
        let carved_here = self.page_of(self.classes[usize::from(class)].carve) == page as usize;
        let chunks = &mut self.classes[usize::from(class)];
        let spare = chunks.spare.iter().position(|&spare| spare == page);
        let end = if let Some(spare) = spare {
            chunks.spare.swap_remove(spare);
            first
        } else if carved_here && chunks.carve_left > 0 {
            chunks.carve_left = 0;
            chunks.carve
        } else {
            first + classes.per_page(class) * step(class, classes)
        };
        self.moving = Moving { page, end, given_up: false, gone: 0 };
    }

    /// Ends the move of a page that is empty now: nobody uses it.
    pub fn end_move(&mut self) -> u32 {
        let Moving { page, .. } = std::mem::take(&mut self.moving);
        let Page { class, used } = std::mem::take(&mut self.pages[page as usize]);
        assert!(used == 0 && class != 0, "a page is not empty");
        self.classes[usize::from(class)].pages -= 1;
        page
    }

    /// Takes one more page for a class, if `may` takes one out of the pool. False when there is none.
    pub fn take_page(
        &mut self,
        class: u8,
        window: &mut Window,
        classes: &Classes,
        pool: &PagePool,
        may: impl FnOnce() -> bool,
    ) -> bool {
        let page = self.empty.last().copied().unwrap_or(self.pages.len() as u32);
        let end = (page as usize + 1) << self.page_shift << super::arena::UNIT.ilog2();
        if end > window.capacity() || !may() {
            return false;
        }
        if !window.extend(end) {
            self.malloc_fails += 1;
            pool.put_back();
            return false;
        }
        if self.empty.pop().is_none() {
            self.pages.push(Page::default());
        }
        self.give_page(page, class, classes);
        true
    }

    /// Puts a page nobody uses under a class.
    pub fn give_page(&mut self, page: u32, class: u8, classes: &Classes) {
        assert_eq!(self.pages[page as usize].class, 0, "a page is given twice");
        self.pages[page as usize] = Page { class, used: 0 };
        let chunks = &mut self.classes[usize::from(class)];
        chunks.pages += 1;
        if chunks.carve_left == 0 {
            self.carve(page, class, classes);
        } else {
            chunks.spare.push(page);
        }
    }

    fn carve(&mut self, page: u32, class: u8, classes: &Classes) {
        let first = self.first_chunk(page);
        let chunks = &mut self.classes[usize::from(class)];
        assert_eq!(chunks.carve_left, 0, "a page is left uncarved");
        chunks.carve = first;
        chunks.carve_left = classes.per_page(class);
    }
}

/// From one chunk's id to the next one's.
pub fn step(class: u8, classes: &Classes) -> u32 {
    (classes.size(class) / super::arena::UNIT) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(config: StoreConfig) -> Vec<u32> {
        let config = StoreConfig { accounting: Accounting::Memcached, ..config };
        Classes::new(&config, 1).sizes[1..].to_vec()
    }

    #[test]
    fn memcached_classes() {
        let default = sizes(StoreConfig::default());
        let expected = [
            96, 120, 152, 192, 240, 304, 384, 480, 600, 752, 944, 1184, 1480, 1856, 2320, 2904, 3632, 4544, 5680, 7104,
            8880, 11104, 13880, 17352, 21696, 27120, 33904, 42384, 52984, 66232, 82792, 103496, 129376, 161720, 202152,
            252696, 315872, 394840, 524288,
        ];
        assert_eq!(default, expected);

        let fine = sizes(StoreConfig { growth_factor: Some(1.08), ..StoreConfig::default() });
        assert_eq!(fine.len(), 63);
        assert_eq!(fine[..6], [96, 104, 112, 120, 136, 152]);
        assert_eq!(fine[58..], [10944, 11824, 12776, 13800, 524_288]);

        let small = sizes(StoreConfig { chunk_size: 8, ..StoreConfig::default() });
        assert_eq!(small.len(), 41);
        assert_eq!(small[..5], [56, 72, 96, 120, 152]);

        let chunk_max = sizes(StoreConfig { slab_chunk_max: 16 << 10, ..StoreConfig::default() });
        assert_eq!((chunk_max.len(), chunk_max[21], chunk_max[22]), (23, 11104, 16384));

        let whole = sizes(StoreConfig { slab_chunk_max: 1 << 20, ..StoreConfig::default() });
        assert_eq!(whole.len(), 42);
        assert_eq!(whole[38..], [493_552, 616_944, 771_184, 1_048_576]);

        let doubled = StoreConfig { growth_factor: Some(2.0), slab_chunk_max: 64 << 10, ..StoreConfig::default() };
        assert_eq!(sizes(doubled), [96, 192, 384, 768, 1536, 3072, 6144, 12288, 24576, 65536]);

        let given = sizes(StoreConfig { slab_sizes: vec![100, 200, 1000, 524_288], ..StoreConfig::default() });
        assert_eq!(given, [104, 200, 1000, 524_288, 524_288]);
    }

    #[test]
    fn native_classes_fit_pages() {
        for limit in [64 << 20, 1 << 30] {
            let classes = Classes::new(&StoreConfig { memory_limit: limit, ..StoreConfig::default() }, 1);
            assert!(usize::from(classes.largest()) < CLASSES);
            assert_eq!(classes.size(1), 48);
            assert_eq!(classes.size(classes.largest()), 512 << 10);
            for class in 2..=classes.largest() {
                assert!(classes.size(class) > classes.size(class - 1) && classes.size(class).is_multiple_of(8));
            }
        }
    }

    #[test]
    fn native_classes_reach_the_largest_chunk_in_steps() {
        for (slab_chunk_max, chunk_size) in [512 << 10, 1 << 20].into_iter().flat_map(|max| [(max, 48), (max, 56)]) {
            let config = StoreConfig { memory_limit: 1 << 30, slab_chunk_max, chunk_size, ..StoreConfig::default() };
            let classes = Classes::new(&config, 1);
            assert!(usize::from(classes.largest()) < CLASSES && classes.size(1) == chunk_size);
            let last = classes.size(classes.largest() - 1);
            assert!(last >= slab_chunk_max / 2, "chunks of {last} bytes, then of {slab_chunk_max}");
        }
    }

    #[test]
    fn the_class_of_a_size() {
        let classes = Classes::new(&StoreConfig { accounting: Accounting::Memcached, ..StoreConfig::default() }, 1);
        for (size, class) in [(1, 1), (96, 1), (97, 2), (169, 4), (8880, 21), (8881, 22), (524_288, 39)] {
            assert_eq!(classes.of(size), class, "{size}");
        }
    }

    #[test]
    fn the_limit_and_first_pages() {
        let pool = PagePool::new(1 << 20, 2 << 20);
        assert!(pool.take(false) && pool.take(true));
        assert!(!pool.take(false) && pool.limit_reached());
        assert!(pool.take(true));
        assert_eq!(pool.taken(), 3 << 20);
        pool.put_unused();
        assert_eq!((pool.taken(), pool.unused()), (2 << 20, 0));
        pool.put_unused();
        assert_eq!((pool.taken(), pool.unused()), (2 << 20, 1));
        assert!(pool.take(false));
        assert_eq!(pool.unused(), 0);
    }
}
