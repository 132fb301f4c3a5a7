//! The store's background work: one thread that juggles the LRUs, crawls them and moves pages, and another one
//! that gets memory ahead of need.
//!
//! ```text
//! Background ─┬ store: loop { Worker::step ; sleep until something is due, asked for, or to stop }
//!             │                └── Worker { Maintainer, Crawler, Mover }, each says when it wants to be called again
//!             └ ahead: loop { sleep until memory is wanted, or to stop ; get it }
//! State, in the Store       what commands have asked for; what `stats` shows of all this
//! ```
//!
//! Everything works in slices: a shard's lock is held for about 100 us at most, see [`Slice`]. A test makes the steps
//! itself, without a thread.
//!
//! Invariants: while one of State's locks is held nothing but the events' is locked.
//!
//! Not here: what is done (`ahead`, `maintainer`, `crawler`, `mover`).

mod balance;
mod crawler;
mod maintainer;
mod mover;
pub(crate) mod prefault;

use super::{ClassSet, Reassign, Store};
use crate::sync::{lock, sound};
use crate::sys::cpu;
use crawler::Crawler;
use maintainer::Maintainer;
use mover::Mover;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest sleep: what is decided once a second is decided in time.
pub const NAP_MAX: Duration = Duration::from_secs(1);

/// A shard's lock is held for 100 us at most: this, and what is done until it is noticed, 40 us at worst.
const SLICE: Duration = Duration::from_micros(60);

/// Things done between two looks at the clock. One takes 0.1 to 5 us, by what the cache and the TLB have.
const LOOK_EVERY: u32 = 8;

/// Between two slices. Who waits for the lock needs some microseconds to wake up, and must not lose the race for it.
const REST: Duration = Duration::from_micros(20);

/// After a crawl was refused because another one ran, automatic ones leave room for it this long, as memcached's.
const CRAWL_PAUSE_SECONDS: u32 = 60;

/// How much nicer than the others: who serves clients goes first. With a worker on the same CPU, turns' p99.9 while the
/// table grows to 2^22 items in 15 s was 0.7 and 1.3 ms with memory got ahead so, 2.4 and 2.5 ms without; p99 inside
/// the server while the crawler runs 0.26, 0.43 and 0.49 ms with the crawler so, 0.48, 1.31 and 1.38 without. A thread
/// that is put off while it holds a shard's lock would cost more than that, but slices are too short: two workers that
/// filled two CPUs beside two busy loops, and one beside three, met one lock that was held for more than 1 ms in 60 s,
/// with it as without.
const NICE: i32 = 10;

/// What the store shares with its background thread.
#[derive(Debug, Default)]
pub struct State {
    requests: Mutex<Requests>,
    asked: Condvar,
    /// Memory is wanted ahead of need.
    wanted: AtomicBool,
    wants: Condvar,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Requests {
    stop: bool,
    /// Something was asked for since the last step.
    fresh: bool,
    crawl: Option<ClassSet>,
    /// A crawl is asked for or runs.
    crawling: bool,
    /// Automatic crawls wait until this second.
    no_automatic_until: u32,
    /// Source (none: any) and destination of a page.
    reassign: Option<(Option<u8>, u8)>,
    /// A page is asked for or on its way.
    moving: bool,
    /// The memory limit was lowered.
    shrinking: bool,
}

/// What is counted for `stats`, since the last reset.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub juggles: u64,
    pub crawler_starts: u64,
    /// Items that a page move has saved, and pieces of items.
    pub rescues: u64,
    pub chunk_rescues: u64,
    /// Evictions and reclaims that made room for them.
    pub inline_reclaim: u64,
    /// Times that an item was held by somebody; and when a stuck one was unlinked.
    pub busy_items: u64,
    pub busy_deletes: u64,
    /// Times that there was no room for one.
    pub busy_nomem: u64,
    pub last_busy: Option<&'static str>,
    pub slabs_moved: u64,
}

impl State {
    /// Lets the background see at once that something has changed.
    pub fn wake(&self) {
        self.requests().fresh = true;
        self.asked.notify_one();
    }

    /// Asks for a crawl. False when another one runs.
    pub fn crawl(&self, classes: ClassSet, now: u32) -> bool {
        let mut requests = self.requests();
        if requests.crawling {
            requests.no_automatic_until = now + CRAWL_PAUSE_SECONDS;
            return false;
        }
        requests.crawling = true;
        requests.crawl = Some(classes);
        drop(requests);
        self.wake();
        true
    }

    /// The crawl that was asked for.
    pub fn take_crawl(&self) -> Option<ClassSet> {
        self.requests().crawl.take()
    }

    /// Whether an automatic crawl may begin; then it has.
    pub fn begin_automatic(&self, now: u32) -> bool {
        let mut requests = self.requests();
        let may = !requests.crawling && requests.no_automatic_until <= now;
        requests.crawling |= may;
        may
    }

    /// Says that no crawl runs and none is asked for.
    pub fn end_crawl(&self) {
        let mut requests = self.requests();
        requests.crawling = false;
        requests.crawl = None;
    }

    /// Whether a crawl runs.
    pub fn is_crawling(&self) -> bool {
        self.requests().crawling
    }

    /// Asks for a page move.
    pub fn reassign(&self, src: Option<u8>, dst: u8) -> Reassign {
        if !self.begin_move() {
            return Reassign::Busy;
        }
        self.requests().reassign = Some((src, dst));
        self.wake();
        Reassign::Ok
    }

    /// The page move that was asked for.
    pub fn take_reassign(&self) -> Option<(Option<u8>, u8)> {
        self.requests().reassign.take()
    }

    /// Whether a page move may begin; then it has.
    pub fn begin_move(&self) -> bool {
        !std::mem::replace(&mut self.requests().moving, true)
    }

    /// Says that no page is on its way.
    pub fn end_move(&self) {
        self.requests().moving = false;
    }

    /// Whether one is.
    pub fn is_moving(&self) -> bool {
        self.requests().moving
    }

    /// Asks for memory ahead of need.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::Relaxed) {
            // Whoever has just seen that nothing is wanted sleeps by now.
            drop(self.requests());
            self.wants.notify_one();
        }
    }

    /// Sleeps until some is wanted, or for `rest`. False when it is time to stop.
    pub fn wait_wanted(&self, rest: Option<Duration>) -> bool {
        let idle = |requests: &mut Requests| !requests.stop && !self.wanted.load(Ordering::Relaxed);
        let asleep = self.wants.wait_timeout_while(self.requests(), rest.unwrap_or(Duration::MAX), idle);
        let (requests, _) = sound(asleep);
        self.wanted.store(false, Ordering::Relaxed);
        !requests.stop
    }

    /// Whether some is wanted; then it is about to be had.
    #[cfg(test)]
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Asks for pages above the memory limit to be given back.
    pub fn shrink(&self) {
        self.requests().shrinking = true;
        self.wake();
    }

    /// Whether pages above the limit are to be given back.
    pub fn is_shrinking(&self) -> bool {
        self.requests().shrinking
    }

    /// Says that nothing more can be given back.
    pub fn end_shrinking(&self) {
        self.requests().shrinking = false;
    }

    /// The counters, to read or change.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        lock(&self.requests)
    }

    /// Sleeps for `nap` or until something is asked for. None when it is time to stop.
    fn sleep(&self, nap: Duration) -> Option<Woken> {
        let idle = |requests: &mut Requests| !requests.stop && !requests.fresh;
        let asleep = self.asked.wait_timeout_while(self.requests(), nap, idle);
        let (mut requests, _) = sound(asleep);
        if requests.stop {
            return None;
        }
        Some(if std::mem::take(&mut requests.fresh) { Woken::Asked } else { Woken::Slept })
    }
}

/// How long a shard's lock is held already.
#[derive(Debug)]
pub struct Slice {
    until: Instant,
    done: u32,
}

impl Slice {
    /// Begins now.
    pub fn new() -> Slice {
        Slice { until: Instant::now() + SLICE, done: 0 }
    }

    /// Whether it is time to let others have the lock, now that one more thing is done.
    pub fn is_over(&mut self) -> bool {
        self.done += 1;
        self.done.is_multiple_of(LOOK_EVERY) && Instant::now() >= self.until
    }
}

/// Lets others have the lock that was held, before the next slice.
pub fn rest() {
    std::thread::sleep(REST);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Slept,
    Asked,
}

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
        let State { asked, wants, .. } = &self.store.background;
        self.store.background.requests().stop = true;
        asked.notify_one();
        wants.notify_one();
        let ended = self.threads.drain(..).map(JoinHandle::join).all(|ended| ended.is_ok());
        assert!(ended || std::thread::panicking(), "a background thread panicked");
        self.store.background.requests().stop = false;
    }
}

fn work(store: &Store) {
    let mut worker = Worker::new(store);
    let mut before = Instant::now();
    let mut nap = Duration::ZERO;
    while let Some(woken) = store.background.sleep(nap) {
        let now = Instant::now();
        let passed = if woken == Woken::Asked { NAP_MAX } else { now - before };
        before = now;
        nap = worker.step(store, passed);
    }
}

/// The work itself, without a thread.
#[derive(Debug)]
pub struct Worker {
    maintainer: (Alarm, Maintainer),
    crawler: (Alarm, Crawler),
    mover: (Alarm, Mover),
}

impl Worker {
    /// A worker that has everything before it.
    pub fn new(store: &Store) -> Worker {
        Worker {
            maintainer: (Alarm::default(), Maintainer::new(store)),
            crawler: (Alarm::default(), Crawler::new(store)),
            mover: (Alarm::default(), Mover::new(store)),
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
impl Worker {
    /// One step of the mover, whether it is due or not.
    pub fn step_mover(&mut self, store: &Store) {
        self.mover.1.step(store);
    }
}

/// When somebody is due.
#[derive(Clone, Copy, Debug, Default)]
struct Alarm {
    left: Duration,
    passed: Duration,
}

impl Alarm {
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
