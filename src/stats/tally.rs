//! Requests by kind that were answered since the clock was last looked at.
//!
//! ```text
//!  bits    0        16         32     48          0       16      32     48
//!  word 0  get      multiget   set    delete      arith   touch   meta   other    word 1
//! ```
//!
//! So one of them is counted by one addition, whether all are 0 is seen by two comparisons, and what one connection has
//! added is a subtraction. Between two looks at the clock a worker answers some thousand requests at most: what one turn
//! may do is bounded, and each is over by the next look. Only refused requests cost so little that there may be more of them; they are
//! the last of their word, and what flows over is nobody else's.
//!
//! Not here: how long requests take (`latency`).

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bits a count has, and how many counts a word.
const BITS: usize = 16;
const PER_WORD: usize = u64::BITS as usize / BITS;

/// What a client asked for, as far as it matters for how long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// get and gets of one key.
    Get,
    /// get and gets of several: each request once.
    Multiget,
    /// set, add, replace, append, prepend, cas.
    Set,
    /// delete.
    Delete,
    /// incr, decr.
    Arith,
    /// touch, gat, gats.
    Touch,
    /// Every meta command.
    Meta,
    /// The rest: statistics, logins, and what is refused. The last, see the module's head.
    Other,
}

/// How many kinds there are.
pub(super) const KINDS: usize = CommandKind::Other as usize + 1;

/// A worker's tally. Only its thread changes it.
#[derive(Debug, Default)]
pub struct CommandTally([AtomicU64; KINDS / PER_WORD]);

impl CommandTally {
    /// Counts a request.
    #[inline(always)]
    pub fn count(&self, kind: CommandKind) {
        let (word, one) = (&self.0[kind as usize / PER_WORD], 1 << (kind as usize % PER_WORD * BITS));
        word.store(word.load(Ordering::Relaxed).wrapping_add(one), Ordering::Relaxed);
    }

    /// What has been counted.
    #[inline]
    pub fn get(&self) -> Tallied {
        Tallied([self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed)])
    }

    /// Begins anew with this.
    #[inline]
    pub fn set(&self, tallied: Tallied) {
        std::iter::zip(&self.0, tallied.0).for_each(|(word, count)| word.store(count, Ordering::Relaxed));
    }
}

/// The counts of a [`CommandTally`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied([u64; KINDS / PER_WORD]);

impl Tallied {
    /// Whether there is nothing.
    #[inline]
    pub fn is_empty(self) -> bool {
        self == Tallied::default()
    }

    /// What came after an earlier moment.
    #[inline]
    pub fn since(self, earlier: Tallied) -> Tallied {
        Tallied([self.0[0].wrapping_sub(earlier.0[0]), self.0[1].wrapping_sub(earlier.0[1])])
    }

    /// Calls `f` with each kind, as its number, of which there is one at least.
    #[inline]
    pub fn each(self, mut f: impl FnMut(usize, u32)) {
        for (at, mut word) in self.0.into_iter().enumerate() {
            while word != 0 {
                let lane = word.trailing_zeros() as usize / BITS;
                let count = (word >> (lane * BITS)) as u16;
                word &= !(u64::from(u16::MAX) << (lane * BITS));
                f(at * PER_WORD + lane, count.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_apart() {
        let tally = CommandTally::default();
        assert!(tally.get().is_empty());
        tally.count(CommandKind::Delete);
        let before = tally.get();
        let kinds = [CommandKind::Get, CommandKind::Get, CommandKind::Delete, CommandKind::Arith, CommandKind::Meta];
        kinds.into_iter().for_each(|kind| tally.count(kind));
        // Far more than fit: the others do not notice.
        (0..100_000).for_each(|_| tally.count(CommandKind::Other));
        assert_eq!(told(tally.get().since(before)), [(0, 2), (3, 1), (4, 1), (6, 1), (7, 100_000 % 65_536)]);
        tally.set(before);
        assert_eq!(told(tally.get()), [(3, 1)]);
    }

    fn told(tallied: Tallied) -> Vec<(usize, u32)> {
        let mut all = Vec::new();
        tallied.each(|kind, count| all.push((kind, count)));
        all
    }
}
