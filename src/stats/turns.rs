//! How long things take inside the server: the longest of a kind, and how often which duration was met.
//!
//! ```text
//! Longest    one number; who finds a longer duration replaces it
//! Turns      worker i is the only writer of Durations i: four buckets for each power of two nanoseconds
//!            a quantile = over the sums of all workers' buckets - those of the last `stats reset`
//! ```
//!
//! An event loop's turn is from the return of poll to the next poll. It counts once for each connection that it
//! served: a request waits for the rest of the turn that is on when it arrives, and is answered in the next one.
//!
//! Not here: who measures (`net/worker`, `store/hold`).

use super::Counter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// log2 of the buckets of one power of two: a quantile is at most a quarter above the truth.
const FINE: u32 = 2;

/// Up to 2^40 ns, 18 minutes; what is longer counts as that.
const BUCKETS: usize = 40 << FINE;

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
#[repr(align(128))]
pub struct Durations {
    counts: [Counter; BUCKETS],
    longest: Longest,
}

impl Durations {
    /// Notes a duration that `times` were met with.
    #[inline]
    pub fn note(&self, duration: Duration, times: u64) {
        self.longest.note(duration);
        self.counts[bucket(duration.as_nanos() as u64)].add(times);
    }
}

impl Default for Durations {
    fn default() -> Durations {
        Durations { counts: std::array::from_fn(|_| Counter::default()), longest: Longest::default() }
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
    workers: Mutex<Vec<Arc<Durations>>>,
    baseline: Mutex<Vec<u64>>,
}

/// What [`Turns`] come to, since start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnStats {
    /// Times that a connection was served.
    pub served: u64,
    /// Half of those times the turn took no longer.
    pub p50: Duration,
    /// The same of 99 in 100.
    pub p99: Duration,
    /// The same of 999 in 1000.
    pub p999: Duration,
    /// The longest turn of all.
    pub longest: Duration,
}

impl Turns {
    /// Where one more worker notes its turns.
    pub fn worker(&self) -> Arc<Durations> {
        let durations = Arc::new(Durations::default());
        self.workers.lock().unwrap().push(durations.clone());
        durations
    }

    /// See [`TurnStats`].
    pub fn stats(&self) -> TurnStats {
        // Locked before they are summed: a later baseline would be above the sum.
        let baseline = self.baseline.lock().unwrap();
        let mut counts = self.sum();
        std::iter::zip(&mut counts, baseline.iter()).for_each(|(count, base)| *count -= base);
        drop(baseline);
        let served = counts.iter().sum();
        let longest = self.workers.lock().unwrap().iter().map(|worker| worker.longest.get()).max();
        let longest = longest.unwrap_or_default();
        let quantile = |of: f64| quantile(&counts, (served as f64 * of).ceil() as u64).min(longest);
        TurnStats { served, p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999), longest }
    }

    /// `stats reset`, as far as it concerns this.
    pub fn reset(&self) {
        *self.baseline.lock().unwrap() = self.sum();
        self.workers.lock().unwrap().iter().for_each(|worker| worker.longest.reset());
    }

    fn sum(&self) -> Vec<u64> {
        let mut sum = vec![0; BUCKETS];
        for worker in self.workers.lock().unwrap().iter() {
            std::iter::zip(&mut sum, &worker.counts).for_each(|(sum, count)| *sum += count.get());
        }
        sum
    }
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

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!((bucket(0), end(bucket(0))), (0, 1));
        for ns in (1..5000).chain([1_000_000, 123_456_789]) {
            let (before, at) = (bucket(ns - 1), bucket(ns));
            assert!(at == before || at == before + 1, "{ns}");
            assert!(ns < end(at) && end(at) <= ns + ns / 4 + 1, "{ns} in a bucket up to {}", end(at));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_all_workers() {
        let turns = Turns::default();
        let (a, b) = (turns.worker(), turns.worker());
        a.note(Duration::from_micros(10), 989);
        b.note(Duration::from_micros(100), 10);
        b.note(Duration::from_micros(3000), 1);
        let stats = turns.stats();
        let within = |found: Duration, us: u64| (us * 1000..us * 1250).contains(&(found.as_nanos() as u64));
        assert_eq!((stats.served, stats.longest), (1000, Duration::from_micros(3000)));
        assert!(within(stats.p50, 10) && within(stats.p99, 100) && within(stats.p999, 100), "{stats:?}");
        turns.reset();
        assert_eq!(turns.stats(), TurnStats::default());
        a.note(Duration::from_micros(20), 1);
        assert_eq!(turns.stats().p999, Duration::from_micros(20), "no more than the longest");
    }

    #[test]
    fn a_reset_meanwhile_takes_nothing_below_zero() {
        let turns = Turns::default();
        let worker = turns.worker();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3000 {
                    worker.note(Duration::from_micros(10), 1);
                    turns.reset();
                }
            });
            (0..3000).for_each(|_| assert!(turns.stats().served <= 3000));
        });
    }
}
