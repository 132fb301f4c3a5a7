//! How many things took how long, to two significant digits.
//!
//! ```text
//!  buckets  |0|1|2| … |127|128…|130…| … | 2^30 … 2^31 units|      64 for each power of two, the first are 8 ns wide
//!  a worker ── note ──> its FineHistogram, 4 bytes a bucket; a count that is half full is moved to a list
//!  a reader ── FineSums: the sum of all workers' - that of the last `stats reset` ──> KindLatency
//! ```
//!
//! The buckets are those of HdrHistogram: the middle of one is within 0.8 % of what is in it. The last ends at 17 s; what
//! takes longer counts as that, and only the longest of all is told as it was. A histogram takes 6.5 KiB.
//!
//! The crate `hdrhistogram` was looked at. Its histograms cannot be read while they are written; its `SyncHistogram`
//! makes a reader wait until each writer has recorded something more or has said that it is idle, and takes memory while
//! that lasts. Two digits up to 17 s by its own layout are 25 KiB. Tests hold these buckets to it.
//!
//! Not here: what is measured (`latency`, `event_loop`), histograms for what need not be told so closely (`histogram`).

use super::histogram::{Max, bucket_of, end_of};
use crate::sync::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// log2 of the number of buckets for one power of two.
const FINE: u32 = 6;

/// log2 of the nanoseconds that the first buckets are wide: less than a look at the clock takes.
const UNIT: u32 = 3;

/// Up to 2^31 units.
const BUCKETS: usize = 26 << FINE;

/// A count that has reached this is moved.
const FULL: u32 = 1 << 31;

/// How many things took how long. Only the owning thread notes.
#[derive(Debug)]
pub struct FineHistogram {
    counts: Box<[AtomicU32; BUCKETS]>,
    longest: Max,
    /// Buckets and counts of what had no room.
    moved: Mutex<Vec<(usize, u64)>>,
}

impl FineHistogram {
    /// Notes that `times` things took this long.
    #[inline]
    pub fn note(&self, duration: Duration, times: u32) {
        self.note_nanos(duration.as_nanos() as u64, times);
    }

    /// The same in nanoseconds.
    #[inline]
    pub fn note_nanos(&self, ns: u64, times: u32) {
        let at = bucket_of(ns >> UNIT, FINE).min(BUCKETS - 1);
        let count = self.counts[at].load(Ordering::Relaxed) + times;
        self.counts[at].store(count, Ordering::Relaxed);
        self.longest.note_nanos(ns);
        if count >= FULL {
            self.make_room(at, count);
        }
    }

    #[cold]
    fn make_room(&self, at: usize, count: u32) {
        let mut moved = lock(&self.moved);
        match moved.iter_mut().find(|(bucket, _)| *bucket == at) {
            Some((_, before)) => *before += u64::from(count),
            None => moved.push((at, count.into())),
        }
        self.counts[at].store(0, Ordering::Relaxed);
    }

    /// The longest since start or the last reset.
    pub fn longest(&self) -> Duration {
        self.longest.get()
    }

    /// Forgets the longest.
    pub fn reset_longest(&self) {
        self.longest.reset();
    }
}

impl Default for FineHistogram {
    fn default() -> FineHistogram {
        let counts = Box::new(std::array::from_fn(|_| AtomicU32::new(0)));
        FineHistogram { counts, longest: Max::default(), moved: Mutex::default() }
    }
}

/// The counts of several histograms at one moment. Without memory until there is something.
#[derive(Clone, Debug, Default)]
pub struct FineSums(Vec<u64>);

impl FineSums {
    /// Adds the counts of one more histogram.
    pub fn add(&mut self, histogram: &FineHistogram) {
        let moved = lock(&histogram.moved);
        self.0.resize(BUCKETS, 0);
        let counts = histogram.counts.iter().map(|count| u64::from(count.load(Ordering::Relaxed)));
        std::iter::zip(&mut self.0, counts).for_each(|(sum, count)| *sum += count);
        moved.iter().for_each(|&(at, count)| self.0[at] += count);
    }

    /// Takes away what was counted up to an earlier moment.
    pub fn subtract(&mut self, earlier: &FineSums) {
        std::iter::zip(&mut self.0, &earlier.0).for_each(|(sum, before)| *sum -= before);
    }

    /// What these are of.
    pub fn told(&self, name: &'static str, longest: Duration) -> KindLatency {
        let bucket = |(at, &count): (usize, &u64)| {
            let from = at.checked_sub(1).map_or(0, |before| end_of(before, FINE));
            LatencyBucket { from: from << UNIT, below: end_of(at, FINE) << UNIT, count }
        };
        let buckets = self.0.iter().enumerate().filter(|(_, count)| **count > 0).map(bucket).collect();
        KindLatency { name, longest, buckets }
    }
}

/// How long things of one kind took.
#[derive(Clone, Debug)]
pub struct KindLatency {
    /// Its name.
    pub name: &'static str,
    /// The longest.
    pub longest: Duration,
    /// From short to long, those that are not empty.
    pub buckets: Vec<LatencyBucket>,
}

impl KindLatency {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// How long they took together, to within 0.8 %.
    pub fn sum(&self) -> Duration {
        let nanos = |bucket: &LatencyBucket| bucket.middle().saturating_mul(bucket.count);
        Duration::from_nanos(self.buckets.iter().map(nanos).fold(0, u64::saturating_add))
    }

    /// How long this share of them took at most, to within 0.8 %: the middle of the bucket, or the longest of all.
    pub fn quantile(&self, share: f64) -> Duration {
        self.at_rank_of(share, LatencyBucket::middle)
    }

    /// What this share of them did not exceed: the end of the bucket, or the longest of all.
    pub fn bound(&self, share: f64) -> Duration {
        self.at_rank_of(share, |bucket| bucket.below)
    }

    fn at_rank_of(&self, share: f64, place: fn(&LatencyBucket) -> u64) -> Duration {
        let rank = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reaches = |bucket: &&LatencyBucket| {
            seen += bucket.count;
            seen >= rank
        };
        // One of 0 was reset a moment ago.
        let most = if self.longest.is_zero() { Duration::MAX } else { self.longest };
        self.buckets.iter().find(reaches).map_or(Duration::ZERO, |bucket| Duration::from_nanos(place(bucket)).min(most))
    }
}

/// Things that took about as long as each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyBucket {
    /// So many nanoseconds at least.
    pub from: u64,
    /// Less than these.
    pub below: u64,
    /// How many.
    pub count: u64,
}

impl LatencyBucket {
    fn middle(&self) -> u64 {
        self.from.midpoint(self.below)
    }
}

#[cfg(test)]
#[path = "tests/fine.rs"]
mod tests;
