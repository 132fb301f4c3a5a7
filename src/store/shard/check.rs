//! Checks every structure of a shard against every other. It is slow: for tests, and for the maintainer in debug builds.

use super::Shard;
use crate::store::ItemId;
use crate::store::memory::classes::CLASSES;
use crate::store::memory::layout::state;
use std::collections::BTreeSet;

impl Shard {
    /// See the module's head.
    pub fn check(&self) -> Result<(), String> {
        let linked = self.check_lists()?;
        self.check_table(&linked)?;
        let free = self.check_free_lists()?;
        self.check_pages(&linked, &free)?;
        let cursor = self.cursor;
        ensure(cursor == ItemId::NONE || linked.contains(&cursor), || format!("the crawler stands on {cursor:?}"))?;
        Ok(())
    }

    /// Each list's links, counts and states. The linked items.
    fn check_lists(&self) -> Result<BTreeSet<ItemId>, String> {
        let mut linked = BTreeSet::new();
        let (mut all_bytes, mut by_size) = (0, std::collections::BTreeMap::new());
        for at in 0..CLASSES * 4 {
            let list = &self.lrus[at / 4].lists[at % 4];
            let (mut id, mut before, mut count, mut bytes) = (list.head, ItemId::NONE, 0, 0);
            while id != ItemId::NONE {
                let chunk = self.window.chunk(id);
                ensure(linked.insert(id), || format!("{id:?} is in two lists"))?;
                ensure(chunk.is(state::LINKED) && !chunk.is(state::FREE), || format!("{id:?} is not linked"))?;
                ensure(chunk.lru() == at % 4, || format!("{id:?} has another list in its state"))?;
                ensure(usize::from(self.listed_class(id, chunk)) == at / 4, || {
                    format!("{id:?} is in another class's list")
                })?;
                ensure(chunk.prev == before, || format!("{id:?} has a wrong prev"))?;
                let size = self.item(id).size();
                *by_size.entry(size.div_ceil(32)).or_insert(0) += 1;
                (count, bytes) = (count + 1, bytes + size as u64);
                (before, id) = (id, chunk.next);
            }
            ensure(list.tail == before, || format!("list {at} ends in {before:?}, not {:?}", list.tail))?;
            ensure((list.count, list.bytes) == (count, bytes), || {
                format!("list {at} has {count} items, {bytes} bytes: {list:?}")
            })?;
            all_bytes += bytes;
        }
        ensure(self.bytes == all_bytes, || format!("{all_bytes} bytes, counted {}", self.bytes))?;
        ensure(self.sizes.as_ref().is_none_or(|sizes| *sizes == by_size), || "sizes are miscounted".to_string())?;
        Ok(linked)
    }

    fn check_table(&self, linked: &BTreeSet<ItemId>) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        self.table.visit(0, 1, |id| {
            seen.insert(id);
        });
        ensure(seen == *linked, || {
            format!("table and lists differ: {:?}", seen.symmetric_difference(linked).collect::<Vec<_>>())
        })?;
        ensure(self.table.items() == seen.len(), || format!("{} items, counted {}", seen.len(), self.table.items()))?;
        for &id in linked {
            let found = self.table.find(self.core.hash(self.key(id)), |other| other == id);
            ensure(found == Some(id), || format!("{id:?} is in the wrong bucket"))?;
        }
        Ok(())
    }

    fn check_free_lists(&self) -> Result<BTreeSet<ItemId>, String> {
        let mut free = BTreeSet::new();
        for (class, chunks) in self.slab.classes.iter().enumerate() {
            let (mut id, mut before, mut count) = (chunks.free, ItemId::NONE, 0);
            while id != ItemId::NONE {
                let chunk = self.window.chunk(id);
                ensure(free.insert(id), || format!("{id:?} is free twice"))?;
                ensure(chunk.is(state::FREE) && chunk.prev == before, || {
                    format!("{id:?} is in a free list: {chunk:?}")
                })?;
                ensure(usize::from(self.slab.class_of(id)) == class, || {
                    format!("{id:?} is in another class's free list")
                })?;
                (before, id, count) = (id, chunk.next, count + 1);
            }
            ensure(chunks.free_count == count, || format!("class {class} has {count} free chunks: {chunks:?}"))?;
        }
        Ok(free)
    }

    /// Every chunk of every page is what one of the lists says, or floating and rightly so.
    fn check_pages(&self, linked: &BTreeSet<ItemId>, free: &BTreeSet<ItemId>) -> Result<(), String> {
        let mut totals = vec![(0, 0); CLASSES];
        for (number, page) in self.slab.pages.iter().enumerate().filter(|(_, page)| page.class != 0) {
            let chunks = &self.slab.classes[usize::from(page.class)];
            let step = (self.core.classes.size(page.class) / crate::store::memory::arena::UNIT) as u32;
            let first = self.slab.first_chunk(number as u32);
            let mut used = 0;
            for id in (0..self.core.classes.per_page(page.class)).map(|at| ItemId(first.0 + at * step)) {
                let uncarved = chunks.carve_left > 0 && self.slab.page_of(chunks.carve) == number && id >= chunks.carve;
                let spare = chunks.spare.contains(&(number as u32));
                if uncarved || spare || free.contains(&id) || self.is_gone(id, number as u32) {
                    continue;
                }
                used += 1;
                self.check_used(id, linked)?;
            }
            ensure(page.used == used, || format!("page {number} has {used} used chunks: {page:?}"))?;
            let (pages, all_used) = &mut totals[usize::from(page.class)];
            (*pages, *all_used) = (*pages + 1, *all_used + u64::from(used));
        }
        for (class, chunks) in self.slab.classes.iter().enumerate() {
            ensure((chunks.pages, chunks.used) == totals[class], || {
                format!("class {class} is {:?}: {chunks:?}", totals[class])
            })?;
        }
        Ok(())
    }

    /// Whether it is neither used nor free: its page is being emptied.
    fn is_gone(&self, id: ItemId, page: u32) -> bool {
        let moving = &self.slab.moving;
        page == moving.page && (id >= moving.end || self.window.chunk(id).is_gone())
    }

    fn check_used(&self, id: ItemId, linked: &BTreeSet<ItemId>) -> Result<(), String> {
        let chunk = self.window.chunk(id);
        ensure(!chunk.is(state::FREE), || format!("{id:?} is free and in no list"))?;
        if chunk.is_piece() {
            let mut piece = self.chain(chunk.piece_of()).0;
            while piece != ItemId::NONE && piece != id {
                piece = self.window.chunk(piece).next;
            }
            ensure(piece == id, || format!("piece {id:?} is not in the chain of {:?}", chunk.piece_of()))?;
            return Ok(());
        }
        ensure(chunk.is(state::LINKED) == linked.contains(&id), || format!("{id:?} is not where its state says"))?;
        ensure(chunk.is(state::LINKED) || chunk.pins > 0, || format!("{id:?} is lost"))?;
        if chunk.is(state::CHUNKED) {
            self.check_chain(id)?;
        }
        Ok(())
    }

    fn check_chain(&self, id: ItemId) -> Result<(), String> {
        let (first, last) = self.chain(id);
        let (mut piece, mut before) = (first, ItemId::NONE);
        while piece != ItemId::NONE {
            let chunk = self.window.chunk(piece);
            ensure(chunk.is_piece() && chunk.piece_of() == id && chunk.prev == before, || {
                format!("{piece:?} is in {id:?}: {chunk:?}")
            })?;
            (before, piece) = (piece, chunk.next);
        }
        ensure(before == last, || format!("the chain of {id:?} ends in {before:?}, not {last:?}"))?;
        Ok(())
    }
}

/// Says what is wrong unless the condition holds.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
