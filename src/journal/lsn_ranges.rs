//! A set of changes, as ranges of their numbers.
//!
//! Invariants: the ranges neither overlap nor touch. There are [`LSN_RANGES_MAX`] at most: of more, the two oldest are
//! joined, with what lies between them.
//!
//! Not here: what the changes have in common (`acks`, `refused`).

use std::collections::BTreeMap;

/// The most ranges. They are of refused changes for which replies wait, which take some milliseconds.
pub(super) const LSN_RANGES_MAX: usize = 4096;

/// Ranges of numbers, each from after one up to another.
#[derive(Clone, Debug, Default)]
pub(super) struct LsnRanges {
    /// From the end of each to its start.
    starts: BTreeMap<u64, u64>,
}

impl LsnRanges {
    /// Puts in the changes after one number and up to the other.
    pub(super) fn add(&mut self, mut after: u64, mut upto: u64) {
        while let Some((&end, &start)) = self.starts.range(after..).next().filter(|&(_, &start)| start <= upto) {
            self.starts.remove(&end);
            (after, upto) = (after.min(start), upto.max(end));
        }
        self.starts.insert(upto, after);
        if self.starts.len() > LSN_RANGES_MAX {
            let oldest = self.starts.pop_first().map_or(0, |(_, start)| start);
            self.starts.first_entry().iter_mut().for_each(|next| *next.get_mut() = oldest);
        }
    }

    /// Whether a change is in it.
    pub(super) fn has(&self, lsn: u64) -> bool {
        self.starts.range(lsn..).next().is_some_and(|(_, &after)| lsn > after)
    }

    /// The first range with a change after this one.
    pub(super) fn after(&self, lsn: u64) -> Option<(u64, u64)> {
        self.starts.range(lsn + 1..).next().map(|(&upto, &after)| (after, upto))
    }

    /// Takes out all up to this number.
    pub(super) fn forget(&mut self, upto: u64) {
        while let Some(first) = self.starts.first_entry().filter(|first| *first.key() <= upto) {
            first.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut ranges = LsnRanges::default();
        assert_eq!(ranges.after(0), None);
        [(3, 5), (7, 8), (5, 6), (10, 20)].into_iter().for_each(|(after, upto)| ranges.add(after, upto));
        assert_eq!(
            [0, 5, 6, 8, 19].map(|lsn| ranges.after(lsn).unwrap()),
            [(3, 6), (3, 6), (7, 8), (10, 20), (10, 20)]
        );
        assert_eq!(ranges.after(20), None);
        assert_eq!([3, 4, 6, 7, 8, 20, 21].map(|lsn| ranges.has(lsn)), [false, true, true, false, true, true, false]);
        ranges.forget(8);
        assert_eq!(ranges.after(0), Some((10, 20)));
    }
}
