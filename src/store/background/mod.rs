//! The store's background work: one thread that juggles the LRUs, crawls them and moves pages, and another one
//! that gets memory ahead of need.
//!
//! ```text
//! Background ─┬ store: loop { BackgroundWorker::step ; sleep until something is due, asked for, or to stop }
//!             │                └── BackgroundWorker { Maintainer, Crawler, Mover }, each says when it wants to be called again
//!             └ ahead: loop { sleep until memory is wanted, or to stop ; get it }
//! ```
//!
//! Everything works in slices: a shard's lock is held for about 100 us at most, see `lock_time`. A test makes the steps
//! itself, without a thread.
//!
//! Not here: what commands ask for (`requests`), what is done (`prefault`, `maintainer`, `crawler`, `mover`).

mod balance;
mod crawler;
mod gradient;
mod maintainer;
mod mover;
pub(crate) mod prefault;

use super::Store;
use super::requests::{NAP_MAX, Woken};
use crate::sys::cpu;
use crawler::Crawler;
use maintainer::Maintainer;
use mover::Mover;
pub(super) use mover::reassign;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much nicer than the others: who serves clients goes first. With a worker on the same CPU, turns' p99.9 while the
/// table grows to 2^22 items in 15 s was 0.7 and 1.3 ms with memory got ahead so, 2.4 and 2.5 ms without; p99 inside
/// the server while the crawler runs 0.26, 0.43 and 0.49 ms with the crawler so, 0.48, 1.31 and 1.38 without. A thread
/// that is put off while it holds a shard's lock would cost more than that, but slices are too short: two workers that
/// filled two CPUs beside two busy loops, and one beside three, met one lock that was held for more than 1 ms in 60 s,
/// with it as without.
const NICE: i32 = 10;

/// The running background threads; dropping it stops them.
#[derive(Debug)]
pub struct Background {
    store: Arc<Store>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    /// Starts the threads.
    pub fn start(store: &Arc<Store>) -> Background {
        let threads = [spawn("store", store, work), spawn("ahead", store, prefault::run)];
        store.core.requests.serve(true);
        Background { store: store.clone(), threads: threads.into() }
    }
}

fn spawn(name: &str, store: &Arc<Store>, run: fn(&Store)) -> JoinHandle<()> {
    let store = store.clone();
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        cpu::add_nice(NICE);
        run(&store);
    });
    thread.expect("a thread can be started")
}

impl Drop for Background {
    fn drop(&mut self) {
        self.store.core.requests.serve(false);
        self.store.core.requests.note_look();
        self.store.core.requests.stop(true);
        let ended = self.threads.drain(..).map(JoinHandle::join).all(|ended| ended.is_ok());
        assert!(ended || std::thread::panicking(), "a background thread panicked");
        self.store.core.requests.stop(false);
    }
}

fn work(store: &Store) {
    let mut worker = BackgroundWorker::new(store);
    let mut before = Instant::now();
    let mut nap = Duration::ZERO;
    while let Some(woken) = store.core.requests.sleep(nap) {
        let now = Instant::now();
        let passed = if woken == Woken::Asked { NAP_MAX } else { now - before };
        before = now;
        nap = worker.step(store, passed);
    }
}

/// The work itself, without a thread: for who makes its steps himself, in a time of his own.
#[derive(Debug)]
pub struct BackgroundWorker {
    maintainer: (DueTime, Maintainer),
    crawler: (DueTime, Crawler),
    mover: (DueTime, Mover),
}

impl BackgroundWorker {
    /// A worker that has everything before it.
    pub fn new(store: &Store) -> BackgroundWorker {
        BackgroundWorker {
            maintainer: (DueTime::default(), Maintainer::new(store)),
            crawler: (DueTime::default(), Crawler::new(store)),
            mover: (DueTime::default(), Mover::new(store)),
        }
    }

    /// Does what is due now that `passed` has passed since the last step. How long until something else is.
    pub fn step(&mut self, store: &Store, passed: Duration) -> Duration {
        let (alarm, maintainer) = &mut self.maintainer;
        if let Some(passed) = alarm.rings(passed) {
            alarm.set(maintainer.step(store, passed));
        }
        let (alarm, crawler) = &mut self.crawler;
        if alarm.rings(passed).is_some() {
            alarm.set(crawler.step(store));
        }
        let (alarm, mover) = &mut self.mover;
        if alarm.rings(passed).is_some() {
            alarm.set(mover.step(store));
        }
        self.maintainer.0.left.min(self.crawler.0.left).min(self.mover.0.left)
    }
}

#[cfg(test)]
impl BackgroundWorker {
    /// One step of the mover, whether it is due or not.
    pub(super) fn step_mover(&mut self, store: &Store) {
        self.mover.1.step(store);
    }
}

/// When somebody is due.
#[derive(Clone, Copy, Debug, Default)]
struct DueTime {
    left: Duration,
    passed: Duration,
}

impl DueTime {
    /// How long it was since it last rang, if it rings.
    fn rings(&mut self, passed: Duration) -> Option<Duration> {
        self.left = self.left.saturating_sub(passed);
        self.passed = self.passed.saturating_add(passed);
        self.left.is_zero().then(|| std::mem::take(&mut self.passed))
    }

    fn set(&mut self, nap: Duration) {
        self.left = nap.min(NAP_MAX);
    }
}
