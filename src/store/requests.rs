//! What commands ask of the background, and what it has counted for them.
//!
//! Invariants: while one of these locks is held nothing but the events' is locked.
//!
//! Not here: who does it (`background`).

use super::{ClassSet, Reassign};
use crate::sync::{lock, sound};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Longest sleep: what is decided once a second is decided in time.
pub(super) const NAP_MAX: Duration = Duration::from_secs(1);

/// After a crawl was refused because another one ran, automatic ones leave room for it this long, as memcached's.
const CRAWL_PAUSE_SECONDS: u32 = 60;

/// What the store shares with its background thread.
#[derive(Debug, Default)]
pub struct BackgroundRequests {
    state: Mutex<Asked>,
    asked: Condvar,
    /// Memory is wanted ahead of need.
    wanted: AtomicBool,
    wants: Condvar,
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

impl BackgroundRequests {
    /// Lets the background see at once that something has changed.
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

    /// The crawl that was asked for.
    pub fn take_crawl(&self) -> Option<ClassSet> {
        self.lock().crawl.take()
    }

    /// Whether an automatic crawl may begin; then it has.
    pub fn begin_automatic(&self, now: u32) -> bool {
        let mut asked = self.lock();
        let may = !asked.crawling && asked.no_automatic_until <= now;
        asked.crawling |= may;
        may
    }

    /// Says that no crawl runs and none is asked for.
    pub fn end_crawl(&self) {
        let mut asked = self.lock();
        asked.crawling = false;
        asked.crawl = None;
    }

    /// Whether a crawl runs.
    pub fn is_crawling(&self) -> bool {
        self.lock().crawling
    }

    /// Asks for a page move.
    pub fn reassign(&self, src: Option<u8>, dst: u8) -> Reassign {
        if !self.begin_move() {
            return Reassign::Busy;
        }
        self.lock().reassign = Some((src, dst));
        self.wake();
        Reassign::Ok
    }

    /// The page move that was asked for.
    pub fn take_reassign(&self) -> Option<(Option<u8>, u8)> {
        self.lock().reassign.take()
    }

    /// Whether a page move may begin; then it has.
    pub fn begin_move(&self) -> bool {
        !std::mem::replace(&mut self.lock().moving, true)
    }

    /// Says that no page is on its way.
    pub fn end_move(&self) {
        self.lock().moving = false;
    }

    /// Whether one is.
    pub fn is_moving(&self) -> bool {
        self.lock().moving
    }

    /// Asks for memory ahead of need.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::Relaxed) {
            // Whoever has just seen that nothing is wanted sleeps by now.
            drop(self.lock());
            self.wants.notify_one();
        }
    }

    /// Sleeps until some is wanted, or for `rest`. False when it is time to stop.
    pub fn wait_wanted(&self, rest: Option<Duration>) -> bool {
        let idle = |asked: &mut Asked| !asked.stop && !self.wanted.load(Ordering::Relaxed);
        let asleep = self.wants.wait_timeout_while(self.lock(), rest.unwrap_or(Duration::MAX), idle);
        let (asked, _) = sound(asleep);
        self.wanted.store(false, Ordering::Relaxed);
        !asked.stop
    }

    /// Whether some is wanted; then it is about to be had.
    #[cfg(test)]
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Asks for pages above the memory limit to be given back.
    pub fn shrink(&self) {
        self.lock().shrinking = true;
        self.wake();
    }

    /// Whether pages above the limit are to be given back.
    pub fn is_shrinking(&self) -> bool {
        self.lock().shrinking
    }

    /// Says that nothing more can be given back.
    pub fn end_shrinking(&self) {
        self.lock().shrinking = false;
    }

    /// The counters, to read or change.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// Asks the threads to end, or no longer.
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
