//! How far another server's wall clock is from this machine's, judged by the times that it tells. No item's life hangs
//! on it (`peer_clock`), but what clients mean by absolute times.
//!
//! ```text
//!   asked ──────── answered: T       T was the peer's time at a moment between asked and answered:
//!                                    T - answered <= offset <= T - asked
//!   whole seconds                    the same, with T + 1 s for the upper bound
//! ```
//!
//! One sample of a clock that ticks in seconds says little. Ten samples, taken at different parts of a second, tell the
//! moment of the tick. But that is not the moment at which a second begins: a stock memcached takes the whole second in
//! which it started, adds whole seconds of another clock with another fraction, and looks at that once a second. So
//! with a perfect clock its time is up to 2 s behind and up to 1 s ahead. An offset is reported only if it is by more
//! than the tolerance beyond that, and only if two windows in a row agree.

use crate::sidecar::observe::figures::ClockBounds;

/// Samples in a window.
const WINDOW: u32 = 10;

/// Windows that have to agree before the answer changes.
const AGREEING: u32 = 2;

/// How far a clock may be off without being reported, in milliseconds.
const TOLERANCE: i64 = 500;

/// How far a right clock of whole seconds may seem to be behind and ahead; see the module's head.
const BEHIND_MAX: i64 = 2000;
const AHEAD_MAX: i64 = 1000;

/// The resolution of a peer's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Milliseconds of a true clock.
    #[default]
    Millisecond,
    /// Whole seconds that tick late.
    Second,
}

/// The estimate for one peer.
#[derive(Debug, Default)]
pub(crate) struct ClockSkew {
    grain: Grain,
    window: ClockBounds,
    samples: u32,
    /// The last whole window.
    last: Option<ClockBounds>,
    is_off: bool,
    /// Windows in a row that contradict `is_off`.
    disagreeing: u32,
}

impl ClockSkew {
    /// Knows nothing yet.
    pub(crate) fn new(grain: Grain) -> ClockSkew {
        ClockSkew { grain, ..ClockSkew::default() }
    }

    /// A new connection, maybe to another peer: what is known stands until it is found to be otherwise.
    pub(crate) fn resume(&mut self, grain: Grain) {
        if self.grain != grain {
            *self = ClockSkew::new(grain);
        }
        (self.window, self.samples) = (ClockBounds::default(), 0);
    }

    /// Takes a sample, all in Unix milliseconds. True when the answer of [`ClockSkew::is_off`] has changed.
    pub(crate) fn sample(&mut self, asked: i64, told: i64, answered: i64) -> bool {
        let grain = if self.grain == Grain::Second { 1000 } else { 0 };
        // The sums saturate, because a peer may tell any number.
        self.window.low = self.window.low.max(told.saturating_sub(answered));
        self.window.high = self.window.high.min(told.saturating_add(grain).saturating_sub(asked));
        self.samples += 1;
        if self.samples < WINDOW {
            return false;
        }
        let window = std::mem::take(&mut self.window);
        self.samples = 0;
        // A clock was set within the window, or the peer slept between reading its clock and answering.
        if window.low > window.high {
            return false;
        }
        self.last = Some(window);
        self.judge(window)
    }

    fn judge(&mut self, window: ClockBounds) -> bool {
        let (behind, ahead) = if self.grain == Grain::Second { (BEHIND_MAX, AHEAD_MAX) } else { (0, 0) };
        let off = window.high < -behind - TOLERANCE || window.low > ahead + TOLERANCE;
        self.disagreeing = if off == self.is_off { 0 } else { self.disagreeing + 1 };
        if self.disagreeing < AGREEING {
            return false;
        }
        (self.is_off, self.disagreeing) = (off, 0);
        true
    }

    /// Whether the peer's clock is off by more than is allowed.
    pub(crate) fn is_off(&self) -> bool {
        self.is_off
    }

    /// The bounds by the last whole window, or by what there is of the first.
    pub(crate) fn bounds(&self) -> Option<ClockBounds> {
        let first = (self.samples > 0 && self.window.low <= self.window.high).then_some(self.window);
        self.last.or(first)
    }
}

#[cfg(test)]
#[path = "tests/clock_skew.rs"]
mod tests;
