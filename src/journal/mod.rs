//! The journal: every change of the store, in order, for those who keep a copy of it.
//!
//! ```text
//! command ── a locked shard: link, replace, unlink, set_… ──> remembered ── unlock ──> append, under the shard's lock
//!                                                                                       │
//!    Journal   enabled?  one relaxed load; nothing else while nobody reads              v
//!      Mutex<Inner> { ring of records (ring.rs) , readers (readers.rs) , a flush_all that is pending }
//!         ^                                           │
//!         └ JournalGuard: publishes `on` and `lsn`    │
//!                                                     v
//! control thread ── Subscription (store/resync.rs): records not read yet and snapshot slices, in the order that converges
//! ```
//!
//! The journal holds effects, not commands: an item as it is when its shard is unlocked, in one record for all that a
//! command did to it. Evictions and expiries are not changes, since each side has its own memory; `reader.rs` says when
//! they matter. The journal does not know what an item is: a key is bytes, and belongs to a range, whose number the
//! store chooses. A stamp says when an item was accessed (`flush.rs`).
//!
//! Locks: a shard's, then the journal's. Nothing is called from within the journal's lock, and it is held for an append
//! (a copy of at most 16 KiB) or for a piece of reading (`readers::SCAN`). All shards share it: that is a bound on
//! how writes scale with threads while somebody reads the journal.
//!
//! Invariants:
//! - Records of one key are in the order of its changes: they are appended under its shard's lock.
//! - flush_all advances its cut and appends its record under the journal's lock, and a change is appended only if the
//!   cut does not take its item. So the order of records is the order of effects for a flush_all, too. A flush_all for
//!   later is appended twice: when it is asked for, in case this server dies before its time, and when it takes effect.
//! - Nobody waits for a reader. If room is needed, records that a reader has not read are lost to it, and it gets by
//!   scans what they were about.
//! - The journal is switched on before the first range is scanned, and a scan locks each shard. So a command that saw
//!   the journal off has ended before its shard is scanned.
//!
//! Not here: bytes of a protocol (`replication`), sockets and replies that wait (`net`).

pub mod acks;
pub mod flush;
mod lsn_ranges;
mod ranges;
mod reader;
mod readers;
pub mod record;
mod refused;
mod ring;
#[cfg(test)]
mod tests;

pub use acks::Acks;
pub use reader::{NextScan, Notice, ReaderCounts, ReaderState};
pub use readers::{Attach, AttachError, ConsumerStatus, READERS_MAX, Reading, Start, is_named, is_run_id};
pub use record::{Record, RecordDraft, RecordKind, Records, records};
pub use refused::Suspect;

use crate::clock::Clock;
use crate::sync::lock;
use flush::{Flush, Flushed};
use readers::{Decided, Readers};
use record::CHECKPOINT;
use ring::Ring;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Keys of lost deletes that are looked up between two reads.
const KEYS_AT_ONCE: usize = 64;

/// The journal stays on for so long after the last reader has gone, so that the reader can go on where it was.
const GRACE: Duration = Duration::from_secs(60);

/// Those who must confirm a change are reported missing after so long: they may be on their way.
const MISSED_AFTER: Duration = Duration::from_secs(2);

/// Samples of read hits take at most one byte for so many bytes of changes,
const HIT_SHARE: u64 = 100;
/// and so many bytes a second besides, about 200 keys, so that the standby of a primary that is only read stays warm.
const HIT_FLOOR: u64 = 12 << 10;
/// The most bytes that may be saved up for samples.
const HIT_BURST: u64 = 64 << 10;

/// See the module's head.
#[derive(Debug)]
pub struct Journal {
    on: AtomicBool,
    lsn: AtomicU64,
    /// Whether the control thread sleeps, or is about to.
    idle: AtomicBool,
    waker: WakeUp,
    run_id: u64,
    clock: Arc<Clock>,
    capacity: usize,
    ranges: u32,
    acks: Acks,
    inner: Apart<Mutex<Inner>>,
}

/// A value on cache lines of its own, because every command reads what lies beside it.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Default)]
struct WakeUp(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl std::fmt::Debug for WakeUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WakeUp")
    }
}

/// What the journal's lock guards. The journal is on while the ring has memory.
#[derive(Debug)]
struct Inner {
    ring: Ring,
    readers: Readers,
    /// When the last reader went, or when readers were no longer required.
    idle_since: Option<Instant>,
    /// Since when some are missing who must confirm a change, and whether that was reported.
    missing: Option<(Instant, bool)>,
    /// Second of a flush_all that has not taken effect, 0 none.
    pending_flush: u32,
    /// What samples of hits may take now, in bytes times [`HIT_SHARE`].
    hit_allowance: u64,
}

/// The journal's lock. When it is dropped, it brings up to date what other threads read without it.
#[derive(Debug)]
struct JournalGuard<'a> {
    journal: &'a Journal,
    inner: MutexGuard<'a, Inner>,
}

impl Deref for JournalGuard<'_> {
    type Target = Inner;

    #[inline]
    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for JournalGuard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for JournalGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.journal.lsn.store(self.inner.ring.lsn(), Ordering::Relaxed);
        self.journal.on.store(self.inner.is_on(), Ordering::Relaxed);
    }
}

/// The journal for `stats replication`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of `stats replication`")]
pub struct JournalStatus {
    pub run_id: u64,
    pub is_on: bool,
    /// The last record, and the oldest that is still here.
    pub lsn: u64,
    pub first: u64,
    pub bytes: u64,
    pub capacity: u64,
    pub required: u32,
    /// How many of those who must confirm a change are missing.
    pub missing: u32,
    pub full_syncs_started: u64,
    pub full_syncs_finished: u64,
    pub consumers: Vec<ConsumerStatus>,
}

impl Journal {
    /// A journal that is off, of changes in so many ranges.
    pub fn new(clock: Arc<Clock>, capacity: usize, ranges: u32) -> Journal {
        Journal {
            on: AtomicBool::new(false),
            lsn: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            waker: WakeUp::default(),
            run_id: RandomState::new().hash_one(0).max(1),
            clock,
            capacity,
            ranges,
            acks: Acks::default(),
            inner: Apart(Mutex::new(Inner {
                ring: Ring::new(),
                readers: Readers::new(),
                idle_since: None,
                missing: None,
                pending_flush: 0,
                hit_allowance: 0,
            })),
        }
    }

    /// Whether changes are to be appended.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The name of this journal. No other journal has it, not even that of this server when it is started again.
    pub fn run_id(&self) -> u64 {
        self.run_id
    }

    /// The last record's number.
    pub fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Relaxed)
    }

    /// Tells which changes replicas have.
    #[inline]
    pub fn acks(&self) -> &Acks {
        &self.acks
    }

    /// Sets how many readers must confirm a change. The journal is on while that is not 0.
    pub fn set_required(&self, required: u32, now: Instant) {
        self.require(required, None, now);
    }

    /// Sets that all of these readers must confirm a change, and that there must be so many. Returns the last change
    /// before those for which this holds.
    pub fn set_members(&self, least: u32, names: &[&str], now: Instant) -> u64 {
        self.require(least, Some(names.iter().map(|name| (*name).to_owned()).collect()), now)
    }

    fn require(&self, required: u32, members: Option<Vec<String>>, now: Instant) -> u64 {
        let mut inner = self.lock();
        (inner.readers.required, inner.readers.members) = (required, members);
        if required > 0 {
            inner.switch_on(self.capacity);
        }
        inner.note_idle(now);
        let (decided, lsn) = (inner.readers.decide(), inner.ring.lsn());
        drop(inner);
        self.note_refused(&decided);
        self.acks.set_required(required, decided.upto);
        lsn
    }

    /// Attaches a reader, and switches the journal on. Its peer must not be one of the `upstreams`, the servers whose
    /// changes come here.
    pub fn attach(&self, attach: &Attach<'_>, upstreams: &[u64]) -> Result<Start, AttachError> {
        let inner = &mut *self.lock();
        inner.readers.admit(self.run_id, attach.name, attach.identity, upstreams)?;
        inner.switch_on(self.capacity);
        inner.idle_since = None;
        let start = inner.readers.attach(attach, self.run_id, self.ranges, &inner.ring);
        if start.is_full_sync {
            inner.append_pending_flush(&self.clock);
        }
        inner.readers.check(&inner.ring);
        Ok(start)
    }

    /// Whether a reader of this name and identity was attached before; an error if it could not be attached now.
    pub fn knows(&self, name: &str, identity: &str, upstreams: &[u64]) -> Result<bool, AttachError> {
        let inner = self.lock();
        inner.readers.admit(self.run_id, name, identity, upstreams)?;
        Ok(inner.readers.knows(name, identity))
    }

    /// Whether the server with this run id is the peer of a reader.
    pub fn feeds(&self, run_id: u64) -> bool {
        self.lock().readers.feeds(run_id)
    }

    /// Lets a reader go, and remembers how far it has got.
    pub fn detach(&self, id: u64, now: Instant) {
        let mut inner = self.lock();
        let last = inner.ring.lsn();
        inner.readers.detach(id, last);
        inner.note_idle(now);
        self.tell(inner);
    }

    /// Notes that a reader's peer has confirmed all changes up to `lsn`.
    pub fn acknowledge(&self, id: u64, lsn: u64, now: Instant) {
        self.advance(id, |reader| reader.acknowledge(lsn, now));
    }

    /// Notes that a reader's peer has answered all changes up to `lsn`, and refused some of those since the last time,
    /// or was not told of them. Returns the changes to journal again, for [`Journal::sent_again`].
    pub fn refuse(&self, id: u64, lsn: u64, now: Instant) -> Vec<Suspect> {
        let mut inner = self.lock();
        let Inner { ring, readers, .. } = &mut *inner;
        let settles = readers.required > 0;
        let Some(reader) = readers.get(id) else { return Vec::new() };
        let suspects = readers::suspects(ring, reader.acked, lsn);
        let verdict = reader.refuse(lsn, suspects.as_deref(), settles, now);
        reader.check();
        self.tell(inner);
        suspects.filter(|_| verdict.is_open).unwrap_or_default()
    }

    /// Notes which records stand for suspects now: pairs of the old number and the new one.
    pub fn sent_again(&self, id: u64, sent: &[(u64, u64)], now: Instant) {
        self.advance(id, |reader| reader.sent_again(sent, now));
    }

    /// Notes that all of a range was journalled again.
    pub fn range_done(&self, id: u64, now: Instant) {
        let lsn = self.lsn_under_lock();
        self.advance(id, |reader| reader.refused.range_done(lsn, reader.acked, now));
    }

    /// Ranges of which a reader's peer has refused something that it was not sent again with success.
    pub fn refused_ranges(&self, id: u64) -> u64 {
        self.lock().readers.get(id).map_or(0, |reader| reader.refused.count())
    }

    /// Changes what is known of a reader's peer, and lets go the replies that wait no longer.
    fn advance(&self, id: u64, change: impl FnOnce(&mut reader::Reader)) {
        let mut inner = self.lock();
        let Some(reader) = inner.readers.get(id) else { return };
        change(reader);
        reader.check();
        self.tell(inner);
    }

    /// Lets go the replies that wait no longer, without the lock.
    fn tell(&self, mut inner: JournalGuard<'_>) {
        let decided = inner.readers.decide();
        drop(inner);
        self.note_refused(&decided);
        self.acks.advance(decided.upto);
    }

    fn note_refused(&self, decided: &Decided) {
        decided.refused.iter().for_each(|&(after, upto)| self.acks.refuse(after, upto));
    }

    /// Makes every reader begin anew: more has changed than can be journalled.
    pub fn sync_again(&self) {
        self.lock().readers.lose_all();
    }

    /// This server is a shard's owner from now on, or not any more.
    pub fn note_tenure(&self, begins: bool) {
        let tell = if begins { Readers::begin_tenure } else { Readers::end_tenure };
        tell(&mut self.lock().readers);
    }

    /// Does what is due: call it every 100 ms or more often.
    pub fn tick(&self, now: Instant) {
        let mut inner = self.lock();
        if !inner.is_on() {
            return;
        }
        inner.append_early_flush(self.clock.now());
        inner.sample(now);
        inner.look_for_missing(now);
        let is_over = inner.idle_since.is_some_and(|since| now.saturating_duration_since(since) >= GRACE);
        let freed = is_over.then(|| inner.switch_off());
        drop(inner);
        // The memory is freed without the lock: the system takes 14 ms to take back 64 MiB, and a thread that waits to
        // append has locked a shard.
        drop(freed);
    }

    /// Sets what is called when the control thread sleeps and there is something for it to send.
    pub fn set_waker(&self, wake: impl Fn() + Send + Sync + 'static) {
        assert!(self.waker.0.set(Box::new(wake)).is_ok(), "one control thread");
    }

    /// Notes that the control thread is about to sleep. It must look for records once more before it sleeps.
    pub fn set_idle(&self) {
        self.idle.store(true, Ordering::SeqCst);
    }

    /// Wakes the control thread if it sleeps. Call it when a change was appended.
    pub fn nudge(&self) {
        if self.idle.load(Ordering::SeqCst) && self.idle.swap(false, Ordering::SeqCst) {
            self.waker.0.get().inspect(|wake| wake());
        }
    }

    /// The journal for statistics.
    pub fn status(&self, now: Instant) -> JournalStatus {
        let inner = self.lock();
        let Inner { ring, readers, .. } = &*inner;
        JournalStatus {
            run_id: self.run_id,
            is_on: inner.is_on(),
            lsn: ring.lsn(),
            first: ring.first(),
            bytes: ring.head() - ring.tail(),
            capacity: self.capacity as u64,
            required: readers.required,
            missing: readers.missing(),
            full_syncs_started: readers.full_syncs_started,
            full_syncs_finished: readers.full_syncs_finished,
            consumers: readers.status(ring, now),
        }
    }

    /// Appends a change of an item with this stamp, under its shard's lock, unless a flush_all has taken the item.
    #[inline]
    pub fn append(&self, flush: &Flush, draft: &RecordDraft<'_>, stamp: u64) -> Option<u64> {
        let mut inner = self.lock();
        let now = self.clock.now();
        if !inner.is_on() {
            return None;
        }
        inner.append_early_flush(now);
        if flush.cut(now).takes(stamp) {
            return None;
        }
        Some(inner.append(draft))
    }

    /// Appends a sample of what is read, unless there were too many already.
    pub fn append_hit(&self, draft: &RecordDraft<'_>) {
        let mut inner = self.lock();
        let cost = draft.size() as u64 * HIT_SHARE;
        if inner.is_on() && inner.hit_allowance >= cost {
            inner.hit_allowance -= cost;
            inner.append(draft);
        }
    }

    /// Flushes everything, at second `at` if that is to come, and appends a record of it. Returns what became of the
    /// flush_all, and the record's number.
    pub fn flush_all(&self, flush: &Flush, at: u32) -> (Flushed, Option<u64>) {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.append_early_flush(now);
        let flushed = flush.all(at, now);
        let is_later = flushed == Flushed::Later;
        inner.pending_flush = if is_later { at } else { 0 };
        if !inner.is_on() {
            return (flushed, None);
        }
        inner.append_flush(if is_later { at } else { 0 });
        inner.append_early_flush(now);
        (flushed, Some(inner.ring.lsn()))
    }

    /// Begins a refresh. A flush_all that has not taken effect yet is dropped.
    pub fn begin_refresh(&self, flush: &Flush) {
        let mut inner = self.lock();
        let now = self.clock.now();
        inner.append_early_flush(now);
        flush.begin_refresh(now);
        inner.pending_flush = 0;
    }

    /// Copies records that a reader has not read to `out`, without those that it need not be sent. Ends at the record
    /// with number `until`, or when `out` has about `max` bytes, give or take one record.
    pub fn read(&self, id: u64, until: u64, max: usize, out: &mut Vec<u8>) -> Reading {
        let inner = &mut *self.lock();
        if inner.readers.sync_again(id, &inner.ring) {
            inner.append_pending_flush(&self.clock);
        }
        let reading = inner.readers.read(&inner.ring, id, until, max, out);
        inner.readers.check(&inner.ring);
        reading
    }

    /// The last record that was there at this time, or an older one; 0 if the journal was off.
    pub fn lsn_at(&self, time: Instant) -> u64 {
        self.lock().readers.lsn_at(time)
    }

    /// The last record's number. For changes of one shard it is exact while that shard is locked.
    pub fn lsn_under_lock(&self) -> u64 {
        self.lock().ring.lsn()
    }

    /// Switches the journal on, for a reader that comes soon and has all up to here: the last change there is.
    pub fn begin(&self, now: Instant) -> u64 {
        let mut inner = self.lock();
        inner.switch_on(self.capacity);
        inner.note_idle(now);
        inner.ring.lsn()
    }

    /// What to scan next for a reader that has read all records.
    pub fn next_scan(&self, id: u64, now: Instant) -> NextScan {
        let mut inner = self.lock();
        let Some(reader) = inner.readers.get(id) else { return NextScan::None };
        let before = reader.counts.full_syncs_finished;
        let next = reader.next_scan(KEYS_AT_ONCE, now);
        let (finished, wants_checkpoint) = (reader.counts.full_syncs_finished - before, reader.wants_checkpoint());
        reader.check();
        inner.readers.full_syncs_finished += finished;
        if wants_checkpoint {
            let lsn = inner.append(&RecordDraft::of(CHECKPOINT, 0, b"", false));
            inner.readers.get(id).expect("it was just asked").note_checkpoint(lsn);
        }
        next
    }

    #[inline]
    fn lock(&self) -> JournalGuard<'_> {
        JournalGuard { journal: self, inner: lock(&self.inner.0) }
    }
}

impl Inner {
    #[inline]
    fn is_on(&self) -> bool {
        self.ring.capacity() > 0
    }

    /// Gives the ring its memory. One lsn is left out, so that nobody goes on with what was read before the journal was
    /// off; and 0 means that nothing is known.
    fn switch_on(&mut self, capacity: usize) {
        if !self.is_on() {
            self.ring.allocate(capacity, self.ring.lsn() + 1);
        }
    }

    /// Forgets all records, and returns the memory to be freed.
    fn switch_off(&mut self) -> Vec<u8> {
        assert!(self.readers.is_empty(), "somebody reads it");
        self.idle_since = None;
        self.readers.forget_positions();
        self.ring.free()
    }

    fn note_idle(&mut self, now: Instant) {
        let needed = !self.is_on() || self.readers.required > 0 || !self.readers.is_empty();
        self.idle_since = if needed { None } else { Some(self.idle_since.unwrap_or(now)) };
    }

    #[inline]
    fn append(&mut self, draft: &RecordDraft<'_>) -> u64 {
        let size = draft.size();
        if !self.ring.stays(size) {
            self.readers.release(&mut self.ring);
        }
        while !self.ring.has_room(size) {
            if self.readers.need_oldest(&self.ring) {
                self.readers.lose_oldest(&self.ring);
            }
            self.ring.drop_oldest();
        }
        self.hit_allowance += size as u64;
        self.ring.push(draft)
    }

    /// Appends a flush_all for later whose time has come.
    #[inline]
    fn append_early_flush(&mut self, now: u32) {
        if self.pending_flush != 0 && now + 1 >= self.pending_flush {
            self.pending_flush = 0;
            if self.is_on() {
                self.append_flush(0);
            }
        }
    }

    /// Appends a pending flush_all that was asked for before the journal was on.
    fn append_pending_flush(&mut self, clock: &Clock) {
        self.append_early_flush(clock.now());
        if self.pending_flush != 0 {
            self.append_flush(self.pending_flush);
        }
    }

    fn append_flush(&mut self, at: u32) {
        self.append(&RecordDraft { expires_at: at, ..RecordDraft::of(RecordKind::Flush as u8, 0, b"", false) });
    }

    /// Says once that writes fail, and once that they do no more.
    fn look_for_missing(&mut self, now: Instant) {
        let (missing, required) = (self.readers.missing(), self.readers.required);
        match self.missing {
            _ if missing == 0 => {
                if self.missing.take().is_some_and(|(_, is_said)| is_said) {
                    log::warn!("all replicas that must confirm a change are there again");
                }
            }
            None => self.missing = Some((now, false)),
            Some((since, false)) if now.saturating_duration_since(since) >= MISSED_AFTER => {
                self.missing = Some((since, true));
                log::warn!(
                    "{missing} replicas are missing that must confirm a change (replicas_ack {required}): no change is \
                     confirmed until they are back"
                );
            }
            Some(_) => {}
        }
    }

    fn sample(&mut self, now: Instant) {
        let passed = self.readers.sample(now, self.ring.lsn());
        let floor = (HIT_FLOOR as f64 * passed.as_secs_f64()) as u64;
        self.hit_allowance = (self.hit_allowance + floor * HIT_SHARE).min(HIT_BURST * HIT_SHARE);
    }
}
