//! A clock that is off is seen, and one that is right never is.

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
