//! Slab pages of one shard, and the chunks in them.
//!
//! ```text
//! PagePool (all shards)      how much is taken of the limit, how much of that nobody uses
//!    | take, give back
//! Slab (one shard)           pages[i]: class, used chunks
//!    class c: free list  +  the page being carved: | used | used | carve -> ........ |
//! ```
//!
//! A fresh page is carved from its begin as chunks are asked for, so taking one costs nothing. Page 0 of the
//! window is never used, but in a memory file: there it says of each page, in 8 bytes, its class and how many chunks of it
//! are carved. What was never carved may look like anything, and is never looked at.
//!
//! Invariants: a chunk is used, or in its class's free list, or not yet carved, or gone (all zero) because its page
//! is being emptied; used chunks of a page are counted.
//!
//! Not here: the sizes of chunks (`classes`), what is in one (`layout`), who must go when there is none (`shard::evict`).

use super::arena::Window;
use super::classes::{CLASSES, Classes};
use super::layout::{Chunk, state};
use super::pool::PagePool;
use crate::store::ItemId;
use std::sync::atomic::{Ordering, compiler_fence};

/// A page of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// Its class; 0 for one nobody uses.
    pub class: u8,
    /// Chunks of it that hold something.
    pub used: u32,
}

/// What a memory file says of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageEntry {
    /// Its class; 0 for one nobody uses.
    pub class: u8,
    /// Chunks of it that may hold something, from its begin.
    pub carved: u32,
}

/// Bytes of one in the file.
pub(crate) const ENTRY_BYTES: usize = 8;

/// The chunks of one class of one shard.
#[derive(Clone, Debug, Default)]
pub struct ClassChunks {
    /// First free chunk.
    pub free: ItemId,
    /// Chunks in the free list.
    pub free_count: u64,
    /// Next chunk of the page being carved.
    pub carve: ItemId,
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
    pub end: ItemId,
    /// It will stay after all: what becomes free in it is free again.
    pub given_up: bool,
    /// The chunk of it that became free last, 0 none.
    pub gone: ItemId,
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
    pub fn page_of(&self, id: ItemId) -> usize {
        (id.0 >> self.page_shift) as usize
    }

    /// The class of a chunk.
    #[inline]
    pub fn class_of(&self, id: ItemId) -> u8 {
        self.pages[self.page_of(id)].class
    }

    /// The first chunk of a page.
    pub fn first_chunk(&self, page: u32) -> ItemId {
        ItemId(page << self.page_shift)
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
        chunks.free != ItemId::NONE || chunks.carve_left > 0 || !chunks.spare.is_empty()
    }

    /// A chunk nobody uses; its head is stale. None when the class has none and no page may be taken.
    #[inline]
    pub fn take(&mut self, class: u8, window: &mut Window, classes: &Classes, pool: &PagePool) -> Option<ItemId> {
        self.take_ready(class, window, classes).or_else(|| {
            let first = self.classes[usize::from(class)].pages == 0;
            self.take_page(class, window, classes, pool, || pool.take(first));
            self.take_ready(class, window, classes)
        })
    }

    /// As [`Slab::take`], from the pages that the class has.
    #[inline]
    pub fn take_ready(&mut self, class: u8, window: &mut Window, classes: &Classes) -> Option<ItemId> {
        let chunks = &mut self.classes[usize::from(class)];
        let id = if chunks.free != ItemId::NONE {
            let id = chunks.free;
            chunks.free = window.chunk(id).next;
            chunks.free_count -= 1;
            assert!(window.chunk(id).is(state::FREE), "a used chunk in the free list");
            if chunks.free != ItemId::NONE {
                window.chunk_mut(chunks.free).prev = ItemId::NONE;
            }
            id
        } else {
            if chunks.carve_left == 0 {
                let page = chunks.spare.pop()?;
                self.carve(page, class, classes);
            }
            let chunks = &mut self.classes[usize::from(class)];
            let id = chunks.carve;
            chunks.carve.0 += step(class, classes);
            chunks.carve_left -= 1;
            if window.is_in_file() {
                self.note_carved(id, class, window, classes);
            }
            id
        };
        self.classes[usize::from(class)].used += 1;
        let page = self.page_of(id);
        self.pages[page].used += 1;
        Some(id)
    }

    /// Writes down that this chunk is carved, once it holds nothing.
    #[cold]
    fn note_carved(&mut self, id: ItemId, class: u8, window: &mut Window, classes: &Classes) {
        *window.chunk_mut(id) = Chunk::default();
        compiler_fence(Ordering::SeqCst);
        let page = self.page_of(id) as u32;
        let carved = (id.0 - self.first_chunk(page).0) / step(class, classes) + 1;
        self.write_entry(page, PageEntry { class, carved }, window);
    }

    /// Writes down that the whole page is carved.
    pub fn note_all_carved(&mut self, page: u32, class: u8, window: &mut Window, per_page: u32) {
        self.write_entry(page, PageEntry { class, carved: per_page }, window);
    }

    /// Writes down, where that is done, that a page which is empty is nobody's.
    pub fn forget_page(&mut self, page: u32, window: &mut Window) {
        if window.is_in_file() {
            self.write_entry(page, PageEntry::default(), window);
        }
    }

    fn write_entry(&mut self, page: u32, entry: PageEntry, window: &mut Window) {
        let entry = u64::from(entry.carved) << 8 | u64::from(entry.class);
        window.bytes_mut(page as usize * ENTRY_BYTES, ENTRY_BYTES).copy_from_slice(&entry.to_le_bytes());
    }

    /// What is written down of a page.
    pub fn read_entry(&self, page: u32, window: &Window) -> PageEntry {
        let bytes = window.bytes(page as usize * ENTRY_BYTES, ENTRY_BYTES);
        let entry = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        PageEntry { class: entry as u8, carved: (entry >> 8) as u32 }
    }

    /// Frees a chunk. In a page that is being emptied it is gone.
    pub fn put(&mut self, id: ItemId, window: &mut Window) {
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
    pub fn take_gone(&mut self, class: u8) -> Option<ItemId> {
        let Moving { page, gone, given_up, .. } = self.moving;
        if gone == ItemId::NONE || given_up || self.pages[page as usize].class != class {
            return None;
        }
        self.moving.gone = ItemId::NONE;
        self.classes[usize::from(class)].used += 1;
        self.pages[page as usize].used += 1;
        Some(gone)
    }

    /// Puts a chunk that is neither used nor free into the free list.
    pub fn put_free(&mut self, id: ItemId, window: &mut Window) {
        let class = self.class_of(id);
        let chunks = &mut self.classes[usize::from(class)];
        let chunk = window.chunk_mut(id);
        chunk.state = state::FREE;
        chunk.prev = ItemId::NONE;
        chunk.next = chunks.free;
        if chunks.free != ItemId::NONE {
            window.chunk_mut(chunks.free).prev = id;
        }
        chunks.free = id;
        chunks.free_count += 1;
    }

    /// Takes a free chunk out of the free list for good: its page is being emptied.
    pub fn withdraw(&mut self, id: ItemId, window: &mut Window) {
        let chunk = *window.chunk(id);
        assert!(chunk.is(state::FREE), "withdrawn while in use");
        let class = self.class_of(id);
        let chunks = &mut self.classes[usize::from(class)];
        match chunk.prev {
            ItemId::NONE => chunks.free = chunk.next,
            prev => window.chunk_mut(prev).next = chunk.next,
        }
        if chunk.next != ItemId::NONE {
            window.chunk_mut(chunk.next).prev = chunk.prev;
        }
        chunks.free_count -= 1;
        *window.chunk_mut(id) = Chunk::default();
    }

    /// Makes fresh pages of all those of a class in which no chunk is used: none of them has a free chunk to be withdrawn
    /// then. Of 100-byte items, 1 GB in which everything has died went to the pool in 3 s without that.
    pub fn refresh_unused(&mut self, class: u8) {
        let chunks = &mut self.classes[usize::from(class)];
        if chunks.used > 0 || chunks.free == ItemId::NONE || self.moving.page != 0 {
            return;
        }
        (chunks.free, chunks.free_count, chunks.carve_left) = (ItemId::NONE, 0, 0);
        let pages = (0..).zip(&self.pages).filter(|(_, page)| page.class == class);
        chunks.spare = pages.map(|(page, _)| page).collect();
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
            ItemId(first.0 + classes.per_page(class) * step(class, classes))
        };
        self.moving = Moving { page, end, given_up: false, gone: ItemId::NONE };
    }

    /// Ends the move of a page that is empty now: nobody uses it.
    pub fn end_move(&mut self) -> u32 {
        let Moving { page, .. } = std::mem::take(&mut self.moving);
        let Page { class, used } = std::mem::take(&mut self.pages[page as usize]);
        assert!(used == 0 && class != 0, "a page is not empty");
        self.classes[usize::from(class)].pages -= 1;
        page
    }

    /// Where the window will be used up to when one more page is taken.
    pub fn next_end(&self) -> usize {
        let page = self.empty.last().map_or(self.pages.len(), |&page| page as usize);
        (page + 1) << self.page_shift << super::arena::UNIT.ilog2()
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
        let end = self.next_end();
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
pub(crate) fn step(class: u8, classes: &Classes) -> u32 {
    (classes.size(class) / super::arena::UNIT) as u32
}
