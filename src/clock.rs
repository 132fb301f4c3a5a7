//! The server's clock: whole seconds since start, and the one place where a client's exptime becomes
//! an expiry time.
//!
//! ```text
//! exptime (wire)      0          negative     1..=30 days        above
//! expires_at (inside) 0 = never  1 = expired  now + exptime      absolute Unix time - start, at least 1
//! ```
//!
//! Two clocks of the machine are read, each for what it is good for:
//!
//! ```text
//! time since boot   how long something lives: it never steps, and goes on while the machine sleeps
//! wall clock        what second an absolute exptime means: followed when it steps by more than half a second
//! ```
//!
//! The clock is advanced several times a second by `tick`. A stepped wall clock neither expires nor revives anything
//! that is stored already. memcached reads the wall clock once, at its start: one that was started before the time was
//! set is wrong about absolute exptimes until it ends. To read this clock costs one relaxed load. The clock starts
//! at 2: so an item stored in the first second has an age, and 1 is free to mean "already expired".
//!
//! Not here: who calls `tick`.

use crate::sys::cpu;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// exptimes up to this many seconds (30 days) are relative, larger ones are absolute Unix times.
pub const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// `uptime` of a server that has just started.
const FIRST_SECOND: u32 = 2;

/// The wall clock is followed when it differs by more than this from what the time since boot makes expect, in
/// milliseconds. Less than this is what time services slew, and what passes between reading the two clocks.
const WALL_SLACK_MS: i64 = 500;

/// Seconds since start. See the module's head.
#[derive(Debug)]
pub struct Clock {
    now: AtomicU32,
    /// Seconds that `debugtime` has added.
    offset: AtomicI64,
    /// `debugtime p`: `tick` changes nothing.
    paused: AtomicBool,
    /// Since boot.
    started: Duration,
    /// Unix time of the start in milliseconds, as the wall clock tells it now.
    started_unix_ms: AtomicI64,
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Clock {
        Clock {
            now: AtomicU32::new(FIRST_SECOND),
            offset: AtomicI64::new(0),
            paused: AtomicBool::new(false),
            started: cpu::time_since_boot(),
            started_unix_ms: AtomicI64::new(wall_clock_ms()),
        }
    }

    /// The current second.
    #[inline]
    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// Brings `now` up to date, and follows the wall clock. Called about ten times a second.
    pub fn tick(&self) {
        self.follow_wall_clock(wall_clock_ms(), self.elapsed());
        if self.paused.load(Ordering::Relaxed) {
            return;
        }
        let elapsed = self.elapsed().as_secs() as i64 + i64::from(FIRST_SECOND);
        let now = elapsed.saturating_add(self.offset.load(Ordering::Relaxed)).clamp(1, i64::from(u32::MAX));
        self.now.store(now as u32, Ordering::Relaxed);
    }

    /// Moves the clock by `seconds`, for `debugtime` and for tests of everything that waits.
    pub fn advance(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::Relaxed);
        let now = i64::from(self.now()).saturating_add(seconds).clamp(1, i64::from(u32::MAX));
        self.now.store(now as u32, Ordering::Relaxed);
        self.tick();
    }

    /// Stops the clock (`debugtime p`), or lets it go on from the present time (`debugtime r`).
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        self.tick();
    }

    fn elapsed(&self) -> Duration {
        cpu::time_since_boot().saturating_sub(self.started)
    }

    fn follow_wall_clock(&self, wall_ms: i64, elapsed: Duration) {
        let started = wall_ms - elapsed.as_millis() as i64;
        if started.abs_diff(self.started_unix_ms.load(Ordering::Relaxed)) > WALL_SLACK_MS as u64 {
            self.started_unix_ms.store(started, Ordering::Relaxed);
        }
    }

    /// Unix time of second 0 of this clock.
    fn epoch(&self) -> i64 {
        self.started_unix_ms.load(Ordering::Relaxed).div_euclid(1000) - i64::from(FIRST_SECOND)
    }

    /// The Unix time of a second of this clock.
    pub fn unix(&self, second: u32) -> i64 {
        self.epoch() + i64::from(second)
    }

    /// The Unix time in milliseconds by which this clock judges absolute exptimes, so that another server can tell
    /// whether the two agree about when something expires.
    pub fn unix_ms(&self) -> i64 {
        let offset_ms = self.offset.load(Ordering::Relaxed).saturating_mul(1000);
        let started = self.started_unix_ms.load(Ordering::Relaxed);
        (started + self.elapsed().as_millis() as i64).saturating_add(offset_ms)
    }

    /// Turns the exptime of a request into `expires_at`; 0 is never.
    pub fn expires_at(&self, exptime: i64) -> u32 {
        match exptime {
            0 => 0,
            i64::MIN..0 => 1,
            1..=RELATIVE_MAX => self.now().saturating_add(exptime as u32),
            _ => exptime.saturating_sub(self.epoch()).clamp(1, i64::from(u32::MAX)) as u32,
        }
    }
}

fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
