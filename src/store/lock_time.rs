//! How long a shard's lock is held by those who may hold it long, and how long they may.
//!
//! ```text
//! Store::lock_timed(shard, Holder) ──> TimedShard: the lock and since when ── drop ──> LockTimes[Holder], if longest
//! ```
//!
//! The background and the commands that walk whole shards are always measured: two looks at the clock and at the
//! thread's CPU time for each of their slices of about 100 us, 0.5 us in all. The longest by CPU time is what the
//! server itself can help: a thread that the machine does not let run meanwhile holds the lock longer. Commands on one
//! item are not measured, because it would cost each of them about 50 ns; as they run within a turn of the event loop,
//! that turn's time is a bound (`stats::event_loop`).

use super::shard::Shard;
use super::shard::locked::{Locked, Shards};
use crate::stats::histogram::Max;
use crate::sys::cpu;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// A shard's lock is held for 100 us at most: this, and what is done until it is noticed, 40 us at worst.
const SLICE: Duration = Duration::from_micros(60);

/// Things done between two looks at the clock. One takes 0.1 to 5 us, by what the cache and the TLB have.
const LOOK_EVERY: u32 = 8;

/// Between two slices. Who waits for the lock needs some microseconds to wake up, and must not lose the race for it.
const REST: Duration = Duration::from_micros(20);

/// How long a shard's lock is held already.
#[derive(Debug)]
pub(super) struct Slice {
    until: Instant,
    done: u32,
}

impl Slice {
    /// Begins now.
    pub(super) fn new() -> Slice {
        Slice { until: Instant::now() + SLICE, done: 0 }
    }

    /// Whether it is time to let others have the lock, now that one more thing is done.
    pub(super) fn is_over(&mut self) -> bool {
        self.done += 1;
        self.done.is_multiple_of(LOOK_EVERY) && Instant::now() >= self.until
    }
}

/// Lets others have the lock that was held, before the next slice.
pub(super) fn rest() {
    std::thread::sleep(REST);
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The background thread when it keeps the LRUs in order,
    Maintainer,
    /// when it looks for expired items,
    Crawler,
    /// when it moves pages.
    Mover,
    /// Getting memory ahead of need.
    Ahead,
    /// A command that walks shards: statistics, dumps, flush_all.
    Walk,
}

/// How many there are.
const HOLDERS: usize = Holder::Walk as usize + 1;

/// The longest times, by who.
#[derive(Debug, Default)]
pub struct LockTimes {
    by: [Max; HOLDERS],
    cpu: Max,
}

impl LockTimes {
    /// The longest time that one of them held a lock.
    pub fn longest(&self, holder: Holder) -> Duration {
        self.by[holder as usize].get()
    }

    /// The most CPU time that one of them took while it held a lock.
    pub fn longest_cpu(&self) -> Duration {
        self.cpu.get()
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.by.iter().for_each(Max::reset);
        self.cpu.reset();
    }
}

/// A locked shard whose holder may hold it long.
#[derive(Debug)]
pub(super) struct TimedShard<'a> {
    since: Instant,
    cpu: Duration,
    times: &'a LockTimes,
    holder: Holder,
    shard: Locked<'a>,
}

impl<'a> TimedShard<'a> {
    /// Locks a shard.
    pub(super) fn new(shards: &'a Shards, number: usize, times: &'a LockTimes, holder: Holder) -> TimedShard<'a> {
        let cpu = cpu::thread_cpu_time();
        let shard = Locked::new(shards, number, None, None);
        TimedShard { since: Instant::now(), cpu, times, holder, shard }
    }
}

impl Deref for TimedShard<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for TimedShard<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for TimedShard<'_> {
    fn drop(&mut self) {
        let held = self.since.elapsed();
        self.times.by[self.holder as usize].note(held);
        // Read before the lock was had, so a little of what that cost may be in it.
        if held > self.times.cpu.get() {
            self.times.cpu.note((cpu::thread_cpu_time().saturating_sub(self.cpu)).min(held));
        }
    }
}
