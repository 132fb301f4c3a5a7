//! The crawler: walks whole LRUs and reclaims what is dead.
//!
//! ```text
//! automatic   once a second: which lists are due? ─> run over them ─> a second later: how much would another
//!             run find, and when? ─> next run in 5 s to 1 h; in 5 s where it has met many dead ones
//! manual      lru_crawler crawl ─> run over the lists of these classes
//! ```
//!
//! A run goes through its lists one after the other, the shortest first, and through the shards in each. It looks
//! at items in slices and holds its place between them with a cursor, so items may come, go and move meanwhile.
//!
//! Invariants: at most one run, and one cursor of it.
//!
//! Not here: dumps, which walk the table (`dump`).

use crate::store::lock_time::{Holder, Slice, rest};
use crate::store::memory::classes::CLASSES;
use crate::store::requests::NAP_MAX;
use crate::store::shard::Shard;
use crate::store::{Event, ItemId, Miss, Store};
use std::time::Duration;

/// Items looked at between two naps, as memcached does.
const ITEMS_PER_NAP: usize = 1000;

/// A list is not crawled more often than this.
const PAUSE_MIN_SECONDS: u32 = 5;

/// Where more than one in so many was dead, the next run comes as early as it may: there items die all the time. With
/// values that live 5 to 60 s, in a cache of a quarter of their size, a crawl each 5 s and not each 30 is worth 0.4 points
/// of the hit ratio.
const MANY_DEAD: u64 = 30;

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
pub(super) struct Crawler {
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
    pub(super) fn new(store: &Store) -> Crawler {
        let now = store.core.clock.now();
        Crawler { plans: vec![Plan { next: now, wait: 0, found: None }; LISTS], run: None, looked: now }
    }

    /// Crawls on, or begins to if it is time. When to be called again.
    pub(super) fn step(&mut self, store: &Store) -> Duration {
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
                CrawlProgress::Looked(0) => looked += 1,
                CrawlProgress::Looked(items) => {
                    looked += items;
                    rest();
                }
                CrawlProgress::EndOfList(list, found) if run.automatic => self.plans[list].found = Some(found),
                CrawlProgress::EndOfList(..) => {}
                CrawlProgress::End => {
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
        if store.core.requests.is_crawling() {
            store.core.requests.end_crawl();
        }
    }

    fn next_run(&mut self, store: &Store) -> Option<Run> {
        let lists = match store.core.requests.take_crawl() {
            Some(classes) => (false, (0..LISTS).filter(|list| classes.0 >> (list % CLASSES) & 1 != 0).collect()),
            None => (true, self.due(store)?),
        };
        store.core.requests.counts().crawler_starts += 1;
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
        if due.is_empty() || !store.core.requests.begin_automatic(now) {
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
        if found.reclaimed * MANY_DEAD > found.examined + found.reclaimed {
            self.wait = 0;
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
enum CrawlProgress {
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
        for shard in store.lock_each_timed(Holder::Crawler) {
            lists.iter().for_each(|&list| items[list] += items_of(&shard, list));
        }
        lists.sort_by_key(|&list| std::cmp::Reverse((items[list], list)));
        let (left, found) = (tocrawl(store), Found::new(store));
        Run { automatic, lists, shard: 0, open: false, left, found }
    }

    /// Looks at some items of the current list.
    fn go_on(&mut self, store: &Store) -> CrawlProgress {
        let Some(&list) = self.lists.last() else { return CrawlProgress::End };
        if self.shard == store.shards.len() || self.left == 0 {
            self.close(store);
            return self.end_list(store, list);
        }
        let mut shard = store.lock_timed(self.shard, Holder::Crawler);
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
        CrawlProgress::Looked(looked)
    }

    fn end_list(&mut self, store: &Store, list: usize) -> CrawlProgress {
        self.lists.pop();
        self.shard = 0;
        self.left = tocrawl(store);
        let mut found = std::mem::replace(&mut self.found, Found::new(store));
        found.ended = store.core.clock.now();
        CrawlProgress::EndOfList(list, found)
    }

    fn close(&mut self, store: &Store) {
        if std::mem::take(&mut self.open) {
            store.lock_timed(self.shard, Holder::Crawler).cursor = ItemId::NONE;
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
    fn examine(&mut self, id: ItemId, class: usize, found: &mut Found) {
        let death = self.death(id);
        let header = self.window.header(id);
        let counters = &mut self.lrus[class].counters;
        counters.crawler_items_checked += 1;
        let Some(miss) = death else {
            return found.note(header.expires_at, self.core.clock.now());
        };
        found.reclaimed += 1;
        counters.crawler_reclaimed += 1;
        counters.expired_unfetched += u64::from(miss == Miss::Expired && !header.chunk.is_fetched());
        self.let_go(id, self.hash_of(id));
    }
}

#[cfg(test)]
#[path = "tests/crawler.rs"]
mod tests;
