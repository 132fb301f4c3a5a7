//! How many chunks and bytes of items a command looks at under a shard's lock, counted where debug assertions are on: a test
//! that has one look at too many fails. Without them there is nothing of this.
//!
//! ```text
//! lock ── begin ── look at a chunk: 1 ── bytes: 1 for each 128 of them ── … ── end, of a client's request: few enough
//! ```
//!
//! A unit is 10 ns, where memory is not in the cache and its neighbours are fetched at once.
//!
//! Not here: the time for which locks are held by what is no request (`store/lock_time`).

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Units for one request under one lock: 1 ms.
#[cfg(debug_assertions)]
const MOST: usize = 100_000;

/// Bytes of a unit.
#[cfg(debug_assertions)]
const BYTES: usize = 128;

/// See the module's head.
#[derive(Debug, Default)]
pub struct LockWork {
    #[cfg(debug_assertions)]
    units: AtomicUsize,
}

impl LockWork {
    /// The lock is taken.
    #[inline(always)]
    pub fn begin(&self) {
        #[cfg(debug_assertions)]
        self.units.store(0, Ordering::Relaxed);
    }

    /// A chunk is looked at.
    #[inline(always)]
    pub fn look(&self) {
        #[cfg(debug_assertions)]
        self.units.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes are.
    #[inline(always)]
    pub fn bytes(&self, _len: usize) {
        #[cfg(debug_assertions)]
        self.units.fetch_add(1 + _len / BYTES, Ordering::Relaxed);
    }

    /// The lock of a request is given back. A value of the longest kind may be copied once, and sealed.
    #[inline(always)]
    pub fn end(&self, _longest: usize) {
        #[cfg(debug_assertions)]
        {
            let units = self.units.load(Ordering::Relaxed);
            let most = MOST + 4 * _longest / BYTES;
            assert!(units <= most || std::thread::panicking(), "{units} units under one lock, more than {most}");
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_under_one_lock_is_counted() {
        let work = LockWork::default();
        for _ in 0..2 {
            work.begin();
            (0..MOST / 2).for_each(|_| work.look());
            work.bytes(MOST / 4 * BYTES);
            work.end(0);
        }
        work.bytes(1 << 20);
        work.end(1 << 20);
    }

    #[test]
    #[should_panic(expected = "units under one lock")]
    fn too_much_of_it_is_a_bug() {
        let work = LockWork::default();
        work.bytes(MOST * BYTES);
        work.end(0);
    }
}
