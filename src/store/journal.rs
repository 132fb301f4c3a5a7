//! The journal: every change of the store, in order, for those who keep a copy of it.
//!
//! ```text
//! command ── Locked: link, replace, unlink, set_… ──> remembered ── drop ──> append, under the shard's lock
//!                                                                               │
//!    Journal   enabled?  one relaxed load; nothing else while nobody reads      v
//!      Mutex<Inner> { ring of records (ring.rs) , consumers (consumer.rs) , flush_all }
//!                                                     │
//! control thread ── Feed (walk.rs) <── read: records not read yet, and slices of walks, in the one order that converges
//! ```
//!
//! What is journalled is effects: an item as it is when its lock is given back, one record for all that a command did to
//! it. Evictions and expiries are not changes, each side has its own memory; see `consumer.rs` for when they matter.
//!
//! Locks: a shard's, then the journal's. Nothing is called from within the journal's lock, and it is held for an append
//! (a copy of at most 16 KiB) or for a piece of reading ([`SCAN`]).
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
//! Not here: bytes of a protocol, sockets (`net`, `command`), replies that wait ([`super::Safety`]).

mod consumer;
mod hooks;
mod record;
mod ring;
#[cfg(test)]
mod tests;

pub use consumer::{Counts, State};
pub use record::{Kind, Record, Records, records};

pub(super) use consumer::{Target, Turn};
pub(super) use hooks::Change;
pub(super) use record::Entry;

use super::flush::Flush;
use super::safety::{appended, note_appended};
use super::{Hash, Safety};
use crate::clock::Clock;
use consumer::{Consumer, Fate};
use record::{GONE, Head, NOTE, PAD, make_delete, range_of};
use ring::Ring;
use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Consumers at a time.
const CONSUMERS_MAX: usize = 8;

/// Consumers that are remembered after they have gone.
const REMEMBERED_MAX: usize = 32;

/// Bytes of the ring that are read under one lock: some 5 us, so that whoever waits to append does not go to sleep.
const SCAN: u64 = if cfg!(test) { 1 << 10 } else { 32 << 10 };

/// Keys of lost deletes that are looked up between two reads.
const KEYS_AT_ONCE: usize = 64;

/// The journal stays on for so long after the last consumer has gone, so that it can go on where it was.
const GRACE: Duration = Duration::from_secs(60);

/// An upstream is live for so long after it was last heard of.
const UPSTREAM: Duration = Duration::from_secs(5);

/// Servers that are told of whose changes come here, over others: longer circles are not found.
pub const UPSTREAMS_MAX: usize = 8;

/// Ranges of all shards together: one of ten million items is 600 items, walked in one slice or two; a set of them
/// takes 2 KiB.
const RANGES: usize = 1 << 14;

/// Read hits are sampled for at most one byte in so many of changes,
const HIT_SHARE: u64 = 100;
/// and for so many bytes a second beside, about 200 keys, so that a standby of a primary that is only read stays warm.
const HIT_FLOOR: u64 = 12 << 10;
/// Bytes that samples may save up.
const HIT_BURST: u64 = 64 << 10;

/// Samples of the head for the lag in time.
const SAMPLES: usize = 1024;

thread_local! {
    /// What was the last lsn when this thread last called [`Journal::nudge`].
    static NUDGED: Cell<u64> = const { Cell::new(0) };
}

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

#[derive(Debug)]
struct Inner {
    on: bool,
    ring: Ring,
    /// Least position of the consumers.
    slowest: u64,
    consumers: Vec<Consumer>,
    remembered: VecDeque<Remembered>,
    attached: u64,
    required: u32,
    /// When the last consumer went, or none was needed any more.
    idle_since: Option<Instant>,
    /// Run ids of the server that changes come from, of the one that its own come from, and so on; and when that was said.
    upstream: Option<(Vec<u64>, Instant)>,
    /// Second of a flush_all that has not taken effect, 0 none.
    pending_flush: u32,
    /// In bytes times [`HIT_SHARE`].
    hit_allowance: u64,
    samples: Samples,
    walks_started: u64,
    walks_finished: u64,
}

/// A consumer that has gone.
#[derive(Clone, Debug)]
struct Remembered {
    name: String,
    identity: String,
    complete: u64,
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

/// Which of a server and a peer that it is to feed has its items from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Neither.
    Stranger,
    /// The peer: it was fed before.
    Copy,
    /// The server: the peer was the last to feed it.
    Source,
}

/// Why a server is no upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// It is this server.
    Itself,
    /// It gets its changes from here.
    Circle,
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub id: u64,
    pub walk: bool,
    pub lsn: u64,
}

/// What [`Journal::read`] has found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
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
    /// Run id of the live server that this one gets its changes from.
    pub upstream: Option<u64>,
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

    /// Attaches a consumer, and switches the journal on.
    pub(super) fn attach(&self, attach: &Attach<'_>, now: Instant) -> Result<Begin, AttachError> {
        let mut inner = self.lock();
        inner.check(self.run_id, attach.name, attach.identity, now)?;
        if let Some(at) = inner.consumers.iter().position(|consumer| consumer.name == attach.name) {
            inner.remove(at);
        }
        if inner.is_from(attach.identity) {
            inner.upstream = None;
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

    /// Whether a consumer of that name and identity could be attached, and if so, whether one was before: what its peer
    /// holds is then from here, or the other way round. And where this server's own changes come from.
    pub fn meet(&self, name: &str, identity: &str, now: Instant) -> Result<(Relation, Vec<u64>), AttachError> {
        let inner = self.lock();
        inner.check(self.run_id, name, identity, now)?;
        // Processes in containers may have the same number and second of start: of these the name counts, too.
        let is_it = |known: &str, as_name: &str| known == identity && (is_run_id(identity) || as_name == name);
        let was_here = inner.consumers.iter().any(|other| is_it(&other.identity, &other.name))
            || inner.remembered.iter().any(|other| is_it(&other.identity, &other.name));
        let relation = match was_here {
            _ if inner.is_from(identity) => Relation::Source,
            true => Relation::Copy,
            false => Relation::Stranger,
        };
        Ok((relation, inner.live_upstream(now).to_vec()))
    }

    /// Lets a consumer go, and remembers how far it has got.
    pub(super) fn detach(&self, id: u64, now: Instant) {
        let mut inner = self.lock();
        if let Some(at) = inner.consumers.iter().position(|consumer| consumer.id == id) {
            inner.remove(at);
            inner.note_idle(now);
        }
    }

    /// Notes what a consumer's peer has confirmed.
    pub(super) fn acknowledge(&self, safety: &Safety, id: u64, lsn: u64) {
        let mut inner = self.lock();
        let Some(consumer) = inner.consumers.iter_mut().find(|consumer| consumer.id == id) else { return };
        consumer.acknowledge(lsn);
        let acked = inner.confirmed();
        drop(inner);
        safety.advance(acked);
    }

    /// Notes what a consumer's peer has confirmed, but for some of the changes since the last time, which it refused or
    /// was not told of.
    pub(super) fn refuse(&self, safety: &Safety, id: u64, lsn: u64) {
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
    pub(super) fn walk_again(&self) {
        self.lock().consumers.iter_mut().for_each(Consumer::fall);
    }

    /// Says that this server gets its changes from the first of these run ids, for the next seconds, and that one from
    /// the second, and so on.
    pub fn upstream(&self, run_ids: &[u64], now: Instant) -> Result<(), UpstreamError> {
        let mut inner = self.lock();
        if run_ids.first() == Some(&self.run_id) {
            return Err(UpstreamError::Itself);
        }
        let is_fed = |run_id: &u64| inner.consumers.iter().any(|consumer| is_named(*run_id, &consumer.identity));
        if run_ids.contains(&self.run_id) || run_ids.iter().any(is_fed) {
            return Err(UpstreamError::Circle);
        }
        inner.upstream = Some((run_ids[..run_ids.len().min(UPSTREAMS_MAX)].to_vec(), now));
        Ok(())
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

    /// Wakes the control thread if it sleeps and this thread has appended a change since it last called this.
    #[inline]
    pub fn nudge(&self) {
        let last = appended();
        if last != NUDGED.replace(last) && self.idle.load(Ordering::SeqCst) && self.idle.swap(false, Ordering::SeqCst) {
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
            upstream: inner.live_upstream(now).first().copied(),
            consumers: inner.consumers.iter().map(|consumer| inner.status_of(consumer, now)).collect(),
        }
    }

    /// The range of a key.
    #[inline]
    pub(super) fn range(&self, hash: Hash) -> u32 {
        let shard = (hash.0 >> 32 >> (32 - self.shard_bits)) as u32;
        shard << self.range_bits | hash.0 as u32 & ((1 << self.range_bits) - 1)
    }

    /// The shard of a range, its first bucket, and how many buckets on the next one is.
    pub(super) fn buckets_of(&self, range: u32) -> (usize, usize, usize) {
        let step = 1 << self.range_bits;
        (range as usize >> self.range_bits, range as usize & (step - 1), step)
    }

    fn ranges(&self) -> u32 {
        1 << (self.shard_bits + self.range_bits)
    }

    /// Appends a change of an item with this stamp, under its shard's lock, unless a flush_all has taken the item.
    #[inline]
    pub(super) fn append(&self, flush: &Flush, entry: &Entry<'_>, stamp: u64) {
        let mut inner = self.lock();
        let now = self.clock.now();
        if !inner.on {
            return;
        }
        inner.append_early_flush(now);
        if flush.cut(now).takes(stamp) {
            return;
        }
        let lsn = inner.append(entry);
        self.lsn.store(lsn, Ordering::Relaxed);
        drop(inner);
        if entry.kind != GONE {
            note_appended(lsn);
        }
    }

    /// Appends a sample of what is read, if that is not too much.
    pub(super) fn append_hit(&self, entry: &Entry<'_>) {
        let mut inner = self.lock();
        let cost = entry.size() as u64 * HIT_SHARE;
        if inner.on && inner.hit_allowance >= cost {
            inner.hit_allowance -= cost;
            let lsn = inner.append(entry);
            self.lsn.store(lsn, Ordering::Relaxed);
        }
    }

    /// Flushes by `act`, which is told the second of now, and appends that. `at` is as for [`super::Store::flush_all`].
    pub(super) fn flush<R>(&self, at: u32, act: impl FnOnce(u32) -> R) -> R {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.append_early_flush(now);
        let done = act(now);
        inner.pending_flush = if at > now { at } else { 0 };
        if inner.on {
            inner.append_flush(if at > now { self.clock.unix(at) } else { 0 });
            inner.append_early_flush(now);
            let lsn = inner.ring.lsn();
            self.lsn.store(lsn, Ordering::Relaxed);
            note_appended(lsn);
        }
        done
    }

    /// Forgets by `act`, which is told the second of now, the flush_all that has not taken effect.
    pub(super) fn forget_flush(&self, act: impl FnOnce(u32)) {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.append_early_flush(now);
        act(now);
        inner.pending_flush = 0;
    }

    /// Copies to `out` what a consumer is to be sent of the next records that it has not read, up to the one with number
    /// `until` and until `out` has `max` bytes, give or take one.
    pub(super) fn read(&self, id: u64, until: u64, max: usize, out: &mut Vec<u8>) -> Read {
        let mut inner = self.lock();
        let read = inner.read(id, until, max, &self.clock, out);
        self.lsn.store(inner.ring.lsn(), Ordering::Relaxed);
        read
    }

    /// The last record's number, exact for whoever holds a shard's lock and asks about changes of that shard.
    pub(super) fn lsn_under_lock(&self) -> u64 {
        self.lock().ring.lsn()
    }

    /// What a consumer that has read everything is to be told of by a walk.
    pub(super) fn target(&self, id: u64) -> Target {
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

/// Whether an identity is that of the server with this run id.
fn is_named(run_id: u64, identity: &str) -> bool {
    is_run_id(identity) && u64::from_str_radix(identity, 16) == Ok(run_id)
}

/// Whether an identity is a run id, which no two servers share.
fn is_run_id(identity: &str) -> bool {
    identity.len() == 16 && identity.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Inner {
    fn new() -> Inner {
        Inner {
            on: false,
            ring: Ring::new(),
            slowest: u64::MAX,
            consumers: Vec::new(),
            remembered: VecDeque::new(),
            attached: 0,
            required: 0,
            idle_since: None,
            upstream: None,
            pending_flush: 0,
            hit_allowance: 0,
            samples: Samples::default(),
            walks_started: 0,
            walks_finished: 0,
        }
    }

    /// One lsn is left out: what was read of an earlier journal cannot be continued, and 0 says that nothing is known.
    fn switch_on(&mut self, capacity: usize) {
        self.ring.allocate(capacity, self.ring.lsn() + 1);
        self.on = true;
    }

    /// Why nobody of that name and identity can be attached.
    fn check(&self, run_id: u64, name: &str, identity: &str, now: Instant) -> Result<(), AttachError> {
        let others = || self.consumers.iter().filter(|other| other.name != name);
        if is_named(run_id, identity) {
            Err(AttachError::Itself)
        } else if self.live_upstream(now).iter().any(|&run_id| is_named(run_id, identity)) {
            Err(AttachError::Upstream)
        } else if is_run_id(identity) && others().any(|other| other.identity == identity) {
            Err(AttachError::Twice)
        } else if others().count() == CONSUMERS_MAX {
            Err(AttachError::TooMany)
        } else {
            Ok(())
        }
    }

    /// Returns the memory to be freed. Who was here is remembered, but not from where it could go on.
    fn switch_off(&mut self) -> Vec<u8> {
        self.on = false;
        self.idle_since = None;
        self.remembered.iter_mut().for_each(|known| known.complete = 0);
        self.samples = Samples::default();
        self.ring.free()
    }

    fn note_idle(&mut self, now: Instant) {
        let needed = !self.on || self.required > 0 || !self.consumers.is_empty();
        self.idle_since = if needed { None } else { Some(self.idle_since.unwrap_or(now)) };
    }

    fn remove(&mut self, at: usize) {
        let Consumer { name, identity, complete, .. } = self.consumers.remove(at);
        self.remembered.retain(|other| other.name != name);
        self.remembered.push_back(Remembered { name, identity, complete });
        if self.remembered.len() > REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.find_slowest();
    }

    /// The lsn up to which a consumer has everything. Where it is remembered it may know of less than was confirmed,
    /// never of more.
    fn goes_on_from(&self, attach: &Attach<'_>, run_id: u64) -> Option<u64> {
        let given = attach.lsn.filter(|_| attach.run_id == Some(run_id));
        let before =
            self.remembered.iter().find(|other| other.name == attach.name && other.identity == attach.identity);
        match before {
            Some(Remembered { complete: 0, .. }) => None,
            Some(Remembered { complete, .. }) => Some(given.unwrap_or(u64::MAX).min(*complete)),
            None => given,
        }
    }

    /// The lsn up to which as many consumers as are required have everything.
    fn confirmed(&self) -> u64 {
        let mut complete: Vec<u64> = self.consumers.iter().map(|consumer| consumer.complete).collect();
        complete.sort_unstable_by(|a, b| b.cmp(a));
        let at = (self.required as usize).checked_sub(1);
        at.and_then(|at| complete.get(at).copied()).unwrap_or(0)
    }

    /// Whether what this server holds came from the one with that identity, be that live or not.
    fn is_from(&self, identity: &str) -> bool {
        let last = self.upstream.as_ref().and_then(|(run_ids, _)| run_ids.first());
        last.is_some_and(|&run_id| is_named(run_id, identity))
    }

    fn live_upstream(&self, now: Instant) -> &[u64] {
        let live = self.upstream.as_ref().filter(|(_, heard)| now.saturating_duration_since(*heard) < UPSTREAM);
        live.map_or(&[], |(run_ids, _)| run_ids)
    }

    #[inline]
    fn append(&mut self, entry: &Entry<'_>) -> u64 {
        let size = entry.size();
        if !self.ring.stays(size) {
            self.release();
        }
        while !self.ring.has_room(size) {
            if self.ring.tail() >= self.slowest {
                self.lose_oldest();
            }
            self.ring.drop_oldest();
        }
        self.hit_allowance += size as u64;
        self.ring.push(entry)
    }

    /// Gives up what nobody needs any more, so that its memory is used again while it is warm.
    #[cold]
    fn release(&mut self) {
        self.ring.release(self.not_needed());
        let tail = self.ring.tail();
        self.consumers.iter_mut().for_each(|consumer| consumer.position = consumer.position.max(tail));
        self.find_slowest();
    }

    /// The last record that every consumer has read, and that those who come back need not be sent again: of what
    /// they have completely, as far as they can go on from there.
    fn not_needed(&self) -> u64 {
        let goes_on = |&complete: &u64| complete != 0 && complete + 1 >= self.ring.first();
        let read = self.consumers.iter().map(|consumer| consumer.lsn);
        let complete = self.consumers.iter().map(|consumer| consumer.complete);
        let remembered = self.remembered.iter().map(|other| other.complete);
        read.chain(complete.chain(remembered).filter(goes_on)).min().unwrap_or(self.ring.lsn())
    }

    /// Takes the oldest record from those who have not read it.
    #[cold]
    fn lose_oldest(&mut self) {
        let (tail, (head, bytes)) = (self.ring.tail(), self.ring.oldest());
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.position == tail) {
            consumer.position += head.size() as u64;
            if head.kind != PAD {
                consumer.lsn += 1;
                consumer.lose(head.kind, range_of(bytes), head.key(bytes), head.key_is_binary());
            }
        }
        self.find_slowest();
    }

    fn find_slowest(&mut self) {
        self.slowest = self.consumers.iter().map(|consumer| consumer.position).min().unwrap_or(u64::MAX);
    }

    /// Appends the flush_all for later that is in effect now.
    #[inline]
    fn append_early_flush(&mut self, now: u32) {
        if self.pending_flush != 0 && now + 1 >= self.pending_flush {
            self.pending_flush = 0;
            if self.on {
                self.append_flush(0);
            }
        }
    }

    /// Appends the flush_all that was asked for before somebody listened.
    fn append_pending_flush(&mut self, clock: &Clock) {
        self.append_early_flush(clock.now());
        if self.pending_flush != 0 {
            self.append_flush(clock.unix(self.pending_flush));
        }
    }

    fn append_flush(&mut self, at: i64) -> u64 {
        self.append(&Entry { expires_at: at, ..Entry::of(Kind::Flush as u8, 0, b"", false) })
    }

    fn read(&mut self, id: u64, until: u64, max: usize, clock: &Clock, out: &mut Vec<u8>) -> Read {
        let Inner { ring, consumers, .. } = self;
        let Some(consumer) = consumers.iter_mut().find(|consumer| consumer.id == id) else { return Read::Gone };
        if consumer.is_fallen() {
            consumer.begin_walk(ring.lsn(), ring.head());
            consumer.say_walk();
            self.walks_started += 1;
            self.find_slowest();
            self.append_pending_flush(clock);
            return self.read(id, until, max, clock, out);
        }
        if consumer.has_turn() && !out.is_empty() {
            return Read::TurnWaits;
        }
        if let Some(turn) = consumer.turn() {
            return Read::Turn(turn, consumer.lsn);
        }
        if ring.head() - consumer.position > ring.capacity() as u64 / 2 {
            consumer.coalesces_to = ring.head();
        }
        let slowest = consumer.position == self.slowest;
        copy(ring, consumer, until, max, out);
        let read = Read::Upto(consumer.lsn, consumer.position < ring.head());
        if slowest {
            self.find_slowest();
        }
        read
    }

    fn sample(&mut self, now: Instant) {
        let passed = self.samples.add(now, self.ring.lsn());
        let floor = (HIT_FLOOR as f64 * passed.as_secs_f64()) as u64;
        self.hit_allowance = (self.hit_allowance + floor * HIT_SHARE).min(HIT_BURST * HIT_SHARE);
    }

    fn status_of(&self, consumer: &Consumer, now: Instant) -> ConsumerStatus {
        let since = self.samples.after(consumer.acked).filter(|_| consumer.acked < self.ring.lsn());
        ConsumerStatus {
            name: consumer.name.clone(),
            identity: consumer.identity.clone(),
            state: consumer.state,
            read: consumer.lsn,
            acked: consumer.acked,
            complete: consumer.complete,
            lag: self.ring.lsn().saturating_sub(consumer.acked),
            lag_bytes: self.ring.head() - consumer.position,
            lag_ms: since.map_or(0, |since| now.saturating_duration_since(since).as_millis() as u64),
            dirty: consumer.dirty() as u64,
            counts: consumer.counts,
        }
    }
}

/// Copies what a consumer is to be sent, in runs of neighbours, of [`SCAN`] bytes of the ring at most.
fn copy(ring: &Ring, consumer: &mut Consumer, until: u64, max: usize, out: &mut Vec<u8>) {
    let bytes = ring.from(consumer.position);
    let end = consumer.position + SCAN;
    let (mut at, mut run) = (0, 0);
    while at < bytes.len() && consumer.lsn < until && consumer.position < end && out.len() + at - run < max {
        let record = &bytes[at..];
        let head = Head::read(record);
        let fate = match head.kind {
            PAD => Fate::Skipped,
            kind => consumer.fate(kind, || range_of(record)),
        };
        let next = at + head.size();
        if fate != Fate::Sent {
            out.extend_from_slice(&bytes[run..at]);
            run = next;
        }
        if fate == Fate::SentAsDelete {
            let start = out.len();
            out.extend_from_slice(&record[..head.size()]);
            make_delete(&mut out[start..]);
        }
        consumer.lsn += u64::from(head.kind != PAD);
        consumer.position += head.size() as u64;
        at = next;
    }
    out.extend_from_slice(&bytes[run..at]);
}

/// When the head was where.
#[derive(Debug, Default)]
struct Samples(VecDeque<(Instant, u64)>);

impl Samples {
    /// Adds one, and says how long it is since the last. When there are too many, each second one goes.
    fn add(&mut self, now: Instant, lsn: u64) -> Duration {
        if self.0.len() == SAMPLES {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        let passed = self.0.back().map_or(Duration::ZERO, |&(last, _)| now.saturating_duration_since(last));
        self.0.push_back((now, lsn));
        passed
    }

    /// When there first was a later record than `lsn`, about.
    fn after(&self, lsn: u64) -> Option<Instant> {
        let at = self.0.partition_point(|&(_, head)| head <= lsn);
        self.0.get(at).or(self.0.back()).map(|&(at, _)| at)
    }
}
