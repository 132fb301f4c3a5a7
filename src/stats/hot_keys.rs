//! Which keys are asked for most: `stats hotkeys`, `watch hotkeys`.
//!
//! ```text
//!  a worker's operations . . . . . x . . . . . . . . . . x . . . .     one of 64, at random distances from 32 to 96
//!                                  v                     v
//!                      this second's SpaceSaving, 128 counters ── the second is over ──> PastSecond: what is certain of it
//!                                                                                        the last 60 are kept
//!  a reader: all workers' seconds together ──> HotKeys, from hot to less so; made once a second at most
//! ```
//!
//! An operation is a key in a request, so each key of a multiget is one. The distance is counted down per batch of
//! requests when it has been answered, not for each of them. A worker waits for nobody: while a reader has its seconds,
//! its samples are dropped. It has 64 KiB for this second, from its first sample on, and what is kept of one before is
//! what had at least one operation in 256 for certain: nearly always some KiB, and at most 2 MiB in all, when somebody asks
//! for 128 keys of 250 bytes in turn.
//!
//! # What is told
//!
//! `stats hotkeys [N]`, of the last 60 seconds: N keys at most (default 20, most 1000), the hottest first. All numbers are
//! estimates, of all operations and not only of those sampled:
//!
//! ```text
//! STAT seconds <60; 0 with `-o no_hotkeys`>
//! STAT operations <of all keys together>
//! STAT <rank>:key <the key; all but A-Z a-z 0-9 - . _ ~ as %XX>        rank: 1, 2, …
//! STAT <rank>:operations <number>
//! STAT <rank>:percent <of all operations, two decimals>
//! STAT <rank>:reads <number>                  get, gets, mg; the others are writes
//! STAT <rank>:writes <number>
//! STAT <rank>:bytes_sent <the reads times the bytes of the value that there is now>
//! STAT <rank>:bytes_received <of the values that were written>
//! ```
//!
//! `watch hotkeys` is sent the ten hottest each second, a line for each:
//! `ts=… gid=… type=hotkey rank=1 key=… operations=… percent=… reads=… writes=… bytes_sent=… bytes_received=…`.
//! With `-o no_hotkeys` nothing is sampled, and that command is refused. Requests over UDP are not sampled.
//!
//! Not here: counting in bounded memory (`space_saving`), which requests there are (`command/batch`, `command/read`).

use super::space_saving::{KeyCounts, SpaceSaving};
use crate::sync::{lock, try_lock};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One of so many operations is looked at, on average.
const EVERY: u64 = 64;

/// Seconds that are kept.
pub const SECONDS: u32 = 60;

/// Of a second that is over, keys are kept that have one in so many of its operations for certain.
const KEPT_SHARE: u64 = 256;

/// No countdown ends that begins here.
const NEVER: u64 = u64::MAX / 2;

/// Looks at some of a worker's operations. Only its thread samples.
#[derive(Debug)]
pub struct KeySampler {
    /// Operations until the next sample.
    left: AtomicU64,
    random: AtomicU64,
    seconds: Mutex<Option<Box<KeySeconds>>>,
}

/// One that never samples.
impl Default for KeySampler {
    fn default() -> KeySampler {
        KeySampler { left: AtomicU64::new(NEVER), random: AtomicU64::new(1), seconds: Mutex::default() }
    }
}

/// An operation that is looked at.
#[derive(Clone, Copy, Debug)]
pub struct SampledKey<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The key's hash.
    pub hash: u64,
    /// The bytes of a write. None: it is a read.
    pub written: Option<usize>,
}

impl KeySampler {
    /// Begins to sample, by random numbers from this one on.
    pub fn start(&self, seed: u64) {
        self.random.store(seed | 1, Ordering::Relaxed);
        self.left.store(self.distance(), Ordering::Relaxed);
    }

    /// Counts operations that are about to be done. Which of them is to be sampled, if one is.
    #[inline(always)]
    pub fn due(&self, operations: usize) -> Option<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left > operations as u64 {
            self.left.store(left - operations as u64, Ordering::Relaxed);
            return None;
        }
        self.rewind(left, operations as u64)
    }

    #[cold]
    fn rewind(&self, left: u64, operations: u64) -> Option<usize> {
        // At least one: of more operations than a distance no second one is sampled.
        let next = (left + self.distance()).saturating_sub(operations).max(1);
        self.left.store(next, Ordering::Relaxed);
        // There may have been none.
        left.checked_sub(1).filter(|_| operations > 0).map(|at| at as usize)
    }

    /// xorshift: clients cannot foresee which of their requests are looked at.
    fn distance(&self) -> u64 {
        let mut random = self.random.load(Ordering::Relaxed);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.store(random, Ordering::Relaxed);
        EVERY / 2 + random % (EVERY + 1)
    }

    /// Notes a sample. `now` is the clock's second.
    #[cold]
    pub fn note(&self, sample: &SampledKey<'_>, now: u32) {
        let Some(mut seconds) = try_lock(&self.seconds) else { return };
        seconds.get_or_insert_with(|| Box::new(KeySeconds::new(now))).note(sample, now);
    }
}

/// What a worker has sampled.
#[derive(Debug)]
struct KeySeconds {
    now: u32,
    samples: u64,
    this: SpaceSaving,
    past: VecDeque<PastSecond>,
}

/// What is left of a second.
#[derive(Debug)]
struct PastSecond {
    second: u32,
    samples: u64,
    keys: Box<[(Box<[u8]>, KeyCounts)]>,
}

impl KeySeconds {
    fn new(now: u32) -> KeySeconds {
        KeySeconds { now, samples: 0, this: SpaceSaving::new(), past: VecDeque::new() }
    }

    fn note(&mut self, sample: &SampledKey<'_>, now: u32) {
        if now != self.now {
            self.end_second(now);
        }
        self.samples += 1;
        self.this.count(sample.key, sample.hash as u32, sample.written);
    }

    fn end_second(&mut self, now: u32) {
        let is_certain = |counts: &KeyCounts| counts.least() * KEPT_SHARE >= self.samples;
        let kept = self.this.each().filter(|(_, counts)| is_certain(counts));
        let keys = kept.map(|(key, counts)| (key.into(), *counts)).collect();
        self.past.push_back(PastSecond { second: self.now, samples: self.samples, keys });
        while self.past.front().is_some_and(|past| !is_recent(past.second, now)) {
            self.past.pop_front();
        }
        self.this.clear();
        (self.now, self.samples) = (now, 0);
    }

    /// Adds what is not too old to `sums`, and the samples to `samples`.
    fn sum(&self, now: u32, sums: &mut HashMap<Box<[u8]>, KeyCounts>, samples: &mut u64) {
        let mut add = |key: &[u8], counts: &KeyCounts| match sums.get_mut(key) {
            Some(sum) => sum.add(counts),
            None => drop(sums.insert(key.into(), *counts)),
        };
        for past in self.past.iter().filter(|past| is_recent(past.second, now)) {
            *samples += past.samples;
            past.keys.iter().for_each(|(key, counts)| add(key, counts));
        }
        if is_recent(self.now, now) {
            *samples += self.samples;
            self.this.each().for_each(|(key, counts)| add(key, counts));
        }
    }
}

fn is_recent(second: u32, now: u32) -> bool {
    now.saturating_sub(second) < SECONDS
}

/// Keys and what was estimated of them, the hottest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HotKeys {
    /// The operations of all keys.
    pub operations: u64,
    /// Those that are hot.
    pub keys: Vec<HotKey>,
}

/// What was estimated of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// The key.
    pub key: Box<[u8]>,
    /// Reads and writes.
    pub operations: [u64; 2],
    /// Bytes that were written.
    pub written: u64,
}

impl HotKey {
    /// Reads and writes together.
    pub fn all(&self) -> u64 {
        self.operations[0] + self.operations[1]
    }
}

/// The most keys that are told of.
pub const KEYS_MAX: usize = 1000;

/// Makes a [`HotKeys`] of what all workers have sampled, once a second at most.
#[derive(Debug, Default)]
pub struct HotKeysMaker {
    samplers: Mutex<Vec<Arc<KeySampler>>>,
    /// The last one, and the clock's second of it.
    last: Mutex<Option<(u32, Arc<HotKeys>)>>,
}

impl HotKeysMaker {
    /// Adds what one more worker samples.
    pub fn add(&self, sampler: Arc<KeySampler>) {
        lock(&self.samplers).push(sampler);
    }

    /// What was sampled in the last seconds before `now`.
    pub fn make(&self, now: u32) -> Arc<HotKeys> {
        let mut last = lock(&self.last);
        if let Some((second, made)) = &*last
            && *second == now
        {
            return made.clone();
        }
        let made = Arc::new(merge(&lock(&self.samplers), now));
        *last = Some((now, made.clone()));
        made
    }
}

fn merge(samplers: &[Arc<KeySampler>], now: u32) -> HotKeys {
    let (mut sums, mut samples) = (HashMap::new(), 0);
    for sampler in samplers {
        lock(&sampler.seconds).iter().for_each(|seconds| seconds.sum(now, &mut sums, &mut samples));
    }
    let mut keys: Vec<HotKey> = sums.into_iter().map(|(key, counts)| estimate(key, &counts)).collect();
    keys.sort_unstable_by(|a, b| b.all().cmp(&a.all()).then_with(|| a.key.cmp(&b.key)));
    keys.truncate(KEYS_MAX);
    HotKeys { operations: samples * EVERY, keys }
}

/// Of the operations that may have been others', half are taken for the key's.
fn estimate(key: Box<[u8]>, counts: &KeyCounts) -> HotKey {
    let least = counts.least().max(1) as f64;
    let scale = EVERY as f64 * (least + counts.error as f64 / 2.0) / least;
    let scaled = |count: u64| (count as f64 * scale).round() as u64;
    HotKey { key, operations: counts.operations.map(scaled), written: scaled(counts.written) }
}

#[cfg(test)]
#[path = "tests/hot_keys.rs"]
mod tests;
