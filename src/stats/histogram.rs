//! How long things take: how many took how long, and the longest.
//!
//! ```text
//! a worker ── note ──> its Histogram: 16 buckets for each power of two nanoseconds
//! a reader ── Buckets: the sum of all workers' - that of the last `stats reset` ──> Quantiles
//! Max: one number; whoever measured a longer duration replaces it
//! ```
//!
//! Not here: what is measured (`event_loop`, `latency`, `store/lock_time`).

use super::counters::Counter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// log2 of the number of buckets for one power of two: a quantile is at most a 16th above the truth.
const FINE: u32 = 4;

/// Durations go up to 2^40 ns, 18 minutes; a longer one counts as that.
const BUCKETS: usize = 40 << FINE;

/// How many things took how long. Only the owning thread notes.
#[derive(Debug)]
pub struct Histogram([Counter; BUCKETS]);

impl Histogram {
    /// Notes that `times` things took this long.
    #[inline]
    pub fn note(&self, duration: Duration, times: u64) {
        self.note_nanos(duration.as_nanos() as u64, times);
    }

    /// The same in nanoseconds.
    #[inline]
    pub fn note_nanos(&self, ns: u64, times: u64) {
        self.0[bucket_of(ns, FINE).min(BUCKETS - 1)].add(times);
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram(std::array::from_fn(|_| Counter::default()))
    }
}

/// The counts of several histograms at one moment.
#[derive(Debug)]
pub struct Buckets(Vec<u64>);

impl Buckets {
    /// Adds the counts of one more histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        std::iter::zip(&mut self.0, &histogram.0).for_each(|(sum, count)| *sum += count.get());
    }

    /// Takes away what was counted up to an earlier moment.
    pub fn subtract(&mut self, earlier: &Buckets) {
        std::iter::zip(&mut self.0, &earlier.0).for_each(|(sum, before)| *sum -= before);
    }

    /// How many things were noted.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// How long half, 99 in 100 and 999 in 1000 of the things took at most.
    pub fn quantiles(&self) -> Quantiles {
        let all = self.count() as f64;
        let quantile = |share: f64| self.quantile((all * share).ceil() as u64);
        Quantiles { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999) }
    }

    /// The end of the bucket that the `rank`th duration lies in.
    fn quantile(&self, rank: u64) -> Duration {
        let mut seen = 0;
        let reaches = |count: &u64| {
            seen += count;
            seen >= rank.max(1)
        };
        Duration::from_nanos(self.0.iter().position(reaches).map_or(0, |bucket| end_of(bucket, FINE)))
    }
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets(vec![0; BUCKETS])
    }
}

/// Half of all durations, 99 in 100 and 999 in 1000 were no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Half.
    pub p50: Duration,
    /// 99 in 100.
    pub p99: Duration,
    /// 999 in 1000.
    pub p999: Duration,
}

/// The bucket of a number, of 2^`fine` for each power of two. Small numbers have a bucket each; the highest bits of larger
/// ones are the bucket.
#[inline]
pub(super) fn bucket_of(number: u64, fine: u32) -> usize {
    let shift = (number | 1 << fine).ilog2() - fine;
    ((u64::from(shift) << fine) + (number >> shift)) as usize
}

/// The least number above a bucket.
pub(super) fn end_of(bucket: usize, fine: u32) -> u64 {
    let shift = (bucket >> fine).saturating_sub(1);
    let top = bucket - (shift << fine);
    (top as u64 + 1) << shift
}

/// The longest duration since start or the last reset.
#[derive(Debug, Default)]
pub struct Max(AtomicU64);

impl Max {
    /// Notes a duration. Mostly it is not the longest, and this costs one load.
    #[inline]
    pub fn note(&self, duration: Duration) {
        self.note_nanos(duration.as_nanos() as u64);
    }

    /// The same in nanoseconds.
    #[inline]
    pub fn note_nanos(&self, ns: u64) {
        if ns > self.0.load(Ordering::Relaxed) {
            self.0.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// Whether it is shorter than so many nanoseconds.
    #[inline]
    pub fn is_below(&self, ns: u64) -> bool {
        self.0.load(Ordering::Relaxed) < ns
    }

    /// The longest.
    pub fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Forgets the longest duration.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        for fine in [FINE, 6] {
            let (bucket, end) = (|number| bucket_of(number, fine), |bucket| end_of(bucket, fine));
            assert_eq!((bucket(0), end(bucket(0))), (0, 1));
            for number in (1..5000).chain([1_000_000, 123_456_789]) {
                let (before, at) = (bucket(number - 1), bucket(number));
                assert!(at == before || at == before + 1, "{number}");
                let most = number + (number >> fine) + 1;
                assert!(number < end(at) && end(at) <= most, "{number} in a bucket up to {}", end(at));
            }
        }
    }

    #[test]
    fn too_long_is_the_longest() {
        let histogram = Histogram::default();
        histogram.note(Duration::MAX, 1);
        histogram.note(Duration::from_secs(10_000), 1);
        assert_eq!(histogram.0[BUCKETS - 1].get(), 2);
    }
}
