//! Seconds, exptimes, and the same life on two machines.

use super::*;
use crate::testing::{Rng, seeds};

#[test]
fn a_paused_clock_only_advances() {
    let clock = Clock::new();
    clock.pause(true);
    let before = clock.now();
    clock.advance(100);
    assert_eq!(clock.now(), before + 100);
    clock.tick();
    assert_eq!(clock.now(), before + 100);
    clock.advance(i64::MIN);
    assert_eq!(clock.now(), 1);
    clock.advance(i64::MAX);
    clock.advance(i64::MAX);
    assert_eq!(clock.now(), u32::MAX);
}

#[test]
fn milliseconds_go_with_the_seconds() {
    let clock = Clock::new();
    let before = clock.unix_ms();
    clock.advance(1000);
    let (seconds, after) = (clock.unix(clock.now()), clock.unix_ms());
    assert!(after >= before + 1_000_000);
    assert!((after / 1000 - seconds).abs() <= 1);
}

#[test]
fn a_wall_clock_that_steps_is_followed() {
    let (clock, second) = (Clock::new(), Duration::from_secs(1));
    let (now, start) = (clock.now(), clock.started_unix_ms.load(Ordering::Relaxed));
    let expires_at = clock.expires_at(100);
    for step_ms in [7_200_000, -7_200_000, 1_000_000_000_000, -start] {
        clock.follow_wall_clock(start + step_ms + 1000, second);
        let unix = (start + step_ms).div_euclid(1000) + 2;
        assert_eq!(clock.unix(now + 2), unix, "the second is {step_ms} ms off");
        if unix + 5 > RELATIVE_MAX {
            assert_eq!(clock.expires_at(unix + 5), now + 7);
        }
        assert_eq!((clock.now(), clock.expires_at(100)), (now, expires_at), "what is relative stays");
    }
    clock.follow_wall_clock(start + 1000, second);
    let before = clock.unix(0);
    for slack_ms in [-499, 499, 250] {
        clock.follow_wall_clock(start + slack_ms + 1000, second);
        assert_eq!(clock.unix(0), before, "{slack_ms} ms are no step");
    }
}

#[test]
fn exptimes() {
    let clock = Clock::new();
    clock.advance(100);
    assert_eq!(clock.expires_at(0), 0);
    assert_eq!(clock.expires_at(-1), 1);
    assert_eq!(clock.expires_at(i64::MIN), 1);
    assert_eq!(clock.expires_at(10), clock.now() + 10);
    assert_eq!(clock.expires_at(RELATIVE_MAX), clock.now() + RELATIVE_MAX as u32);
    assert_eq!(clock.expires_at(RELATIVE_MAX + 1), 1);
    let unix = clock.unix(clock.now());
    assert_eq!(clock.expires_at(unix + 5), clock.now() + 5);
    assert_eq!(clock.expires_at(i64::MAX), u32::MAX);
}

/// A machine: when it booted by a clock that is right, what its wall clock shows then, and its server's clock.
struct Machine {
    booted_ms: i64,
    clock: Clock,
}

impl Machine {
    fn new(rng: &mut Rng, wall_ms: i64) -> Machine {
        let since_boot = Duration::from_millis(1000 + rng.below(10_000_000_u64));
        let clock = Clock::started_at(since_boot, wall_ms);
        let machine = Machine { booted_ms: 5_000_000_000 - since_boot.as_millis() as i64, clock };
        machine.clock.offset.store(rng.pick(&[0, 0, 1000, -1]), Ordering::Relaxed);
        machine
    }

    /// When an item that expires at this second dies, by the right clock.
    fn death_ms(&self, second: u32) -> i64 {
        let after = i64::from(second) - i64::from(FIRST_SECOND) - self.clock.offset.load(Ordering::Relaxed);
        self.booted_ms + self.clock.started.as_millis() as i64 + after * 1000
    }

    /// What a feeder on `other` finds out by asking: the told time when the other machine booted.
    fn told_at_boot_of(&self, other: &Machine) -> i64 {
        let told = self.clock.told_epoch + i64::from(FIRST_SECOND) + self.clock.offset.load(Ordering::Relaxed);
        told * 1000 + other.booted_ms - self.booted_ms - self.clock.started.as_millis() as i64
    }

    /// The second of this clock that an item gets from another server.
    fn from(&self, other: &Machine, second: u32) -> u32 {
        let time = other.clock.peer_time(Some(self.told_at_boot_of(other)));
        self.clock.expires_at_told(time.of(second))
    }
}

#[test]
fn an_item_dies_at_the_same_time_on_a_peer_whatever_the_wall_clocks_say() {
    for seed in seeds(5000) {
        let mut rng = Rng(seed);
        let right = 1_790_000_000_000 + rng.below(1000_i64);
        let wrong = [right, right - 7_200_000 - rng.below(1000_i64), 77_000_500, 0, 4_000_000_000_123, right + 500];
        let walls = [(); 2].map(|()| rng.pick(&wrong));
        let [here, there] = walls.map(|wall_ms| Machine::new(&mut rng, wall_ms));
        let second = 2000 + rng.below(100_000_u32);
        let copy = there.from(&here, second);
        let late_ms = there.death_ms(copy) - here.death_ms(second);
        assert!(late_ms.abs() <= 500, "seed {seed}: {late_ms} ms late");
        if late_ms.abs() < 500 {
            assert_eq!(here.from(&there, copy), second, "seed {seed}: it changes on its way back");
        }
    }
}

#[test]
fn without_a_peers_time_the_wall_clock_has_to_do() {
    let clock = Clock::new();
    let time = clock.peer_time(None);
    assert_eq!((time.of(100), time.now()), (clock.unix(100), clock.unix(clock.now())));
    for told in [i64::MIN, i64::MAX, -1] {
        let time = clock.peer_time(Some(told));
        assert!(time.of(u32::MAX) > time.of(0), "{told}");
    }
}

#[test]
fn the_told_time_never_steps() {
    let clock = Clock::started_at(cpu::time_since_boot(), 1_790_000_000_600);
    let (before, epoch) = (clock.told_ms(), clock.told_epoch);
    assert!((1_790_000_000_600..1_790_000_060_000).contains(&before), "{before}");
    clock.follow_wall_clock(5, Duration::ZERO);
    assert!(clock.told_ms() - before < 60_000 && clock.told_epoch == epoch);
    assert_eq!(clock.expires_at_told(epoch + 70), 70);
    assert_eq!(Clock::started_at(Duration::ZERO, 77).told_epoch, 1_000_000_000 - 2);
}

#[test]
fn a_clock_goes_on_where_another_one_was() {
    let state = ClockState { zero_ms: 5_000, now: 100, unix_ms: 1_700_000_000_000 };
    // The machine was not restarted: the wall clock does not matter.
    for wall_ms in [0, 1_700_000_000_000, i64::MAX] {
        let resumed = state.resume_at(true, 5_000 + 130_999, wall_ms).unwrap();
        assert_eq!((resumed.first, resumed.boot_ms), (130, 135_000));
    }
    // It was: only the wall clock knows, and what may have expired has.
    for (away_ms, first) in [(0, 101), (999, 101), (1000, 102), (86_400_000, 86_501)] {
        assert_eq!(state.resume_at(false, 77, state.unix_ms + away_ms).unwrap().first, first, "{away_ms}");
    }
    assert_eq!(state.resume_at(false, 77, state.unix_ms - 1), None, "the wall clock has gone back");
    assert_eq!(state.resume_at(false, 77, i64::MAX), None, "more seconds than a clock has");
    let odd = ClockState { zero_ms: i64::MIN, ..state };
    assert_eq!((odd.resume_at(true, 77, 0), odd.resume_at(true, i64::MAX, 0)), (None, None));
    assert_eq!(ClockState { zero_ms: i64::MAX, ..state }.resume_at(true, 77, 0), None);
}

#[test]
fn a_resumed_clock_keeps_its_seconds_and_counts_its_own_uptime() {
    let before = Clock::new();
    before.pause(true);
    before.advance(1000);
    let (second, unix) = (before.now(), before.unix(before.now()));
    // As after a restart of the machine.
    let state = ClockState { zero_ms: -1, ..before.state() };
    let after = Clock::resumed(state.resume(false).unwrap());
    assert!((second + 1..second + 60).contains(&after.now()), "{} after {second}", after.now());
    assert!(after.uptime() < 60);
    // The same second is the same moment, but for what debugtime has added.
    assert!((after.unix(after.now()) - (unix - 1000)).abs() < 60);
    assert_eq!(after.expires_at(5), after.now() + 5);
    // And without one, exactly.
    let again = Clock::resumed(after.state().resume(true).unwrap());
    assert!(again.now() - after.now() <= 2);
    assert!((again.state().zero_ms - after.state().zero_ms).abs() <= 1);
    assert!((again.told_ms() - after.told_ms()).abs() < 2000);
}
