//! A copy kept by the journal, against what it must be: random commands on a store with tiny pages and a tiny ring,
//! whose reader is sometimes too slow, loses its connection, or comes back.
//!
//! ```text
//! random commands ──> Store ──> Subscription ── advance, one piece at a time ──> Copy { items, what a walk did not renew }
//!        └──> last: what each key was when it was last changed <── compared ──┘
//! ```
//!
//! What is live in the store must be in the copy, as it is. What the store has evicted, or has let expire, may be in
//! the copy, but only as it was last: an older value, or a deleted one, is the failure that this looks for. Replay
//! one with `TWINCACHE_SEED=<the printed seed> cargo test replica_model`.

use super::rig::{TestStore, put, tiny};
use super::*;
use crate::journal::{Attach, Notice, ReaderState, Record, RecordKind, records};
use crate::store::background::BackgroundWorker;
use crate::testing::{Rng, is_replay, seeds};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const SCHEDULES: u64 = if cfg!(miri) { 1 } else { 1000 };
const STEPS_MAX: u64 = 500;

/// What a copy of an item must have.
#[derive(Clone, PartialEq)]
pub(crate) struct Known {
    value: Vec<u8>,
    client_flags: u32,
    expires_at: u32,
    cas: u64,
    stale: bool,
    win: bool,
    binary: bool,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Known { value, client_flags, expires_at, cas, stale, win, binary } = self;
        let (len, first) = (value.len(), value.first());
        let bits = (stale, win, binary);
        write!(f, "{len} bytes from {first:?}, F{client_flags} T{expires_at} E{cas} {bits:?}")
    }
}

/// The other end of a feed.
#[derive(Default)]
pub(crate) struct Copy {
    pub items: BTreeMap<Vec<u8>, Known>,
    /// Keys that a walk has not renewed.
    old: BTreeSet<Vec<u8>>,
}

impl Copy {
    pub(crate) fn begin_full_sync(&mut self) {
        self.old = self.items.keys().cloned().collect();
    }

    pub(crate) fn end_full_sync(&mut self) {
        for key in std::mem::take(&mut self.old) {
            self.items.remove(&key);
        }
    }

    fn store(&mut self, key: &[u8], known: Known) {
        self.old.remove(key);
        self.items.insert(key.to_vec(), known);
    }

    pub(crate) fn apply(&mut self, record: &Record<'_>, store: &Arc<Store>) {
        let item = self.items.get_mut(record.key);
        match (record.kind, item) {
            (RecordKind::Set, _) => {
                let Record { client_flags, expires_at, cas, stale, win, .. } = *record;
                let binary = record.key_is_binary;
                let value = record.value.to_vec();
                self.store(record.key, Known { value, client_flags, expires_at, cas, stale, win, binary });
            }
            (RecordKind::SetBig, _) => match look_up(store, record.key) {
                Some(known) => self.store(record.key, known),
                None => _ = self.items.remove(record.key),
            },
            (RecordKind::Touch, Some(item)) => item.expires_at = record.expires_at,
            (RecordKind::State, Some(item)) => {
                (item.expires_at, item.cas) = (record.expires_at, record.cas);
                (item.stale, item.win) = (record.stale, record.win);
            }
            (RecordKind::Delete, _) => _ = self.items.remove(record.key),
            // One for later comes once more in its time.
            (RecordKind::Flush, _) if record.expires_at == 0 => self.items.clear(),
            _ => {}
        }
    }
}

pub(crate) fn known(item: Item<'_>) -> Known {
    let mut value = Vec::new();
    item.copy_value(&mut value);
    Known {
        value,
        client_flags: item.client_flags(),
        expires_at: item.expires_at(),
        cas: item.cas(),
        stale: item.is_stale(),
        win: item.is_win_sent(),
        binary: item.key_is_binary(),
    }
}

fn look_up(store: &Arc<Store>, key: &[u8]) -> Option<Known> {
    let hash = store.hash(key);
    let mut locked = store.lock(hash);
    let id = locked.find(key, hash).ok()?;
    Some(known(locked.item(id)))
}

struct CopyRun {
    store: Arc<Store>,
    clock: Arc<Clock>,
    worker: BackgroundWorker,
    rng: Rng,
    keys: u64,
    last: BTreeMap<Vec<u8>, Known>,
    pending_flush: u32,
    now: Instant,
    feed: Option<Subscription>,
    copy: Copy,
    bytes: Vec<u8>,
    seen: BTreeMap<&'static str, u64>,
}

impl CopyRun {
    fn new(seed: u64) -> CopyRun {
        let mut rng = Rng(seed);
        let config = StoreConfig {
            memory_limit: (64 << 10) << rng.below(3),
            item_size_max: 12_000,
            shards: Some(1 << rng.below(2)),
            hash_power: Some(4 + rng.below(8) as u8),
            journal_bytes: 5000 << rng.below(3),
            ..tiny()
        };
        let TestStore { store, clock, worker, .. } = TestStore::new(config);
        let keys = [20, 100, 600][rng.below(3)];
        let (last, copy, seen) = (BTreeMap::new(), Copy::default(), BTreeMap::new());
        let now = Instant::now();
        CopyRun {
            store,
            clock,
            worker,
            rng,
            keys,
            last,
            pending_flush: 0,
            now,
            feed: None,
            copy,
            bytes: Vec::new(),
            seen,
        }
    }

    fn run(&mut self) {
        // The reader is slower than the writer in phases.
        let mut lazy = 0;
        for step in 0..50 + self.rng.below(STEPS_MAX) {
            if step % 100 == 0 {
                lazy = [0, 2, 30, 100][self.rng.below(4)];
            }
            self.command();
            if self.rng.below(100) >= lazy {
                (0..self.rng.below(4)).for_each(|_| self.read());
            }
        }
        self.catch_up();
        self.compare();
        self.store.check().unwrap();
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }

    // ---- the store's side

    fn command(&mut self) {
        match self.rng.below(100) {
            0..40 => self.set(),
            40..50 => self.change("deleted", |locked, id, hash, _| {
                locked.unlink(id, hash);
                None
            }),
            50..56 => self.append(),
            56..62 => self.touch(),
            62..66 => self.overwrite(),
            66..70 => self.invalidate(),
            70..74 => self.change("won", |locked, id, _, _| {
                locked.set_win_sent(id, true);
                Some(id)
            }),
            74..78 => self.empty(),
            78..88 => self.get(),
            88..94 => _ = self.worker.step(&self.store, Duration::from_millis(self.rng.below(500))),
            94..96 => self.pass(),
            96 => _ = self.store.crawl(ClassSet(u128::MAX)),
            97 => self.store.journal().tick(self.now),
            _ if self.rng.one_in(8) => self.flush(),
            _ => {}
        }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key{}", self.rng.below(self.keys)).into_bytes()
    }

    fn spec_of<'a>(&mut self, key: &'a [u8]) -> ItemSpec<'a> {
        let client_flags = if self.rng.one_in(2) { self.rng.next() as u32 } else { 0 };
        let exptime = if self.rng.one_in(3) { self.rng.below(9) as i64 - 1 } else { 0 };
        ItemSpec { key, key_is_binary: self.rng.one_in(9), client_flags, expires_at: self.clock.expires_at(exptime) }
    }

    /// Notes what a key is now, after a change of it.
    fn changed(&mut self, key: &[u8], now: Option<Known>) {
        let early = self.pending_flush != 0 && self.clock.now() + 1 == self.pending_flush;
        match now {
            Some(known) if !early => _ = self.last.insert(key.to_vec(), known),
            // A flush_all that is early takes it at once.
            _ => _ = self.last.remove(key),
        }
    }

    fn set(&mut self) {
        let key = self.key();
        let len = if self.rng.one_in(12) { self.rng.below(9000) } else { self.rng.below(200) };
        let (value, spec) = (self.rng.bytes(len as usize), self.spec_of(&key));
        let cas = self.rng.one_in(5).then(|| self.rng.next());
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let rewritten =
            self.rng.one_in(2).then(|| locked.rewrite(&spec, hash, &value, cas)).flatten().map(|(id, ..)| id);
        let new = match rewritten.map_or_else(|| locked.create(&spec, &[Part::Bytes(&value)]), Ok) {
            Ok(new) if rewritten.is_some() => new,
            Ok(new) => {
                put(&mut locked, &key, hash, new, cas);
                new
            }
            Err(_) => return,
        };
        let now = known(locked.item(new));
        drop(locked);
        self.changed(&key, Some(now));
    }

    /// Does something to an item that is there.
    fn change(
        &mut self,
        what: &'static str,
        act: impl FnOnce(&mut Locked<'_>, ItemId, Hash, &mut Rng) -> Option<ItemId>,
    ) {
        let key = self.key();
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        let Ok(id) = locked.find(&key, hash) else { return };
        let id = act(&mut locked, id, hash, &mut self.rng);
        let now = id.map(|id| known(locked.item(id)));
        drop(locked);
        self.note(what);
        self.changed(&key, now);
    }

    fn append(&mut self) {
        self.change("appended", |locked, id, hash, rng| {
            let (item, more) = (locked.item(id), rng.bytes(7));
            let key = item.key().to_vec();
            let (client_flags, expires_at) = (item.client_flags(), item.expires_at());
            let spec = ItemSpec { key: &key, key_is_binary: item.key_is_binary(), client_flags, expires_at };
            let Ok(new) = locked.create(&spec, &[Part::Value(id), Part::Bytes(&more)]) else { return Some(id) };
            locked.replace(id, new, hash, None);
            Some(new)
        });
    }

    fn touch(&mut self) {
        let exptime = self.rng.below(12) as i64;
        let expires_at = self.clock.expires_at(exptime);
        self.change("touched", |locked, id, _, _| {
            locked.set_expires_at(id, expires_at);
            locked.bump(id);
            Some(id)
        });
    }

    fn overwrite(&mut self) {
        self.change("overwritten", |locked, id, _, rng| {
            let value = rng.bytes(locked.item(id).value_len());
            if locked.overwrite(id, &value) {
                let cas = locked.next_cas();
                locked.set_cas(id, cas);
                locked.set_accessed(id);
            }
            Some(id)
        });
    }

    /// md `I`.
    fn invalidate(&mut self) {
        let exptime = self.rng.below(20) as i64;
        let expires_at = self.rng.one_in(2).then(|| self.clock.expires_at(exptime));
        self.change("invalidated", |locked, id, _, _| {
            expires_at.inspect(|&expires_at| locked.set_expires_at(id, expires_at));
            let cas = locked.next_cas();
            locked.set_cas(id, cas);
            locked.set_stale(id, true);
            locked.set_win_sent(id, false);
            Some(id)
        });
    }

    /// md `x`, with and without `I`.
    fn empty(&mut self) {
        self.change("emptied", |locked, id, hash, rng| {
            let item = locked.item(id);
            let (key, cas) = (item.key().to_vec(), item.cas());
            let spec = ItemSpec { key: &key, key_is_binary: item.key_is_binary(), client_flags: 0, expires_at: 0 };
            let Ok(new) = locked.create(&spec, &[]) else { return Some(id) };
            // Making room may have evicted it.
            put(locked, &key, hash, new, Some(cas));
            if rng.one_in(2) {
                locked.set_stale(new, true);
            }
            Some(new)
        });
    }

    fn get(&mut self) {
        let key = self.key();
        let (store, hash) = (self.store.clone(), self.store.hash(&key));
        let mut locked = store.lock(hash);
        if let Ok(id) = locked.find(&key, hash) {
            locked.bump(id);
        }
    }

    fn pass(&mut self) {
        self.clock.advance(1);
        self.now += Duration::from_secs(1);
        if self.pending_flush != 0 && self.clock.now() + 1 >= self.pending_flush {
            self.last.clear();
            if self.clock.now() >= self.pending_flush {
                self.pending_flush = 0;
            }
        }
    }

    fn flush(&mut self) {
        let delay = self.rng.below(7) as i64 - 3;
        let times = if self.rng.one_in(5) { 20 } else { 1 };
        let at = if delay > 0 { self.clock.expires_at(delay) } else { 0 };
        (0..times).for_each(|_| _ = self.store.flush_all(at, None));
        if at == 0 {
            self.last.clear();
            self.pending_flush = 0;
            return self.note("flushed");
        }
        self.pending_flush = at;
        if at == self.clock.now() + 1 {
            self.last.clear();
        }
        self.note("flushed later");
    }

    // ---- the copy's side

    fn attach(&mut self) {
        let (name, identity) = ("copy", "peer");
        let feed = self.store.attach(&Attach { name, identity, run_id: None, lsn: None }, self.now).unwrap();
        if feed.began_with_full_sync() {
            self.copy.begin_full_sync();
        } else {
            self.copy.old.clear();
        }
        self.note(if feed.began_with_full_sync() { "attached to walk" } else { "attached to go on" });
        self.feed = Some(feed);
        self.bytes.clear();
    }

    /// One piece of what the reader does.
    fn read(&mut self) {
        let Some(mut feed) = self.feed.take() else { return self.attach() };
        if self.rng.one_in(400) {
            // What was read and not applied is lost with the connection.
            return self.note("cut");
        }
        let max = 1 + self.rng.below(3000);
        let step = feed.advance(max, &mut self.bytes);
        if step.is_some() || self.bytes.len() > 2000 || self.rng.one_in(5) {
            self.apply();
        }
        if let Some(step) = step {
            self.tell(step);
        }
        if self.bytes.is_empty() && self.rng.one_in(3) {
            feed.acknowledge(feed.lsn());
        }
        self.feed = Some(feed);
        self.believe();
    }

    fn apply(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        records(&bytes).for_each(|record| self.copy.apply(&record, &self.store));
    }

    fn tell(&mut self, step: Update) {
        match step {
            Update::Notice(Notice::FullSync) => {
                self.copy.begin_full_sync();
                self.note("walked again");
            }
            Update::Notice(Notice::Synced) => self.copy.end_full_sync(),
            Update::Notice(Notice::Lagged(_)) => self.note("lagged"),
            Update::Notice(Notice::CaughtUp) => self.note("caught up"),
            Update::Records | Update::Idle => {}
            Update::Detached => panic!("nobody has taken over"),
        }
    }

    /// Where the journal says that the copy has all, it has.
    fn believe(&mut self) {
        // A flush_all for later is journalled when its time has come and anything happens, or time passes.
        self.store.journal().tick(self.now);
        let status = self.store.journal().status(self.now);
        let consumer = &status.consumers[0];
        if consumer.complete == status.lsn && self.bytes.is_empty() && self.rng.one_in(8) {
            self.compare();
        }
    }

    fn catch_up(&mut self) {
        self.store.journal().tick(self.now);
        if self.feed.is_none() {
            self.attach();
        }
        self.apply();
        let mut feed = self.feed.take().unwrap();
        loop {
            let step = feed.next(500, &mut self.bytes);
            self.apply();
            self.tell(step);
            if step == Update::Idle {
                break;
            }
        }
        feed.acknowledge(feed.lsn());
        self.feed = Some(feed);
        let status = self.store.journal().status(self.now);
        let consumer = &status.consumers[0];
        let expected = (ReaderState::Streaming, status.lsn, status.lsn, 0);
        assert_eq!((consumer.state, consumer.read, consumer.complete, consumer.lag_bytes), expected);
    }

    fn compare(&self) {
        for (key, known) in &self.copy.items {
            let last = self.last.get(key);
            let name = String::from_utf8_lossy(key);
            assert!(last == Some(known), "{name}: the copy has {known:?}, it was last {last:?}");
        }
        for (key, known) in &self.last {
            if let Some(live) = look_up(&self.store, key) {
                let name = String::from_utf8_lossy(key);
                assert!(live == *known, "{name}: the test knows {known:?} of {live:?}");
                assert_eq!(self.copy.items.get(key), Some(&live), "{name} in the copy");
            }
        }
    }
}

#[test]
fn replica_model() {
    let mut seen = BTreeMap::new();
    for seed in seeds(SCHEDULES) {
        let mut run = CopyRun::new(seed);
        run.run();
        run.seen.iter().for_each(|(what, times)| *seen.entry(*what).or_insert(0) += times);
        let evicted = run.store.class_stats().iter().map(|class| class.counters.evicted).sum::<u64>();
        *seen.entry("evicted").or_insert(0) += evicted;
    }
    println!("{seen:?}");
    let all = ["attached to walk", "attached to go on", "walked again", "lagged", "caught up", "cut", "evicted"];
    assert!(is_replay() || all.iter().all(|what| seen.contains_key(what)), "never happened: {seen:?}");
}
