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
//! Poll k-1 would have brought r, had it been there. It may not have if it was full: then the bound begins at the last
//! poll before that was not. If poll k waited, r woke it, and its bound begins there; the time from there to this thread
//! is the scheduler's. What a client sends beyond the quota of its turn counts from the end of that turn.
//!
//! A turn may be long because the thread did not run: the machine had other work, or a shard's lock was held
//! (`store/lock_time`). So the longest turn is told by the clock and by the thread's CPU time. To read the latter is a
//! system call of 0.7 us here. It is read at the beginning of a turn, but not more often than every [`CPU_EVERY`] or an
//! eighth of the longest turn, and again at the end of a turn that may be the longest: the work of turns in between counts
//! as this one's.
//!
//! Not here: what ends a turn (`net/worker`).

use super::histogram::{Buckets, Histogram, Max, Quantiles};
use crate::sync::lock;
use crate::sys::cpu;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A poll that may wait and takes longer than this has waited. One that finds something takes a few microseconds.
const WAITED: Duration = Duration::from_micros(50);

/// Between two readings of a thread's CPU time pass this or [`CPU_PART`] of the longest turn, if that is more. At 0.7 us
/// each they cost 0.7 % of the time at most, 0.2 % when a turn took 3 ms. A turn's CPU time is told too high by as much
/// at worst.
const CPU_EVERY: Duration = Duration::from_micros(100);
const CPU_PART: u32 = 8;

/// What one worker measured.
#[derive(Debug, Default)]
#[repr(align(128))]
struct LoopRecord {
    turns: Histogram,
    in_server: Histogram,
    longest: Max,
    longest_cpu: Max,
}

/// Measures the turns of one worker.
#[derive(Debug)]
pub struct LoopTimer {
    record: Arc<LoopRecord>,
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

impl LoopTimer {
    fn new(record: Arc<LoopRecord>) -> LoopTimer {
        let now = Instant::now();
        LoopTimer {
            record,
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
        if may_wait && now > self.looked + WAITED {
            self.since = now;
        } else if self.was_all {
            self.since = self.began;
        }
        (self.was_all, self.began, self.looked, self.elapsed) = (!is_full, now, now, Duration::ZERO);
        (self.served, self.unlooked) = (0, 0);
        if now >= self.cpu_due {
            self.cpu = Some(cpu::thread_cpu_time());
            self.cpu_due = now + CPU_EVERY.max(self.record.longest_cpu.get() / CPU_PART);
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
        // Mostly the same moment, and to subtract it again costs 37 instructions.
        let in_server = if self.since == self.began { self.elapsed } else { self.looked - self.since };
        self.record.in_server.note(in_server, std::mem::take(&mut self.unlooked));
    }

    /// Looks at the clock for [`LoopTimer::elapsed`] only.
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
        self.record.longest.note(turn);
        self.record.turns.note(turn, self.served);
        if turn > self.record.longest_cpu.get()
            && let Some(before) = self.cpu
        {
            self.record.longest_cpu.note(cpu::thread_cpu_time().saturating_sub(before).min(turn));
        }
    }
}

/// What all workers measured.
#[derive(Debug, Default)]
pub struct EventLoops {
    workers: Mutex<Vec<Arc<LoopRecord>>>,
    baseline: Mutex<Sums>,
}

/// Of all workers.
#[derive(Debug, Default)]
struct Sums {
    turns: Buckets,
    in_server: Buckets,
}

/// What [`EventLoops`] come to, since start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Times that a connection was served.
    pub served: u64,
    /// The turns in which that was.
    pub turns: Quantiles,
    /// How long its requests were in the server at most. See the module's head.
    pub in_server: Quantiles,
    /// The longest turn of all, by the clock.
    pub longest: Duration,
    /// By the thread's CPU time, and [`CPU_EVERY`] or an eighth above the truth at worst.
    pub longest_cpu: Duration,
}

impl EventLoops {
    /// What one more worker measures its turns with.
    pub fn timer(&self) -> LoopTimer {
        let record = Arc::new(LoopRecord::default());
        lock(&self.workers).push(record.clone());
        LoopTimer::new(record)
    }

    /// See [`LoopStats`].
    pub fn stats(&self) -> LoopStats {
        // Locked before they are summed: a later baseline would be above the sum.
        let baseline = lock(&self.baseline);
        let mut sums = self.sums();
        sums.turns.subtract(&baseline.turns);
        sums.in_server.subtract(&baseline.in_server);
        drop(baseline);
        let workers = lock(&self.workers);
        let longest = |of: fn(&LoopRecord) -> &Max| workers.iter().map(|worker| of(worker).get()).max();
        // Read first because it is noted last, so that it is never above the other.
        let longest_cpu = longest(|worker| &worker.longest_cpu).unwrap_or_default();
        let all = longest(|worker| &worker.longest).unwrap_or_default();
        LoopStats {
            served: sums.turns.count(),
            turns: sums.turns.quantiles().up_to(all),
            in_server: sums.in_server.quantiles(),
            longest: all,
            longest_cpu,
        }
    }

    /// `stats reset`, as far as it concerns this.
    pub fn reset(&self) {
        *lock(&self.baseline) = self.sums();
        for worker in lock(&self.workers).iter() {
            worker.longest.reset();
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
