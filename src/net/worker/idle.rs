//! Which connections to look at for idle ones (`-o idle_timeout`) and for those that do not log in, and when.
//!
//! Not here: which are idle (`client`), and their end (`worker`).

use std::ops::Range;
use std::time::{Duration, Instant};

/// Connections looked at between two polls: a few tens of microseconds.
const SLICE: usize = 4096;

/// How often a sweep begins; `idle_timeout` counts whole seconds.
const EVERY: Duration = Duration::from_secs(1);

/// A walk over all slots, a slice at a time, once a second.
#[derive(Debug)]
pub(super) struct IdleSweep {
    is_wanted: bool,
    due: Instant,
    /// The next slot to look at while a sweep is on.
    at: Option<usize>,
}

impl IdleSweep {
    /// The first sweep is due in a second.
    pub(super) fn new(is_wanted: bool) -> IdleSweep {
        IdleSweep { is_wanted, due: Instant::now() + EVERY, at: None }
    }

    /// Whether there is anything to look for.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether a sweep has begun and is not over.
    pub(super) fn is_on(&self) -> bool {
        self.at.is_some()
    }

    /// How long it is until the next one.
    pub(super) fn due_in(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Goes on with this slot after the next poll: what was done with those before it took long.
    pub(super) fn pause_at(&mut self, slot: usize) {
        self.at = Some(slot);
    }

    /// Which of so many slots to look at now, if any.
    pub(super) fn next_slots(&mut self, slots: usize) -> Option<Range<usize>> {
        let now = Instant::now();
        if self.at.is_none() && now < self.due {
            return None;
        }
        let start = self.at.unwrap_or(0);
        let end = slots.min(start + SLICE);
        self.at = (end < slots).then_some(end);
        if self.at.is_none() {
            self.due = now + EVERY;
        }
        Some(start..end)
    }
}
