//! A shard out of a memory file: what is whole in its pages is kept, all else is free.
//!
//! ```text
//! pages    page 0 says which class a page has, and how many chunks of it are carved
//! whole    an item that is linked, fits its chunk, has its pieces, and matches its seal: kept, with its pieces
//! free     every other carved chunk
//! lists    along the links, as far as they are sound; table and sums anew
//! ```
//!
//! Only heads and seals are believed. Links are hints about the order in the LRUs: a link that does not lead to a whole
//! item, which links back and is in the same list, ends a stretch, and stretches of a list are joined by the time of
//! last access of their oldest items. So any bytes come to some sound shard, and the work is bounded: each chunk is looked at a
//! few times, each value is summed up once.
//!
//! Items that are expired or flushed stay, to be reclaimed as always: to find out costs the next reader nothing more.
//! It can be begun again at any point: nothing that is whole is made less so on the way.
//!
//! Not here: whether the file may be believed at all (`memory_file`).

use super::Shard;
use super::lru::COLD;
use crate::store::memory::layout::{ItemHeader, SEAL_BYTES, state};
use crate::store::memory::slab::{ENTRY_BYTES, Page, PageEntry, step};
use crate::store::{Hash, ItemId};

/// Longest key.
const KEY_MAX: u8 = 250;

/// What came out of the pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Items that are here again.
    pub items: u64,
    /// Items that were there, and were not whole.
    pub dropped: u64,
    /// Pages of which the file says what cannot be.
    pub bad_pages: u64,
    /// The highest cas unique among the items.
    pub cas: u64,
}

impl Restored {
    /// Of both together.
    pub fn and(self, other: Restored) -> Restored {
        Restored {
            items: self.items + other.items,
            dropped: self.dropped + other.dropped,
            bad_pages: self.bad_pages + other.bad_pages,
            cas: self.cas.max(other.cas),
        }
    }
}

impl Shard {
    /// Fills an empty shard with what is whole in its window. None when the system has no memory for it.
    pub fn restore(&mut self) -> Option<Restored> {
        let mut restored = Restored::default();
        let entries = self.restore_pages(&mut restored)?;
        let marks = Marks::new(&entries);
        let mut walk = Restoring { kept: marks.clone(), listed: marks, entries, restored };
        self.find_whole(&mut walk);
        self.free_rest(&walk);
        self.list_in_order(&mut walk);
        walk.restored.items = self.table.items() as u64;
        Some(walk.restored)
    }

    fn restore_pages(&mut self, restored: &mut Restored) -> Option<Vec<PageEntry>> {
        let page_size = self.core.config.page_size;
        let most = (page_size / ENTRY_BYTES).min(self.window.capacity() / page_size);
        let mut entries = vec![PageEntry::default()];
        for page in 1..most as u32 {
            let entry = self.slab.read_entry(page, &self.window);
            let is_sound = (1..=self.core.classes.largest()).contains(&entry.class)
                && (1..=self.core.classes.per_page(entry.class)).contains(&entry.carved);
            if !is_sound && entry != PageEntry::default() {
                restored.bad_pages += 1;
                self.slab.forget_page(page, &mut self.window);
            }
            entries.push(if is_sound { entry } else { PageEntry::default() });
        }
        entries.truncate(entries.iter().rposition(|entry| entry.class != 0).unwrap_or(0) + 1);
        if !self.window.extend(entries.len() * page_size) {
            return None;
        }
        (1..entries.len()).for_each(|page| self.restore_page(page as u32, entries[page]));
        Some(entries)
    }

    fn restore_page(&mut self, page: u32, entry: PageEntry) {
        self.slab.pages.push(Page { class: entry.class, used: 0 });
        if entry.class == 0 {
            return self.slab.empty.push(page);
        }
        self.core.pool.take(true);
        let left = self.core.classes.per_page(entry.class) - entry.carved;
        let next = ItemId(self.slab.first_chunk(page).0 + entry.carved * step(entry.class, &self.core.classes));
        let chunks = &mut self.slab.classes[usize::from(entry.class)];
        chunks.pages += 1;
        if chunks.carve_left == 0 {
            (chunks.carve, chunks.carve_left) = (next, left);
        }
    }

    /// Marks the items that are whole, and their pieces.
    fn find_whole(&self, walk: &mut Restoring) {
        self.each_carved(&walk.entries.clone(), |id| {
            let chunk = self.window.chunk(id);
            if chunk.state & (state::LINKED | state::FREE) != state::LINKED {
                return;
            }
            if self.is_whole(id, walk) {
                self.mark(id, &mut walk.kept, &walk.entries);
                let mut piece = if chunk.is(state::CHUNKED) { self.chain(id).0 } else { ItemId::NONE };
                while piece != ItemId::NONE {
                    self.mark(piece, &mut walk.kept, &walk.entries);
                    piece = self.window.chunk(piece).next;
                }
            } else {
                walk.restored.dropped += 1;
            }
        });
    }

    fn mark(&self, id: ItemId, marks: &mut Marks, entries: &[PageEntry]) {
        marks.set(self.slot(id, entries).expect("a chunk that was looked at"));
    }

    /// Page and number of a carved chunk, None for an id that is no such chunk's.
    fn slot(&self, id: ItemId, entries: &[PageEntry]) -> Option<(usize, usize)> {
        let page = self.slab.page_of(id);
        let entry = entries.get(page).filter(|entry| entry.class != 0)?;
        let (from_begin, step) = (id.0 - self.slab.first_chunk(page as u32).0, step(entry.class, &self.core.classes));
        (from_begin.is_multiple_of(step) && from_begin / step < entry.carved)
            .then_some((page, (from_begin / step) as usize))
    }

    fn each_carved(&self, entries: &[PageEntry], mut each: impl FnMut(ItemId)) {
        for (page, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.class != 0) {
            let (first, step) = (self.slab.first_chunk(page as u32).0, step(entry.class, &self.core.classes));
            (0..entry.carved).for_each(|number| each(ItemId(first + number * step)));
        }
    }

    fn is_whole(&self, id: ItemId, walk: &Restoring) -> bool {
        let ItemHeader { chunk, .. } = *self.window.header(id);
        let sizing = &self.core.sizing;
        let (key_len, has_flags, len) = (usize::from(chunk.key_len), chunk.is(state::CLIENT_FLAGS), chunk.len as usize);
        let (total, room) = (sizing.total(key_len, has_flags, len), self.core.classes.size(self.slab.class_of(id)));
        let is_sound = (1..=KEY_MAX).contains(&chunk.key_len)
            && total <= sizing.item_max
            && chunk.is(state::CHUNKED) == (total > sizing.chunk_max);
        let fits = if chunk.is(state::CHUNKED) {
            sizing.head(key_len, has_flags) <= room && self.has_pieces(id, len, walk)
        } else {
            self.window.value_at(&chunk) + len + SEAL_BYTES <= room
        };
        is_sound && fits && self.matches_seal(id)
    }

    /// Whether the chain of a large item holds `left` bytes. No chain is a circle: each piece has one `prev`.
    fn has_pieces(&self, item: ItemId, mut left: usize, walk: &Restoring) -> bool {
        let (mut piece, last) = self.chain(item);
        let mut before = ItemId::NONE;
        while piece != ItemId::NONE {
            let Some(slot) = self.slot(piece, &walk.entries) else { return false };
            let chunk = self.window.chunk(piece);
            let is_piece = chunk.state & (state::LINKED | state::FREE | state::PIECE) == state::PIECE;
            if !is_piece || chunk.len != item.0 || chunk.prev != before || left == 0 || walk.kept.has(slot) {
                return false;
            }
            let holds = self.core.classes.size(self.slab.class_of(piece)) - self.core.sizing.piece_overhead();
            left = left.saturating_sub(holds);
            (before, piece) = (piece, chunk.next);
        }
        left == 0 && before == last
    }

    /// Frees the carved chunks that are not kept, and what is not carved of a page beside the one that is being carved.
    fn free_rest(&mut self, walk: &Restoring) {
        for (page, entry) in walk.entries.iter().enumerate().filter(|(_, entry)| entry.class != 0) {
            let (first, step) = (self.slab.first_chunk(page as u32).0, step(entry.class, &self.core.classes));
            for number in 0..entry.carved {
                let id = ItemId(first + number * step);
                if walk.kept.has((page, number as usize)) {
                    self.window.chunk_mut(id).pins = 0;
                    self.slab.pages[page].used += 1;
                    self.slab.classes[usize::from(entry.class)].used += 1;
                } else {
                    self.slab.put_free(id, &mut self.window);
                }
            }
            self.carve_rest(page, *entry);
        }
    }

    fn carve_rest(&mut self, page: usize, entry: PageEntry) {
        let chunks = &self.slab.classes[usize::from(entry.class)];
        if chunks.carve_left > 0 && self.slab.page_of(chunks.carve) == page {
            return;
        }
        let (first, step) = (self.slab.first_chunk(page as u32).0, step(entry.class, &self.core.classes));
        let per_page = self.core.classes.per_page(entry.class);
        for number in entry.carved..per_page {
            self.slab.put_free(ItemId(first + number * step), &mut self.window);
        }
        self.slab.note_all_carved(page as u32, entry.class, &mut self.window, per_page);
    }

    /// Puts the items into lists and table, oldest first.
    fn list_in_order(&mut self, walk: &mut Restoring) {
        for id in self.oldest_ends(walk) {
            let mut at = Some(id);
            while let Some(id) = at {
                let newer = self.window.chunk(id).prev;
                at = self.are_neighbours(newer, id, walk).then_some(newer);
                self.list_again(id, walk);
            }
        }
        let mut left = Vec::new();
        self.each_carved(&walk.entries, |id| {
            if self.is_waiting(id, walk) {
                left.push(id);
            }
        });
        left.into_iter().for_each(|id| self.list_again(id, walk));
    }

    /// The items from which a stretch of links leads on to newer ones.
    fn oldest_ends(&self, walk: &Restoring) -> Vec<ItemId> {
        let mut ends = Vec::new();
        self.each_carved(&walk.entries, |id| {
            let header = self.window.header(id);
            if self.is_waiting(id, walk) && !self.are_neighbours(id, header.chunk.next, walk) {
                ends.push((header.last_access, id));
            }
        });
        ends.sort_unstable();
        ends.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether it is an item that is kept and in no list yet.
    fn is_waiting(&self, id: ItemId, walk: &Restoring) -> bool {
        let slot = self.slot(id, &walk.entries).filter(|&slot| walk.kept.has(slot) && !walk.listed.has(slot));
        slot.is_some() && self.window.chunk(id).is(state::LINKED)
    }

    /// Whether both are such items, of one list, and each says that the other comes next.
    fn are_neighbours(&self, newer: ItemId, older: ItemId, walk: &Restoring) -> bool {
        if !self.is_waiting(newer, walk) || !self.is_waiting(older, walk) {
            return false;
        }
        let (a, b) = (self.window.chunk(newer), self.window.chunk(older));
        (a.next, b.prev, a.lru()) == (older, newer, b.lru())
            && self.listed_class(newer, a) == self.listed_class(older, b)
    }

    fn list_again(&mut self, id: ItemId, walk: &mut Restoring) {
        self.mark(id, &mut walk.listed, &walk.entries);
        let hash = self.hash_of(id);
        if !self.may_list(id, hash) {
            walk.restored.dropped += 1;
            self.window.chunk_mut(id).state &= !(state::LINKED | state::RENEWED);
            return self.free(id);
        }
        let (chunk, size) = (*self.window.chunk(id), self.item(id).size());
        let lru = if self.tuning.segmented { chunk.lru() } else { COLD };
        self.push_in(self.listed_class(id, &chunk), id, lru, size);
        self.window.chunk_mut(id).state |= chunk.state & state::RENEWED;
        self.enroll(size);
        self.insert(id, hash);
        walk.restored.cas = walk.restored.cas.max(self.window.cas(id));
    }

    /// Whether the item belongs here and its key is not taken. The mover copies items: then one of two is as good as the
    /// other. Two that differ cannot be, so neither is to be believed.
    fn may_list(&mut self, id: ItemId, hash: Hash) -> bool {
        let is_here = self.core.shard_of(hash) == self.number && self.table.has_room();
        let other = self.locate(self.key(id), hash);
        if let Some(other) = other
            && self.whole_seal(other) != self.whole_seal(id)
        {
            self.let_go(other, hash);
        }
        is_here && other.is_none()
    }
}

/// What is known on the way.
struct Restoring {
    entries: Vec<PageEntry>,
    kept: Marks,
    listed: Marks,
    restored: Restored,
}

/// A bit for each carved chunk.
#[derive(Clone, Debug)]
struct Marks {
    /// Where the bits of a page begin.
    begins: Vec<usize>,
    bits: Vec<u64>,
}

impl Marks {
    fn new(entries: &[PageEntry]) -> Marks {
        let mut end = 0;
        let begin_of = |entry: &PageEntry| {
            end += entry.carved as usize;
            end - entry.carved as usize
        };
        let begins = entries.iter().map(begin_of).collect();
        Marks { begins, bits: vec![0; end.div_ceil(64)] }
    }

    fn set(&mut self, (page, number): (usize, usize)) {
        let at = self.begins[page] + number;
        self.bits[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, (page, number): (usize, usize)) -> bool {
        let at = self.begins[page] + number;
        self.bits[at / 64] >> (at % 64) & 1 != 0
    }
}
