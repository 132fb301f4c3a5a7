//! How long the turns of the event loops take, and how long requests are in the server.
//!
//! ```text
//! LoopTimer   one worker's: begin ── look … look ── end, once a turn ──> its LoopRecord
//! EventLoops  the records of all workers, for `stats twincache`
//! ```
//!
//! A turn is from the return of poll to the next poll. It counts once for each connection that it served. How long a
//! request was in the server is not known, but a bound is:
//!
//! ```text
//!  poll k-1 returns         poll k returns        its turn is over
//!     |-- r arrives -- turn k-1 --|-- others first -- r --|
//!     `-------------- r is in the server at most ---------'
//! ```
//!
//! If request r had been there at poll k-1, that poll would have brought it. The exception is a poll that was full:
//! then the bound begins at the last poll before it that was not full. If poll k waited, r woke it, and the bound
//! begins at its return; the time before that belongs to the scheduler. What a client sends beyond the quota of its
//! turn counts from the end of that turn.
//!
//! A turn may be long because the thread did not run: the machine had other work, or a shard's lock was taken
//! (`store/lock_time`). So the longest turn is measured twice, by the clock and by the thread's CPU time. To read the
//! CPU time costs a system call of 0.7 us. It is read when a turn begins, at most once every [`CPU_EVERY`] or every
//! eighth of the longest turn, and again at the end of a turn that may be the longest. The work of all turns between
//! two readings counts as work of the last one.
//!
//! Moments are kept as nanoseconds of the clock that [`Instant`] reads: to subtract two of those costs 37 instructions, and a
//! turn with a single request does so five times.
//!
//! Not here: what ends a turn (`net/worker`).

use super::fine::{FineHistogram, FineSums, KindLatency};
use super::histogram::{Buckets, Histogram, Max, Quantiles};
use super::latency::{RequestTimer, Withheld};
use crate::sync::lock;
use crate::sys::cpu;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A poll that may wait and takes longer than this has waited. A poll that finds something takes a few microseconds.
const WAITED: u64 = nanos(Duration::from_micros(50));

/// The least time between two readings of a thread's CPU time, if one part in [`CPU_PART`] of the longest turn is not
/// more. At 0.7 us each, the readings cost 0.7 % of the time at most, and 0.2 % after a turn of 3 ms. A turn's CPU time
/// is too high by this much at worst.
const CPU_EVERY: u64 = nanos(Duration::from_micros(100));
const CPU_PART: u64 = 8;

/// What one worker measured.
#[derive(Debug, Default)]
#[repr(align(128))]
struct LoopRecord {
    turns: FineHistogram,
    in_server: Histogram,
    longest_cpu: Max,
}

/// Measures the turns of one worker.
#[derive(Debug)]
pub struct LoopTimer {
    record: Arc<LoopRecord>,
    /// The same moment on both clocks.
    zero: (Instant, u64),
    began: u64,
    /// How long the turn was at the last look at the clock.
    elapsed: u64,
    /// The requests that poll brought were not there before this moment.
    since: u64,
    /// Whether the last poll brought all events there were.
    was_all: bool,
    /// Connections served in this turn, and how many of them since the last look at the clock.
    served: u64,
    unlooked: u64,
    /// The thread's CPU time at its last reading, and when the next reading is due.
    cpu: Option<Duration>,
    cpu_due: u64,
    /// Whose time begins and ends at these looks at the clock (`latency`), if it is measured.
    requests: Option<RequestTimer>,
}

impl LoopTimer {
    fn new(record: Arc<LoopRecord>) -> LoopTimer {
        let now = cpu::clock_nanos();
        LoopTimer {
            record,
            zero: (Instant::now(), now),
            began: now,
            elapsed: 0,
            since: now,
            was_all: true,
            served: 0,
            unlooked: 0,
            cpu: None,
            cpu_due: now,
            requests: None,
        }
    }

    /// Measures the requests, too.
    pub fn with_requests(self, requests: Option<RequestTimer>) -> LoopTimer {
        LoopTimer { requests, ..self }
    }

    /// A turn begins. `may_wait`: the poll had time to wait. `is_full`: the poll may not have brought all events.
    pub fn begin(&mut self, may_wait: bool, is_full: bool) {
        let now = cpu::clock_nanos();
        if may_wait && now > self.began + self.elapsed + WAITED {
            self.since = now;
        } else if self.was_all {
            self.since = self.began;
        }
        (self.was_all, self.began, self.elapsed) = (!is_full, now, 0);
        (self.served, self.unlooked) = (0, 0);
        if let Some(requests) = &mut self.requests {
            requests.read_at(0);
        }
        if now >= self.cpu_due {
            self.cpu = Some(cpu::thread_cpu_time());
            self.cpu_due = now + CPU_EVERY.max(nanos(self.record.longest_cpu.get()) / CPU_PART);
        }
    }

    /// When this turn began.
    pub fn began(&self) -> Instant {
        self.instant(self.began)
    }

    /// Counts connections that poll brought, and that have had their turns or are about to.
    #[inline]
    pub fn count(&mut self, connections: u64) {
        self.served += connections;
        self.unlooked += connections;
    }

    /// Looks at the clock, and notes the time for the connections counted since the last look. Takes about 25 ns.
    #[inline(never)]
    pub fn look(&mut self) {
        self.look_here();
    }

    /// The same without a call, for the one look of a short turn: 15 instructions less.
    #[inline(always)]
    fn look_here(&mut self) {
        let elapsed = self.end_requests_here();
        let in_server = (self.began + elapsed).saturating_sub(self.since);
        self.record.in_server.note_nanos(in_server, std::mem::take(&mut self.unlooked));
    }

    /// Looks at the clock for [`LoopTimer::elapsed`] and for those requests that have been answered, while others wait
    /// that were read with them.
    pub fn tick(&mut self) {
        self.read_clock();
        if let Some(requests) = &mut self.requests {
            requests.end(self.elapsed);
        }
    }

    /// The same when nothing waits that was read. How many nanoseconds the turn is old.
    #[inline(never)]
    pub fn end_requests(&mut self) -> u64 {
        self.end_requests_here()
    }

    #[inline(always)]
    fn end_requests_here(&mut self) -> u64 {
        self.read_clock();
        let elapsed = self.elapsed;
        if let Some(requests) = &mut self.requests {
            requests.end(elapsed);
            requests.read_at(elapsed);
        }
        elapsed
    }

    #[inline]
    fn read_clock(&mut self) {
        self.elapsed = cpu::clock_nanos() - self.began;
    }

    /// When that was read which has been read in this turn, or a little before.
    #[cold]
    pub fn read_at(&self) -> Instant {
        self.requests.as_ref().and_then(|requests| requests.read_in_turn(self.began())).unwrap_or_else(|| self.looked())
    }

    /// What is answered until the next look was read by an earlier turn.
    #[cold]
    pub fn read_before(&mut self, read_at: Instant) {
        let began = self.began();
        if let Some(requests) = &mut self.requests {
            requests.read_before(began.saturating_duration_since(read_at));
        }
    }

    /// The requests of a connection begin, and the replies to those before have been written or are about to be.
    #[inline]
    pub fn begin_connection(&mut self) {
        if let Some(requests) = &mut self.requests {
            requests.mark_written();
        }
    }

    /// The connection goes on for longer: looks at the clock for those before it, if there are any.
    #[cold]
    pub fn end_those_before(&mut self) {
        if self.requests.as_ref().is_some_and(RequestTimer::has_written) {
            self.read_clock();
            self.requests.iter_mut().for_each(|requests| requests.end_written(self.elapsed));
        }
    }

    /// The connection's replies wait for replicas.
    pub fn withhold(&mut self) -> Option<Withheld> {
        let began = self.began();
        self.requests.as_mut().map(|requests| requests.withhold(began))
    }

    /// They have been written, before the last look.
    pub fn end_withheld(&self, withheld: &Withheld) {
        self.requests.iter().for_each(|requests| requests.end_withheld(withheld, self.looked()));
    }

    /// One of the connections that were counted has no turn after all.
    pub fn discount(&mut self) {
        self.served -= 1;
        self.unlooked -= 1;
    }

    /// Since when the connections that poll brought may have waited.
    pub fn since(&self) -> Instant {
        self.instant(self.since)
    }

    /// Sets since when the connections counted next may have waited, and returns the moment for the others.
    pub fn set_since(&mut self, since: Instant) -> Instant {
        let before = self.since();
        let (instant, zero) = self.zero;
        self.since = zero + nanos(since.saturating_duration_since(instant));
        before
    }

    /// How long the turn was at the last look.
    #[inline]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed)
    }

    /// Whether it was longer than this then.
    #[inline]
    pub fn is_longer_than(&self, limit: Duration) -> bool {
        self.elapsed > nanos(limit)
    }

    fn looked(&self) -> Instant {
        self.instant(self.began + self.elapsed)
    }

    fn instant(&self, ns: u64) -> Instant {
        let (instant, zero) = self.zero;
        instant + Duration::from_nanos(ns.saturating_sub(zero))
    }

    /// The turn ends.
    #[inline]
    pub fn end(&mut self) {
        self.look_here();
        let turn = self.elapsed;
        self.record.turns.note_nanos(turn, self.served as u32);
        if self.record.longest_cpu.is_below(turn)
            && let Some(before) = self.cpu
        {
            self.record.longest_cpu.note_nanos(nanos(cpu::thread_cpu_time().saturating_sub(before)).min(turn));
        }
    }
}

#[inline]
const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// What all workers measured.
#[derive(Debug, Default)]
pub struct EventLoops {
    workers: Mutex<Vec<Arc<LoopRecord>>>,
    baseline: Mutex<Sums>,
}

/// The records of all workers.
#[derive(Debug, Default)]
struct Sums {
    turns: FineSums,
    in_server: Buckets,
}

/// The sums of [`EventLoops`], since start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Times that a connection was served.
    pub served: u64,
    /// The length of the turns in which connections were served.
    pub turns: Quantiles,
    /// How long a connection's requests were in the server at most. See the module's head.
    pub in_server: Quantiles,
    /// The longest turn of all, by the clock.
    pub longest: Duration,
    /// The longest turn by the thread's CPU time: [`CPU_EVERY`] or an eighth above the truth at worst.
    pub longest_cpu: Duration,
}

impl EventLoops {
    /// Makes the timer by which one more worker measures its turns.
    pub fn timer(&self) -> LoopTimer {
        let record = Arc::new(LoopRecord::default());
        lock(&self.workers).push(record.clone());
        LoopTimer::new(record)
    }

    /// See [`LoopStats`].
    pub fn stats(&self) -> LoopStats {
        // The lock is taken before the sum: else a later baseline could be above the sum.
        let baseline = lock(&self.baseline);
        let mut sums = self.sums();
        sums.turns.subtract(&baseline.turns);
        sums.in_server.subtract(&baseline.in_server);
        drop(baseline);
        // The CPU time is noted last, so it is read first: then it is never above the longest turn by the clock.
        let longest_cpu = lock(&self.workers).iter().map(|worker| worker.longest_cpu.get()).max().unwrap_or_default();
        let turns = sums.turns.told("turn", self.longest());
        LoopStats {
            served: turns.count(),
            turns: Quantiles { p50: turns.bound(0.5), p99: turns.bound(0.99), p999: turns.bound(0.999) },
            in_server: sums.in_server.quantiles(),
            longest: turns.longest,
            longest_cpu,
        }
    }

    /// How long the turns were, each as often as it served a connection.
    pub fn turns(&self) -> KindLatency {
        let baseline = lock(&self.baseline);
        let mut turns = self.sums().turns;
        turns.subtract(&baseline.turns);
        turns.told("turn", self.longest())
    }

    fn longest(&self) -> Duration {
        lock(&self.workers).iter().map(|worker| worker.turns.longest()).max().unwrap_or_default()
    }

    /// `stats reset`, as far as it concerns turns.
    pub fn reset(&self) {
        *lock(&self.baseline) = self.sums();
        for worker in lock(&self.workers).iter() {
            worker.turns.reset_longest();
            worker.longest_cpu.reset();
        }
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for worker in lock(&self.workers).iter() {
            sums.turns.add(&worker.turns);
            sums.in_server.add(&worker.in_server);
        }
        sums
    }
}

#[cfg(test)]
#[path = "tests/event_loop.rs"]
mod tests;
