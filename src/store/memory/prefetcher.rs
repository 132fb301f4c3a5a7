//! Hints to the CPU about memory whose lock is not held.
//!
//! Not here: the memory (`arena`).

use crate::sys::cpu;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fetches lines of a region into the cache without holding its lock.
#[derive(Debug)]
pub struct Prefetcher {
    base: AtomicUsize,
}

impl Prefetcher {
    /// That of a region which begins here.
    pub fn new(base: *const u8) -> Prefetcher {
        Prefetcher { base: AtomicUsize::new(base as usize) }
    }

    /// Hints the CPU to fetch the 64-byte line `index`.
    #[inline]
    pub fn line(&self, index: usize) {
        cpu::prefetch((self.base.load(Ordering::Relaxed) as *const u8).wrapping_add(index * 64));
    }
}
