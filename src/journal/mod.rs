//! The journal: every change of the store, in order, for those who keep a copy of it.
//!
//! ```text
//! command ── Locked: link, replace, unlink, set_… ──> remembered ── drop ──> append, under the shard's lock
//!                                                                               │
//!    Journal   enabled?  one relaxed load; nothing else while nobody reads      v
//!      Mutex<Inner> (state.rs) { ring of records (ring.rs) , consumers (consumer.rs) , flush_all }
//!                                                     │
//! control thread ── Feed (walk.rs) <── read: records not read yet, slices of walks, in the one order that converges
//! ```
//!
//! What is journalled is effects: an item as it is when its lock is given back, one record for all that a command did
//! to it. Evictions and expiries are not changes, each side has its own memory; see `consumer.rs` for when they
//! matter.
//!
//! Locks: a shard's, then the journal's. Nothing is called from within the journal's lock, and it is held for an append
//! (a copy of at most 16 KiB) or for a piece of reading (`readers::SCAN`).
//!
//! Invariants:
//! - Records of one key are in the order of its changes: they are appended under its shard's lock.
//! - flush_all advances its cut under the journal's lock, and its record is appended there; a change is appended only
//!   if the cut does not take its item. So the order of records is the order of effects for a flush_all, too. One for
//!   later is appended when it is asked for, in case this server dies before, and once more when it takes effect.
//! - Nobody waits for a consumer. What it has not read when the room is needed is lost to it, and made up for by walks.
//! - It is switched on before the first shard is walked, and the walk locks every shard: a command that did not see it
//!   on is over when its shard is walked.
//!
//! Not here: bytes of a protocol, sockets (`net`, `command`), replies that wait (`net/worker`).

pub mod acks;
pub mod flush;
mod reader;
mod readers;
pub mod record;
mod ring;
#[cfg(test)]
mod tests;

pub use reader::{Counts, State};
pub use record::{Kind, Record, Records, records};

pub use reader::{Target, Turn};
pub use readers::{CONSUMERS_MAX, is_named};
pub use record::Entry;

use crate::clock::Clock;
use acks::Safety;
use flush::Flush;
use reader::Consumer;
use readers::{HIT_SHARE, Inner, is_run_id};
use record::NOTE;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Keys of lost deletes that are looked up between two reads.
const KEYS_AT_ONCE: usize = 64;

/// The journal stays on for so long after the last consumer has gone, so that it can go on where it was.
const GRACE: Duration = Duration::from_secs(60);

/// Ranges of all shards together: one of ten million items is 600 items, walked in one slice or two; a set of them
/// takes 2 KiB.
const RANGES: usize = 1 << 14;

/// See the module's head.
#[derive(Debug)]
pub struct Journal {
    on: AtomicBool,
    lsn: AtomicU64,
    /// The control thread sleeps, or is about to.
    idle: AtomicBool,
    waker: Call,
    run_id: u64,
    clock: Arc<Clock>,
    capacity: usize,
    shard_bits: u32,
    range_bits: u32,
    inner: Apart<Mutex<Inner>>,
}

/// On cache lines of its own: every command reads what lies beside it.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Default)]
struct Call(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

/// Who wants to read.
#[derive(Clone, Copy, Debug)]
pub struct Attach<'a> {
    /// Its name; one that is attached already under it is replaced.
    pub name: &'a str,
    /// Of the peer: another one has other data.
    pub identity: &'a str,
    /// The journal and the last lsn that the peer has completely, if that is known.
    pub run_id: Option<u64>,
    pub lsn: Option<u64>,
}

/// Why nobody was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The peer is this server.
    Itself,
    /// The peer is where this server gets its own changes from.
    Upstream,
    /// There are as many as there can be.
    TooMany,
    /// It is fed already, under another name.
    Twice,
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    pub id: u64,
    pub walk: bool,
    pub lsn: u64,
}

/// What [`Journal::read`] has found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Read {
    /// The consumer is not attached any more.
    Gone,
    /// It is to be told this first; nothing was read.
    Turn(Turn, u64),
    /// It is to be told something first, but after what is in `out`; nothing was read.
    TurnWaits,
    /// It has read up to this lsn; whether there is more.
    Upto(u64, bool),
}

/// The journal for `stats replication`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub run_id: u64,
    pub is_on: bool,
    /// The last record, and the oldest that is still here.
    pub lsn: u64,
    pub first: u64,
    pub bytes: u64,
    pub capacity: u64,
    pub required: u32,
    pub walks_started: u64,
    pub walks_finished: u64,
    pub consumers: Vec<ConsumerStatus>,
}

/// One of its consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerStatus {
    pub name: String,
    pub identity: String,
    pub state: State,
    /// The last record that was read, that was acknowledged, and up to which it is known to have all.
    pub read: u64,
    pub acked: u64,
    pub complete: u64,
    /// Records and bytes that it has not acknowledged or read, and how long it lacks the oldest of them.
    pub lag: u64,
    pub lag_bytes: u64,
    pub lag_ms: u64,
    /// Ranges to be walked.
    pub dirty: u64,
    pub counts: Counts,
}

impl Journal {
    /// A journal that is off, for a store of `shards` shards with `buckets` buckets each, both powers of two.
    pub fn new(clock: Arc<Clock>, capacity: usize, shards: usize, buckets: usize) -> Journal {
        let ranges = (RANGES / shards).min(1 << buckets.ilog2()).max(1);
        Journal {
            on: AtomicBool::new(false),
            lsn: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            waker: Call::default(),
            run_id: RandomState::new().hash_one(0).max(1),
            clock,
            capacity,
            shard_bits: shards.ilog2(),
            range_bits: ranges.ilog2(),
            inner: Apart(Mutex::new(Inner::new())),
        }
    }

    /// Whether changes are to be appended.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Names this journal: no other, also not of this server started again, has the same.
    pub fn run_id(&self) -> u64 {
        self.run_id
    }

    /// The last record's number.
    pub fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Relaxed)
    }

    /// How many consumers must confirm a change; the journal is on while that is not 0.
    pub fn set_required(&self, safety: &Safety, required: u32, now: Instant) {
        let mut inner = self.lock();
        inner.required = required;
        if required > 0 {
            self.switch_on(&mut inner);
        }
        inner.note_idle(now);
        let acked = inner.confirmed();
        drop(inner);
        safety.set_required(required, acked);
    }

    /// Attaches a consumer, and switches the journal on. The consumer's peer must not be one of the `upstreams`, where
    /// changes come from.
    pub(crate) fn attach(&self, attach: &Attach<'_>, upstreams: &[u64]) -> Result<Begin, AttachError> {
        let mut inner = self.lock();
        inner.check(self.run_id, attach.name, attach.identity, upstreams)?;
        if let Some(at) = inner.consumers.iter().position(|consumer| consumer.name == attach.name) {
            inner.remove(at);
        }
        self.switch_on(&mut inner);
        inner.idle_since = None;
        inner.attached += 1;
        let mut consumer = Consumer::new(inner.attached, attach.name, attach.identity, self.ranges());
        let from = inner.goes_on_from(attach, self.run_id);
        inner.remembered.retain(|other| other.name != attach.name);
        let place = from.and_then(|lsn| Some((lsn, inner.ring.after(lsn)?)));
        match place {
            Some((lsn, position)) => consumer.go_on(lsn, position),
            None => {
                consumer.begin_walk(inner.ring.lsn(), inner.ring.head());
                inner.append_pending_flush(&self.clock);
                inner.walks_started += 1;
            }
        }
        let begin = Begin { id: consumer.id, walk: place.is_none(), lsn: consumer.lsn };
        inner.consumers.push(consumer);
        inner.find_slowest();
        self.lsn.store(inner.ring.lsn(), Ordering::Relaxed);
        Ok(begin)
    }

    /// Whether a consumer of that name and identity was attached before, if it could be attached now.
    pub(crate) fn knows(&self, name: &str, identity: &str, upstreams: &[u64]) -> Result<bool, AttachError> {
        let inner = self.lock();
        inner.check(self.run_id, name, identity, upstreams)?;
        // Processes in containers may have the same number and second of start: of these the name counts, too.
        let is_it = |known: &str, as_name: &str| known == identity && (is_run_id(identity) || as_name == name);
        let was_here = inner.consumers.iter().any(|other| is_it(&other.identity, &other.name))
            || inner.remembered.iter().any(|other| is_it(&other.identity, &other.name));
        Ok(was_here)
    }

    /// Whether the server with this run id is a consumer's peer.
    pub(crate) fn feeds(&self, run_id: u64) -> bool {
        self.lock().consumers.iter().any(|consumer| is_named(run_id, &consumer.identity))
    }

    /// Lets a consumer go, and remembers how far it has got.
    pub(crate) fn detach(&self, id: u64, now: Instant) {
        let mut inner = self.lock();
        if let Some(at) = inner.consumers.iter().position(|consumer| consumer.id == id) {
            inner.remove(at);
            inner.note_idle(now);
        }
    }

    /// Notes what a consumer's peer has confirmed.
    pub(crate) fn acknowledge(&self, safety: &Safety, id: u64, lsn: u64) {
        let mut inner = self.lock();
        let Some(consumer) = inner.consumers.iter_mut().find(|consumer| consumer.id == id) else { return };
        consumer.acknowledge(lsn);
        let acked = inner.confirmed();
        drop(inner);
        safety.advance(acked);
    }

    /// Notes what a consumer's peer has confirmed, but for some of the changes since the last time, which it refused or
    /// was not told of.
    pub(crate) fn refuse(&self, safety: &Safety, id: u64, lsn: u64) {
        let mut inner = self.lock();
        let Some(consumer) = inner.consumers.iter_mut().find(|consumer| consumer.id == id) else { return };
        consumer.counts.refusals += 1;
        let before = consumer.acked;
        consumer.acknowledge(lsn);
        let acked = inner.confirmed();
        drop(inner);
        safety.refuse(before, lsn);
        safety.advance(acked);
    }

    /// Makes every consumer begin anew: more has changed than can be journalled.
    pub(crate) fn walk_again(&self) {
        self.lock().consumers.iter_mut().for_each(Consumer::fall);
    }

    /// What time brings: call it about every 100 ms, or more often.
    pub fn tick(&self, now: Instant) {
        let mut inner = self.lock();
        if !inner.on {
            return;
        }
        inner.append_early_flush(self.clock.now());
        inner.sample(now);
        let is_over = inner.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= GRACE);
        let ring = is_over.then(|| inner.switch_off());
        self.on.store(inner.on, Ordering::Relaxed);
        self.lsn.store(inner.ring.lsn(), Ordering::Relaxed);
        drop(inner);
        // It takes the system 14 ms to take 64 MiB back, and who waits to append holds a shard's lock.
        drop(ring);
    }

    /// What to call when the control thread sleeps and there is something for it.
    pub fn set_waker(&self, wake: impl Fn() + Send + Sync + 'static) {
        assert!(self.waker.0.set(Box::new(wake)).is_ok(), "one control thread");
    }

    /// Says that the control thread is about to sleep. It must look for records once more before it does.
    pub fn set_idle(&self) {
        self.idle.store(true, Ordering::SeqCst);
    }

    /// Wakes the control thread if it sleeps: a change was appended.
    pub fn nudge(&self) {
        if self.idle.load(Ordering::SeqCst) && self.idle.swap(false, Ordering::SeqCst) {
            self.waker.0.get().inspect(|wake| wake());
        }
    }

    /// The journal for statistics.
    pub fn status(&self, now: Instant) -> Status {
        let inner = self.lock();
        Status {
            run_id: self.run_id,
            is_on: inner.on,
            lsn: inner.ring.lsn(),
            first: inner.ring.first(),
            bytes: inner.ring.head() - inner.ring.tail(),
            capacity: self.capacity as u64,
            required: inner.required,
            walks_started: inner.walks_started,
            walks_finished: inner.walks_finished,
            consumers: inner.consumers.iter().map(|consumer| inner.status_of(consumer, now)).collect(),
        }
    }

    /// The range of a key.
    #[inline]
    pub(crate) fn range(&self, hash: u64) -> u32 {
        let shard = (hash >> 32 >> (32 - self.shard_bits)) as u32;
        shard << self.range_bits | hash as u32 & ((1 << self.range_bits) - 1)
    }

    /// The shard of a range, its first bucket, and how many buckets on the next one is.
    pub(crate) fn buckets_of(&self, range: u32) -> (usize, usize, usize) {
        let step = 1 << self.range_bits;
        (range as usize >> self.range_bits, range as usize & (step - 1), step)
    }

    fn ranges(&self) -> u32 {
        1 << (self.shard_bits + self.range_bits)
    }

    /// Appends a change of an item with this stamp, under its shard's lock, unless a flush_all has taken the item.
    #[inline]
    pub(crate) fn append(&self, flush: &Flush, entry: &Entry<'_>, stamp: u64) -> Option<u64> {
        let mut inner = self.lock();
        let now = self.clock.now();
        if !inner.on {
            return None;
        }
        inner.append_early_flush(now);
        if flush.cut(now).takes(stamp) {
            return None;
        }
        let lsn = inner.append(entry);
        self.lsn.store(lsn, Ordering::Relaxed);
        Some(lsn)
    }

    /// Appends a sample of what is read, if that is not too much.
    pub(crate) fn append_hit(&self, entry: &Entry<'_>) {
        let mut inner = self.lock();
        let cost = entry.size() as u64 * HIT_SHARE;
        if inner.on && inner.hit_allowance >= cost {
            inner.hit_allowance -= cost;
            let lsn = inner.append(entry);
            self.lsn.store(lsn, Ordering::Relaxed);
        }
    }

    /// Flushes by `act`, which is told the second of now, and appends that: what `act` returns, and the record's number.
    /// `at` is as for [`crate::store::Store::flush_all`].
    pub(crate) fn flush<R>(&self, at: u32, act: impl FnOnce(u32) -> R) -> (R, Option<u64>) {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.append_early_flush(now);
        let done = act(now);
        inner.pending_flush = if at > now { at } else { 0 };
        if !inner.on {
            return (done, None);
        }
        inner.append_flush(if at > now { self.clock.unix(at) } else { 0 });
        inner.append_early_flush(now);
        let lsn = inner.ring.lsn();
        self.lsn.store(lsn, Ordering::Relaxed);
        (done, Some(lsn))
    }

    /// Forgets by `act`, which is told the second of now, the flush_all that has not taken effect.
    pub(crate) fn forget_flush(&self, act: impl FnOnce(u32)) {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.append_early_flush(now);
        act(now);
        inner.pending_flush = 0;
    }

    /// Copies to `out` what a consumer is to be sent of the next records that it has not read, up to the one with
    /// number `until` and until `out` has `max` bytes, give or take one.
    pub(crate) fn read(&self, id: u64, until: u64, max: usize, out: &mut Vec<u8>) -> Read {
        let mut inner = self.lock();
        let read = inner.read(id, until, max, &self.clock, out);
        self.lsn.store(inner.ring.lsn(), Ordering::Relaxed);
        read
    }

    /// The last record's number, exact for whoever holds a shard's lock and asks about changes of that shard.
    pub(crate) fn lsn_under_lock(&self) -> u64 {
        self.lock().ring.lsn()
    }

    /// What a consumer that has read everything is to be told of by a walk.
    pub(crate) fn target(&self, id: u64) -> Target {
        let mut inner = self.lock();
        let Some(consumer) = inner.consumers.iter_mut().find(|consumer| consumer.id == id) else { return Target::None };
        let before = consumer.counts.walks_finished;
        let target = consumer.target(KEYS_AT_ONCE);
        let (finished, wants_note) = (consumer.counts.walks_finished - before, consumer.wants_note());
        inner.walks_finished += finished;
        if wants_note {
            let lsn = inner.append(&Entry::of(NOTE, 0, b"", false));
            self.lsn.store(lsn, Ordering::Relaxed);
            inner.consumers.iter_mut().filter(|consumer| consumer.id == id).for_each(|consumer| consumer.note(lsn));
        }
        target
    }

    fn switch_on(&self, inner: &mut Inner) {
        if !inner.on {
            inner.switch_on(self.capacity);
            self.lsn.store(inner.ring.lsn(), Ordering::Relaxed);
            self.on.store(true, Ordering::Relaxed);
        }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.0.lock().expect("never held across a panic")
    }
}
