//! The pages of all shards: how many are taken of the memory limit, and how many of those nobody uses.
//!
//! Invariants: `taken` counts every page of every shard and those nobody uses.
//!
//! Not here: where a page lies, which is its shard's to say (`slab`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Share of the limit, one in so many, that may be taken beyond it for long.
const BEYOND: u64 = 20;

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
        self.take_up_to(self.limit_and_more())
    }

    /// Bytes that may stay taken: the limit, and a little for classes that have nothing to evict, or only a first page.
    pub fn limit_and_more(&self) -> u64 {
        self.limit() + self.limit() / BEYOND
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

#[cfg(test)]
mod tests {
    use super::*;

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
