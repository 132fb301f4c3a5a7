//! How long a shard's lock is held by code that may hold it for long, and how long that may be.
//!
//! ```text
//! Store::lock_timed(shard, Holder) ──> TimedShard: the lock and since when ── drop ──> LockTimes[Holder], if longest
//! ```
//!
//! The background threads and the commands that go through whole shards are always measured: each of their slices of
//! about 100 us takes two looks at the clock and at the thread's CPU time, 0.5 us in all. The longest CPU time is what
//! the server itself is responsible for: if the machine does not let a thread run, it holds its lock longer than that.
//! Between slices of one shard there is a pause, but for some of the page mover's (`background/mover`).
//! Commands on one item are not measured, because that would cost each of them about 50 ns. They run within a turn of
//! the event loop, whose time is a bound (`stats::event_loop`).

use super::shard::Shard;
use super::shard::locked::{Locked, Shards};
use crate::stats::histogram::Max;
use crate::sys::cpu;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// A slice ends after so long. With what is done until that is noticed, 40 us at worst, a shard is locked for 100 us at
/// most.
const SLICE: Duration = Duration::from_micros(60);

/// Items done between two looks at the clock. One takes 0.1 to 5 us, depending on what the cache and the TLB hold.
const LOOK_EVERY: u32 = 8;

/// The pause between two slices. A thread that waits for the lock needs some microseconds to wake up, and must get the
/// lock before the next slice does.
const REST: Duration = Duration::from_micros(20);

/// Measures a slice: for how long a shard has been locked.
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

/// What a lock is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The background thread keeps the LRUs in order.
    Maintainer,
    /// The background thread looks for expired items.
    Crawler,
    /// The background thread moves pages.
    Mover,
    /// Memory is prefaulted.
    Ahead,
    /// A command goes through whole shards: statistics, dumps, flush_all.
    Walk,
}

/// How many kinds of holders there are.
const HOLDERS: usize = Holder::Walk as usize + 1;

/// The longest times, by holder.
#[derive(Debug, Default)]
pub struct LockTimes {
    by: [Max; HOLDERS],
    cpu: Max,
}

impl LockTimes {
    /// The longest time for which this holder held a lock.
    pub fn longest(&self, holder: Holder) -> Duration {
        self.by[holder as usize].get()
    }

    /// The most CPU time that any holder took while it held a lock.
    pub fn longest_cpu(&self) -> Duration {
        self.cpu.get()
    }

    /// Forgets all times.
    pub fn reset(&self) {
        self.by.iter().for_each(Max::reset);
        self.cpu.reset();
    }
}

/// A locked shard whose holder may hold it for long.
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
        let shard = Locked::new(shards, number);
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
        // The CPU time at the start was read before the lock was taken, so it may include a little of that.
        if held > self.times.cpu.get() {
            self.times.cpu.note((cpu::thread_cpu_time().saturating_sub(self.cpu)).min(held));
        }
    }
}
