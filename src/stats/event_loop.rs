//! How long things take inside the server: the longest of a kind, and how often which duration was met.
//!
//! ```text
//! Longest    one number; who finds a longer duration replaces it
//! Meter      one worker's: begin ── look … look ── end, once a turn ──> Noted
//! Turns      worker i is the only writer of Noted i: 16 buckets for each power of two nanoseconds
//!            a quantile = over the sums of all workers' buckets - those of the last `stats reset`
//! ```
//!
//! An event loop's turn is from the return of poll to the next poll. It counts once for each connection that it
//! served. How long a request was inside is not known, but a bound is:
//!
//! ```text
//!  poll k-1 returns         poll k returns        its turn is over
//!     |-- r arrives -- turn k-1 --|-- others first -- r --|
//!     `------------------ inside(r) at most --------------'
//! ```
//!
//! Poll k-1 would have brought r, had it been there. It may not have if it was full: then the bound is from the last
//! one before that was not. If poll k waited, r woke it, and its bound begins there; the way from there to this thread
//! is the scheduler's. What a client sends ahead beyond the quota of its turn counts from the end of that turn.
//!
//! A turn may be long because the thread did not run: the machine had other work, or the lock of a shard was held
//! (`store/hold`). So the longest is told by the clock and by the thread's CPU time. Reading the latter is a system
//! call of 0.7 us here, so it is done at the beginning of turns at most every [`CPU_EVERY`], or an eighth of the longest,
//! and at the end of those that may be the longest: what other turns worked since the reading is counted as this one's.
//!
//! Not here: what ends a turn (`net/worker`), who else measures (`store/hold`).

use super::Counter;
use crate::sys::cpu;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// log2 of the buckets of one power of two: a quantile is at most a 16th above the truth.
const FINE: u32 = 4;

/// Up to 2^40 ns, 18 minutes; what is longer counts as that.
const BUCKETS: usize = 40 << FINE;

/// A poll that may wait and takes longer than this has waited. One that finds something takes a few microseconds.
const WAITED: Duration = Duration::from_micros(50);

/// Between two readings of a thread's CPU time at least, or [`CPU_PART`] of the longest turn if that is more: at 0.7 us
/// each at most 0.7 % of it goes there, 0.2 % when a turn took 3 ms. So much more than the truth is told at worst.
const CPU_EVERY: Duration = Duration::from_micros(100);
const CPU_PART: u32 = 8;

/// The longest duration of a kind, since start or the last reset.
#[derive(Debug, Default)]
pub struct Longest(AtomicU64);

impl Longest {
    /// Notes one. A load where it is not the longest, as nearly always.
    #[inline]
    pub fn note(&self, duration: Duration) {
        let ns = duration.as_nanos() as u64;
        if ns > self.0.load(Ordering::Relaxed) {
            self.0.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// The longest.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Forgets it.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// How often which duration was met. Only the owning thread notes.
#[derive(Debug)]
struct Durations([Counter; BUCKETS]);

impl Durations {
    /// Notes a duration that `times` were met with.
    #[inline]
    fn note(&self, duration: Duration, times: u64) {
        self.0[bucket(duration.as_nanos() as u64)].add(times);
    }
}

impl Default for Durations {
    fn default() -> Durations {
        Durations(std::array::from_fn(|_| Counter::default()))
    }
}

/// What one worker notes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Noted {
    turns: Durations,
    inside: Durations,
    longest: Longest,
    longest_cpu: Longest,
}

/// One worker's view of its turns.
#[derive(Debug)]
pub struct Meter {
    noted: Arc<Noted>,
    began: Instant,
    /// The last look at the clock, and how long the turn was then.
    looked: Instant,
    elapsed: Duration,
    /// What poll brought was not there before this.
    since: Instant,
    /// The last poll brought all that there was.
    was_all: bool,
    /// Connections served in this turn, and those of them since the last look.
    served: u64,
    unlooked: u64,
    /// The thread's CPU time when it was read, and when it is due again.
    cpu: Option<Duration>,
    cpu_due: Instant,
}

impl Meter {
    fn new(noted: Arc<Noted>) -> Meter {
        let now = Instant::now();
        Meter {
            noted,
            began: now,
            looked: now,
            elapsed: Duration::ZERO,
            since: now,
            was_all: true,
            served: 0,
            unlooked: 0,
            cpu: None,
            cpu_due: now,
        }
    }

    /// A turn begins. `may_wait`: the poll had time to wait. `is_full`: it may not have brought all that there was.
    pub fn begin(&mut self, may_wait: bool, is_full: bool) -> Instant {
        let now = Instant::now();
        if may_wait && now - self.looked > WAITED {
            self.since = now;
        } else if self.was_all {
            self.since = self.began;
        }
        (self.was_all, self.began, self.looked, self.elapsed) = (!is_full, now, now, Duration::ZERO);
        (self.served, self.unlooked) = (0, 0);
        if now >= self.cpu_due {
            self.cpu = Some(cpu::thread_cpu_time());
            self.cpu_due = now + CPU_EVERY.max(self.noted.longest_cpu.get() / CPU_PART);
        }
        now
    }

    /// So many connections that poll brought have had their turns, or are about to.
    #[inline]
    pub fn count(&mut self, connections: u64) {
        self.served += connections;
        self.unlooked += connections;
    }

    /// Looks at the clock, for those who were counted since the last look. About 25 ns.
    pub fn look(&mut self) {
        self.tick();
        self.noted.inside.note(self.looked - self.since, std::mem::take(&mut self.unlooked));
    }

    /// Looks at the clock for [`Meter::elapsed`] only.
    pub fn tick(&mut self) {
        self.looked = Instant::now();
        self.elapsed = self.looked - self.began;
    }

    /// One of those who were counted has no turn after all.
    pub fn discount(&mut self) {
        self.served -= 1;
        self.unlooked -= 1;
    }

    /// Since when those may have waited that poll brought.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Those who are counted next may have waited since then. Returns since when the others have.
    pub fn set_since(&mut self, since: Instant) -> Instant {
        std::mem::replace(&mut self.since, since)
    }

    /// How long the turn was at the last look.
    #[inline]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The turn ends.
    pub fn end(&mut self) {
        self.look();
        let turn = self.elapsed;
        self.noted.longest.note(turn);
        self.noted.turns.note(turn, self.served);
        if turn > self.noted.longest_cpu.get()
            && let Some(before) = self.cpu
        {
            self.noted.longest_cpu.note(cpu::thread_cpu_time().saturating_sub(before).min(turn));
        }
    }
}

/// Small numbers have a bucket each; above, the highest bits are the bucket.
#[inline]
fn bucket(ns: u64) -> usize {
    let shift = (ns.max(1).ilog2()).saturating_sub(FINE);
    let at = (u64::from(shift) << FINE) + (ns >> shift);
    (at as usize).min(BUCKETS - 1)
}

/// The least duration above a bucket.
fn end(bucket: usize) -> u64 {
    let shift = (bucket >> FINE).saturating_sub(1);
    let top = bucket - (shift << FINE);
    (top as u64 + 1) << shift
}

/// The turns of all workers' event loops.
#[derive(Debug, Default)]
pub struct Turns {
    workers: Mutex<Vec<Arc<Noted>>>,
    baseline: Mutex<Sum>,
}

/// Buckets of all workers.
#[derive(Debug)]
struct Sum {
    turns: Vec<u64>,
    inside: Vec<u64>,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum { turns: vec![0; BUCKETS], inside: vec![0; BUCKETS] }
    }
}

/// Half of all durations, 99 in 100 and 999 in 1000 were no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
}

impl Quantiles {
    /// None is above the longest, though the end of its bucket may be. If that is 0 it was reset a moment ago.
    fn up_to(self, longest: Duration) -> Quantiles {
        let most = if longest.is_zero() { Duration::MAX } else { longest };
        Quantiles { p50: self.p50.min(most), p99: self.p99.min(most), p999: self.p999.min(most) }
    }
}

/// What [`Turns`] come to, since start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnStats {
    /// Times that a connection was served.
    pub served: u64,
    /// The turns in which that was.
    pub turns: Quantiles,
    /// How long its requests were inside at most. See the module's head.
    pub inside: Quantiles,
    /// The longest turn of all, by the clock.
    pub longest: Duration,
    /// By the thread's CPU time, and [`CPU_EVERY`] or an eighth above the truth at worst.
    pub longest_cpu: Duration,
}

impl Turns {
    /// What one more worker measures its turns with.
    pub fn meter(&self) -> Meter {
        let noted = Arc::new(Noted::default());
        self.workers.lock().unwrap().push(noted.clone());
        Meter::new(noted)
    }

    /// See [`TurnStats`].
    pub fn stats(&self) -> TurnStats {
        // Locked before they are summed: a later baseline would be above the sum.
        let baseline = self.baseline.lock().unwrap();
        let mut sum = self.sum();
        std::iter::zip(&mut sum.turns, &baseline.turns).for_each(|(count, base)| *count -= base);
        std::iter::zip(&mut sum.inside, &baseline.inside).for_each(|(count, base)| *count -= base);
        drop(baseline);
        let workers = self.workers.lock().unwrap();
        let longest = |of: fn(&Noted) -> &Longest| workers.iter().map(|worker| of(worker).get()).max();
        // Read first because it is noted last, so that it is never above the other.
        let longest_cpu = longest(|worker| &worker.longest_cpu).unwrap_or_default();
        let all = longest(|worker| &worker.longest).unwrap_or_default();
        TurnStats {
            served: sum.turns.iter().sum(),
            turns: quantiles(&sum.turns).up_to(all),
            inside: quantiles(&sum.inside),
            longest: all,
            longest_cpu,
        }
    }

    /// `stats reset`, as far as it concerns this.
    pub fn reset(&self) {
        *self.baseline.lock().unwrap() = self.sum();
        for worker in self.workers.lock().unwrap().iter() {
            worker.longest.reset();
            worker.longest_cpu.reset();
        }
    }

    fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for worker in self.workers.lock().unwrap().iter() {
            std::iter::zip(&mut sum.turns, &worker.turns.0).for_each(|(sum, count)| *sum += count.get());
            std::iter::zip(&mut sum.inside, &worker.inside.0).for_each(|(sum, count)| *sum += count.get());
        }
        sum
    }
}

fn quantiles(counts: &[u64]) -> Quantiles {
    let all: u64 = counts.iter().sum();
    let of = |share: f64| quantile(counts, (all as f64 * share).ceil() as u64);
    Quantiles { p50: of(0.5), p99: of(0.99), p999: of(0.999) }
}

/// The end of the bucket that the `rank`th duration lies in.
fn quantile(counts: &[u64], rank: u64) -> Duration {
    let mut seen = 0;
    let reaches = |count: &u64| {
        seen += count;
        seen >= rank.max(1)
    };
    Duration::from_nanos(counts.iter().position(reaches).map_or(0, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!((bucket(0), end(bucket(0))), (0, 1));
        for ns in (1..5000).chain([1_000_000, 123_456_789]) {
            let (before, at) = (bucket(ns - 1), bucket(ns));
            assert!(at == before || at == before + 1, "{ns}");
            assert!(ns < end(at) && end(at) <= ns + ns / 16 + 1, "{ns} in a bucket up to {}", end(at));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_all_workers() {
        let turns = Turns::default();
        let (a, b) = (turns.meter().noted, turns.meter().noted);
        a.turns.note(10 * US, 989);
        b.turns.note(100 * US, 10);
        b.turns.note(3000 * US, 1);
        b.inside.note(70 * US, 1);
        let stats = turns.stats();
        let within = |found: Duration, us: u32| us * US <= found && found < us * US * 17 / 16;
        assert_eq!(stats.served, 1000);
        assert!(within(stats.turns.p50, 10) && within(stats.turns.p99, 100) && within(stats.turns.p999, 100));
        assert!(within(stats.inside.p50, 70), "{stats:?}");
        turns.reset();
        assert_eq!(turns.stats(), TurnStats::default());
        a.turns.note(20 * US, 1);
        assert!(within(turns.stats().turns.p999, 20));
    }

    #[test]
    fn a_request_is_inside_since_the_poll_before() {
        let turns = Turns::default();
        let mut meter = turns.meter();
        let first = meter.begin(false, false);
        assert!(meter.since() <= first);
        meter.end();
        let second = meter.begin(false, true);
        assert_eq!(meter.since(), first);
        meter.end();
        let third = meter.begin(false, false);
        assert_eq!(meter.since(), first, "the second poll was full");
        meter.end();
        meter.begin(false, false);
        assert_eq!(meter.since(), third);
        meter.end();
        std::thread::sleep(2 * WAITED);
        meter.begin(false, false);
        assert!(meter.since() > second, "it could not wait: that was something else");
        meter.end();
        std::thread::sleep(2 * WAITED);
        let last = meter.begin(true, false);
        assert_eq!(meter.since(), last);
    }

    #[test]
    fn a_turn_is_told_by_the_clock_and_by_its_work() {
        let turns = Turns::default();
        let mut meter = turns.meter();
        meter.begin(true, false);
        meter.count(2);
        std::thread::sleep(1000 * US);
        meter.look();
        meter.count(1);
        meter.end();
        let stats = turns.stats();
        assert_eq!(stats.served, 3);
        assert!(stats.longest >= 1000 * US && stats.longest_cpu <= stats.longest, "{stats:?}");
        assert_eq!(stats.turns.p999, stats.longest, "the end of its bucket is above it");
        assert!(stats.inside.p50 >= 1000 * US, "{stats:?}");
    }

    #[test]
    fn a_reset_meanwhile_takes_nothing_below_zero() {
        let turns = Turns::default();
        let worker = turns.meter().noted;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3000 {
                    worker.turns.note(10 * US, 1);
                    turns.reset();
                }
            });
            (0..3000).for_each(|_| assert!(turns.stats().served <= 3000));
        });
    }
}
