//! A server that refuses to serve, although its node owns the shard: an older version that does not know the order, say.
//!
//! ```text
//!   owner ── refuses to be primary for a lease ──> the shard is given back ── 1, 2, 4 … 60 leases ──> may claim it again
//! ```
//!
//! Meanwhile another node may own the shard, whose server does as it is told. A refusal is none of these when it ends
//! within a lease: the server may have promised somebody to wait.
//!
//! Invariant: what is known here is of one connection to the server; another one, or the first order that it obeys, ends it.
//!
//! Not here: giving back, and claiming (`keeper`).

use std::time::Duration;

/// The longest pause before the shard is claimed again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// After so many the pause grows no more.
const DOUBLINGS_MAX: u32 = 6;

/// See the module's head. Times are since boot.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Unwilling {
    /// The tenure that it refuses to begin or to go on with, since when, and why.
    refusal: Option<(u64, Duration, String)>,
    /// How often the shard was given back for that, the last time after this epoch.
    given_back: (u32, u64),
}

impl Unwilling {
    /// The server refuses to be primary in this epoch.
    pub(super) fn refused(&mut self, epoch: u64, why: &str, now: Duration) {
        let since = self.refusal.as_ref().filter(|(of, ..)| *of == epoch).map_or(now, |(_, since, _)| *since);
        self.refusal = Some((epoch, since, why.to_owned()));
    }

    /// Whether it has refused that for so long.
    pub(super) fn is_it(&self, epoch: u64, patience: Duration, now: Duration) -> bool {
        self.refusal.as_ref().is_some_and(|(of, since, _)| *of == epoch && now >= *since + patience)
    }

    /// The shard is given back, which may take more than one try: how long this node stands back then. True: this is the
    /// first try.
    pub(super) fn give_back(&mut self, epoch: u64, lease: Duration) -> (Duration, bool) {
        let (count, of) = self.given_back;
        let is_first = count == 0 || of != epoch;
        let count = count + u32::from(is_first);
        self.given_back = (count.min(DOUBLINGS_MAX + 1), epoch);
        (lease.max((lease * (1 << (count - 1).min(DOUBLINGS_MAX))).min(PAUSE_MAX)), is_first)
    }

    /// Why the shard was given back, if it was.
    pub(super) fn why(&self) -> Option<&str> {
        let (_, _, why) = self.refusal.as_ref().filter(|_| self.given_back.0 > 0)?;
        Some(why)
    }
}

#[cfg(test)]
#[path = "tests/shift_unwilling.rs"]
mod shift;
