//! The crawler: walks whole LRUs and reclaims what is dead.
//!
//! ```text
//! automatic   once a second: which lists are due? ─> run over them ─> a second later: how much would another
//!             run find, and when? ─> next run in 5 s to 1 h
//! manual      lru_crawler crawl ─> run over the lists of these classes
//! ```
//!
//! A run goes through its lists one after the other, the shortest first, and through the shards in each. It looks
//! at items in slices and holds its place between them with a cursor, so items may come, go and move meanwhile.
//!
//! Invariants: at most one run, and one cursor of it.
//!
//! Not here: dumps, which walk the table (`dump`).

use super::{NAP_MAX, Slice, rest};
use crate::store::lock_time::By;
use crate::store::memory::slab::CLASSES;
use crate::store::shard::Shard;
use crate::store::shard::item::state;
use crate::store::{Event, Miss, Store};
use std::time::Duration;

/// Items looked at between two naps, as memcached does.
const ITEMS_PER_NAP: usize = 1000;

/// A list is not crawled more often than this.
const PAUSE_MIN_SECONDS: u32 = 5;

/// Longest time that is added to it, as memcached's.
const WAIT_MAX_SECONDS: u32 = 3600;

/// Steps in which that time grows and shrinks.
const MINUTE: u32 = 60;

/// TTLs are counted by minutes up to an hour.
const MINUTES: usize = 60;

/// All lists: LRU times [`CLASSES`] plus class, the order in which memcached tells of them.
const LISTS: usize = 4 * CLASSES;

/// See the module's head.
#[derive(Debug)]
pub struct Crawler {
    plans: Vec<Plan>,
    run: Option<Run>,
    /// The second of the last look at the plans.
    looked: u32,
}

/// When a list is crawled.
#[derive(Clone, Debug)]
struct Plan {
    /// After this second.
    next: u32,
    wait: u32,
    /// What the last run found, until it has been judged.
    found: Option<Box<Found>>,
}

/// What a run found in one list.
#[derive(Clone, Debug)]
struct Found {
    began: u32,
    ended: u32,
    examined: u64,
    reclaimed: u64,
    /// Items that never expire.
    lasting: u64,
    /// Items by minutes left.
    by_minute: [u64; MINUTES],
}

impl Crawler {
    /// A crawler whose first automatic run is in a second.
    pub fn new(store: &Store) -> Crawler {
        let now = store.core.clock.now();
        Crawler { plans: vec![Plan { next: now, wait: 0, found: None }; LISTS], run: None, looked: now }
    }

    /// Crawls on, or begins to if it is time. When to be called again.
    pub fn step(&mut self, store: &Store) -> Duration {
        if !store.crawler_enabled() {
            self.stop(store);
            return NAP_MAX;
        }
        if self.run.is_none() {
            self.run = self.next_run(store);
        }
        let Some(run) = &mut self.run else { return NAP_MAX };
        let mut looked = 0;
        while looked < ITEMS_PER_NAP {
            match run.go_on(store) {
                // A list without items takes its time, too.
                Part::Looked(0) => looked += 1,
                Part::Looked(items) => {
                    looked += items;
                    rest();
                }
                Part::EndOfList(list, found) if run.automatic => self.plans[list].found = Some(found),
                Part::EndOfList(..) => {}
                Part::End => {
                    self.stop(store);
                    return NAP_MAX;
                }
            }
        }
        Duration::from_micros(store.tuning().crawler_sleep_us.into())
    }

    /// Ends the run, also one that is only asked for.
    fn stop(&mut self, store: &Store) {
        if let Some(mut run) = self.run.take() {
            run.close(store);
        }
        if store.background.is_crawling() {
            store.background.end_crawl();
        }
    }

    fn next_run(&mut self, store: &Store) -> Option<Run> {
        let lists = match store.background.take_crawl() {
            Some(classes) => (false, (0..LISTS).filter(|list| classes.0 >> (list % CLASSES) & 1 != 0).collect()),
            None => (true, self.due(store)?),
        };
        store.background.counts().crawler_starts += 1;
        Some(Run::new(store, lists.0, lists.1))
    }

    /// Once a second: judges the last run, and says which lists are due if another may begin.
    fn due(&mut self, store: &Store) -> Option<Vec<usize>> {
        let now = store.core.clock.now();
        if now == self.looked || !store.core.config.maintainer {
            return None;
        }
        self.looked = now;
        for list in 0..LISTS {
            self.plans[list].judge(store, list, now);
        }
        let exists = |list: &usize| (1..=usize::from(store.largest_class())).contains(&(list % CLASSES));
        let due: Vec<usize> = (0..LISTS).filter(exists).filter(|&list| now > self.plans[list].next).collect();
        if due.is_empty() || !store.background.begin_automatic(now) {
            return None;
        }
        due.iter().for_each(|&list| self.plans[list].next = now + PAUSE_MIN_SECONDS);
        Some(due)
    }
}

impl Plan {
    /// Plans the next run by what the last one found: it shall be worth it.
    fn judge(&mut self, store: &Store, list: usize, now: u32) {
        let Some(found) = self.found.take() else { return };
        let low_mark = (found.examined - found.lasting) / 100 + 1;
        let mut next_reclaims = 0;
        for (minute, items) in found.by_minute.iter().enumerate() {
            next_reclaims += items;
            if next_reclaims > low_mark {
                self.aim_at(minute as u32 * MINUTE);
                break;
            }
        }
        if next_reclaims == 0 {
            self.wait += MINUTE;
        }
        self.wait = self.wait.min(WAIT_MAX_SECONDS);
        self.next = now + self.wait + PAUSE_MIN_SECONDS;
        if store.core.events.wants_system() {
            store.core.events.keep(Event::Crawled {
                class: (list % CLASSES) as u8,
                lru: (list / CLASSES) as u8,
                low_mark,
                next_reclaims,
                since_run: now.saturating_sub(found.ended).into(),
                next_run: (self.next - now).into(),
                elapsed: found.ended.saturating_sub(found.began).into(),
                examined: found.examined,
                reclaimed: found.reclaimed,
            });
        }
    }

    /// A minute nearer to the time when there will be enough.
    fn aim_at(&mut self, seconds: u32) {
        if self.wait < seconds {
            self.wait += MINUTE;
        } else {
            self.wait = self.wait.saturating_sub(MINUTE);
        }
    }
}

/// A walk over lists of all shards.
#[derive(Debug)]
struct Run {
    automatic: bool,
    /// The current one is the last.
    lists: Vec<usize>,
    shard: usize,
    /// The cursor is open.
    open: bool,
    /// Items still to be looked at in this list.
    left: u64,
    found: Box<Found>,
}

/// What a part of a run came to.
enum Part {
    /// So many items were looked at.
    Looked(usize),
    /// The list is done in all shards.
    EndOfList(usize, Box<Found>),
    /// All lists are.
    End,
}

impl Run {
    fn new(store: &Store, automatic: bool, mut lists: Vec<usize>) -> Run {
        let mut items = [0; LISTS];
        for shard in store.hold_each(By::Crawler) {
            lists.iter().for_each(|&list| items[list] += items_of(&shard, list));
        }
        lists.sort_by_key(|&list| std::cmp::Reverse((items[list], list)));
        let (left, found) = (tocrawl(store), Found::new(store));
        Run { automatic, lists, shard: 0, open: false, left, found }
    }

    /// Looks at some items of the current list.
    fn go_on(&mut self, store: &Store) -> Part {
        let Some(&list) = self.lists.last() else { return Part::End };
        if self.shard == store.slots.len() || self.left == 0 {
            self.close(store);
            return self.end_list(store, list);
        }
        let mut shard = store.hold(self.shard, By::Crawler);
        if !self.open {
            shard.open_cursor(list % CLASSES, list / CLASSES);
            self.open = true;
        }
        let mut looked = 0;
        let mut slice = Slice::new();
        while looked < ITEMS_PER_NAP && self.left > 0 && !slice.is_over() {
            let Some(id) = shard.next_of_cursor() else {
                (self.shard, self.open) = (self.shard + 1, false);
                break;
            };
            shard.examine(id, list % CLASSES, &mut self.found);
            (looked, self.left) = (looked + 1, self.left - 1);
        }
        Part::Looked(looked)
    }

    fn end_list(&mut self, store: &Store, list: usize) -> Part {
        self.lists.pop();
        self.shard = 0;
        self.left = tocrawl(store);
        let mut found = std::mem::replace(&mut self.found, Found::new(store));
        found.ended = store.core.clock.now();
        Part::EndOfList(list, found)
    }

    fn close(&mut self, store: &Store) {
        if std::mem::take(&mut self.open) {
            store.hold(self.shard, By::Crawler).cursor = 0;
        }
    }
}

fn items_of(shard: &Shard, list: usize) -> u64 {
    shard.lrus[list % CLASSES].lists[list / CLASSES].count
}

/// Items of a list to look at.
fn tocrawl(store: &Store) -> u64 {
    match store.tuning().crawler_tocrawl {
        0 => u64::MAX,
        some => some.into(),
    }
}

impl Found {
    fn new(store: &Store) -> Box<Found> {
        let began = store.core.clock.now();
        Box::new(Found { began, ended: 0, examined: 0, reclaimed: 0, lasting: 0, by_minute: [0; MINUTES] })
    }

    /// Notes a live item.
    fn note(&mut self, expires_at: u32, now: u32) {
        self.examined += 1;
        if expires_at == 0 {
            self.lasting += 1;
        } else if let Some(items) = self.by_minute.get_mut((expires_at.saturating_sub(now) / MINUTE) as usize) {
            *items += 1;
        }
    }
}

impl Shard {
    /// Looks at one item of a class and reclaims it if it is dead.
    fn examine(&mut self, id: u32, class: usize, found: &mut Found) {
        let death = self.death(id);
        let header = self.window.header(id);
        let counters = &mut self.lrus[class].counters;
        counters.crawler_items_checked += 1;
        let Some(miss) = death else {
            return found.note(header.expires_at, self.core.clock.now());
        };
        found.reclaimed += 1;
        counters.crawler_reclaimed += 1;
        counters.expired_unfetched += u64::from(miss == Miss::Expired && !header.chunk.is(state::FETCHED));
        self.unlink_by_id(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::rig::{TestStore, tiny};
    use crate::store::{ClassSet, Crawl, EventMask, StoreConfig};

    const ALL: ClassSet = ClassSet(!1);

    fn crawled(rig: &TestStore) -> Vec<Event> {
        rig.store.take_events().into_iter().filter(|event| matches!(event, Event::Crawled { .. })).collect()
    }

    /// Live ones below and above dead ones, so that no tail shows them.
    fn fill(rig: &TestStore) {
        assert!(rig.set("below", b"v", 0));
        (0..500).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 2)));
        assert!(rig.set("above", b"v", 0));
    }

    #[test]
    fn automatic_after_a_second() {
        let mut rig = TestStore::new(tiny());
        let config = StoreConfig { maintainer: false, ..tiny() };
        let mut never = TestStore::new(config);
        for rig in [&mut rig, &mut never] {
            fill(rig);
            rig.steps(3);
            assert_eq!(rig.store.stats().lru_crawler_starts, 0);
            rig.second();
        }
        assert_eq!(rig.sum(|class| class.crawler_items_checked), 502);
        let stats = rig.store.stats();
        assert_eq!((stats.lru_crawler_starts, stats.lru_crawler_running), (1, false));
        assert_eq!(never.sum(|class| class.crawler_items_checked), 0);
    }

    #[test]
    fn the_next_run_depends_on_what_was_found() {
        let mut rig = TestStore::new(tiny());
        rig.store.tune(|tuning| tuning.segmented = false);
        fill(&rig);
        rig.second();
        assert_eq!(crawled(&rig), []);
        rig.second();
        let largest = usize::from(rig.store.largest_class());
        let events = crawled(&rig);
        assert_eq!(events.len(), 4 * largest);
        let empty = |class, lru| Event::Crawled {
            class,
            lru,
            low_mark: 1,
            next_reclaims: 0,
            since_run: 1,
            next_run: 65,
            elapsed: 0,
            examined: 0,
            reclaimed: 0,
        };
        assert_eq!(events[1], empty(2, 0));
        assert_eq!(events[largest], empty(1, 1));
        let seen: Vec<_> =
            events.iter().filter(|event| matches!(event, Event::Crawled { examined: 1.., .. })).collect();
        // All of them within a minute, so the next run comes as early as it may.
        let expected = Event::Crawled {
            class: 1,
            lru: 2,
            low_mark: 6,
            next_reclaims: 500,
            since_run: 1,
            next_run: 5,
            elapsed: 0,
            examined: 502,
            reclaimed: 0,
        };
        assert_eq!(seen, [&expected]);
        assert_eq!(rig.store.stats().curr_items, 502);
        (0..6).for_each(|_| rig.second());
        assert_eq!(rig.sum(|class| class.crawler_reclaimed), 500);
        assert_eq!(rig.sum(|class| class.expired_unfetched), 500);
        assert_eq!(rig.store.stats().curr_items, 2);
    }

    #[test]
    fn a_run_that_finds_nothing_doubts_the_next() {
        let mut rig = TestStore::new(tiny());
        assert!(rig.set("key", b"v", 0));
        (0..3).for_each(|_| rig.second());
        let starts = |rig: &TestStore| rig.store.stats().lru_crawler_starts;
        assert_eq!(starts(&rig), 1);
        (0..10_000).for_each(|_| {
            rig.clock.advance(1);
            rig.worker.step(&rig.store, Duration::from_secs(1));
            rig.worker.step(&rig.store, Duration::from_secs(1));
        });
        // The pause is 67, 127, 187 … seconds.
        assert_eq!(starts(&rig), 18);
    }

    #[test]
    fn manual_on_some_classes() {
        let mut rig = TestStore::new(StoreConfig { shards: Some(4), memory_limit: 1 << 20, ..tiny() });
        rig.store.tune(|tuning| tuning.segmented = false);
        (0..2).for_each(|_| rig.second());
        rig.store.take_events();
        for i in 0..100 {
            assert!(rig.set(&format!("small{i}"), b"v", 1) && rig.set(&format!("large{i}"), &[1; 1000], 1));
        }
        let large = rig.store.core.classes.of(1050);
        rig.clock.advance(1);
        assert_eq!(rig.store.crawl(ClassSet(1 << large)), Crawl::Ok);
        assert!(rig.store.stats().lru_crawler_running);
        rig.steps(20);
        assert!(!rig.store.stats().lru_crawler_running);
        assert_eq!(rig.store.stats().curr_items, 100);
        assert_eq!(rig.store.crawl(ALL), Crawl::Ok);
        rig.steps(20);
        assert_eq!(rig.store.stats().curr_items, 0);
        assert_eq!(crawled(&rig), []);
    }

    #[test]
    fn a_refused_one_holds_automatic_ones_off() {
        let mut rig = TestStore::new(tiny());
        assert_eq!((rig.store.crawl(ALL), rig.store.crawl(ALL)), (Crawl::Ok, Crawl::Busy));
        (0..58).for_each(|_| rig.second());
        assert_eq!(rig.store.stats().lru_crawler_starts, 1);
        (0..3).for_each(|_| rig.second());
        assert_eq!(rig.store.stats().lru_crawler_starts, 2);
    }

    #[test]
    fn only_so_many_items_of_a_list() {
        let mut rig = TestStore::new(StoreConfig { shards: Some(4), memory_limit: 1 << 20, ..tiny() });
        rig.store.tune(|tuning| tuning.crawler_tocrawl = 150);
        fill(&rig);
        rig.second();
        assert_eq!(rig.sum(|class| class.crawler_items_checked), 150);
    }

    #[test]
    fn it_can_be_turned_off_and_on() {
        let mut rig = TestStore::new(tiny());
        (0..2500).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
        assert_eq!(rig.store.crawl(ALL), Crawl::Ok);
        rig.worker.step(&rig.store, Duration::from_secs(1));
        assert!(rig.store.stats().lru_crawler_running);
        assert!(rig.store.enable_crawler(false) && !rig.store.enable_crawler(false));
        rig.steps(1);
        assert!(!rig.store.stats().lru_crawler_running);
        assert_eq!(rig.store.shard(0).cursor, 0);
        (0..3).for_each(|_| rig.second());
        assert_eq!(rig.store.stats().lru_crawler_starts, 1);
        assert!(rig.store.enable_crawler(true));
        rig.second();
        assert_eq!(rig.store.stats().lru_crawler_starts, 2);
    }

    #[test]
    fn dead_ones_make_room_before_live_ones() {
        let mut rig = TestStore::new(tiny());
        rig.store.tune(|tuning| tuning.automove = 0);
        // Among live ones, so that hardly a tail shows them.
        (0..1500).for_each(|i| assert!(rig.set(&format!("key{i:04}"), &[1; 40], (i % 3) as i64 * 3)));
        (0..8).for_each(|_| rig.second());
        let free = rig.sum(|class| class.free_chunks) as usize;
        assert!(rig.store.stats().curr_items == 500 && free > 900, "{free}");
        (0..free).for_each(|i| assert!(rig.set(&format!("new{i:04}"), &[1; 40], 0)));
        assert_eq!(rig.sum(|class| class.evicted), 0);
    }

    #[test]
    fn flushed_ones_too() {
        let mut rig = TestStore::new(StoreConfig { memory_limit: 4 << 20, ..tiny() });
        rig.store.keep_events(EventMask::default());
        (0..5000).for_each(|i| assert!(rig.set(&format!("key{i}"), b"v", 0)));
        rig.store.flush_all(0);
        // So many are not unlinked by the command itself.
        assert_eq!(rig.store.stats().curr_items, 5000);
        rig.second();
        assert_eq!(rig.store.stats().curr_items, 0);
        let (crawled, by_tail) = (rig.sum(|class| class.crawler_reclaimed), rig.sum(|class| class.reclaimed));
        assert!(crawled >= 1000 && crawled + by_tail == 5000, "{crawled} and {by_tail}");
        // As in memcached, what the crawler meets has not expired.
        assert_eq!(rig.sum(|class| class.expired_unfetched), by_tail);
    }
}
