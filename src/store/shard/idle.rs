//! Pages in which nothing lies: whoever needs memory gets one at once.
//!
//! ```text
//! class c has no chunk, the pool no page ──> a class with two pages' worth of free chunks, a page of it that is all
//!                                            free ──> its chunks leave the free list ──> the page is c's
//! ```
//!
//! Memory dies at once when everything is flushed, expires or is deleted. The mover would bring its pages in time, but
//! not before who writes now has evicted what he wrote a moment ago.
//!
//! Invariants: a page with anything in it stays. A look at all pages that has found none is not repeated within the
//! second.
//!
//! Not here: pages that have to be emptied first (`mover`), pages of the pool (`memory::slab`).

use super::Shard;
use crate::store::memory::layout::state;
use crate::store::memory::slab::step;

/// Pages with more chunks than this are left to the mover: all of their chunks are written, under the lock.
const CHUNKS_MAX: u32 = 8192;

/// Pages' worth of free chunks that a class must have to give a page.
const PAGES_FREE: u64 = 2;

impl Shard {
    /// Gives a class a page of another one in which nothing lies. False if there is none.
    pub(super) fn take_idle_page(&mut self, class: u8) -> bool {
        let now = self.core.clock.now();
        let may_move = self.tuning.automove > 0 && self.core.config.slab_reassign && self.slab.moving.page == 0;
        if !may_move
            || self.idle_looked == now
            || !(1..=self.core.classes.largest().into()).any(|other| self.may_give(other, class))
        {
            return false;
        }
        let pages = self.slab.pages.iter();
        let idle = |class_of: u8, used: u32| used == 0 && class_of != 0 && self.may_give(class_of.into(), class);
        let Some(page) = pages.skip(1).position(|page| idle(page.class, page.used)) else {
            self.idle_looked = now;
            return false;
        };
        self.give_idle_page(page as u32 + 1, class);
        true
    }

    fn may_give(&self, class: usize, to: u8) -> bool {
        let per_page = self.core.classes.per_page(class as u8);
        let pages = self.slab.classes[class].pages;
        let is_other = class != usize::from(to) && pages > 1 && per_page <= CHUNKS_MAX;
        is_other && self.slab.available(class, &self.core.classes) >= PAGES_FREE * u64::from(per_page)
    }

    fn give_idle_page(&mut self, page: u32, to: u8) {
        let Shard { slab, window, core, .. } = self;
        let step = step(slab.pages[page as usize].class, &core.classes);
        slab.begin_move(page, &core.classes);
        let (mut id, end) = (slab.first_chunk(page), slab.moving.end);
        while id < end {
            if window.chunk(id).is(state::FREE) {
                slab.withdraw(id, window);
            }
            id.0 += step;
        }
        let page = slab.end_move();
        slab.forget_page(page, window);
        slab.give_page(page, to, &core.classes);
        self.idle_pages += 1;
    }
}
