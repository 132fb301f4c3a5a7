//! How long requests take, by kind, from the read that brought them to the write of their replies: `stats latency`.
//!
//! ```text
//!  a look at the clock    read A, B, …    run; each verb counts in the tally    write A, B, …    the next look
//!      |<------------------------------------------------------------------------------------->|
//!        each request of the tally is noted with this, once for all of a kind, in a histogram of the worker's
//! ```
//!
//! The event loop looks at the clock when poll returns, between batches and at the end of a turn, and for this no more
//! often: one look ends the requests before it and begins those behind it. So a time is too long by what the looks lie
//! apart from the read and the write, up to 0.04 ms for 32 connections that are read together. Input that is left for a
//! later turn keeps the time of its read, and a reply that is held for replicas is over when it is let go. What is not
//! seen is the time before the read and after the write: in the kernel's buffers, in the network, and at a client that
//! does not read.
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
//! STAT <kind>:sum_ns <nanoseconds that all of them took together, to within 0.8 %>
//! STAT <kind>:<nanoseconds> <number>                       they took less than this, and not less than the bucket below
//! ```
//!
//! With `-o no_latency` both are empty. A turn is one of the event loop, and counts once for each connection that it served.
//! The buckets are those of `fine`.
//!
//! Not here: histograms (`fine`), what is counted when (`tally`, the verbs of `command`), when the clock is looked at (`event_loop`).

use super::counters::Counters;
use super::fine::{FineHistogram, FineSums, KindLatency};
use super::tally::{KINDS, Tallied};
use crate::sync::lock;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The names of [`super::CommandKind`], in its order.
const NAMES: [&str; KINDS] = ["get", "multiget", "set", "delete", "arith", "touch", "meta", "other"];

/// What one worker measured, by kind.
type LatencyRecord = [FineHistogram; KINDS];

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
    /// What is read from now on is read so many nanoseconds after the turn began.
    #[inline]
    pub fn read_at(&mut self, elapsed: u64) {
        self.read_at = elapsed as i64;
    }

    /// What is answered next was read so long before the turn began.
    pub fn read_before(&mut self, before: Duration) {
        self.read_at = -(before.as_nanos() as i64);
    }

    /// When they were read, if that was in this turn, which `began` then.
    pub fn read_in_turn(&self, began: Instant) -> Option<Instant> {
        u64::try_from(self.read_at).ok().map(|elapsed| began + Duration::from_nanos(elapsed))
    }

    /// What was counted is over, so many nanoseconds after the turn began.
    #[inline(always)]
    pub fn end(&mut self, elapsed: u64) {
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
    pub fn end_written(&mut self, elapsed: u64) {
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
        let ns = now.saturating_duration_since(withheld.read_at).as_nanos() as u64;
        withheld.tallied.each(|kind, times| self.record[kind].note_nanos(ns, times));
    }

    #[inline]
    fn note(&self, tallied: Tallied, elapsed: u64) {
        let ns = (elapsed as i64 - self.read_at).max(0) as u64;
        tallied.each(|kind, times| self.record[kind].note_nanos(ns, times));
    }
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
    /// What there was at the last reset.
    baseline: Mutex<[FineSums; KINDS]>,
}

impl Latencies {
    /// Makes the timer of one more worker's requests, which counts them in `counters`.
    pub fn timer(&self, counters: Arc<Counters>) -> RequestTimer {
        let record = Arc::new(LatencyRecord::default());
        lock(&self.workers).push(record.clone());
        RequestTimer { record, counters, read_at: 0, written: Tallied::default() }
    }

    /// What was measured since start or the last reset, by kind. Nothing if there is no timer.
    pub fn kinds(&self) -> Vec<KindLatency> {
        // The lock is taken before the sum: else a later baseline could be above the sum.
        let baseline = lock(&self.baseline);
        let mut sums = self.sums();
        std::iter::zip(&mut sums, &*baseline).for_each(|(sums, before)| sums.subtract(before));
        drop(baseline);
        let workers = lock(&self.workers);
        let longest = |kind: usize| workers.iter().map(|worker| worker[kind].longest()).max();
        let kinds = sums.iter().zip(NAMES).enumerate();
        kinds.filter_map(|(kind, (sums, name))| Some(sums.told(name, longest(kind)?))).collect()
    }

    /// `stats reset`, as far as it concerns latencies.
    pub fn reset(&self) {
        *lock(&self.baseline) = self.sums();
        for worker in lock(&self.workers).iter() {
            worker.iter().for_each(FineHistogram::reset_longest);
        }
    }

    fn sums(&self) -> [FineSums; KINDS] {
        let mut sums: [FineSums; KINDS] = Default::default();
        for worker in lock(&self.workers).iter() {
            std::iter::zip(&mut sums, worker.iter()).for_each(|(sums, histogram)| sums.add(histogram));
        }
        sums
    }
}

#[cfg(test)]
#[path = "tests/latency.rs"]
mod tests;
