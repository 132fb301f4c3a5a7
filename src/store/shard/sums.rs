//! What a shard has in all: bytes, items ever stored, and how many there are of each size.
//!
//! Invariant: `bytes` is the sum of the linked items' sizes; with `-o track_sizes` so are the sizes' numbers.

use super::Shard;

impl Shard {
    /// Adds to the sums what an item takes in the place of what it took.
    #[inline]
    pub(super) fn recount(&mut self, old_size: usize, size: usize) {
        if self.sizes.is_some() {
            self.discount(old_size);
            return self.enroll(size);
        }
        self.bytes = self.bytes - old_size as u64 + size as u64;
        self.total_items += 1;
    }

    /// Enters the size of an item in the sums.
    #[inline]
    pub(super) fn enroll(&mut self, size: usize) {
        self.bytes += size as u64;
        self.total_items += 1;
        if let Some(sizes) = &mut self.sizes {
            *sizes.entry(size.div_ceil(32)).or_insert(0) += 1;
        }
    }

    /// Takes the size of an item out of the sums.
    #[inline]
    pub(super) fn discount(&mut self, size: usize) {
        self.bytes -= size as u64;
        if let Some(sizes) = &mut self.sizes {
            let count = sizes.get_mut(&size.div_ceil(32)).expect("its size was counted");
            *count -= 1;
            if *count == 0 {
                sizes.remove(&size.div_ceil(32));
            }
        }
    }
}
