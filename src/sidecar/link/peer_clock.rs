//! What the peer's clock showed when this machine had just booted: by that the server sends expiries.
//!
//! ```text
//!   asked ─────── answered: T      T was the peer's time at a moment between asked and answered, both since our boot:
//!                                  T - answered <= peer's time at our boot <= T - asked
//!   whole seconds                  the same, with T + 1 s for the upper bound
//!
//!   sample ──> narrows the bounds │ moves them along (the two clocks drift) │ contradicts them, or what the server
//!              was told by wider ones: a jump
//! ```
//!
//! The time that the peer takes expiries by does not step, and time since boot does not, either. So a jump means that
//! a machine stood still as a whole, that a stock memcached's machine slept, or `debugtime`. What was sent since the
//! last sample before a jump may have got a wrong expiry.
//!
//! Invariant: the bounds are not empty. Not here: whether the peer's wall clock is right (`clock_skew`), what the server
//! does with the number ([`crate::clock`]), what follows from a jump (`pump`).

use super::clock_skew::Grain;
use crate::sidecar::observe::figures::ClockBounds;

/// A sample that contradicts what is known by more than so many milliseconds is a jump. Less is drift: a bad quartz
/// takes hours for so much, and samples come every second. With half a second for the rounding, an expiry is wrong by at
/// most a second.
const JUMP_MS: i64 = 500;

/// The server is told anew when what it was told is off by more than this, in milliseconds.
const NEWS_MS: i64 = 200;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct PeerClock {
    /// Whose.
    identity: String,
    bounds: Option<ClockBounds>,
    /// What the server was told on this connection.
    said: Option<i64>,
    /// What the last sample says, until somebody has asked.
    seen: Option<ClockSample>,
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockSample {
    /// What was sent up to now by what the server was told is right.
    Right,
    /// Nobody can say: the answer took too long.
    Unsure,
    /// The clock has jumped, by so many milliseconds.
    Jump(i64),
}

impl PeerClock {
    /// Takes a sample of the clock of the peer with this identity, all in milliseconds: when it was asked, since our
    /// boot, what it told, and when it had answered.
    pub(super) fn sample(&mut self, identity: &str, grain: Grain, (asked, told, answered): (i64, i64, i64)) {
        if self.identity != identity {
            *self = PeerClock { identity: identity.to_owned(), said: self.said, ..PeerClock::default() };
        }
        let more = if grain == Grain::Second { 1000 } else { 0 };
        // The sums saturate, because a peer may tell any number.
        let (low, high) = (told.saturating_sub(answered), told.saturating_add(more).saturating_sub(asked));
        let new = ClockBounds { low, high: high.max(low) };
        let is_sharp = new.width() <= more + JUMP_MS;
        let old = self.bounds.unwrap_or(new);
        let jump = follow(old, new, &mut self.bounds).then(|| new.middle().saturating_sub(old.middle()));
        // Several samples that each say little may together say that what was told before was wrong.
        let known = self.bounds.filter(|known| known.width() <= more + JUMP_MS).map(ClockBounds::middle);
        let off = known.zip(self.said).map(|(known, said)| known.saturating_sub(said));
        let jump = jump.or(off.filter(|off| off.saturating_abs() > more + JUMP_MS));
        self.seen = Some(match jump {
            Some(jump_ms) => ClockSample::Jump(jump_ms),
            None if is_sharp => ClockSample::Right,
            None => ClockSample::Unsure,
        });
    }

    /// What the last sample says, if nobody has asked since.
    pub(super) fn take_sample(&mut self) -> Option<ClockSample> {
        self.seen.take()
    }

    /// The server's connection is a new one: it was told nothing.
    pub(super) fn forget_said(&mut self) {
        self.said = None;
    }

    /// What the server has to be told now, if it was not told so before.
    pub(super) fn news(&mut self) -> Option<i64> {
        let middle = self.bounds?.middle();
        if self.said.is_some_and(|said| said.abs_diff(middle) <= NEWS_MS as u64) {
            return None;
        }
        self.said = Some(middle);
        self.said
    }
}

/// Narrows what is known by new bounds, or moves it along. True: it has jumped.
fn follow(old: ClockBounds, new: ClockBounds, known: &mut Option<ClockBounds>) -> bool {
    let (ahead, behind) = (new.low.saturating_sub(old.high), old.low.saturating_sub(new.high));
    let (is_jump, width) = (ahead.max(behind) > JUMP_MS, old.width());
    let bounds = if is_jump {
        new
    } else if ahead > 0 {
        ClockBounds { low: new.low, high: new.high.min(new.low.saturating_add(width)) }
    } else if behind > 0 {
        ClockBounds { low: new.low.max(new.high.saturating_sub(width)), high: new.high }
    } else {
        ClockBounds { low: old.low.max(new.low), high: old.high.min(new.high) }
    };
    assert!(bounds.low <= bounds.high, "{bounds:?} of {old:?} and {new:?}");
    *known = Some(bounds);
    is_jump
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, seeds};

    /// Whatever the net does, the middle is near the truth, a drift is followed, and a jump is seen once.
    #[test]
    fn the_truth_is_found_and_followed() {
        for seed in seeds(2000) {
            let mut rng = Rng(seed);
            let grain = rng.pick(&[Grain::Millisecond, Grain::Second]);
            let resolution = if grain == Grain::Second { 1000 } else { 1 };
            let (mut clock, mut truth, mut now) = (PeerClock::default(), 1_790_000_000_000_i64, 5_000_i64);
            let (drift, jump) = (rng.below(3_i64) - 1, rng.pick(&[0, -3_600_000, 7_000]));
            for round in 0..200 {
                let asked = now;
                let read = asked + rng.below(40_i64);
                now = read + rng.below(40_i64);
                let told = (truth + read).div_euclid(resolution) * resolution;
                clock.sample("a", grain, (asked, told, now));
                let off = clock.bounds.unwrap().middle() - truth;
                let allowed = if grain == Grain::Second && (round % 100) < 15 { 1000 } else { 160 };
                assert!(off.abs() <= allowed, "seed {seed}, round {round}: {off} ms off");
                let seen = clock.take_sample();
                let is_jump = matches!(seen, Some(ClockSample::Jump(_)));
                assert_eq!(is_jump, round == 100 && jump != 0, "seed {seed}, round {round}: {seen:?}");
                clock.news();
                now += 1037;
                truth += drift + if round == 99 { jump } else { 0 };
            }
        }
    }

    #[test]
    fn the_server_is_told_once_and_when_it_changes() {
        let mut clock = PeerClock::default();
        assert_eq!(clock.news(), None);
        clock.sample("a", Grain::Millisecond, (100, 5100, 100));
        assert_eq!((clock.news(), clock.news()), (Some(5000), None));
        for (told, news) in [(5300, None), (5301, Some(5201)), (9999, Some(9899))] {
            clock.sample("a", Grain::Millisecond, (100, told, 100));
            assert_eq!(clock.news(), news, "{told}");
        }
        clock.forget_said();
        assert_eq!((clock.news(), clock.take_sample()), (Some(9899), Some(ClockSample::Jump(4698))));
        assert_eq!(clock.take_sample(), None);
        for told in [i64::MIN, i64::MAX, 0] {
            clock.sample("a", Grain::Second, (1, told, 2));
        }
        clock.forget_said();
        clock.sample("b", Grain::Second, (1, 77, 2));
        assert_eq!(clock.take_sample(), Some(ClockSample::Right), "it is another peer's");
    }

    /// What an answer that came late has let pass is found out by the next one that does not.
    #[test]
    fn what_was_told_in_ignorance_was_wrong() {
        let mut clock = PeerClock::default();
        for (sample, seen) in [
            ((0, 9_000, 10_000), ClockSample::Unsure),
            ((20_000, 29_100, 20_100), ClockSample::Jump(5000)),
            ((30_000, 39_100, 30_100), ClockSample::Right),
        ] {
            clock.sample("a", Grain::Millisecond, sample);
            assert_eq!(clock.take_sample(), Some(seen), "{sample:?}");
            clock.news();
        }
        let mut clock = PeerClock::default();
        for (sample, seen) in [
            ((0, 9_000, 10_000), ClockSample::Unsure),
            // At least 8900, at most 9000: neither of them says so alone.
            ((20_000, 38_900, 30_000), ClockSample::Jump(4950)),
        ] {
            clock.sample("a", Grain::Millisecond, sample);
            assert_eq!(clock.take_sample(), Some(seen), "{sample:?}");
            clock.news();
        }
    }
}
