//! The ghost: which keys were evicted a short while ago, so that one that comes back is known.
//!
//! ```text
//! hash * K:  | line (of `lines`) … | … 16 bits: the mark | … |
//!
//! line       | newest mark | … | oldest mark |     32 marks of 16 bits, 64 bytes
//!            put: all move on by one, the oldest falls out      take: the gap is closed
//! ```
//!
//! A shard remembers about as many keys as it has items, in two bytes each. A key that was never there is taken for
//! one that was in 32 of 65,536 cases.
//!
//! Invariant: a mark is never 0, which is an empty place.
//!
//! Not here: what is put in, and what it means that a key comes back (`fifo`).

use crate::store::Hash;

/// Marks of a line.
const MARKS: usize = 32;

/// An odd number without order: all bits of the hash reach the bits that are taken here, which are not those of
/// the table.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A ghost of this many bytes is made by who needs it; a larger one in the background.
const SMALL: usize = 64 << 10;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Ghost {
    /// A cache line more than there are lines, as the first may begin anywhere.
    marks: Vec<u16>,
    /// Where the first line begins.
    begin: usize,
    lines: usize,
}

impl Ghost {
    /// An empty ghost for a shard of so many items.
    pub fn of(items: usize) -> Ghost {
        let lines = lines_of(items);
        let marks = vec![0_u16; (lines + 1) * MARKS];
        let begin = marks.as_ptr().align_offset(MARKS * size_of::<u16>()).min(MARKS);
        Ghost { marks, begin, lines }
    }

    /// Whether it is of the right size, within a factor of two.
    #[inline]
    pub fn fits(&self, items: usize) -> bool {
        let lines = lines_of(items);
        lines <= self.lines * 2 && lines * 2 >= self.lines
    }

    /// Whether one for so many items is soon made.
    pub fn is_small(items: usize) -> bool {
        lines_of(items) * MARKS * size_of::<u16>() <= SMALL
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.marks.as_slice()) as u64
    }

    /// Remembers a key.
    pub fn put(&mut self, hash: Hash) {
        let mark = mark(hash);
        if let Some(line) = self.line(hash) {
            line.copy_within(..MARKS - 1, 1);
            line[0] = mark;
        }
    }

    /// Whether it remembers a key, which it forgets.
    pub fn take(&mut self, hash: Hash) -> bool {
        let mark = mark(hash);
        let Some(line) = self.line(hash) else { return false };
        // All are compared, without a branch: these are two instructions of 32 bytes each.
        let mut found = 0_u32;
        for (at, other) in line.iter().enumerate() {
            found |= u32::from(*other == mark) << at;
        }
        if found == 0 {
            return false;
        }
        line.copy_within(found.trailing_zeros() as usize + 1.., found.trailing_zeros() as usize);
        line[MARKS - 1] = 0;
        true
    }

    #[inline]
    fn line(&mut self, hash: Hash) -> Option<&mut [u16; MARKS]> {
        let line = ((u128::from(hash.0.wrapping_mul(MIX)) * self.lines as u128) >> 64) as usize;
        self.marks.get_mut(self.begin + line * MARKS..)?.first_chunk_mut()
    }
}

fn lines_of(items: usize) -> usize {
    (items / MARKS).max(1)
}

fn mark(hash: Hash) -> u16 {
    ((hash.0.wrapping_mul(MIX) >> 16) as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    #[test]
    fn what_was_put_in_is_found_once_and_the_oldest_are_forgotten() {
        let mut rng = Rng(7);
        let mut ghost = Ghost::of(100_000);
        let hashes: Vec<Hash> = (0..50_000).map(|_| Hash(rng.next())).collect();
        hashes.iter().for_each(|hash| ghost.put(*hash));
        let found = hashes.iter().filter(|hash| ghost.take(**hash)).count();
        assert!(found > 49_500, "{found} of a half full ghost");
        let again = hashes.iter().filter(|hash| ghost.take(**hash)).count();
        assert!(again < 100, "{again} once more");
        (0..400_000).for_each(|_| ghost.put(Hash(rng.next())));
        let left = hashes.iter().filter(|hash| ghost.take(**hash)).count();
        assert!(left < 100, "{left} of the old ones");
    }

    #[test]
    fn an_empty_one_knows_nothing_and_sizes_are_rough() {
        let mut none = Ghost::default();
        none.put(Hash(5));
        assert!(!none.take(Hash(5)) && none.bytes() == 0);
        let ghost = Ghost::of(32_000);
        assert!(ghost.fits(32_000) && ghost.fits(60_000) && ghost.fits(17_000));
        assert!(!ghost.fits(70_000) && !ghost.fits(15_000) && !none.fits(1));
        assert!(ghost.bytes() < 66_000 && Ghost::is_small(32_000) && !Ghost::is_small(40_000));
    }
}
