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
//! at 2: so an item stored in the first second has an age, and 1 is free to mean "already expired". Its seconds begin
//! when those of the wall clock do, as that was at the start.
//!
//! A server that finds its items in a memory file goes on with the seconds of the one before it, so that no item's times
//! have to be changed. While the machine has not restarted it knows them exactly. After that the wall clock must tell how
//! long it was away, and if that has gone back, nothing can be known: then there is no such [`Resumed`].
//!
//! # Servers among each other
//!
//! No wall clock decides how long an item lives on another server. A server tells the one that feeds it a time of its
//! own, the *told time*: that is the wall clock at its start, and never steps. A feeder asks for it, and sends every
//! expiry by it. Both sides count the time since boot, each from a zero of its own:
//!
//! ```text
//! here    second S ──> S as time since boot ──> + what the peer's clock showed when our machine booted ──> T
//! there   T ──> second by the told time
//! ```
//!
//! The sum of the middle is [`PeerTime`]. An expiry is rounded to the nearest second. So it is exact between servers
//! whose wall clocks agreed when they started, and half a second off at most between others; and what goes to a server
//! and comes back is what it was. Without such a sum (nobody has told it) the wall clock of here has to do.
//!
//! What moves the told time against the other's time since boot, apart from drift: a machine that stood still as a whole
//! (a virtual one that was paused), `debugtime`, and a stock memcached on a machine that slept.
//!
//! Not here: who calls `tick`, who asks for a peer's time (`sidecar::link::peer_clock`).

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

/// The Unix seconds in which a told time may begin. Wall clocks of machines without a date are outside: a time below 30
/// days would be taken for a relative one, and `T` ends in 2038.
const TOLD: std::ops::RangeInclusive<i64> = 1_000_000_000..=2_000_000_000;

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
    /// The second in which it started: [`FIRST_SECOND`], unless it goes on from another clock.
    first: u32,
    /// Unix time of the start in milliseconds, as the wall clock tells it now.
    started_unix_ms: AtomicI64,
    /// The told time of second 0.
    told_epoch: i64,
}

/// What a memory file keeps of a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockState {
    /// Time since boot of second 0, in milliseconds.
    pub zero_ms: i64,
    /// The second that it was.
    pub now: u32,
    /// The Unix time of that, in milliseconds.
    pub unix_ms: i64,
}

/// Where a clock goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Time since boot of the beginning of its first second.
    boot_ms: i64,
    first: u32,
}

impl ClockState {
    /// How to go on from here; None if nobody can know how much time has passed. `same_boot`: the machine has not been
    /// restarted meanwhile.
    pub fn resume(&self, same_boot: bool) -> Option<Resumed> {
        self.resume_at(same_boot, cpu::time_since_boot().as_millis() as i64, wall_clock_ms())
    }

    fn resume_at(&self, same_boot: bool, boot_ms: i64, wall_ms: i64) -> Option<Resumed> {
        let seconds = if same_boot {
            boot_ms.checked_sub(self.zero_ms)?.div_euclid(1000)
        } else {
            let away = wall_ms.checked_sub(self.unix_ms).filter(|&away| away >= 0)?;
            // Rounded up: what may have expired has.
            i64::from(self.now) + away / 1000 + 1
        };
        let first = u32::try_from(seconds).ok().filter(|first| (FIRST_SECOND..u32::MAX / 2).contains(first))?;
        let boot_ms = if same_boot { self.zero_ms + i64::from(first) * 1000 } else { boot_ms };
        Some(Resumed { boot_ms, first })
    }
}

/// How a peer's clock counts the seconds of this one. See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTime {
    /// Its time of our second 0.
    epoch: i64,
    /// Its time now.
    now: i64,
}

impl PeerTime {
    /// The peer's time of a second of our clock.
    #[inline]
    pub fn of(&self, second: u32) -> i64 {
        self.epoch + i64::from(second)
    }

    /// The peer's time now.
    #[inline]
    pub fn now(&self) -> i64 {
        self.now
    }
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Clock {
        Clock::started_at(cpu::time_since_boot(), wall_clock_ms())
    }

    /// A clock that starts at this time since boot, when the wall clock shows this: both of the whole second before.
    fn started_at(boot: Duration, wall_ms: i64) -> Clock {
        let into_second = wall_ms.rem_euclid(1000);
        let started_unix = wall_ms.div_euclid(1000);
        Clock {
            now: AtomicU32::new(FIRST_SECOND),
            offset: AtomicI64::new(0),
            paused: AtomicBool::new(false),
            started: boot.saturating_sub(Duration::from_millis(into_second as u64)),
            first: FIRST_SECOND,
            started_unix_ms: AtomicI64::new(started_unix * 1000),
            told_epoch: started_unix.clamp(*TOLD.start(), *TOLD.end()) - i64::from(FIRST_SECOND),
        }
    }

    /// A clock that goes on with the seconds of another one.
    pub fn resumed(from: Resumed) -> Clock {
        let (boot, wall_ms) = (cpu::time_since_boot(), wall_clock_ms());
        let started = Duration::from_millis(from.boot_ms.max(0) as u64);
        let started_unix_ms = wall_ms - boot.saturating_sub(started).as_millis() as i64;
        let clock = Clock {
            now: AtomicU32::new(from.first),
            started,
            first: from.first,
            started_unix_ms: AtomicI64::new(started_unix_ms),
            told_epoch: started_unix_ms.div_euclid(1000).clamp(*TOLD.start(), *TOLD.end()) - i64::from(from.first),
            ..Clock::started_at(boot, wall_ms)
        };
        clock.tick();
        clock
    }

    /// What a memory file has to keep of it.
    pub fn state(&self) -> ClockState {
        let seconds = i64::from(self.first).saturating_add(self.offset.load(Ordering::Relaxed));
        let zero_ms = (self.started.as_millis() as i64).saturating_sub(seconds.saturating_mul(1000));
        ClockState { zero_ms, now: self.now(), unix_ms: wall_clock_ms() }
    }

    /// Seconds since the start, as memcached counts them.
    pub fn uptime(&self) -> u32 {
        self.now().saturating_sub(self.first) + FIRST_SECOND
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
        let elapsed = self.elapsed().as_secs() as i64 + i64::from(self.first);
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
        (self.started_unix_ms.load(Ordering::Relaxed) + 500).div_euclid(1000) - i64::from(self.first)
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

    /// The told time now, in milliseconds. See the module's head.
    pub fn told_ms(&self) -> i64 {
        let seconds = self.told_epoch + i64::from(self.first) + self.offset.load(Ordering::Relaxed);
        seconds.saturating_mul(1000).saturating_add(self.elapsed().as_millis() as i64)
    }

    /// How a peer counts the seconds of this clock, whose own showed `at_boot_ms` when this machine had just booted.
    /// None: nobody knows, and its clock has to be taken for one that agrees with our wall clock.
    pub fn peer_time(&self, at_boot_ms: Option<i64>) -> PeerTime {
        let epoch = match at_boot_ms {
            None => self.epoch(),
            Some(at_boot_ms) => {
                let started_ms = at_boot_ms.saturating_add(self.started.as_millis() as i64);
                let before = i64::from(self.first).saturating_add(self.offset.load(Ordering::Relaxed));
                started_ms.saturating_add(500).div_euclid(1000).saturating_sub(before)
            }
        };
        // So that no sum of it and a second overflows, whatever was told.
        let epoch = epoch.clamp(-i64::from(u32::MAX), i64::MAX / 2);
        PeerTime { epoch, now: epoch + i64::from(self.now()) }
    }

    /// Turns the exptime of a request into `expires_at`; 0 is never.
    pub fn expires_at(&self, exptime: i64) -> u32 {
        self.expires_by(exptime, || self.epoch())
    }

    /// The same for an exptime that the feeder of this server sends, by the told time.
    pub fn expires_at_told(&self, exptime: i64) -> u32 {
        self.expires_by(exptime, || self.told_epoch)
    }

    fn expires_by(&self, exptime: i64, epoch: impl FnOnce() -> i64) -> u32 {
        match exptime {
            0 => 0,
            i64::MIN..0 => 1,
            1..=RELATIVE_MAX => self.now().saturating_add(exptime as u32),
            _ => exptime.saturating_sub(epoch()).clamp(1, i64::from(u32::MAX)) as u32,
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
#[path = "tests/clock.rs"]
mod tests;
