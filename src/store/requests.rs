//! What commands ask of the background threads, and what those count for `stats`.
//!
//! Invariant: a thread that holds one of these locks takes no other lock but that of the events.
//!
//! Not here: the work (`background`).

use super::ClassSet;
use crate::sync::{lock, sound};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Longest sleep: what is decided once a second is decided in time.
pub(super) const NAP_MAX: Duration = Duration::from_secs(1);

/// After a crawl was refused because another one ran, no automatic crawl begins for so long, as in memcached.
const CRAWL_PAUSE_SECONDS: u32 = 60;

/// What the store shares with its background thread.
#[derive(Debug, Default)]
pub struct BackgroundRequests {
    state: Mutex<Asked>,
    asked: Condvar,
    /// Memory is to be prefaulted.
    wanted: AtomicBool,
    wants: Condvar,
    /// A thread does so.
    is_served: AtomicBool,
    /// How often memory was got, or could not be, since the start.
    looks: AtomicU64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Asked {
    stop: bool,
    /// Something was asked for since the last step.
    fresh: bool,
    crawl: Option<ClassSet>,
    /// A crawl is asked for or runs.
    crawling: bool,
    /// Automatic crawls wait until this second.
    no_automatic_until: u32,
    /// Source (None: any) and destination of a page.
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
    /// Evictions and reclaims that made room for moved items.
    pub inline_reclaim: u64,
    /// Times that an item was in use, and times that an item was unlinked because it stayed in use.
    pub busy_items: u64,
    pub busy_deletes: u64,
    /// Times that there was no room for an item.
    pub busy_nomem: u64,
    pub last_busy: Option<&'static str>,
    pub slabs_moved: u64,
}

impl BackgroundRequests {
    /// Wakes the background thread.
    pub fn wake(&self) {
        self.lock().fresh = true;
        self.asked.notify_one();
    }

    /// Asks for a crawl. False when another one runs.
    pub fn crawl(&self, classes: ClassSet, now: u32) -> bool {
        let mut asked = self.lock();
        if asked.crawling {
            asked.no_automatic_until = now + CRAWL_PAUSE_SECONDS;
            return false;
        }
        asked.crawling = true;
        asked.crawl = Some(classes);
        drop(asked);
        self.wake();
        true
    }

    /// Takes the crawl that was asked for.
    pub fn take_crawl(&self) -> Option<ClassSet> {
        self.lock().crawl.take()
    }

    /// Begins an automatic crawl, unless another crawl runs. False: it may not begin.
    pub fn begin_automatic(&self, now: u32) -> bool {
        let mut asked = self.lock();
        let may = !asked.crawling && asked.no_automatic_until <= now;
        asked.crawling |= may;
        may
    }

    /// Notes that no crawl runs and none is asked for.
    pub fn end_crawl(&self) {
        let mut asked = self.lock();
        asked.crawling = false;
        asked.crawl = None;
    }

    /// Whether a crawl runs.
    pub fn is_crawling(&self) -> bool {
        self.lock().crawling
    }

    /// Asks for a page move, which has begun by [`BackgroundRequests::begin_move`].
    pub fn reassign(&self, src: Option<u8>, dst: u8) {
        self.lock().reassign = Some((src, dst));
        self.wake();
    }

    /// Takes the page move that was asked for.
    pub fn take_reassign(&self) -> Option<(Option<u8>, u8)> {
        self.lock().reassign.take()
    }

    /// Begins a page move, unless another one is going on. False: it may not begin.
    pub fn begin_move(&self) -> bool {
        !std::mem::replace(&mut self.lock().moving, true)
    }

    /// Notes that no page is being moved.
    pub fn end_move(&self) {
        self.lock().moving = false;
    }

    /// Whether a page is being moved.
    pub fn is_moving(&self) -> bool {
        self.lock().moving
    }

    /// Says that there is a thread that prefaults memory, or no more.
    pub fn serve(&self, on: bool) {
        self.is_served.store(on, Ordering::Relaxed);
    }

    /// Whether there is one.
    pub fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }

    /// Notes that memory was got, or that none is to be had now.
    pub fn note_look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes when memory was got: who waits for some looks again then, at the latest when all was looked at for which
    /// [`BackgroundRequests::want`] asks.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Asks for memory to be prefaulted.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::Relaxed) {
            // The lock waits until the thread, if it has just seen that nothing is wanted, sleeps.
            drop(self.lock());
            self.wants.notify_one();
        }
    }

    /// Sleeps until memory is wanted, or for `rest`. False when it is time to stop.
    pub fn wait_wanted(&self, rest: Option<Duration>) -> bool {
        let idle = |asked: &mut Asked| !asked.stop && !self.wanted.load(Ordering::Relaxed);
        let asleep = self.wants.wait_timeout_while(self.lock(), rest.unwrap_or(Duration::MAX), idle);
        let (asked, _) = sound(asleep);
        self.wanted.store(false, Ordering::Relaxed);
        !asked.stop
    }

    /// Takes the request for memory, if there is one.
    #[cfg(test)]
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Asks for pages above the memory limit to be given back.
    pub fn shrink(&self) {
        self.lock().shrinking = true;
        self.wake();
    }

    /// Whether pages above the memory limit are being given back.
    pub fn is_shrinking(&self) -> bool {
        self.lock().shrinking
    }

    /// Notes that no more pages can be given back.
    pub fn end_shrinking(&self) {
        self.lock().shrinking = false;
    }

    /// The counters, to read or change.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// Asks the threads to end; or, with `on` false, takes that back.
    pub fn stop(&self, on: bool) {
        self.lock().stop = on;
        self.asked.notify_one();
        self.wants.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        lock(&self.state)
    }

    /// Sleeps for `nap` or until something is asked for. None when it is time to stop.
    pub fn sleep(&self, nap: Duration) -> Option<Woken> {
        let idle = |asked: &mut Asked| !asked.stop && !asked.fresh;
        let asleep = self.asked.wait_timeout_while(self.lock(), nap, idle);
        let (mut asked, _) = sound(asleep);
        if asked.stop {
            return None;
        }
        Some(if std::mem::take(&mut asked.fresh) { Woken::Asked } else { Woken::Slept })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    Slept,
    Asked,
}
