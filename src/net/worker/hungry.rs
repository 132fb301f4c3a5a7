//! Connections that wait until the memory of a large value is ready, or until it is their turn to copy one.
//!
//! ```text
//!  large line ── its memory is not cleared yet ──> hungry ── some was cleared ──> large line
//!             ── others copy ───────────────────> copiers ── its place is first ──> large line
//! ```
//!
//! A worker that touched fresh memory itself would be stopped while the system clears it, for up to 70 ms where a hypervisor
//! has to find it, and all its clients with it. So this is left to a thread of the store's, and others are served meanwhile.
//! When that has done something, all who wait get in line again, and those for whom it was not enough come back.
//!
//! Of all workers' connections one copies at a time. Those of a worker wait in the order of their places, so only the first of
//! them is looked at.
//!
//! Not here: what is cleared, and when that is to be waited for (`store/background/prefault`), places (`store/copy_line`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long a worker that has nothing else to do sleeps while memory is cleared, or others copy: as long as 5 to 10 MiB take,
/// where no hypervisor has to find them.
pub(super) const MEMORY_NAP: Duration = Duration::from_millis(1);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Hungry {
    /// Slots, in the order in which they came.
    keys: VecDeque<usize>,
    /// Slots, by the numbers of their places.
    copiers: BTreeMap<u64, usize>,
    /// See [`crate::store::Store::memory_looks`].
    looks: u64,
}

impl Hungry {
    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.copiers.is_empty()
    }

    /// Adds one who waits.
    pub(super) fn push(&mut self, key: usize) {
        self.keys.push_back(key);
    }

    /// Takes out who has waited for longest.
    pub(super) fn pop(&mut self) -> Option<usize> {
        self.keys.pop_front()
    }

    /// Adds one who waits to copy.
    pub(super) fn push_copier(&mut self, key: usize, number: u64) {
        self.copiers.insert(number, key);
    }

    /// Who of those has the first place.
    pub(super) fn first_copier(&self) -> Option<(u64, usize)> {
        self.copiers.first_key_value().map(|(&number, &key)| (number, key))
    }

    /// Takes it out.
    pub(super) fn pop_copier(&mut self) {
        self.copiers.pop_first();
    }

    /// Whether memory was made ready since this was last asked: the store has looked for some so many times.
    #[inline]
    pub(super) fn has_news(&mut self, looks: u64) -> bool {
        std::mem::replace(&mut self.looks, looks) != looks
    }
}
