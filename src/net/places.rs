//! Places for handshakes that have begun: how many a server has, and who takes them.
//!
//! ```text
//!  thread 0: own …  thread 1: own …  …      common to all
//!  [x][x]           [ ][ ]                  [x][x][ ][ ][ ][ ]
//! ```
//!
//! A thread takes its own places first. So clients that begin and do not go on keep nobody out while they are few, on
//! however many threads they are; and while they are many, each thread has some whose time is over soon.
//!
//! Not here: how long a place is kept (`handshake`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Places of a server, unless it has more threads than half of them.
const PLACES: usize = 1024;

/// Those that threads have of their own, together, if each has one anyway.
const OWN_TOGETHER: usize = PLACES / 4;

/// The most that a thread has of its own.
const OWN_MAX: usize = 8;

/// A thread's, and what it shares with others.
#[derive(Clone, Debug)]
pub(super) struct ThreadPlaces {
    own: Arc<PlacePool>,
    common: Arc<PlacePool>,
}

impl ThreadPlaces {
    /// Those of each of so many threads.
    pub(super) fn of_threads(threads: usize) -> impl Iterator<Item = ThreadPlaces> {
        let own = (OWN_TOGETHER / threads.max(1)).clamp(1, OWN_MAX);
        let common = PlacePool::new(PLACES.saturating_sub(own * threads).max(PLACES / 2));
        (0..threads).map(move |_| ThreadPlaces { own: PlacePool::new(own), common: common.clone() })
    }

    /// Whether there is one, as far as others do not take it.
    pub(super) fn are_left(&self) -> bool {
        self.own.taken() < self.own.count || self.common.taken() < self.common.count
    }

    /// One, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        self.own.take().or_else(|| self.common.take())
    }

    /// Whether more than half of the common ones are taken.
    pub(super) fn are_short(&self) -> bool {
        self.common.taken() > self.common.count / 2
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<PlacePool>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct PlacePool {
    taken: AtomicUsize,
    count: usize,
}

impl PlacePool {
    fn new(count: usize) -> Arc<PlacePool> {
        Arc::new(PlacePool { taken: AtomicUsize::new(0), count })
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<PlacePool>) -> Option<Place> {
        let one_more = |taken| (taken < self.count).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(places: &ThreadPlaces) -> Vec<Place> {
        std::iter::from_fn(|| places.take()).collect()
    }

    #[test]
    fn a_server_has_as_many_whatever_its_threads() {
        for (count, most) in [(1, 1024), (4, 1024), (64, 1024), (256, 1024), (512, 1024), (1024, 1536)] {
            let threads: Vec<ThreadPlaces> = ThreadPlaces::of_threads(count).collect();
            let mut taken: Vec<Place> = threads.iter().flat_map(all_of).collect();
            assert_eq!(taken.len(), most, "{count} threads");
            assert!(threads.iter().all(|places| !places.are_left() && places.take().is_none()));
            // The last belongs to one thread, or to all.
            drop(taken.pop());
            let takers: Vec<Place> = threads.iter().filter_map(ThreadPlaces::take).collect();
            assert_eq!(takers.len(), 1, "{count} threads");
        }
    }

    #[test]
    fn a_thread_keeps_its_own_while_others_have_all_else() {
        for count in [2, 64, 1024] {
            let threads: Vec<ThreadPlaces> = ThreadPlaces::of_threads(count).collect();
            let _taken = all_of(&threads[0]);
            assert!(threads[0].are_short());
            assert!(threads[1..].iter().all(|places| places.are_left() && places.take().is_some()), "{count} threads");
        }
    }

    #[test]
    fn a_few_on_one_thread_are_no_crowd() {
        for count in [1, 64, 1024] {
            let threads: Vec<ThreadPlaces> = ThreadPlaces::of_threads(count).collect();
            let few: Vec<Option<Place>> = (0..50).map(|_| threads[0].take()).collect();
            assert!(few.iter().all(Option::is_some) && !threads[0].are_short(), "{count} threads");
        }
    }
}
