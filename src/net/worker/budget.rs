//! Memory that connections hold between their turns, and who goes when it is too much.
//!
//! ```text
//!  half-read requests, replies that wait ──> held by a connection ──> held by its worker ──> held by the server
//!
//!  server   0 ────────── half of the limit ────────── limit ──────────────────────────────> twice the limit, at worst
//!                        tight: fewer replies          a worker above its share closes who
//!                        at a time, no longer lines    holds most, until it is below it
//! ```
//!
//! A client that is slow to send or to read makes its connection hold memory, and so does one whose large reply waits until
//! it is its turn, unless memory is tight; there may be `-c` of them. What one of them
//! holds is bounded by what is run before its replies are written: 256 KiB of copied values and one more, or 16 when memory
//! is tight, and 16 MiB for a line. What all of them hold is bounded here: by [`LIMIT`], of which a worker may take
//! what others do not need. With `-o read_buf_mem_limit` each worker has its share of that, as memcached's threads.
//!
//! Values that leave by reference are items, and within `-m`: they are kept where they are for a slow client as long as
//! nobody is refused memory. Then who stands still is closed (`standing`).
//!
//! Invariants: `held` is the sum of what this worker's connections hold, as of their last turns, and the gauges are the
//! sums of all workers; in `largest` is who holds [`NOTABLE`] or more.
//!
//! Not here: who is closed when (`standing`), what holds memory (`conn/buffer`), uploads (`store/lent`).

use crate::config::Config;
use crate::net::conn::turn::OUTPUT_HIGH;
use crate::net::conn::{Holdings, READ_BUFFER};
use crate::stats::Registry;
use crate::sys::alloc;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all connections may hold together, unless an option says so: 32 KiB for each of the default `-c`.
const LIMIT: usize = 32 << 20;

/// Who holds less than this is not closed for it, unless it asks for more when there is none.
const NOTABLE: usize = 4 << 10;

/// What a worker's connections may hold together when the system refuses memory, without one of them being closed: as much
/// as a client sends in two reads. Requests that are about to be answered are not what takes the memory.
const LEFT_WHEN_SHORT: usize = 2 * READ_BUFFER;

/// As [`OUTPUT_HIGH`] when memory is tight.
const OUTPUT_LOW: usize = 16 << 10;

/// Fewer who wait do not have more.
const FEW_STUCK: usize = 2;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Budget {
    /// What may be held: by this worker where the limit is split, by all of them otherwise.
    bound: usize,
    share: usize,
    is_split: bool,
    /// See [`Budget::output_high`]: where hardly anybody waits.
    most_output: usize,
    held: usize,
    /// Connections with output among them.
    stuck: usize,
    /// Bytes, and slot.
    largest: BTreeSet<(usize, usize)>,
}

impl Budget {
    /// A worker's share of what is configured.
    pub(super) fn new(config: &Config) -> Budget {
        let is_split = config.read_buf_mem_limit > 0;
        let limit = if is_split { config.read_buf_mem_limit as usize } else { LIMIT };
        let share = limit / config.threads.max(1);
        let bound = if is_split { share } else { limit };
        let most_output = output_of_each(bound, FEW_STUCK);
        Budget { bound, share, is_split, most_output, held: 0, stuck: 0, largest: BTreeSet::new() }
    }

    /// Whether connections wait for their clients to read.
    pub(super) fn has_stuck(&self) -> bool {
        self.stuck > 0
    }

    /// Notes that the connection of a slot holds something else than before.
    pub(super) fn change(&mut self, slot: usize, before: Holdings, after: Holdings, stats: &Registry) {
        let (old, new) = (before.input + before.output, after.input + after.output);
        self.held = self.held + new - old;
        self.stuck = self.stuck + usize::from(after.output > 0) - usize::from(before.output > 0);
        if old >= NOTABLE {
            self.largest.remove(&(old, slot));
        }
        if new >= NOTABLE {
            self.largest.insert((new, slot));
        }
        shift(&stats.held_input, before.input, after.input);
        shift(&stats.held_inputs, (before.input > 0).into(), (after.input > 0).into());
        shift(&stats.held_output, before.output, after.output);
        shift(&stats.held_outputs, (before.output > 0).into(), (after.output > 0).into());
    }

    /// Whether somebody is to be closed.
    pub(super) fn is_over(&self, stats: &Registry) -> bool {
        alloc::is_short() && self.held >= LEFT_WHEN_SHORT || self.held > self.share && self.all(stats) > self.bound
    }

    /// Whether less is to be held than usual, beside what a connection holds that wants more.
    #[inline]
    pub(super) fn is_tight(&self, own: usize, stats: &Registry) -> bool {
        self.all(stats).saturating_sub(own) > self.bound / 2 || alloc::is_short()
    }

    /// Replies beyond this are written before the next request is run: the more wait, the less each of them holds.
    pub(super) fn output_high(&self, stats: &Registry) -> usize {
        if self.is_tight(0, stats) {
            return OUTPUT_LOW;
        }
        let stuck = if self.is_split { self.stuck } else { stats.held_outputs.load(Ordering::Relaxed) as usize };
        if stuck <= FEW_STUCK { self.most_output } else { output_of_each(self.bound, stuck) }
    }

    /// Who holds most.
    pub(super) fn worst(&self) -> Option<usize> {
        self.largest.last().map(|&(_, slot)| slot)
    }

    #[inline]
    fn all(&self, stats: &Registry) -> usize {
        let all = || stats.held_input.load(Ordering::Relaxed) + stats.held_output.load(Ordering::Relaxed);
        if self.is_split { self.held } else { all() as usize }
    }
}

/// What each of so many may have of half of the bound.
#[cold]
fn output_of_each(bound: usize, stuck: usize) -> usize {
    (bound / 2 / stuck).clamp(OUTPUT_LOW, OUTPUT_HIGH)
}

fn shift(gauge: &AtomicU64, before: usize, after: usize) {
    if before != after {
        gauge.fetch_add((after as u64).wrapping_sub(before as u64), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(output: usize) -> Holdings {
        Holdings { input: 0, output }
    }

    #[test]
    fn a_worker_takes_what_others_do_not_need_and_the_worst_is_known() {
        let (stats, nothing) = (Registry::default(), Holdings::default());
        let config = Config { threads: 4, ..Config::default() };
        let (mut one, mut other) = (Budget::new(&config), Budget::new(&config));
        assert_eq!(one.output_high(&stats), OUTPUT_HIGH);
        one.change(7, nothing, output(LIMIT / 2), &stats);
        one.change(8, nothing, output(LIMIT / 4), &stats);
        one.change(9, nothing, output(100), &stats);
        assert!(!one.is_over(&stats) && one.is_tight(0, &stats) && !one.is_tight(LIMIT / 2, &stats));
        assert_eq!((one.output_high(&stats), other.output_high(&stats)), (OUTPUT_LOW, OUTPUT_LOW));
        other.change(1, nothing, Holdings { input: LIMIT / 4, output: 0 }, &stats);
        assert!(one.is_over(&stats) && !other.is_over(&stats), "who is within its share closes nobody");
        assert_eq!((one.worst(), other.worst()), (Some(7), Some(1)));
        one.change(7, output(LIMIT / 2), nothing, &stats);
        assert!(!one.is_over(&stats) && one.worst() == Some(8) && one.has_stuck());
        one.change(8, output(LIMIT / 4), nothing, &stats);
        one.change(9, output(100), nothing, &stats);
        other.change(1, Holdings { input: LIMIT / 4, output: 0 }, nothing, &stats);
        assert!(!one.has_stuck() && one.worst().is_none());
        let gauges = [&stats.held_input, &stats.held_inputs, &stats.held_output, &stats.held_outputs];
        assert!(gauges.iter().all(|gauge| gauge.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_limit_that_is_given_is_split() {
        let (stats, nothing) = (Registry::default(), Holdings::default());
        let config = Config { threads: 4, read_buf_mem_limit: 1 << 20, ..Config::default() };
        let (mut one, other) = (Budget::new(&config), Budget::new(&config));
        assert_eq!(one.output_high(&stats), 64 << 10);
        one.change(1, nothing, output(256 << 10), &stats);
        assert!(!one.is_over(&stats) && one.is_tight(0, &stats) && !other.is_tight(0, &stats));
        one.change(2, nothing, output(1), &stats);
        assert!(one.is_over(&stats) && one.worst() == Some(1));
    }
}
