//! Connections that wait until the memory of a large value is ready.
//!
//! ```text
//!  large line ── its memory is not cleared yet ──> hungry ── some was cleared ──> large line
//! ```
//!
//! A worker that touched fresh memory itself would be stopped while the system clears it, for up to 70 ms where a hypervisor
//! has to find it, and all its clients with it. So this is left to a thread of the store's, and others are served meanwhile.
//! When that has done something, all who wait get in line again, and those for whom it was not enough come back.
//!
//! Not here: what is cleared, and when that is to be waited for (`store/background/prefault`).

use std::collections::VecDeque;
use std::time::Duration;

/// How long a worker that has nothing else to do sleeps while memory is cleared: as long as 5 to 10 MiB take, where no
/// hypervisor has to find them.
pub(super) const MEMORY_NAP: Duration = Duration::from_millis(1);

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Hungry {
    /// Slots, in the order in which they came.
    keys: VecDeque<usize>,
    /// See [`crate::store::Store::memory_looks`].
    looks: u64,
}

impl Hungry {
    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds one who waits.
    pub(super) fn push(&mut self, key: usize) {
        self.keys.push_back(key);
    }

    /// Takes out who has waited for longest.
    pub(super) fn pop(&mut self) -> Option<usize> {
        self.keys.pop_front()
    }

    /// Whether memory was made ready since this was last asked: the store has looked for some so many times.
    #[inline]
    pub(super) fn has_news(&mut self, looks: u64) -> bool {
        std::mem::replace(&mut self.looks, looks) != looks
    }
}
