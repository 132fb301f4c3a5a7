//! The threads that talk to etcd, so that nothing else waits for it.
//!
//! ```text
//!   driver ── swap ──> swaps   one at a time, each with a deadline ─────────────┐
//!          ── read ──> reads   the shard record, when nothing was heard of it ──┤
//!          ── tell ──> tells   this node's record, answers, the pause ──────────┼──> News
//!                      record  a watch of the shard record ─────────────────────┤
//!                      nodes   a watch of the nodes' records ───────────────────┤
//!                      request a watch of what operators ask for ───────────────┘
//! ```
//!
//! A watch that has failed begins again with a listing, so it misses nothing.
//!
//! Not here: what is written and why (`keeper`).

use super::news::News;
use super::orders::{Expected, RecordValue, Sighting, SwapOutcome};
use crate::cluster::keys::ClusterKeys;
use crate::cluster::options::ClusterOptions;
use crate::cluster::record::{AnswerRecord, NodeRecord, ShardRecord, from_bytes, to_bytes};
use crate::cluster::{Also, Etcd, EtcdError, Snapshot, Swap, Versioned, WatchEvent};
use crate::sys::cpu::time_since_boot;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// How long a watch is believed that says nothing.
const WATCH_IDLE: Duration = Duration::from_secs(2);

/// The pause after etcd has failed.
const RETRY: Duration = Duration::from_millis(100);

/// How often the node's record is written, and the pause looked at.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for what is not urgent.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often an answer is tried to be given.
const REPLIES_MAX: u32 = 3;

/// A lease has time for so many swaps, one after the other, before it ends.
const SWAPS_PER_LEASE: u32 = 3;

/// What is to be told to etcd.
enum Telling {
    Node(Box<NodeRecord>),
    Answer(AnswerRecord, i64),
}

/// The way to the threads. Dropping it ends those that wait for it; the watches end with the process.
pub(super) struct EtcdThreads {
    swaps: Sender<(Expected, ShardRecord)>,
    reads: Sender<()>,
    tells: Sender<Telling>,
}

/// What each thread knows.
#[derive(Clone)]
struct Desk {
    cluster: ClusterOptions,
    keys: ClusterKeys,
    shard: String,
    node: String,
    news: Sender<News>,
}

impl EtcdThreads {
    /// Starts them. `lease` is the time that swaps have together.
    pub(super) fn start(
        cluster: &ClusterOptions,
        shard: &str,
        node: &str,
        lease: Duration,
        news: Sender<News>,
    ) -> Result<EtcdThreads, String> {
        let keys = ClusterKeys::new(&cluster.cluster);
        let desk = Desk { cluster: cluster.clone(), keys, shard: shard.to_owned(), node: node.to_owned(), news };
        let (swaps, to_swap) = unbounded();
        let (reads, to_read) = bounded(1);
        let (tells, to_tell) = unbounded();
        let patience = lease / SWAPS_PER_LEASE;
        desk.spawn("etcd swaps", move |desk, etcd| desk.swap_all(etcd, &to_swap, patience))?;
        desk.spawn("etcd reads", move |desk, etcd| desk.read_all(etcd, &to_read, patience))?;
        desk.spawn("etcd tells", move |desk, etcd| desk.tell_all(etcd, &to_tell))?;
        desk.spawn("etcd record", |desk, etcd| desk.watch_record(etcd))?;
        desk.spawn("etcd nodes", |desk, etcd| desk.watch_nodes(etcd))?;
        desk.spawn("etcd request", |desk, etcd| desk.watch_requests(etcd))?;
        Ok(EtcdThreads { swaps, reads, tells })
    }

    /// Replaces what stands there, if it is this.
    pub(super) fn swap(&self, expected: Expected, record: ShardRecord) {
        let _ = self.swaps.send((expected, record));
    }

    /// Reads the record, unless that is under way.
    pub(super) fn read(&self) {
        let _ = self.reads.try_send(());
    }

    /// Says how this node is.
    pub(super) fn tell(&self, record: NodeRecord) {
        let _ = self.tells.send(Telling::Node(Box::new(record)));
    }

    /// Answers the request that stands in etcd with this revision, and takes it away.
    pub(super) fn answer(&self, answer: AnswerRecord, revision: i64) {
        let _ = self.tells.send(Telling::Answer(answer, revision));
    }
}

impl Desk {
    fn spawn(&self, name: &str, body: impl FnOnce(Desk, Etcd) + Send + 'static) -> Result<(), String> {
        let etcd = Etcd::new(&self.cluster.etcd).map_err(|error| error.to_string())?;
        let desk = self.clone();
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || body(desk, etcd));
        spawned.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
    }

    /// False: nobody listens any more.
    fn send(&self, news: News) -> bool {
        self.news.send(news).is_ok()
    }

    // ---- on demand ----

    fn swap_all(self, mut etcd: Etcd, swaps: &Receiver<(Expected, ShardRecord)>, patience: Duration) {
        let key = self.keys.shard(&self.shard);
        let mut is_down = false;
        for (expected, record) in swaps {
            let (asked, there) = (time_since_boot(), expected.value.bytes());
            let also = there.as_ref().map(|value| Also::If(&key, value));
            let outcome = match etcd.swap_with(&key, expected.revision, &to_bytes(&record), also.as_slice(), patience) {
                Ok(Swap::Won(revision)) => SwapOutcome::Won(revision),
                Ok(Swap::Lost(snapshot)) => SwapOutcome::Lost(Box::new(sighting_of(snapshot, asked))),
                Err(error) => {
                    note_failure(&mut is_down, &error);
                    if error.may_be_applied() { SwapOutcome::Unknown } else { SwapOutcome::NotDone }
                }
            };
            if is_down && matches!(outcome, SwapOutcome::Won(_) | SwapOutcome::Lost(_)) {
                log::info!("etcd answers again");
                is_down = false;
            }
            if !self.send(News::Swapped(outcome)) {
                return;
            }
        }
    }

    fn read_all(self, mut etcd: Etcd, reads: &Receiver<()>, patience: Duration) {
        let key = self.keys.shard(&self.shard);
        for () in reads {
            let asked = time_since_boot();
            if let Ok(snapshot) = etcd.get(&key, patience)
                && !self.send(News::Record(sighting_of(snapshot, asked)))
            {
                return;
            }
        }
    }

    fn tell_all(self, mut etcd: Etcd, tells: &Receiver<Telling>) {
        let (key, pause) = (self.keys.node(&self.shard, &self.node), self.keys.pause(&self.shard));
        let mut looked = Instant::now();
        let mut latest = None;
        loop {
            match tells.recv_timeout(TELL_EVERY) {
                Ok(Telling::Node(record)) => latest = Some(record),
                Ok(Telling::Answer(answer, revision)) => self.reply(&mut etcd, &answer, revision),
                Err(error) if error.is_timeout() => {}
                Err(_) => return,
            }
            if tells.is_empty()
                && let Some(record) = latest.take()
            {
                let _ = etcd.put(&key, &to_bytes(&*record), PATIENCE);
            }
            if looked.elapsed() >= TELL_EVERY {
                looked = Instant::now();
                let _ = self.send(match etcd.get(&pause, PATIENCE) {
                    Ok(snapshot) => News::Paused(snapshot.value.is_some()),
                    Err(error) => News::NoEtcd(error.to_string()),
                });
            }
        }
    }

    fn reply(&self, etcd: &mut Etcd, answer: &AnswerRecord, revision: i64) {
        let (request, to) = (self.keys.request(&self.shard), self.keys.answer(&self.shard));
        let answer = to_bytes(answer);
        for _ in 0..REPLIES_MAX {
            // All of it or nothing: a newer request neither goes with this one, nor is it told the answer to this one.
            match etcd.take(&request, revision, &[Also::Put(&to, &answer)], PATIENCE) {
                Ok(Swap::Won(_)) => return,
                Ok(Swap::Lost(_)) => return log::debug!("a request was answered, taken back or replaced"),
                Err(error) => log::warn!("cannot answer a request: {error}"),
            }
        }
    }

    // ---- watches ----

    fn watch_record(self, mut etcd: Etcd) {
        let key = self.keys.shard(&self.shard);
        loop {
            let asked = time_since_boot();
            let Ok(snapshot) = etcd.get(&key, PATIENCE) else {
                std::thread::sleep(RETRY);
                continue;
            };
            let from = snapshot.revision + 1;
            let mut last = snapshot.value.as_ref().map_or(snapshot.revision, |value| value.mod_revision);
            self.send(News::Record(sighting_of(snapshot, asked)));
            let watched = etcd.watch(&key, from, WATCH_IDLE, |event| match event {
                WatchEvent::Changed { key: changed, revision, value } if changed == key => {
                    let value = RecordValue::new(value.map(|value| value.bytes));
                    let follows = Some(std::mem::replace(&mut last, revision));
                    self.send(News::Record(Sighting { revision, store: revision, asked: None, follows, value }))
                }
                _ => true,
            });
            pause_after(watched.is_err());
        }
    }

    fn watch_nodes(self, mut etcd: Etcd) {
        let prefix = self.keys.nodes_of(&self.shard);
        let tell = |key: &str, value: Option<&Versioned>| {
            let Some(name) = key.strip_prefix(&prefix) else { return };
            let record = value.and_then(|value| parsed::<NodeRecord>(key, value));
            self.send(News::Node(name.to_owned(), record));
        };
        loop {
            let Ok(listing) = etcd.list(&prefix, PATIENCE) else {
                std::thread::sleep(RETRY);
                continue;
            };
            listing.items.iter().for_each(|(key, value)| tell(key, Some(value)));
            let watched = etcd.watch(&prefix, listing.revision + 1, WATCH_IDLE, |event| {
                if let WatchEvent::Changed { key, value, .. } = event {
                    tell(&key, value.as_ref());
                }
                true
            });
            pause_after(watched.is_err());
        }
    }

    fn watch_requests(self, mut etcd: Etcd) {
        let key = self.keys.request(&self.shard);
        let tell = |value: &Versioned| {
            if let Some(request) = parsed(&key, value) {
                self.send(News::Request(request, value.mod_revision));
            }
        };
        loop {
            let Ok(snapshot) = etcd.get(&key, PATIENCE) else {
                std::thread::sleep(RETRY);
                continue;
            };
            snapshot.value.iter().for_each(tell);
            let watched = etcd.watch(&key, snapshot.revision + 1, WATCH_IDLE, |event| {
                if let WatchEvent::Changed { key: changed, value: Some(value), .. } = event
                    && changed == key
                {
                    tell(&value);
                }
                true
            });
            pause_after(watched.is_err());
        }
    }
}

fn pause_after(is_failed: bool) {
    if is_failed {
        std::thread::sleep(RETRY);
    }
}

fn note_failure(is_down: &mut bool, error: &EtcdError) {
    match std::mem::replace(is_down, true) {
        true => log::debug!("etcd: {error}"),
        false => log::warn!("etcd: {error}"),
    }
}

/// What was asked for at that time, and found.
fn sighting_of(snapshot: Snapshot, asked: Duration) -> Sighting {
    let (store, value) = (snapshot.revision, snapshot.value);
    let revision = value.as_ref().map_or(store, |value| value.mod_revision);
    let value = RecordValue::new(value.map(|value| value.bytes));
    Sighting { revision, store, asked: Some(asked), follows: None, value }
}

fn parsed<T: DeserializeOwned>(key: &str, value: &Versioned) -> Option<T> {
    from_bytes(&value.bytes).map_err(|why| log::error!("{key} in etcd is damaged: {why}")).ok()
}
