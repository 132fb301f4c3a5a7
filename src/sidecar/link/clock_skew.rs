//! How far the peer's clock is from ours, from what it says of its time.
//!
//! ```text
//!   asked ──────── answered: T       T was the peer's time at some moment between the two:
//!                                    T - answered <= offset <= T - asked
//!   whole seconds                    the same, with T + 1 s for the upper bound
//! ```
//!
//! One sample of a clock that ticks in seconds says little, ten of them, taken at ever other parts of a second, pin
//! the moment of the tick. But that moment is not the clock: a stock memcached takes the whole second it started in,
//! adds whole seconds of another clock with another fraction, and looks at it once a second, so that with a perfect
//! clock its time is up to 2 s behind and up to 1 s ahead. Only what is more than the tolerance beyond that is
//! reported; it says so for sure, since two windows in a row have to agree.
//!
//! Our own clock stands for the server's: both run on one machine.

use crate::sidecar::observe::figures::ClockBounds;

/// Samples in a window.
const WINDOW: u32 = 10;

/// Windows that have to agree before the answer changes.
const AGREEING: u32 = 2;

/// How far a clock may be off, in milliseconds.
const TOLERANCE: i64 = 500;

/// How far a clock of whole seconds may seem to be behind and ahead, see the module's head.
const BEHIND_MAX: i64 = 2000;
const AHEAD_MAX: i64 = 1000;

/// What a peer's time is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Milliseconds of a true clock.
    Millisecond,
    /// Whole seconds that tick late.
    Second,
}

/// The estimate for one peer.
#[derive(Debug)]
pub struct ClockSkew {
    grain: Grain,
    window: ClockBounds,
    samples: u32,
    /// The last whole window.
    last: Option<ClockBounds>,
    is_off: bool,
    /// Windows in a row that say otherwise than `is_off`.
    disagreeing: u32,
}

impl ClockSkew {
    /// Knows nothing yet.
    pub fn new(grain: Grain) -> ClockSkew {
        ClockSkew { grain, window: ClockBounds::ANY, samples: 0, last: None, is_off: false, disagreeing: 0 }
    }

    /// A new connection, maybe to another peer: what is known stands until it is found to be otherwise.
    pub fn resume(&mut self, grain: Grain) {
        if self.grain != grain {
            *self = ClockSkew::new(grain);
        }
        (self.window, self.samples) = (ClockBounds::ANY, 0);
    }

    /// Takes a sample, all in Unix milliseconds. True when the answer of [`ClockSkew::is_off`] has changed.
    pub fn sample(&mut self, asked: i64, told: i64, answered: i64) -> bool {
        let grain = if self.grain == Grain::Second { 1000 } else { 0 };
        // A peer may say anything.
        self.window.low = self.window.low.max(told.saturating_sub(answered));
        self.window.high = self.window.high.min(told.saturating_add(grain).saturating_sub(asked));
        self.samples += 1;
        if self.samples < WINDOW {
            return false;
        }
        let window = std::mem::replace(&mut self.window, ClockBounds::ANY);
        self.samples = 0;
        // One of the clocks was set meanwhile, or the peer slept between reading its clock and answering.
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
    pub fn is_off(&self) -> bool {
        self.is_off
    }

    /// The bounds by the last whole window, or by what there is of the first.
    pub fn bounds(&self) -> Option<ClockBounds> {
        let first = (self.samples > 0 && self.window.low <= self.window.high).then_some(self.window);
        self.last.or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// A minute of samples of a peer whose clock is `offset` off, over a net with delays of up to `delay`.
    fn watched(grain: Grain, offset: i64, delay: u64, rng: &mut Rng) -> ClockSkew {
        let mut skew = ClockSkew::new(grain);
        // As memcached makes its time: whole seconds at start, whole seconds of a monotonic clock, read once a second.
        let start = 1_700_000_000_000 + rng.below(1000) as i64 + offset;
        let monotonic = rng.below(1_000_000) as i64;
        let phase = rng.below(1000) as i64;
        let mut now = start - offset + 2000;
        for _ in 0..60 {
            let read = now + rng.below(delay) as i64;
            let answered = read + rng.below(delay) as i64;
            let told = match grain {
                Grain::Millisecond => read + offset,
                Grain::Second => {
                    let passed = read + offset - start;
                    let ticked = passed - (passed - phase).rem_euclid(1000);
                    (start / 1000 + (monotonic + ticked) / 1000 - monotonic / 1000) * 1000
                }
            };
            skew.sample(now, told, answered);
            now = answered + 1100;
        }
        skew
    }

    #[test]
    fn a_good_clock_raises_no_alarm_and_a_bad_one_does() {
        for seed in 0..2000 {
            let mut rng = Rng(seed);
            for grain in [Grain::Millisecond, Grain::Second] {
                let good = watched(grain, 0, 200, &mut rng);
                assert!(!good.is_off() && good.bounds().is_some(), "seed {seed}, {grain:?}: {good:?}");
                for offset in [-4500, 4500] {
                    let bad = watched(grain, offset, 200, &mut rng);
                    assert!(bad.is_off(), "seed {seed}, {grain:?}, {offset}: {bad:?}");
                }
            }
            let near = rng.below(901) as i64 - 450;
            assert!(!watched(Grain::Millisecond, near, 20, &mut rng).is_off(), "seed {seed}: {near}");
            for offset in [-600, 600] {
                let bad = watched(Grain::Millisecond, offset, 50, &mut rng);
                assert!(bad.is_off(), "seed {seed}, {offset}: {bad:?}");
            }
        }
    }

    #[test]
    fn a_peer_may_say_anything() {
        for (told, grain) in [(i64::MIN, Grain::Millisecond), (i64::MAX, Grain::Second), (0, Grain::Second)] {
            let mut skew = ClockSkew::new(grain);
            (0..30).for_each(|_| _ = skew.sample(1_700_000_000_000, told, 1_700_000_000_001));
            assert!(skew.is_off() && skew.bounds().is_some_and(|bounds| bounds.middle() != 0), "{told}");
        }
    }

    #[test]
    fn there_are_bounds_from_the_first_sample_on() {
        let mut skew = ClockSkew::new(Grain::Millisecond);
        assert_eq!(skew.bounds(), None);
        assert!(!skew.sample(100, 5103, 106));
        assert_eq!(skew.bounds(), Some(ClockBounds { low: 4997, high: 5003 }));
    }

    #[test]
    fn one_bad_window_is_not_believed() {
        let mut skew = ClockSkew::new(Grain::Millisecond);
        for told in [vec![90_000; 10], vec![0; 10], vec![90_000; 5], vec![0; 5]].concat() {
            assert!(!skew.sample(0, told, 10));
        }
        assert!(!skew.is_off());
        let changes: Vec<bool> = (0..20).map(|_| skew.sample(0, -2000, 10)).collect();
        assert!(skew.is_off() && changes[19] && !changes[18]);
        assert_eq!(skew.bounds().unwrap().middle(), -2005);
    }
}
