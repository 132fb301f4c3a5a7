//! How long requests take, by kind, from the read that brought them to the write of their replies: `stats latency`.
//!
//! ```text
//!  a look at the clock    read A, B, …    run; each verb counts in the tally    write A, B, …    the next look
//!      |<------------------------------------------------------------------------------------->|
//!        each request of the tally is noted with this, once for all of a kind, in the worker's LatencyRecord
//! ```
//!
//! The event loop looks at the clock when poll returns, between batches and at the end of a turn, and for this no more
//! often: one look ends the requests before it and begins those behind it. So a time is too long by what the looks lie
//! apart from the read and the write, up to 0.04 ms for 32 connections that are read together. Input that is left for a
//! later turn keeps the time of its read, and a reply that is held for replicas is over when it is let go. What is not
//! seen is the time before the read and after the write: in the kernel's buffers, in the network, and at a client that
//! does not read.
//!
//! # Buckets
//!
//! Those of HdrHistogram, to two significant digits: 64 for each power of two, so that the middle of a bucket is within
//! 0.8 % of what is in it. The first ones are 8 ns wide, the last ends at 17 s; what takes longer counts as that. With 4
//! bytes a bucket, nine histograms are 58.5 KiB a worker. A count that gets half full is moved to the sums of the server.
//!
//! The crate `hdrhistogram` was looked at. Its histograms cannot be read while they are written; its `SyncHistogram`
//! makes a reader wait until each writer has recorded something more or has said that it is idle, and takes memory while
//! that lasts. Two digits up to 17 s by its own layout are 225 KiB a worker. Tests hold these buckets to it.
//!
//! # What is told
//!
//! `stats latency`, for each of get, multiget, set, delete, arith, touch, meta, other and turn, since start or `stats reset`:
//!
//! ```text
//! STAT <kind>:count <number>
//! STAT <kind>:p50_us <microseconds, one decimal>          also p90_us, p99_us, p999_us, and max_us, which is exact
//! ```
//!
//! `stats latency buckets`, for the same kinds; buckets from short to long, each with its own requests only, and only those
//! that have some:
//!
//! ```text
//! STAT <kind>:count <number>
//! STAT <kind>:sum_ns <nanoseconds that all of them took together>
//! STAT <kind>:<nanoseconds> <number>                       they took less than this, and not less than the bucket below
//! ```
//!
//! With `-o no_latency` both are empty. A turn is one of the event loop in which somebody was served.
//!
//! Not here: what is counted when (`tally`, the verbs of `command`), when the clock is looked at (`event_loop`).

use super::counters::{Counter, Counters};
use super::histogram::{Max, bucket_of, end_of};
use super::tally::{KINDS, Tallied};
use crate::sync::lock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// log2 of the number of buckets for one power of two.
const FINE: u32 = 6;

/// log2 of the nanoseconds that the first buckets are wide: less than a look at the clock takes.
const UNIT: u32 = 3;

/// The buckets of one histogram: up to 2^31 units.
const BUCKETS: usize = 26 << FINE;

/// The histograms of a worker: of each kind, and of turns.
const ROWS: usize = KINDS + 1;
const TURN: usize = KINDS;

/// Their names, in order.
const NAMES: [&str; ROWS] = ["get", "multiget", "set", "delete", "arith", "touch", "meta", "other", "turn"];

/// A count that has reached this is moved.
const FULL: u32 = 1 << 31;

/// What one worker measured. Only its thread notes.
#[derive(Debug)]
struct LatencyRecord {
    counts: Box<[AtomicU32]>,
    sums: [Counter; ROWS],
    longest: [Max; ROWS],
    moved: Arc<Mutex<LatencySums>>,
}

impl LatencyRecord {
    fn new(moved: Arc<Mutex<LatencySums>>) -> LatencyRecord {
        let counts = (0..ROWS * BUCKETS).map(|_| AtomicU32::new(0)).collect();
        LatencyRecord { counts, sums: Default::default(), longest: Default::default(), moved }
    }

    fn note(&self, row: usize, duration: Duration, times: u32) {
        let ns = duration.as_nanos() as u64;
        let at = row * BUCKETS + bucket_of(ns >> UNIT, FINE).min(BUCKETS - 1);
        let count = self.counts[at].load(Ordering::Relaxed) + times;
        self.counts[at].store(count, Ordering::Relaxed);
        self.sums[row].add(ns * u64::from(times));
        self.longest[row].note(duration);
        if count >= FULL {
            self.make_room(at, count);
        }
    }

    #[cold]
    fn make_room(&self, at: usize, count: u32) {
        *lock(&self.moved).count_mut(at) += u64::from(count);
        self.counts[at].store(0, Ordering::Relaxed);
    }
}

/// Measures the requests of one worker.
#[derive(Debug)]
pub struct RequestTimer {
    record: Arc<LatencyRecord>,
    counters: Arc<Counters>,
    /// When those requests were read that are answered next, as nanoseconds since the turn began: below 0 for what was read
    /// before it.
    read_at: i64,
    /// The tally of those whose replies have been written.
    written: Tallied,
}

impl RequestTimer {
    /// What is read from now on is read so long after the turn began.
    #[inline]
    pub fn read_at(&mut self, elapsed: Duration) {
        self.read_at = nanos(elapsed);
    }

    /// What is answered next was read so long before the turn began.
    pub fn read_before(&mut self, before: Duration) {
        self.read_at = -nanos(before);
    }

    /// When they were read, if that was in this turn, which `began` then.
    pub fn read_in_turn(&self, began: Instant) -> Option<Instant> {
        u64::try_from(self.read_at).ok().map(|elapsed| began + Duration::from_nanos(elapsed))
    }

    /// What was counted is over, so long after the turn began.
    #[inline]
    pub fn end(&mut self, elapsed: Duration) {
        let tallied = self.counters.commands.get();
        if !tallied.is_empty() {
            self.counters.commands.set(Tallied::default());
            self.note(tallied, elapsed);
        }
    }

    /// What is counted from now on is not written yet.
    #[inline]
    pub fn mark_written(&mut self) {
        self.written = self.counters.commands.get();
    }

    /// Whether something was counted that had been written by then.
    pub fn has_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// That is over.
    pub fn end_written(&mut self, elapsed: Duration) {
        let (all, written) = (self.counters.commands.get(), std::mem::take(&mut self.written));
        self.counters.commands.set(all.since(written));
        self.note(written, elapsed);
    }

    /// Takes what was counted and is not written, to be noted later. `began` is when the turn did.
    pub fn withhold(&mut self, began: Instant) -> Withheld {
        let all = self.counters.commands.get();
        self.counters.commands.set(self.written);
        let before = Duration::from_nanos(self.read_at.unsigned_abs());
        let read_at = self.read_in_turn(began).or_else(|| began.checked_sub(before)).unwrap_or(began);
        Withheld { tallied: all.since(self.written), read_at }
    }

    /// What was withheld has been written.
    pub fn end_withheld(&self, withheld: &Withheld, now: Instant) {
        let duration = now.saturating_duration_since(withheld.read_at);
        withheld.tallied.each(|kind, times| self.record.note(kind, duration, times));
    }

    /// A turn in which somebody was served is over.
    pub fn end_turn(&self, turn: Duration) {
        self.record.note(TURN, turn, 1);
    }

    fn note(&self, tallied: Tallied, elapsed: Duration) {
        let duration = Duration::from_nanos(nanos(elapsed).saturating_sub(self.read_at).max(0) as u64);
        tallied.each(|kind, times| self.record.note(kind, duration, times));
    }
}

#[inline]
fn nanos(duration: Duration) -> i64 {
    duration.as_nanos() as i64
}

/// Requests whose replies wait for replicas.
#[derive(Clone, Copy, Debug)]
pub struct Withheld {
    tallied: Tallied,
    read_at: Instant,
}

/// What all workers measured.
#[derive(Debug, Default)]
pub struct Latencies {
    workers: Mutex<Vec<Arc<LatencyRecord>>>,
    /// Of all workers, what had no room in their counts.
    moved: Arc<Mutex<LatencySums>>,
    /// What there was at the last reset.
    baseline: Mutex<LatencySums>,
}

impl Latencies {
    /// Makes the timer of one more worker's requests, which counts them in `counters`.
    pub fn timer(&self, counters: Arc<Counters>) -> RequestTimer {
        let record = Arc::new(LatencyRecord::new(self.moved.clone()));
        lock(&self.workers).push(record.clone());
        RequestTimer { record, counters, read_at: 0, written: Tallied::default() }
    }

    /// What was measured since start or the last reset, by kind. Nothing if there is no timer.
    pub fn kinds(&self) -> Vec<KindLatency> {
        // The lock is taken before the sum: else a later baseline could be above the sum.
        let baseline = lock(&self.baseline);
        let mut sums = self.sums();
        sums.subtract(&baseline);
        drop(baseline);
        let workers = lock(&self.workers);
        let longest = |row: usize| workers.iter().map(|worker| worker.longest[row].get()).max();
        let kinds = NAMES.iter().zip(sums.counts.chunks_exact(BUCKETS)).zip(sums.sums).enumerate();
        kinds
            .map(|(row, ((name, counts), sum))| KindLatency {
                name,
                sum: Duration::from_nanos(sum),
                longest: longest(row).unwrap_or_default(),
                buckets: LatencyBucket::all(counts),
            })
            .collect()
    }

    /// `stats reset`, as far as it concerns latencies.
    pub fn reset(&self) {
        *lock(&self.baseline) = self.sums();
        for worker in lock(&self.workers).iter() {
            worker.longest.iter().for_each(Max::reset);
        }
    }

    fn sums(&self) -> LatencySums {
        let (workers, moved) = (lock(&self.workers), lock(&self.moved));
        let mut sums = moved.clone();
        workers.iter().for_each(|worker| sums.add(worker));
        sums
    }
}

/// What several workers measured. Without memory until there is something.
#[derive(Clone, Debug, Default)]
struct LatencySums {
    counts: Vec<u64>,
    sums: [u64; ROWS],
}

impl LatencySums {
    fn count_mut(&mut self, at: usize) -> &mut u64 {
        self.counts.resize(ROWS * BUCKETS, 0);
        &mut self.counts[at]
    }

    fn add(&mut self, record: &LatencyRecord) {
        self.counts.resize(ROWS * BUCKETS, 0);
        std::iter::zip(&mut self.counts, &record.counts)
            .for_each(|(sum, n)| *sum += u64::from(n.load(Ordering::Relaxed)));
        std::iter::zip(&mut self.sums, &record.sums).for_each(|(sum, n)| *sum += n.get());
    }

    fn subtract(&mut self, earlier: &LatencySums) {
        std::iter::zip(&mut self.counts, &earlier.counts).for_each(|(sum, before)| *sum -= before);
        std::iter::zip(&mut self.sums, &earlier.sums).for_each(|(sum, before)| *sum -= before);
    }
}

/// How long requests of one kind took.
#[derive(Clone, Debug)]
pub struct KindLatency {
    /// Its name.
    pub name: &'static str,
    /// All of them together.
    pub sum: Duration,
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

    /// How long this share of them took at most: the middle of the bucket, or the longest of all.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reaches = |bucket: &&LatencyBucket| {
            seen += bucket.count;
            seen >= rank
        };
        let Some(bucket) = self.buckets.iter().find(reaches) else { return Duration::ZERO };
        // One of 0 was reset a moment ago.
        let most = if self.longest.is_zero() { Duration::MAX } else { self.longest };
        Duration::from_nanos(bucket.from.midpoint(bucket.below)).min(most)
    }
}

/// Requests that took about as long as each other.
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
    /// Those of a histogram that are not empty.
    fn all(counts: &[u64]) -> Vec<LatencyBucket> {
        let bucket = |(at, &count): (usize, &u64)| {
            let from = at.checked_sub(1).map_or(0, |before| end_of(before, FINE));
            LatencyBucket { from: from << UNIT, below: end_of(at, FINE) << UNIT, count }
        };
        counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bucket).collect()
    }
}

#[cfg(test)]
#[path = "tests/latency.rs"]
mod tests;
