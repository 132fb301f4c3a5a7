//! A set of ranges of keys.
//!
//! Not here: which range a key is in, which the store says, and what is done with them (`reader`, `refused`).

/// A set of ranges.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    bits: Vec<u64>,
    /// Ranges that there are.
    pub len: u32,
    /// Ranges in the set.
    pub count: usize,
}

impl Ranges {
    /// An empty set, of so many ranges that there are.
    pub(super) fn new(len: u32) -> Ranges {
        Ranges { bits: vec![0; len.div_ceil(64) as usize], len, count: 0 }
    }

    /// Whether a range is in it.
    #[inline]
    pub(super) fn has(&self, range: u32) -> bool {
        self.bits[range as usize / 64] >> (range % 64) & 1 != 0
    }

    /// Puts a range in.
    pub(super) fn set(&mut self, range: u32) {
        self.count += usize::from(!self.has(range));
        self.bits[range as usize / 64] |= 1 << (range % 64);
    }

    /// Takes a range out.
    pub(super) fn clear(&mut self, range: u32) {
        self.count -= usize::from(self.has(range));
        self.bits[range as usize / 64] &= !(1 << (range % 64));
    }

    /// Puts all in.
    pub(super) fn set_all(&mut self) {
        (0..self.len).for_each(|range| self.set(range));
    }

    /// The first range of the set from `at` on, or else from 0 on.
    pub(super) fn next(&self, at: u32) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let (word, bit) = (at as usize / 64, at % 64);
        let first = self.bits[word] & (u64::MAX << bit);
        let words = self.bits.len();
        let later = (word + 1..=word + words).map(|word| (word % words, self.bits[word % words]));
        let (word, bits) = std::iter::once((word, first)).chain(later).find(|&(_, bits)| bits != 0)?;
        Some(word as u32 * 64 + bits.trailing_zeros())
    }

    /// Asserts that the count is right.
    pub(super) fn check(&self) {
        debug_assert_eq!(self.count, self.bits.iter().map(|bits| bits.count_ones() as usize).sum::<usize>());
    }
}
